"""The order in which a sequence is read that is really an image.

An image lies as `rows` rows, one after another (raster). Read column by column it is a permutation
of that sequence; an image of one row is read as it lies.
"""

import torch
from torch import Tensor


def reading_order(length: int, rows: int) -> Tensor:
    """Where the position that is read l-th lies, (length,); `argsort` of it is the way back."""
    check_rows(length, rows)
    return torch.arange(length).reshape(rows, -1).T.flatten()


def check_rows(length: int, rows: int) -> None:
    """A sentence for a sequence that is not a grid of `rows` rows."""
    if rows < 1 or length % rows:
        raise ValueError(f"a sequence of {length} cannot be read as {rows} equal rows")
