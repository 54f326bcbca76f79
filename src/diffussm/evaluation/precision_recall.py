"""Precision and recall: how many drawn images look real, and how many real ones can be drawn.

    precision = share of drawn x within r(y) of some real y
    recall    = share of real  y within r(x) of some drawn x

where r(z) is the distance from z to its k-th nearest neighbour among its own kind.

Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", 2019,
equations 1 and 2, k = 3 other points (a point stands at place 0 of its own neighbours).

Two ways of measuring distances, by name in `MEASURES`:

exact    squared distances in float64, and 0 where features are equal
adm      what ADM's evaluator reports: features and squared distances in float16, and in float32
         where those overflow
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from diffussm.config import choose
from diffussm.evaluation.features import Drawn, Real

NEIGHBOURS = 3
ROWS = 500
"""Points whose distances to all others are in memory at once."""


class PrecisionRecall(NamedTuple):
    """Shares, 0 to 1."""

    precision: float
    recall: float


def exact_distances(rows: Tensor, columns: Tensor) -> Tensor:
    rows, columns = rows.double(), columns.double()
    squares = rows.square().sum(1)[:, None] + columns.square().sum(1)
    distances = torch.addmm(squares, rows, columns.T, alpha=-2)
    # below what the sums resolve the two are equal
    resolved = distances > rows.shape[1] * torch.finfo(torch.float64).eps * squares
    return torch.where(resolved, distances, 0.0)


def adm_distances(rows: Tensor, columns: Tensor) -> Tensor:
    half = _adm_distances(rows.half().float(), columns.half().float(), torch.float16).float()
    if half.isfinite().all():
        return half
    return torch.where(half.isfinite(), half, _adm_distances(rows, columns, torch.float32))


def _adm_distances(rows: Tensor, columns: Tensor, precision: torch.dtype) -> Tensor:
    """|u|^2 - 2 u v + |v|^2, each of the three rounded: sums are float32 also in a float16 unit."""
    row_squares, column_squares = (x.square().sum(1).to(precision) for x in (rows, columns))
    products = (rows @ columns.T).to(precision)
    return (row_squares[:, None] - 2 * products + column_squares).clamp(min=0)


Measure = Callable[[Tensor, Tensor], Tensor]
"""Squared distances, (rows, columns), between two sets of features."""

MEASURES: dict[str, Measure] = {"exact": exact_distances, "adm": adm_distances}


def precision_recall(
    real: Real, drawn: Drawn, k: int = NEIGHBOURS, measure: str = "exact"
) -> PrecisionRecall:
    """Precision and recall of `drawn` images against `real` ones; no order matters.

    measure    one of `MEASURES`
    Raises ValueError for features of unlike dimensions, or fewer than k + 1 on a side.
    """
    how = choose("measure", measure, MEASURES)
    if real.shape[1] != drawn.shape[1]:
        raise ValueError(
            f"features of {real.shape[1]} and of {drawn.shape[1]} dimensions cannot be compared; "
            "both must come from one network"
        )
    if k < 1 or min(len(real), len(drawn)) <= k:
        raise ValueError(
            f"{len(real)} real and {len(drawn)} drawn images do not each have {k} neighbours; "
            f"k must be at least 1, and images more than k"
        )
    real_radii, drawn_radii = _radii(real, k, how), _radii(drawn, k, how)
    precise, recalled = torch.zeros(len(drawn), dtype=torch.bool), []
    for radii, distances in zip(real_radii.split(ROWS), _rows(real, drawn, how), strict=True):
        precise |= (distances <= radii[:, None]).any(0)
        recalled.append((distances <= drawn_radii).any(1))
    shares = (found.double().mean().item() for found in (precise, torch.cat(recalled)))
    return PrecisionRecall(*shares)


def _radii(features: Tensor, k: int, how: Measure) -> Tensor:
    """Squared distance of each point to its k-th neighbour."""
    among = _rows(features, features, how)  # each row holds the point itself
    return torch.cat([rows.kthvalue(k + 1, dim=1).values for rows in among])


def _rows(left: Tensor, right: Tensor, how: Measure) -> Iterator[Tensor]:
    """Squared distances from `ROWS` points of `left` at a time to all of `right`."""
    for rows in left.split(ROWS):
        yield torch.cat([how(rows, some) for some in right.split(10 * ROWS)], dim=1)
