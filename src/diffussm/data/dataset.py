"""What training needs of a data set: images by number, their labels, and the classes' names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from diffussm.autoencoder import PIXELS, AutoencoderConfig
from diffussm.data.order import seeded
from diffussm.shapes import Image, Labels

HOLD_OUT = 0x686F6C64
"""Seed of which images are held out: the same ones whatever the seed of training."""


class Batch(NamedTuple):
    """Images with their labels."""

    images: Image
    """Pixels in [-1, 1], or latents times their autoencoder's scale."""
    labels: Labels
    """0 for all where the data set has no classes."""
    corrupt: tuple[str, ...] = ()
    """Name and trouble of each image that could not be read; another one stands in its place."""


@runtime_checkable
class Dataset(Protocol):
    """Any data set: images in memory, on the disk, or latents."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels 0, 1, ...; empty for a data set without classes."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        ...

    @property
    def autoencoder(self) -> AutoencoderConfig:
        """What made the latents; `diffussm.autoencoder.PIXELS` for pixels."""
        ...

    def __len__(self) -> int: ...

    def batch(self, index: Int[Tensor, " batch"], seeds: Sequence[int]) -> Batch:
        """The images numbered `index`.

        Whatever chance decides about image i (flip, sample of the posterior) is drawn from
        `diffussm.data.seeded(seeds[i], ...)` and from nothing else.
        """
        ...


@runtime_checkable
class Divided(Protocol):
    """A data set that knows itself which images to hold out: those least like the others."""

    def divide(self, kept: int) -> tuple[Dataset, Dataset]:
        """The images to train on and `kept` others; ValueError where there are not so many."""
        ...


@dataclass(frozen=True, kw_only=True)
class ImageDataset:
    """Images in memory, values in [-1, 1], each with the number of its class."""

    images: Image
    labels: Labels
    class_names: tuple[str, ...]
    """empty for a data set without classes"""
    autoencoder: AutoencoderConfig = PIXELS

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def batch(self, index: Int[Tensor, " batch"], seeds: Sequence[int]) -> Batch:
        """The images numbered `index`, and their labels; nothing is left to chance."""
        return Batch(self.images[index], self.labels[index])


@dataclass(frozen=True)
class Subset:
    """Some images of a data set."""

    data: Dataset
    numbers: Int[Tensor, " images"]
    """Which ones: their numbers in `data`."""

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of the whole."""
        return self.data.class_names

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        return self.data.shape

    @property
    def autoencoder(self) -> AutoencoderConfig:
        """That of the whole."""
        return self.data.autoencoder

    def batch(self, index: Int[Tensor, " batch"], seeds: Sequence[int]) -> Batch:
        """The images whose places in `numbers` are `index`."""
        return self.data.batch(self.numbers[index], seeds)


def hold_out(data: Dataset, amount: int | float) -> tuple[Dataset, Dataset | None]:
    """The images to train on and, if `amount` is not 0, those kept for validation.

    `amount` is a number of images or, below 1, a share of them. Which ones are kept depends on the
    number of images alone, or is up to the data set if it is `Divided`. Raises ValueError where
    none would be left to train on.
    """
    if not amount:
        return data, None
    size = len(data)
    kept = amount if isinstance(amount, int) else max(1, round(amount * size))
    if kept >= size:
        raise ValueError(
            f"data.hold_out keeps {kept} of {size} images for validation, which leaves none to "
            "train on; hold out fewer"
        )
    if isinstance(data, Divided):
        return data.divide(kept)
    order = torch.randperm(size, generator=seeded(HOLD_OUT))
    return Subset(data, order[kept:].sort().values), Subset(data, order[:kept].sort().values)
