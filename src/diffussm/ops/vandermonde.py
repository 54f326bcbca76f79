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
Coefficients = Float[Tensor, "dim *sets state"]
Kernels = Float[Tensor, "dim *sets length"]


def vandermonde(
    decay: Modes, angle: Modes, c_re: Coefficients, c_im: Coefficients, length: int
) -> Kernels:
    """A kernel of `length` values, or several of the same modes, each with its coefficients.

    Differentiable, never dim x state x length in memory.

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
    fine = torch.cat([fine_re, fine_im], dim=1)  # dim, 2 state, width
    re, im = _powers(decay, angle, strides)  # dim, state, rows
    sets = c_re.shape[1:-1]
    c_re, c_im = (c.flatten(1, -2)[..., None] if sets else c[:, None, :, None] for c in (c_re, c_im))
    re, im = re[:, None], im[:, None]
    coarse_re, coarse_im = c_re * re - c_im * im, c_re * im + c_im * re
    coarse = torch.cat([coarse_re, -coarse_im], dim=2).mT.flatten(1, 2)  # dim, sets rows, 2 state
    with torch.autocast(decay.device.type, enabled=False):
        kernels = 2 * (coarse @ fine)  # dim, sets rows, width
    return kernels.reshape(len(decay), *sets, -1)[..., :length]


def vandermonde_reference(
    decay: Modes, angle: Modes, c_re: Coefficients, c_im: Coefficients, length: int
) -> Kernels:
    z, c = torch.complex(decay, angle), torch.complex(c_re, c_im)
    powers = torch.exp(z[..., None] * torch.arange(length, device=decay.device))
    return 2 * torch.einsum("d...n,dnl->d...l", c, powers).real


def _powers(decay: Tensor, angle: Tensor, exponents: Tensor) -> tuple[Tensor, Tensor]:
    size = torch.exp(decay[..., None] * exponents)
    turn = angle[..., None] * exponents
    return size * torch.cos(turn), size * torch.sin(turn)
