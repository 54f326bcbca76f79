"""Squared Frechet distance of two Gaussians: FID, sFID and all their kin.

    d^2 = |m_1 - m_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^(1/2)

With S_1 = A A^T the last trace is that of (A^T S_2 A)^(1/2), a root of a symmetric matrix. A comes
from Cholesky's decomposition with pivots and has as many columns as S_1 has rank, so that no root
is taken of what is rounding alone where a covariance is singular.

Dowson & Landau, "The Frechet distance between multivariate normal distributions", 1982, equation 4;
Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, equation 6.
"""

import torch
from jaxtyping import Float64
from torch import Tensor

from diffussm.evaluation.moments import Moments


def frechet_distance(first: Moments, second: Moments) -> float:
    """The squared distance in the units of the features squared, never below 0; in float64.

    Raises ValueError for moments of unlike dimensions, or with NaN.
    """
    if first.dim != second.dim:
        raise ValueError(
            f"features of {first.dim} and of {second.dim} dimensions have no distance; "
            "both must come from one network"
        )
    for side in (first, second):
        if not (side.mean.isfinite().all() and side.covariance.isfinite().all()):
            raise ValueError("moments hold NaN or infinite numbers; make them anew")
    apart = (first.mean - second.mean).square().sum()
    spread = first.covariance.trace() + second.covariance.trace()
    common = _trace_of_root(first.covariance, second.covariance)
    return max(0.0, (apart + spread - 2 * common).item())


def _trace_of_root(first: Float64[Tensor, "dim dim"], second: Float64[Tensor, "dim dim"]) -> Tensor:
    """tr (S_1 S_2)^(1/2); the one of lower rank is decomposed."""
    factor, other = min(
        [(_factor(first), second), (_factor(second), first)], key=lambda pair: pair[0].shape[1]
    )
    values = torch.linalg.eigvalsh(factor.T @ other @ factor)
    return values.clamp(min=0).sqrt().sum()  # rounding may put a 0 below 0


def _factor(covariance: Float64[Tensor, "dim dim"]) -> Float64[Tensor, "dim rank"]:
    """A with A A^T = covariance."""
    from scipy.linalg import get_lapack_funcs

    (pivoted_cholesky,) = get_lapack_funcs(["pstrf"], [covariance.numpy()])
    lower, order, rank, _ = pivoted_cholesky(covariance.numpy(), lower=1)
    factor = torch.empty(len(covariance), int(rank), dtype=torch.float64)
    factor[torch.from_numpy(order).long() - 1] = torch.from_numpy(lower).tril()[:, :rank]
    return factor
