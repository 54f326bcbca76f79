"""Features of images by several ranks: each makes some blocks, rank 0 has them all in order.

A block is the same whoever makes it, so the features are the same to the bit for any number of
ranks (with the same number of threads).
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from diffussm.evaluation.features import (
    BLOCK,
    FeatureNetwork,
    Features,
    Pixels,
    extract,
    merge,
    numbers_of,
)
from diffussm.evaluation.pictures import Pictures, Progress
from diffussm.evaluation.ranks import Ranks


class Seen(NamedTuple):
    """What was made of some images."""

    features: Mapping[str, Features]
    """By space; none on ranks other than 0."""
    identity: str
    """SHA-256 of all images, in order."""
    pixels: Pixels | None
    """The images, on rank 0, where they were to be kept."""


def see(
    pictures: Pictures,
    network: FeatureNetwork,
    ranks: Ranks,
    progress: Progress = lambda done: None,
    keep: bool = False,
) -> Seen:
    """Features of all pictures; every rank must ask.

    Raises ValueError where there are none, or where `pictures` or `network` do.
    """
    count = pictures.count
    if not count:
        raise ValueError("there are no images to evaluate; give at least one")
    numbers = numbers_of(ranks.rank, ranks.size, count)
    digests: list[bytes] = []
    kept: list[Tensor] = []

    def blocks() -> Iterator[Pixels]:
        for block in pictures.blocks(numbers, progress):
            digests.append(hashlib.sha256(block.numpy().tobytes()).digest())
            if keep:
                kept.append(block)
            yield block

    mine = ranks.agree(lambda: dict(extract(network, blocks())) if numbers else {})
    whole: dict[str, Tensor] = {}
    for space in network.spaces:  # one after the other, so that no rank ever has to hold all
        parts = ranks.gather({space: mine.pop(space)} if mine else {})
        if ranks.rank == 0:
            whole |= merge(parts, count)
    return Seen(
        whole,
        _identity(pictures, ranks.gather(digests)),
        _gathered(pictures, kept, ranks) if keep else None,
    )


def _identity(pictures: Pictures, digests: list[list[bytes]]) -> str:
    """Of the number and shape of images, then of the blocks in order."""
    found = hashlib.sha256(str((pictures.count, *pictures.shape)).encode())
    for number in range(sum(map(len, digests))):
        found.update(digests[number % len(digests)][number // len(digests)])
    return found.hexdigest()


def _gathered(pictures: Pictures, kept: list[Tensor], ranks: Ranks) -> Pixels | None:
    """The kept images of all ranks on rank 0, a block of each at a time."""
    count = pictures.count
    whole = torch.empty(count, *pictures.shape, dtype=torch.uint8) if ranks.rank == 0 else None
    for number in range(0, count, ranks.size * BLOCK):
        mine = kept.pop(0) if kept else None
        for rank, block in enumerate(ranks.gather(mine)):
            if whole is not None and block is not None:
                start = number + rank * BLOCK
                whole[start : start + len(block)] = block
    return whole
