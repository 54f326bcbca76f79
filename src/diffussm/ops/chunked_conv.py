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

from diffussm.ops.chunk_system import (
    CHUNK,
    Matrices,
    Modes,
    System,
    chunk_matrices,
    from_toeplitz,
    jump_gradient,
    unpaired,
    walk,
)
from diffussm.ops.long_conv import Responses, long_conv_reference
from diffussm.ops.reading_order import channels_first, channels_last, check_rows
from diffussm.ops.vandermonde import vandermonde_reference
from diffussm.shapes import Signal

AT_ONCE = 2**19
"""Numbers that are worked on together: what a processor's cache holds."""


def chunked_conv(
    u: Signal, decay: Modes, angle: Modes, w_re: Modes, w_im: Modes, rows: int = 1
) -> Responses:
    """`u` through one diagonal system (forward) or two (forward, backward); differentiable in all.

    decay, angle    log |z|, at most 0, and arg z in radians
    w_re, w_im      the modes' weights
    rows            as in `long_conv`
    The result has the type of `u`. States walk in float32 (float64 for float64 input), and so are
    the products, but for a signal in bfloat16: then their factors are too. Raises ValueError for a
    length of 0 or more than two directions.
    """
    return convolve(u, chunk_matrices(decay, angle, w_re, w_im), rows)


def convolve(u: Signal, matrices: Matrices, rows: int = 1, *, triton: bool = False) -> Responses:
    """`chunked_conv` by matrices made before, here or in the kernel of `chunked_conv_triton`."""
    _check(u, matrices.kernel.shape[1], rows)
    with torch.autocast(u.device.type, enabled=False):
        return _chunked_conv(u, *matrices, rows, triton)


def chunked_conv_reference(
    u: Signal, decay: Modes, angle: Modes, w_re: Modes, w_im: Modes, rows: int = 1
) -> Responses:
    _check(u, len(decay), rows)
    systems = zip(decay, angle, w_re, w_im, strict=True)
    kernels = [vandermonde_reference(*system, u.shape[1]) for system in systems]
    return long_conv_reference(u, torch.stack(kernels), rows)


def _check(u: Tensor, directions: int, rows: int) -> None:
    if directions not in (1, 2):
        raise ValueError(f"chunked_conv takes one system or two (directions), not {directions}")
    if u.shape[1] == 0:
        raise ValueError("chunked_conv needs a sequence of length 1 or more, not 0")
    check_rows(u.shape[1], rows)


def _groups(x: Tensor) -> list[slice]:
    """The channels, in groups whose signals and matrices stay in a processor's cache."""
    dim, rows, chunk = x.shape
    size = max(1, AT_ONCE // (rows * chunk + 4 * chunk**2))
    return [slice(start, start + size) for start in range(0, dim, size)]


def _products(x: Tensor, matrix: Tensor) -> torch.dtype:
    """What the products are made of: bfloat16 where the signal is; sums are float32 either way."""
    return x.dtype if x.dtype == torch.bfloat16 else matrix.dtype


def _cut(x: Tensor, chunk: int) -> Tensor:
    """(..., batch, length) -> (..., batch chunks, chunk), zeros after the end."""
    missing = -x.shape[-1] % chunk
    x = F.pad(x, (0, missing)) if missing else x
    return x.unflatten(-1, (-1, chunk)).flatten(-3, -2)


def _joined(y: Tensor, batch: int, length: int) -> Tensor:
    """The way back from `_cut`."""
    return y.unflatten(-2, (batch, -1)).flatten(-2)[..., :length]


@torch.library.custom_op("diffussm::chunked_conv", mutates_args=())
def _chunked_conv(
    u: Tensor,
    kernel: Tensor,
    enter: Tensor,
    leave: Tensor,
    jump: Tensor,
    rows: int = 1,
    triton: bool = False,
) -> Tensor:
    if triton:
        from diffussm.ops.chunked_conv_triton import forward

        return forward(u, kernel, enter, leave, jump, rows)
    batch, length, _ = u.shape
    x = _cut(channels_first(u, rows), kernel.shape[2])
    y = _responses(x, batch, kernel, enter, leave, jump)
    del x  # the last copy takes its place
    return channels_last(_joined(y, batch, length), rows)


def _responses(x: Tensor, batch: int, *matrices: Tensor) -> Tensor:
    """(directions, dim, batch chunks, chunk), of a signal (dim, batch chunks, chunk)."""
    directions = matrices[0].shape[1]
    y = x.new_empty(directions, *x.shape)
    for part in _groups(x):
        signal = x[part].to(_products(x, matrices[0]))
        for direction in range(directions):
            system = System.of(direction, signal.dtype, *(matrix[part] for matrix in matrices))
            state = walk(signal @ system.into, system.jump, batch, system.way)
            y[direction, part] = (signal @ system.within).baddbmm_(state, system.out)
    return y


@_chunked_conv.register_fake
def _(u, kernel, enter, leave, jump, rows=1, triton=False):
    batch, length, dim = u.shape
    if _in_place(u, rows, triton):
        return u.new_empty(batch, kernel.shape[1], dim, length).movedim(-1, 1)
    return u.new_empty(batch, length, kernel.shape[1], dim)


def _in_place(u: Tensor, rows: int, triton: bool) -> bool:
    """Whether the kernel reads and writes a signal whose positions are adjacent as it lies."""
    return bool(triton and rows == 1 and u.stride(1) == 1)


@torch.library.custom_op("diffussm::chunked_conv_backward", mutates_args=())
def _chunked_conv_backward(
    u: Tensor,
    kernel: Tensor,
    enter: Tensor,
    leave: Tensor,
    jump: Tensor,
    dy: Tensor,
    rows: int = 1,
    triton: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    if triton:
        from diffussm.ops.chunked_conv_triton_backward import backward

        return backward(u, kernel, enter, leave, jump, dy, rows)
    batch, length, _ = u.shape
    chunk = kernel.shape[2]
    x, cotangents = (_cut(channels_first(signal, rows), chunk) for signal in (u, dy))
    du, *others = _gradients(x, cotangents, batch, kernel, enter, leave, jump)
    del x, cotangents  # the last copy takes their place
    dkernel, denter, dleave, djump = others
    return channels_last(_joined(du, batch, length), rows), dkernel, denter, dleave, djump


def _gradients(x: Tensor, cotangents: Tensor, batch: int, *matrices: Tensor) -> list[Tensor]:
    """Of the signal and each matrix."""
    du, *gradients = (z.new_empty(z.shape) for z in (x, *matrices))
    for part in _groups(x):
        signal = x[part].to(_products(x, matrices[0]))
        through_signal = torch.zeros_like(signal)
        for direction in range(len(cotangents)):
            system = System.of(direction, signal.dtype, *(matrix[part] for matrix in matrices))
            cotangent = cotangents[direction, part].to(signal.dtype)
            state = walk(signal @ system.into, system.jump, batch, system.way)
            back = torch.conj_physical(system.jump)
            dentered = walk(cotangent @ system.out.mT, back, batch, -system.way)
            through_signal.baddbmm_(cotangent, system.within.mT)
            through_signal.baddbmm_(dentered, system.into.mT)

            dwithin = signal.mT @ cotangent
            found = (
                from_toeplitz(dwithin.mT if direction else dwithin),
                unpaired(dentered.mT @ signal, direction == 1),
                unpaired(state.mT @ cotangent, direction == 1).mT,
                jump_gradient(dentered, state),
            )
            for gradient, values in zip(gradients, found, strict=True):
                gradient[part, direction] = values
        du[part] = through_signal
    return [du, *gradients]


@_chunked_conv_backward.register_fake
def _(u, kernel, enter, leave, jump, dy, rows=1, triton=False):
    du, *others = (x.new_empty(x.shape) for x in (u, kernel, enter, leave, jump))
    return u.new_empty(u.mT.shape).mT if _in_place(u, rows, triton) else du, *others


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.rows, ctx.triton = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
    with torch.autocast(dy.device.type, enabled=False):
        gradients = _chunked_conv_backward(*ctx.saved_tensors, dy, ctx.rows, ctx.triton)
    return *gradients, None, None


_chunked_conv.register_autograd(_backward, setup_context=_setup_context)


def chunked_conv_flops(batch: int, length: int, dim: int, directions: int, modes: int) -> int:
    """Floating point operations of the products; the walk between chunks is not counted."""
    positions = batch * math.ceil(length / CHUNK) * CHUNK
    return 2 * positions * dim * directions * (CHUNK + 4 * modes)


@register_flop_formula(torch.ops.diffussm.chunked_conv)
def _(u_shape, kernel_shape, enter_shape, leave_shape, jump_shape, *_, **__) -> int:
    batch, length, dim = u_shape
    return chunked_conv_flops(batch, length, dim, kernel_shape[1], jump_shape[3])


@register_flop_formula(torch.ops.diffussm.chunked_conv_backward)
def _(u_shape, kernel_shape, enter_shape, leave_shape, jump_shape, *_, **__) -> int:
    # two products within, five with the states
    batch, length, dim = u_shape
    directions, chunk = kernel_shape[1:]
    positions = batch * math.ceil(length / chunk) * chunk
    return 2 * positions * dim * directions * (2 * chunk + 10 * jump_shape[3])
