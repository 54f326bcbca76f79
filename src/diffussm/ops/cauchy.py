"""Sums of simple poles at the roots of unity: how a diagonal system answers a frequency.

    f(z_k) = sum_n  w_n / (1 - z_k p_n)  +  its conjugate pole,      z_k = exp(-2 pi i k / points)

Written out, this is a product with a dim x state x points array. But the geometric series makes of
it the spectrum of an impulse response that repeats after `points` positions,

    w / (1 - z p) = sum_{l < points} z^l  w p^l / (1 - p^points)           since z^points = 1,

so that f is one `vandermonde` and one FFT.

Gu et al., "Efficiently Modeling Long Sequences with Structured State Spaces", 2022, appendix C.3
(the sum); its evaluation by a Vandermonde product is ours.
"""

import torch
from jaxtyping import Complex
from torch import Tensor

from diffussm.ops.vandermonde import Coefficients, Modes, vandermonde

Spectrum = Complex[Tensor, "dim *sets frequencies"]


def cauchy(
    decay: Modes, angle: Modes, w_re: Coefficients, w_im: Coefficients, points: int
) -> Spectrum:
    """f at the points // 2 + 1 frequencies of a real FFT; differentiable.

    decay    log |p|, below 0              angle    arg p, in radians
    w_re, w_im    weights of the poles, one set or several
    points        number of roots of unity, even
    """
    # 1 / (1 - p^points), by the conjugate of its denominator
    size, turn = torch.exp(points * decay), points * angle
    re, im = 1 - size * torch.cos(turn), size * torch.sin(turn)
    square = re**2 + im**2
    shape = (len(decay), *[1] * (w_re.ndim - 2), -1)
    re, im = (re / square).reshape(shape), (im / square).reshape(shape)
    response = vandermonde(decay, angle, w_re * re - w_im * im, w_re * im + w_im * re, points)
    return torch.fft.rfft(response)


def cauchy_reference(
    decay: Modes, angle: Modes, w_re: Coefficients, w_im: Coefficients, points: int
) -> Spectrum:
    p, w = torch.exp(torch.complex(decay, angle)), torch.complex(w_re, w_im)
    k = torch.arange(points // 2 + 1, dtype=decay.dtype, device=decay.device)
    z = torch.exp(-2j * torch.pi * k / points)
    pole, mirrored = 1 / (1 - z * p[..., None]), 1 / (1 - z * p.conj()[..., None])
    return torch.einsum("d...n,dnk->d...k", w, pole) + torch.einsum(
        "d...n,dnk->d...k", w.conj(), mirrored
    )
