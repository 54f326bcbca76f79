"""What each rank is shown: its part of every batch, with the chance that belongs to each image.

Batch k .. k + n is cut among the ranks, and each rank's part further into pieces that fit its
memory. An image's noise, time step and dropped label follow from its number alone, so that neither
cut changes what the batch is.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor

from diffussm.data import Batch, CorruptCount, Dataset, read_ahead, seeded
from diffussm.shapes import Image, Labels, TimeStep
from diffussm.training.distributed import World
from diffussm.training.recipe import Recipe

# Purposes of a random draw, so that no two share their numbers.
WEIGHTS, ORDER, NOISE, VALIDATION = range(4)


class Piece(NamedTuple):
    """What one call of the network is trained on."""

    x_0: Image
    y: Labels | None
    t: TimeStep
    noise: Image
    share: float
    """Of the whole batch's images; 0 for a piece that is there to keep step with other ranks."""
    waited: float
    """Seconds until its images were there."""


class Shown(NamedTuple):
    """A batch, as one rank sees it."""

    size: int
    """Images of the whole batch."""
    pieces: list[Piece]
    """This rank's; on every rank equally many."""


def batches(
    recipe: Recipe,
    data: Dataset,
    world: World,
    device: torch.device,
    corrupt: CorruptCount,
    start: int,
) -> Iterator[Shown]:
    """The batches from image number `start` to the recipe's end, read ahead.

    Raises ValueError once more of the images are `corrupt` than the recipe bears.
    """
    settings = recipe.training
    order_seed = seeded(settings.seed, ORDER).initial_seed()
    cuts = (cut(whole, world, settings.accumulate) for whole in _wholes(recipe, start))
    wanted = (numbers for pieces in cuts for numbers, _ in pieces)
    reader = read_ahead(data, order_seed, wanted, recipe.data.workers)
    with closing(reader):  # pyright: ignore[reportArgumentType]
        for whole in _wholes(recipe, start):
            pieces = []
            for numbers, share in cut(whole, world, settings.accumulate):
                began = time.perf_counter()
                batch = next(reader)
                waited = time.perf_counter() - began
                corrupt.add(batch)
                corrupt.check()
                pieces.append(piece_of(recipe, batch, numbers, device, share, waited))
            yield Shown(len(whole), pieces)


def _wholes(recipe: Recipe, start: int) -> Iterator[range]:
    """The numbers of each batch's images."""
    size, end = recipe.training.batch_size, recipe.training.images
    return (range(first, min(first + size, end)) for first in range(start, end, size))


def cut(whole: range, world: World, accumulate: int) -> list[tuple[range, float]]:
    """This rank's pieces of a batch, at most `accumulate`, each with its share of the images.

    Every rank has as many, since they call the network together; one that has no image left for
    its piece is shown the batch's first one again, which counts for nothing.
    """
    mine = _part(whole, world.rank, world.size)
    most = -(-len(whole) // world.size)
    count = min(accumulate, most)
    pieces = [_part(mine, number, count) for number in range(count)]
    return [(piece or whole[:1], len(piece) / len(whole)) for piece in pieces]


def piece_of(
    recipe: Recipe,
    batch: Batch,
    numbers: range,
    device: torch.device,
    share: float,
    waited: float = 0.0,
    purpose: int = NOISE,
) -> Piece:
    """Images, seen as these numbers, with labels, time steps and noise, on the device."""
    x_0, classes = batch.images, recipe.model.num_classes
    draws = [_draw(recipe, number, x_0.shape[1:], purpose) for number in numbers]
    t, dropped, noise = (torch.stack(parts) for parts in zip(*draws, strict=True))
    labels = None
    if classes and purpose == VALIDATION:
        labels = batch.labels.to(device)
    elif classes:
        labels = torch.where(dropped, classes, batch.labels).to(device)
    return Piece(x_0.to(device), labels, t.to(device), noise.to(device), share, waited)


def _part(whole: range, number: int, count: int) -> range:
    """Part `number` of `count` about equal ones."""
    size = len(whole)
    return whole[size * number // count : size * (number + 1) // count]


def _draw(
    recipe: Recipe, image: int, shape: torch.Size, purpose: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Time step, whether to drop the label, and noise, for the image seen as number `image`."""
    generator = seeded(recipe.training.seed, purpose, image)
    t = torch.randint(recipe.diffusion.steps, (), generator=generator)
    dropped = torch.rand((), generator=generator) < recipe.training.label_dropout
    return t, dropped, torch.randn(shape, generator=generator)
