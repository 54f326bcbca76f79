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
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from diffussm.ops.long_conv import Responses, long_conv_reference
from diffussm.ops.reading_order import channels_first, channels_last, check_rows
from diffussm.ops.vandermonde import vandermonde_reference
from diffussm.shapes import Signal

Modes = Float[Tensor, "directions dim modes"]

CHUNK = 64
"""Positions a chunk."""

AT_ONCE = 2**19
"""Numbers that are worked on together: what a processor's cache holds."""


class Matrices(NamedTuple):
    """A system cut into chunks; each direction in the order of a forward one."""

    kernel: Float[Tensor, "dim directions chunk"]
    """K_0 to K_(c-1), of which T is made."""
    enter: Float[Tensor, "dim directions parts chunk"]
    """P, real parts of the modes above imaginary ones."""
    leave: Float[Tensor, "dim directions chunk parts"]
    """Q, doubled, the imaginary parts' sign turned: y = Q s is real."""
    jump: Float[Tensor, "dim directions 2 modes"]
    """z^c, real part and imaginary part."""


def chunked_conv(
    u: Signal, decay: Modes, angle: Modes, w_re: Modes, w_im: Modes, rows: int = 1
) -> Responses:
    """`u` through one diagonal system (forward) or two (forward, backward); differentiable in all.

    decay, angle    log |z|, at most 0, and arg z in radians
    w_re, w_im      the modes' weights
    rows            as in `long_conv`
    Computed in float32 (float64 for float64 input) whatever autocast says; the result has the type
    of `u`. Raises ValueError for a length of 0 or more than two directions.
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


def chunk_matrices(
    decay: Modes, angle: Modes, w_re: Modes, w_im: Modes, chunk: int | None = None
) -> Matrices:
    """The matrices of one system or two, for chunks of CHUNK positions unless told."""
    chunk = CHUNK if chunk is None else chunk
    decay, angle, w_re, w_im = (x.transpose(0, 1) for x in (decay, angle, w_re, w_im))
    exponents = torch.arange(chunk + 1, dtype=decay.dtype, device=decay.device)
    size, turn = torch.exp(decay[..., None] * exponents), angle[..., None] * exponents
    re, im = size * torch.cos(turn), size * torch.sin(turn)
    enter = torch.cat([re[..., :-1], im[..., :-1]], dim=-2).flip(-1)
    w_re, w_im = 2 * w_re[..., None], 2 * w_im[..., None]
    out_re, out_im = w_re * re - w_im * im, w_re * im + w_im * re
    leave = torch.cat([out_re[..., 1:], -out_im[..., 1:]], dim=-2).mT
    jump = torch.stack([re[..., -1], im[..., -1]], dim=-2)
    return Matrices(out_re[..., :-1].sum(-2), enter, leave, jump)


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


def _cut(x: Tensor, chunk: int) -> Tensor:
    """(..., batch, length) -> (..., batch chunks, chunk), zeros after the end."""
    missing = -x.shape[-1] % chunk
    x = F.pad(x, (0, missing)) if missing else x
    return x.unflatten(-1, (-1, chunk)).flatten(-3, -2)


def _joined(y: Tensor, batch: int, length: int) -> Tensor:
    """The way back from `_cut`."""
    return y.unflatten(-2, (batch, -1)).flatten(-2)[..., :length]


def _toeplitz(kernel: Tensor) -> Tensor:
    """T turned over, (..., chunk) -> (..., chunk, chunk): K_(i-j) in row j and column i."""
    chunk = kernel.shape[-1]
    return F.pad(kernel, (chunk - 1, 0)).unfold(-1, chunk, 1).flip(-2)


def _from_toeplitz(grad: Tensor) -> Tensor:
    """The gradient of a kernel from that of its `_toeplitz`: sums along the diagonals."""
    chunk = grad.shape[-1]
    skewed = F.pad(grad.mT.flip(-1), (0, chunk)).flatten(-2)[..., : chunk * (2 * chunk - 1)]
    return skewed.unflatten(-1, (chunk, -1)).sum(-2)[..., chunk - 1 :]


def _paired(parts: Tensor, from_end: bool) -> Tensor:
    """(dim, parts, chunk), each mode's two parts side by side; reversed for a walk from the end."""
    pairs = parts.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
    return pairs.flip(-1) if from_end else pairs


def _unpaired(pairs: Tensor, from_end: bool) -> Tensor:
    """The way back from `_paired`."""
    pairs = pairs.flip(-1) if from_end else pairs
    return pairs.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)


def _walk(entered: Tensor, jump: Tensor, batch: int, way: int) -> Tensor:
    """States before each chunk, of what enters in each (used up); way -1: from the end.

    entered    (dim, batch chunks, modes 2)
    jump       (dim, modes), complex

    The chunks are grouped, about as many in a group as there are groups: first all groups walk
    side by side, each from nothing; then the states walk from group to group, and are added.
    """
    z = torch.view_as_complex(entered.unflatten(-1, (-1, 2))).unflatten(1, (batch, -1))
    count = z.shape[2]
    span = 2 ** math.ceil(math.log2(count) / 2)
    missing = (0, -count % span)
    z = F.pad(z, (0, 0, *missing[::way])) if any(missing) else z
    z = z.unflatten(2, (-1, span))  # dim, batch, groups, span, modes
    for near, far in pairwise(range(span)[::way]):
        z[:, :, :, far].addcmul_(jump[:, None, None], z[:, :, :, near])

    powers = jump[:, None].expand(-1, span, -1).cumprod(1)[:, None, None]
    before = torch.zeros_like(z[:, :, :, 0])
    first, last = range(span)[::way][0], range(span)[::way][-1]
    for near, far in pairwise(range(z.shape[2])[::way]):
        reached = torch.addcmul(z[:, :, near, last], powers[:, 0, :, -1], before[:, :, near])
        before[:, :, far] = reached
    ahead, behind = (slice(1, None), slice(None, -1))[::way]
    powers = powers[:, :, :, :-1] if way == 1 else powers[:, :, :, :-1].flip(3)
    state = torch.empty_like(z)
    state[:, :, :, first] = before
    state[:, :, :, ahead] = torch.addcmul(z[:, :, :, behind], powers, before[:, :, :, None])
    state = state.flatten(2, 3)
    state = state[:, :, :count] if way == 1 else state[:, :, -count:]
    return torch.view_as_real(state.contiguous()).flatten(-2).flatten(1, 2)


class _System(NamedTuple):
    """One direction of a few channels, as what stands to the right of rows of chunks."""

    within: Tensor
    into: Tensor
    out: Tensor
    jump: Tensor
    way: int

    @classmethod
    def of(cls, direction: int, *matrices: Tensor) -> "_System":
        kernel, enter, leave, jump = (x[:, direction] for x in matrices)
        within = _toeplitz(kernel)
        return cls(
            within.mT if direction else within,
            _paired(enter, direction == 1).mT,
            _paired(leave.mT, direction == 1),
            torch.complex(jump[:, 0], jump[:, 1]),
            -1 if direction else 1,
        )


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
        signal = x[part].to(matrices[0].dtype)
        for direction in range(directions):
            system = _System.of(direction, *(matrix[part] for matrix in matrices))
            state = _walk(signal @ system.into, system.jump, batch, system.way)
            y[direction, part] = (signal @ system.within).baddbmm_(state, system.out)
    return y


@_chunked_conv.register_fake
def _(u, kernel, enter, leave, jump, rows=1, triton=False):
    batch, length, dim = u.shape
    return u.new_empty(batch, length, kernel.shape[1], dim)


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
        from diffussm.ops.chunked_conv_triton import backward

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
        signal = x[part].to(matrices[0].dtype)
        through_signal = torch.zeros_like(signal)
        for direction in range(len(cotangents)):
            system = _System.of(direction, *(matrix[part] for matrix in matrices))
            cotangent = cotangents[direction, part].to(signal.dtype)
            state = _walk(signal @ system.into, system.jump, batch, system.way)
            back = torch.conj_physical(system.jump)
            dentered = _walk(cotangent @ system.out.mT, back, batch, -system.way)
            through_signal.baddbmm_(cotangent, system.within.mT)
            through_signal.baddbmm_(dentered, system.into.mT)

            dwithin = signal.mT @ cotangent
            found = (
                _from_toeplitz(dwithin.mT if direction else dwithin),
                _unpaired(dentered.mT @ signal, direction == 1),
                _unpaired(state.mT @ cotangent, direction == 1).mT,
                _djump(dentered, state),
            )
            for gradient, values in zip(gradients, found, strict=True):
                gradient[part, direction] = values
        du[part] = through_signal
    return [du, *gradients]


@_chunked_conv_backward.register_fake
def _(u, kernel, enter, leave, jump, dy, rows=1, triton=False):
    return tuple(x.new_empty(x.shape) for x in (u, kernel, enter, leave, jump))


def _djump(dentered: Tensor, state: Tensor) -> Tensor:
    """The gradient of z^c: that of what it gives times what it is given, over all chunks."""
    pairs = (torch.view_as_complex(x.unflatten(-1, (-1, 2))) for x in (state, dentered))
    product = torch.linalg.vecdot(*pairs, dim=1)
    return torch.stack([product.real, product.imag], dim=1)


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
