"""The images of a data set in the order of their numbers, those that cannot be read marked."""

from collections.abc import Generator, Iterable, Sequence
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from diffussm.autoencoder import AutoencoderConfig
from diffussm.data import Batch, Dataset, image_order, read_ahead

UNREADABLE = -1
"""Label of an image that cannot be read."""


def in_order(data: Dataset, ranges: Iterable[range], workers: int) -> Generator[Batch]:
    """For each range, the images of these numbers, read `workers` processes ahead.

    Where an image cannot be read, the batch has its trouble in `corrupt`, the label `UNREADABLE`
    and some other image in its place.
    """
    yield from read_ahead(_InOrder(data), 0, ranges, workers)


class _InOrder:
    """A data set in which the image seen as number k, with seed 0, is image k."""

    def __init__(self, data: Dataset):
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.data.class_names

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.data.shape

    @property
    def autoencoder(self) -> AutoencoderConfig:
        return self.data.autoencoder

    @cached_property
    def _number(self) -> Int[Tensor, " images"]:
        """When each image is seen in the first epoch: the shuffle undone."""
        return image_order(len(self), 0, 0, len(self)).argsort()

    def batch(self, index: Int[Tensor, " batch"], seeds: Sequence[int]) -> Batch:
        """One image at a time: then what `corrupt` names is the image that was asked for."""
        numbers = self._number[index]
        alone = [self.data.batch(numbers[i : i + 1], seeds[i : i + 1]) for i in range(len(index))]
        corrupt = torch.tensor([bool(each.corrupt) for each in alone])
        labels = torch.cat([each.labels for each in alone])
        return Batch(
            torch.cat([each.images for each in alone]),
            labels.masked_fill(corrupt, UNREADABLE),
            tuple(name for each in alone for name in each.corrupt),
        )
