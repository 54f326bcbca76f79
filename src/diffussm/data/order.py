"""In which order images are seen, and what chance decides: pure functions of how many were seen.

Nothing is drawn from a running generator, so that a run may stop anywhere and go on from there,
and so that batch size and number of workers do not change the sequence.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

IMAGE = 1
"""Tells an image's own draws from the shuffle of an epoch of the same number."""


def image_order(size: int, seed: int, start: int, count: int) -> Int[Tensor, " count"]:
    """Numbers of the images seen from `start` on: each epoch a new shuffle of all `size`."""
    if size < 1:
        raise ValueError("the data set has no images; training needs at least one")
    seen = torch.arange(start, start + count)
    epochs = seen // size
    order = torch.empty(count, dtype=torch.long)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        here = epochs == epoch
        order[here] = _shuffle(size, seed, epoch)[seen[here] % size]
    return order


def image_seeds(seed: int, start: int, count: int) -> list[int]:
    """For each image seen from `start` on, the number that decides its flip and the like."""
    return [seeded(seed, image, IMAGE).initial_seed() for image in range(start, start + count)]


def seeded(*numbers: int) -> torch.Generator:
    """A generator on the CPU for one purpose, told apart by `numbers` (all at least 0)."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


@lru_cache(maxsize=2)  # a batch may lie across two epochs
def _shuffle(size: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(size, generator=seeded(seed, epoch))
