"""The impulse response of a state space model whose matrix is diagonal minus low rank.

With A = Lambda - P P* and a bilinear step, all that is needed are sums of the diagonal part's
poles, Cauchy sums, for each pair of X in (C, P*) and Y in (B, P):

    k_XY(z) = sum_n w_n / (1 - z p_n) + its conjugate,      w = X Y gain,  p = Lambda_bar
    K(z) = k_CB - s k_CP (1 + s k_PP)^-1 k_PB,              s = (1 + z) / 2            (Woodbury)

K(z) at the 2 length-th roots of unity, on a circle of radius r < 1, gives r^l K_l by an inverse
FFT. The sums are spectra of impulse responses, sum_l w p^l z^l, hence one `vandermonde` and FFTs.
Of k_CB, k_CP and k_PB the first `length` terms are enough: later ones reach no K_l that is kept.
k_PP stands in a denominator, so it is summed over all points; what is left out is r^points of it.

The published algorithm cuts the series at the trained length by a C that is tied to that length.
Here the same weights serve every length: what wraps around is r^points of what it wraps onto, and
rounding grows by r^-length where r^l is divided out. r makes the two equal: (machine
epsilon)^(2/3), which is 2e-5 in float32 and 4e-11 in float64.

Gu, Goel and Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022, section
3.2 and appendix C.3; the circle and the evaluation by one Vandermonde product are ours.
"""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from diffussm.ops.vandermonde import Kernel, Modes, vandermonde

Weights = Float[Tensor, "dim pairs pairs state"]


def low_rank_kernel(
    decay: Modes, angle: Modes, w_re: Weights, w_im: Weights, length: int
) -> Kernel:
    """K_l for l < `length`; differentiable, never dim x state x length in memory.

    decay, angle    log |p| <= 0, and arg p in radians, of the diagonal part after the step
    w_re, w_im      weights of its poles: first row and column for C and B, the others for P
    Raises ValueError for a length below 1.
    """
    points, log_radius = 2 * length, _log_radius(decay, length)
    decay = decay + log_radius
    rank = w_re.shape[1] - 1
    late_re, late_im = _times_power(decay, angle, w_re[:, 1:, 1:], w_im[:, 1:, 1:], length)
    w_re, w_im = (
        torch.cat([w[:, 0], w[:, 1:, 0], w[:, 1:, 1:].flatten(1, 2), late.flatten(1, 2)], dim=1)
        for w, late in ((w_re, late_re), (w_im, late_im))
    )
    responses = vandermonde(decay, angle, w_re, w_im, length)
    c_b, c_p, p_b, p_p = responses.split([1, rank, rank, 2 * rank**2], dim=1)
    p_p = p_p.unflatten(1, (2, rank, rank)).movedim(1, -2).flatten(-2)  # one half after the other

    s = _half_sum(decay, log_radius, points)
    left, right = (list(_Spectrum.apply(x, points).unbind(1)) for x in (c_p, p_b))
    matrix = [list(row.unbind(1)) for row in _Spectrum.apply(p_p, points).unbind(1)]
    for i, row in enumerate(matrix):
        row[i] = row[i] + 1 / s
    correction = _correction(left, matrix, right)
    growth = torch.exp(-log_radius * torch.arange(length, dtype=decay.dtype, device=decay.device))
    return (c_b[:, 0] - torch.fft.irfft(correction, n=points)[:, :length]) * growth


def low_rank_kernel_reference(
    decay: Modes, angle: Modes, w_re: Weights, w_im: Weights, length: int
) -> Kernel:
    points, log_radius = 2 * length, _log_radius(decay, length)
    p, w = torch.exp(torch.complex(decay, angle)), torch.complex(w_re, w_im)
    s = _half_sum(decay, log_radius, points)
    poles = 1 / (1 - (2 * s - 1) * p[..., None]), 1 / (1 - (2 * s - 1) * p[..., None].conj())
    k = torch.einsum("dxyn,dnf->dfxy", w, poles[0])
    k = k + torch.einsum("dxyn,dnf->dfxy", w.conj(), poles[1])
    inverse = torch.linalg.inv(torch.eye(k.shape[-1] - 1) / s[:, None, None] + k[..., 1:, 1:])
    correction = k[..., :1, 1:] @ inverse @ k[..., 1:, :1]
    response = torch.fft.irfft((k[..., 0, 0] - correction[..., 0, 0]), n=points)[:, :length]
    return response * torch.exp(-log_radius * torch.arange(length, dtype=decay.dtype))


class _Spectrum(torch.autograd.Function):
    """A real FFT of an even number of points; PyTorch's own goes back by a complex one."""

    @staticmethod
    def forward(ctx, signal: Tensor, points: int) -> Tensor:
        ctx.length, ctx.points = signal.shape[-1], points
        return torch.fft.rfft(signal, n=points)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        halves = torch.full_like(grad.real[(0,) * (grad.ndim - 1)], 0.5)
        halves[[0, -1]] = 1  # the frequencies that an inverse FFT counts once
        signal = torch.fft.irfft(grad * halves, n=ctx.points, norm="forward")
        return signal[..., : ctx.length], None


def _log_radius(decay: Tensor, length: int) -> float:
    if length < 1:
        raise ValueError(f"a kernel needs a sequence of length 1 or more, not {length}")
    return math.log(torch.finfo(decay.dtype).eps) * 2 / 3 / (2 * length)


def _half_sum(like: Tensor, log_radius: float, points: int) -> Complex[Tensor, " frequencies"]:
    """s = (1 + z) / 2 at the circle's points, as far as a real FFT goes; never 0."""
    turn = torch.arange(points // 2 + 1, dtype=like.dtype, device=like.device)
    turn = -2 * math.pi / points * turn
    return (1 + torch.polar(torch.full_like(turn, math.exp(log_radius)), turn)) / 2


def _times_power(decay: Tensor, angle: Tensor, w_re: Tensor, w_im: Tensor, length: int):
    """w p^length, real and imaginary: the weights of the same sum, `length` positions later."""
    decay, angle = length * decay[:, None, None], length * angle[:, None, None]
    size = torch.exp(decay)
    p_re, p_im = size * torch.cos(angle), size * torch.sin(angle)
    return w_re * p_re - w_im * p_im, w_re * p_im + w_im * p_re


def _correction(left: list[Tensor], matrix: list[list[Tensor]], right: list[Tensor]) -> Tensor:
    """left matrix^-1 right at each frequency, eliminating the last row and column, then the rest.

    The Hermitian part of 1 + s k_PP is at least 1, so no pivot is small.
    """
    *above, row = matrix
    solved = right[-1] / row[-1]
    last = left[-1] * solved
    if not above:
        return last
    ratios = [entry / row[-1] for entry in row[:-1]]
    rest = _correction(
        [x - left[-1] * ratio for x, ratio in zip(left, ratios, strict=False)],
        [[x - r[-1] * ratio for x, ratio in zip(r, ratios, strict=False)] for r in above],
        [x - r[-1] * solved for x, r in zip(right, above, strict=False)],
    )
    return last + rest
