"""Mean and covariance of features: all that a Frechet distance wants to know of images.

    mean       = 1/n sum_i x_i
    covariance = 1/(n - 1) sum_i (x_i - mean)(x_i - mean)^T

in float64, over blocks of `BLOCK` features counted by number. The mean comes first, so that nothing
cancels; the features are never all in float64 at once.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from diffussm.evaluation.features import Features

BLOCK = 1000
"""Features that are turned into float64 at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Of the features of `count` images; None where that is not known."""

    count: int | None
    mean: Float64[Tensor, " dim"]
    covariance: Float64[Tensor, "dim dim"]

    @property
    def dim(self) -> int:
        """Numbers in one image's features."""
        return len(self.mean)

    @property
    def warning(self) -> str | None:
        """Why a distance from these moments means nothing, where that is so."""
        if self.count is None or self.count > self.dim:
            return None
        return (
            f"{self.count} images have a covariance of rank {self.count - 1} at most in "
            f"{self.dim} dimensions, so a distance measures mostly how few they are: it is not "
            f"meaningful; take more than {self.dim} (50,000 are usual) on both sides"
        )


def moments(features: Features) -> Moments:
    """The moments of features; ValueError for fewer than two, or for NaN among them."""
    count = len(features)
    if count < 2:
        raise ValueError(f"a covariance needs two images or more, not {count}")
    mean = torch.zeros(features.shape[1], dtype=torch.float64)
    for block in features.split(BLOCK):
        mean += block.double().sum(0)
    mean /= count
    if not mean.isfinite().all():
        raise ValueError("the features hold NaN or infinite numbers; make them anew")
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for block in features.split(BLOCK):
        centred = block.double() - mean
        covariance.addmm_(centred.T, centred)
    covariance /= count - 1
    return Moments(count=count, mean=mean, covariance=(covariance + covariance.T) / 2)
