"""The impulse response of a diagonal state space model, from its modes.

    K_l = 2 Re sum_n c_n z_n^l,    z_n = exp(decay_n + i angle_n)

Written out, this is a product with a dim x state x length array, more work than the convolution
that follows. `vandermonde` splits the exponent instead, l = i + w j, so that

    K_{i + w j} = 2 Re sum_n (c_n z_n^{w j}) (z_n^i)

is one small matrix product a channel with about 2 sqrt(length) powers a mode. Complex numbers are
pairs of real tensors here: compilers and autocast know those.

Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models", 2022,
equation 4 (the kernel); the split is ours.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

Modes = Float[Tensor, "dim state"]
Kernel = Float[Tensor, "dim length"]


def vandermonde(decay: Modes, angle: Modes, c_re: Modes, c_im: Modes, length: int) -> Kernel:
    """The kernel of `length` values; differentiable, never dim x state x length in memory.

    decay    log |z|, at most 0             angle    arg z, in radians
    c_re, c_im    the modes' coefficients
    Raises ValueError for a length below 1.
    """
    if length < 1:
        raise ValueError(f"a kernel needs a sequence of length 1 or more, not {length}")
    width = 2 ** math.ceil(math.log2(length) / 2)
    rows = math.ceil(length / width)
    steps = torch.arange(width, dtype=decay.dtype, device=decay.device)
    strides = width * torch.arange(rows, dtype=decay.dtype, device=decay.device)

    fine_re, fine_im = _powers(decay, angle, steps)
    re, im = _powers(decay, angle, strides)
    c_re, c_im = c_re[..., None], c_im[..., None]
    coarse_re, coarse_im = c_re * re - c_im * im, c_re * im + c_im * re

    coarse = torch.cat([coarse_re, -coarse_im], dim=1)  # dim, 2 state, rows
    fine = torch.cat([fine_re, fine_im], dim=1)  # dim, 2 state, width
    with torch.autocast(decay.device.type, enabled=False):
        kernel = 2 * (coarse.mT @ fine)  # dim, rows, width
    return kernel.flatten(1)[:, :length]


def vandermonde_reference(
    decay: Modes, angle: Modes, c_re: Modes, c_im: Modes, length: int
) -> Kernel:
    z, c = torch.complex(decay, angle), torch.complex(c_re, c_im)
    lag = torch.arange(length, device=decay.device)
    return 2 * (c[..., None] * torch.exp(z[..., None] * lag)).sum(1).real


def _powers(decay: Tensor, angle: Tensor, exponents: Tensor) -> tuple[Tensor, Tensor]:
    size = torch.exp(decay[..., None] * exponents)
    turn = angle[..., None] * exponents
    return size * torch.cos(turn), size * torch.sin(turn)
