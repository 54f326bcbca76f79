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
Kernel = Float[Tensor, "dim length"]
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
    sets = c_re.shape[1:-1]
    # about as many powers in the one factor as coefficients times powers in the other
    width = 2 ** round(math.log2(length * math.prod(sets)) / 2)
    rows = math.ceil(length / width)
    steps = torch.arange(width, dtype=decay.dtype, device=decay.device)
    strides = width * torch.arange(rows, dtype=decay.dtype, device=decay.device)

    fine = torch.cat(_powers(decay[..., None], angle[..., None], steps), dim=1)
    re, im = _powers(decay[:, None, None], angle[:, None, None], strides[:, None])
    c_re, c_im = (2 * c.reshape(len(c), -1, 1, c.shape[-1]) for c in (c_re, c_im))
    coarse_re = torch.addcmul(c_re * re, c_im, im, value=-1)
    minus_coarse_im = torch.addcmul(-c_im * re, c_re, im, value=-1)
    coarse = torch.cat([coarse_re, minus_coarse_im], dim=-1)
    # dim, sets rows, 2 state  @  dim, 2 state, width
    with torch.autocast(decay.device.type, enabled=False):
        kernels = coarse.flatten(1, 2) @ fine
    return kernels.reshape(len(decay), *sets, -1)[..., :length]


def vandermonde_reference(
    decay: Modes, angle: Modes, c_re: Coefficients, c_im: Coefficients, length: int
) -> Kernels:
    z, c = torch.complex(decay, angle), torch.complex(c_re, c_im)
    powers = torch.exp(z[..., None] * torch.arange(length, device=decay.device))
    return 2 * torch.einsum("d...n,dnl->d...l", c, powers).real


def _powers(decay: Tensor, angle: Tensor, exponents: Tensor) -> tuple[Tensor, Tensor]:
    size, turn = torch.exp(decay * exponents), angle * exponents
    return size * torch.cos(turn), size * torch.sin(turn)
