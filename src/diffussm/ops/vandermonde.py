"""The impulse response of a diagonal state space model, from its modes.

    K_l = 2 Re sum_n c_n z_n^l,    z_n = exp(decay_n + i angle_n)

Written out, this is a product with a dim x state x length array, more work than the convolution
that follows. `vandermonde` splits the exponent instead, l = i + w j, so that

    K_{i + w j} = 2 Re sum_n (c_n z_n^{w j}) (z_n^i)

is one small matrix product a channel with about 2 sqrt(length) powers a mode. The gradients are
sums over the same powers, split alike: with g_l what is handed back for K_l,

    dc_n = 2 conj(sum_l g_l z_n^l),    d(decay_n + i angle_n) = 2 conj(c_n sum_l l g_l z_n^l)

Complex numbers are pairs of real tensors here: autocast knows those.

Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models", 2022,
equation 4 (the kernel); the split is ours.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from diffussm.ops.powers import Pair, powers, times

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
    c_re, c_im = (c.reshape(len(c), -1, c.shape[-1]) for c in (c_re, c_im))
    with torch.autocast(decay.device.type, enabled=False):
        kernels = _vandermonde(decay, angle, c_re, c_im, length)
    return kernels.reshape(len(decay), *sets, length)


def vandermonde_reference(
    decay: Modes, angle: Modes, c_re: Coefficients, c_im: Coefficients, length: int
) -> Kernels:
    z, c = torch.complex(decay, angle), torch.complex(c_re, c_im)
    powers = torch.exp(z[..., None] * torch.arange(length, device=decay.device))
    return 2 * torch.einsum("d...n,dnl->d...l", c, powers).real


def _split(sets: int, length: int) -> tuple[int, int]:
    """w, about as many powers in the one factor as coefficients times powers in the other; rows."""
    width = 2 ** round(math.log2(length * sets) / 2)
    return width, math.ceil(length / width)


def _halves(x: Tensor) -> Pair:
    real, imaginary = x.chunk(2, dim=-1)
    return real, imaginary


@torch.library.custom_op("diffussm::vandermonde", mutates_args=())
def _vandermonde(decay: Tensor, angle: Tensor, c_re: Tensor, c_im: Tensor, length: int) -> Tensor:
    """(dim, sets, length), from coefficients of (dim, sets, state)."""
    width, rows = _split(c_re.shape[1], length)
    strides = powers(decay[:, None], angle[:, None], rows, width)
    re, im = times((2 * c_re[:, :, None], 2 * c_im[:, :, None]), strides)
    coarse = torch.cat([re, im.neg_()], dim=-1)
    fine = torch.cat(powers(decay, angle, width), dim=-1)
    # dim, sets rows, 2 state  @  dim, 2 state, width
    kernels = coarse.flatten(1, 2) @ fine.mT
    return kernels.view(*c_re.shape[:2], -1)[..., :length].contiguous()


@_vandermonde.register_fake
def _(decay: Tensor, angle: Tensor, c_re: Tensor, c_im: Tensor, length: int) -> Tensor:
    return c_re.new_empty(*c_re.shape[:2], length)


@torch.library.custom_op("diffussm::vandermonde_backward", mutates_args=())
def _vandermonde_backward(
    decay: Tensor, angle: Tensor, c_re: Tensor, c_im: Tensor, g: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dim, sets, length = g.shape
    width, rows = _split(sets, length)
    g = F.pad(g, (0, -length % width)).view(dim, -1, width)
    steps = torch.arange(width, dtype=g.dtype, device=g.device)
    fine = torch.cat(powers(decay, angle, width), dim=-1)
    # the sums over i of g z^i and of i g z^i
    both = torch.cat([g, g * steps], dim=1) @ fine
    plain, weighted = both.view(dim, 2, sets, rows, -1).unbind(1)
    before = width * torch.arange(rows, dtype=g.dtype, device=g.device)
    weighted = torch.addcmul(weighted, plain, before[:, None])

    strides = powers(decay[:, None], angle[:, None], rows, width)
    dc_re, dc_im = (2 * part.sum(2) for part in times(_halves(plain), strides))
    moved_re, moved_im = (part.sum(2) for part in times(_halves(weighted), strides))
    ddecay, dangle = (2 * part.sum(1) for part in times((c_re, c_im), (moved_re, moved_im)))
    return ddecay, dangle.neg_(), dc_re, dc_im.neg_()


@_vandermonde_backward.register_fake
def _(decay, angle, c_re, c_im, g):
    return tuple(x.new_empty(x.shape) for x in (decay, angle, c_re, c_im))


def _setup_context(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:4])


def _backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
    with torch.autocast(g.device.type, enabled=False):
        return *_vandermonde_backward(*ctx.saved_tensors, g), None


_vandermonde.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.diffussm.vandermonde)
def _(decay_shape, angle_shape, re_shape, im_shape, length, **_) -> int:
    dim, sets, state = re_shape
    width, rows = _split(sets, length)
    return 2 * dim * sets * rows * 2 * state * width


@register_flop_formula(torch.ops.diffussm.vandermonde_backward)
def _(decay_shape, angle_shape, re_shape, im_shape, g_shape, **_) -> int:
    dim, sets, state = re_shape
    width, rows = _split(sets, g_shape[2])
    return 2 * 2 * dim * sets * rows * 2 * state * width
