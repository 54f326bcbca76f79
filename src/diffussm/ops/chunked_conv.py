"""A diagonal state space model along a sequence, in one or both directions, by matrix products.

    forward    y_l = sum_{m >= 0} K_m u_{l-m}          K_l = 2 Re sum_n w_n z_n^l
    backward   y_l = sum_{m >= 0} K_m u_{l+m}          both see the present, lag 0

This is `long_conv` of `vandermonde`, without a kernel as long as the sequence and without an FFT.
The length is cut into chunks of c positions. With s the state before a chunk (after it, for the
backward direction), for each channel and chunk:

    y = T u + 2 Re(Q s),    T_ij = K_{i-j},    Q_in = w_n z_n^(i+1)
    s <- z^c s + P u,       P_ni = z_n^(c-1-i)

T, Q and P are the same for all chunks and images, so these are products of matrices, one batch
entry a channel; only s walks from chunk to chunk. The cost is linear in the length, c + 4 modes
multiply-adds a number and direction, and so is the memory.

Outside the operator complex numbers are pairs of real ones, real parts first. Dao and Gu,
"Transformers are SSMs", 2024, section 6, has the same scheme for selective models; a time-invariant
one shares its matrices.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from diffussm.ops.chunk_products import Modes, ModesGradient, Products
from diffussm.ops.chunk_system import (
    Skip,
    SystemModes,
    check,
    chunk_for,
    chunked_conv_backward_flops,
    chunked_conv_flops,
)
from diffussm.ops.chunk_walk import Cut, jump_gradient, walk
from diffussm.ops.long_conv import Responses, long_conv_reference
from diffussm.ops.reading_order import channels_first, channels_last
from diffussm.ops.vandermonde import vandermonde_reference
from diffussm.shapes import Signal

AT_ONCE = 2**21
"""Numbers that are worked on together: what a processor's cache holds."""


def chunked_conv(
    u: Signal,
    decay: SystemModes,
    angle: SystemModes,
    w_re: SystemModes,
    w_im: SystemModes,
    rows: int = 1,
    skip: Skip | None = None,
) -> Responses:
    """`u` through one diagonal system (forward) or two (forward, backward); differentiable in all.

    decay, angle    log |z|, at most 0, and arg z in radians
    w_re, w_im      the modes' weights
    rows            as in `long_conv`
    skip            what is added to K_0
    The result has the type of `u`. States walk in float32 (float64 for float64 input), and so are
    the products, but for a signal in bfloat16: then their factors are too. Raises ValueError for a
    length of 0 or more than two directions.
    """
    check(u, len(decay), rows)
    skip = decay.new_zeros(decay.shape[:2]) if skip is None else skip
    with torch.autocast(u.device.type, enabled=False):
        return _chunked_conv(u, decay, angle, w_re, w_im, skip, rows, chunk_for(u[..., 0].numel()))


def chunked_conv_reference(
    u: Signal,
    decay: SystemModes,
    angle: SystemModes,
    w_re: SystemModes,
    w_im: SystemModes,
    rows: int = 1,
    skip: Skip | None = None,
) -> Responses:
    check(u, len(decay), rows)
    systems = zip(decay, angle, w_re, w_im, strict=True)
    kernels = torch.stack([vandermonde_reference(*system, u.shape[1]) for system in systems])
    y = long_conv_reference(u, kernels, rows)
    return y if skip is None else y + skip * u[:, :, None]


def _groups(dim: int, cut: Cut, chunk: int) -> list[slice]:
    """The channels, in groups that a processor's cache holds, and memory beside the signals."""
    most = max(1, min(dim // 4, AT_ONCE // (math.prod(cut) * chunk + 4 * chunk**2)))
    size = 2 ** (most.bit_length() - 1)  # whole cache lines of what lies channels last
    return [slice(start, min(start + size, dim)) for start in range(0, dim, size)]


def _products_type(x: Tensor, decay: Tensor) -> torch.dtype:
    """What the products are made of: bfloat16 where the signal is; sums are float32 either way."""
    return x.dtype if x.dtype == torch.bfloat16 else decay.dtype


def _chunks(x: Tensor, part: slice, rows: int, cut: Cut, chunk: int) -> Tensor:
    """Some channels of (batch, length, ..., dim), as (..., dim, chunks, chunk), then zeros."""
    x = channels_first(x[..., part].contiguous(), rows)
    missing = math.prod(cut[1:]) * chunk - x.shape[-1]
    x = F.pad(x, (0, missing)) if missing else x
    return x.unflatten(-1, (-1, chunk)).flatten(-3, -2)


def _joined(y: Tensor, length: int, rows: int, cut: Cut) -> Tensor:
    """The way back from `_chunks`."""
    return channels_last(y.unflatten(-2, (cut.batch, -1)).flatten(-2)[..., :length], rows)


@torch.library.custom_op("diffussm::chunked_conv", mutates_args=())
def _chunked_conv(
    u: Tensor,
    decay: Tensor,
    angle: Tensor,
    w_re: Tensor,
    w_im: Tensor,
    skip: Tensor,
    rows: int,
    chunk: int,
) -> Tensor:
    modes = Modes.of(decay, angle, torch.complex(w_re, w_im), skip, chunk)
    batch, length, dim = u.shape
    directions, cut, dtype = len(decay), Cut.of(batch, length, chunk), _products_type(u, decay)
    y = u.new_empty(batch, length, directions, dim)
    for part in _groups(dim, cut, chunk):
        products = Products.of(modes, part, dtype)
        made = _chunks(u, part, rows, cut, chunk).to(dtype) @ products.inner
        responses = made.new_empty(directions, *made.shape[:2], chunk)
        for d in range(directions):
            within, state = products.side(made, d)
            walk(state, products.jump[:, d], cut, 1 - 2 * d)
            torch.baddbmm(within, state, products.leave[:, d].mT, out=responses[d])
        y[..., part] = _joined(responses, length, rows, cut)
    return y


@_chunked_conv.register_fake
def _(u, decay, angle, w_re, w_im, skip, rows, chunk):
    batch, length, dim = u.shape
    return u.new_empty(batch, length, len(decay), dim)


@torch.library.custom_op("diffussm::chunked_conv_backward", mutates_args=())
def _chunked_conv_backward(
    u: Tensor,
    decay: Tensor,
    angle: Tensor,
    w_re: Tensor,
    w_im: Tensor,
    skip: Tensor,
    dy: Tensor,
    rows: int,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    modes = Modes.of(decay, angle, torch.complex(w_re, w_im), skip, chunk)
    batch, length, dim = u.shape
    cut, dtype = Cut.of(batch, length, chunk), _products_type(u, decay)
    du, gradient = u.new_empty(u.shape), ModesGradient(modes)
    for part in _groups(dim, cut, chunk):
        products = Products.of(modes, part, dtype)
        signal = _chunks(u, part, rows, cut, chunk).to(dtype)
        cotangents = _chunks(dy, part, rows, cut, chunk)
        dsignal, *others = _gradients(signal, cotangents, products, cut)
        du[..., part] = _joined(dsignal, length, rows, cut)
        gradient.add(part, *others)
    ddecay, dangle, dw, dskip = gradient.result()
    return du, ddecay, dangle, dw.real.contiguous(), dw.imag.contiguous(), dskip


def _gradients(
    signal: Tensor, cotangents: Tensor, products: Products, cut: Cut
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the signal, and of the matrices `inner`, `leave` and `jump`."""
    states = signal @ products.enter
    # for what `signal @ inner` gave: cotangents of its chunks and of what entered states
    back = signal.new_empty(*signal.shape[:2], products.inner.shape[2])
    dleave = torch.empty_like(products.leave, dtype=products.jump.real.dtype)
    djump = torch.empty_like(products.jump)
    for d, state in enumerate(states.tensor_split(len(cotangents), dim=-1)):
        cotangent, dentered = products.side(back, d)
        cotangent.copy_(cotangents[d])
        torch.bmm(cotangent, products.leave[:, d], out=dentered)
        jump, way = products.jump[:, d], 1 - 2 * d
        reached = walk(state, jump, cut, way)
        due = walk(dentered, torch.conj_physical(jump), cut, -way)
        dleave[:, d] = cotangent.mT @ state
        djump[:, d] = jump_gradient(reached, due)
    return back @ products.inner.mT, signal.mT @ back, dleave, djump


@_chunked_conv_backward.register_fake
def _(u, decay, angle, w_re, w_im, skip, dy, rows, chunk):
    return tuple(x.new_empty(x.shape) for x in (u, decay, angle, w_re, w_im, skip))


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.rows, ctx.chunk = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
    with torch.autocast(dy.device.type, enabled=False):
        gradients = _chunked_conv_backward(*ctx.saved_tensors, dy, ctx.rows, ctx.chunk)
    return *gradients, None, None


_chunked_conv.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.diffussm.chunked_conv)
def _(u_shape, decay_shape, *others, **__) -> int:
    directions, _, modes = decay_shape
    batch, length, dim = u_shape
    return chunked_conv_flops(batch, length, dim, directions, modes, others[-1])


@register_flop_formula(torch.ops.diffussm.chunked_conv_backward)
def _(u_shape, decay_shape, *others, **__) -> int:
    directions, _, modes = decay_shape
    batch, length, dim = u_shape
    return chunked_conv_backward_flops(batch, length, dim, directions, modes, others[-1])
