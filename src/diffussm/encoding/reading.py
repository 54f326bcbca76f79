"""The images of a data set in the order of their numbers, those that cannot be read marked."""

from collections.abc import Generator, Iterable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from diffussm.data import Batch, Dataset, Subset, image_order, read_ahead

UNREADABLE = -1
"""Label of an image that cannot be read."""


def in_order(data: Dataset, ranges: Iterable[range], workers: int) -> Generator[Batch]:
    """For each range, the images of these numbers, read `workers` processes ahead.

    Where an image cannot be read, the batch has its trouble in `corrupt`, the label `UNREADABLE`
    and some other image in its place.
    """
    # the shuffle undone: what is seen as number k, with seed 0, is then image k
    numbers = image_order(len(data), 0, 0, len(data)).argsort()
    yield from read_ahead(_Marked(data, numbers), 0, ranges, workers)


class _Marked(Subset):
    """Images of which those that cannot be read have the label `UNREADABLE`."""

    def batch(self, index: Int[Tensor, " batch"], seeds: Sequence[int]) -> Batch:
        """One image at a time: then what `corrupt` names is the image that was asked for."""
        whole = super().batch
        alone = [whole(index[i : i + 1], seeds[i : i + 1]) for i in range(len(index))]
        corrupt = torch.tensor([bool(each.corrupt) for each in alone])
        labels = torch.cat([each.labels for each in alone])
        return Batch(
            torch.cat([each.images for each in alone]),
            labels.masked_fill(corrupt, UNREADABLE),
            tuple(name for each in alone for name in each.corrupt),
        )
