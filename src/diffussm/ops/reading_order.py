"""The order in which a sequence is read that is really an image, and in which it lies in memory.

An image lies as `rows` rows, one after another (raster). Read column by column it is a permutation
of that sequence; an image of one row is read as it lies.

Layers keep the channels of a position adjacent, convolutions want the positions of a channel so.
`channels_first` and `channels_last` go there and back, through one transposition of a matrix.
"""

import torch
from torch import Tensor


def reading_order(length: int, rows: int) -> Tensor:
    """Where the position that is read l-th lies, (length,); `argsort` of it is the way back."""
    check_rows(length, rows)
    return torch.arange(length).reshape(rows, -1).T.flatten()


def channels_first(x: Tensor, rows: int) -> Tensor:
    """(batch, length, ..., dim) -> (..., dim, batch, length) in reading order, contiguous."""
    batch, length, *dims = x.shape
    columns = x.unflatten(1, (rows, -1)).transpose(1, 2)
    return columns.reshape(batch * length, -1).t().contiguous().view(*dims, batch, length)


def channels_last(x: Tensor, rows: int) -> Tensor:
    """The way back from `channels_first`."""
    *dims, batch, length = x.shape
    columns = x.reshape(-1, batch * length).t().contiguous()
    return columns.view(batch, -1, rows, *dims).transpose(1, 2).flatten(1, 2)


def check_rows(length: int, rows: int) -> None:
    """A sentence for a sequence that is not a grid of `rows` rows."""
    if rows < 1 or length % rows:
        raise ValueError(f"a sequence of {length} cannot be read as {rows} equal rows")
