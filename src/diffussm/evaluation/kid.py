"""Kernel Inception distance: the squared maximum mean discrepancy of two sets of features.

    k(x, y) = (x.y / dim + 1)^3
    MMD^2   = mean of k over pairs of distinct x + the same of y - 2 times the mean over all (x, y)

Unbiased, so it may fall below 0, and unlike a Frechet distance it does not depend on how many
images there are. In float64.

Binkowski et al., "Demystifying MMD GANs", 2018, section 4; the estimator is equation 4. There the
mean is taken over random subsets of 1000 images, whose spread tells how sure it is.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from diffussm.evaluation.features import Drawn, Real

SUBSETS = 100
SUBSET = 1000
BLOCK = 1000
"""Features whose kernels with all others are in memory at once."""


class KernelDistance(NamedTuple):
    """Mean over subsets, and their standard deviation (of the subsets themselves, ddof 0)."""

    mean: float
    std: float


def kid(
    real: Real, drawn: Drawn, subsets: int = SUBSETS, subset: int = SUBSET, seed: int = 0
) -> KernelDistance:
    """The distance over `subsets` pairs of random subsets, each of `subset` images.

    Which images come together follows from `seed` and their order. Raises ValueError as
    `squared_mmd`, and for subsets larger than either set.
    """
    if subsets < 1:
        raise ValueError(f"subsets must be at least 1, not {subsets}")
    if subset > min(len(real), len(drawn)):
        raise ValueError(
            f"subsets of {subset} cannot be drawn from {len(real)} real and {len(drawn)} drawn "
            "images; take smaller subsets, or more images"
        )
    chance = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(subsets):
        pair = [x[torch.randperm(len(x), generator=chance)[:subset]] for x in (real, drawn)]
        found.append(squared_mmd(*pair))
    values = torch.tensor(found, dtype=torch.float64)
    return KernelDistance(values.mean().item(), values.std(correction=0).item())


def squared_mmd(real: Real, drawn: Drawn) -> float:
    """The distance between all images, without chance; no order matters.

    Raises ValueError for features of unlike dimensions, or fewer than two on a side.
    """
    if real.shape[1] != drawn.shape[1]:
        raise ValueError(
            f"features of {real.shape[1]} and of {drawn.shape[1]} dimensions cannot be compared; "
            "both must come from one network"
        )
    if min(len(real), len(drawn)) < 2:
        raise ValueError(
            f"a kernel distance needs two images or more on each side, not {len(real)} and "
            f"{len(drawn)}"
        )
    n, m = len(real), len(drawn)
    within_real = (_sum(real, real) - _self_sum(real)) / (n * (n - 1))
    within_drawn = (_sum(drawn, drawn) - _self_sum(drawn)) / (m * (m - 1))
    return (within_real + within_drawn - 2 * _sum(real, drawn) / (n * m)).item()


def _sum(left: Tensor, right: Tensor) -> Tensor:
    """Sum of the kernel over all pairs."""
    total = torch.zeros((), dtype=torch.float64)
    for rows in left.split(BLOCK):
        for columns in right.split(BLOCK):
            total += _kernel(rows.double() @ columns.double().T, left.shape[1]).sum()
    return total


def _self_sum(features: Tensor) -> Tensor:
    """Sum of the kernel of each point with itself."""
    squares = [block.double().square().sum(1) for block in features.split(BLOCK)]
    return _kernel(torch.cat(squares), features.shape[1]).sum()


def _kernel(products: Tensor, dim: int) -> Tensor:
    return (products / dim + 1) ** 3
