"""A diagonal system cut into chunks as Triton's kernels take it: matrices made beforehand.

What they are is told in `diffussm.ops.chunked_conv`, which makes its own as it goes.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from diffussm.ops.long_conv import Responses
from diffussm.ops.powers import powers, times
from diffussm.ops.reading_order import check_rows, reading_order
from diffussm.shapes import Signal

SystemModes = Float[Tensor, "directions dim modes"]
Skip = Float[Tensor, "directions dim"]

CHUNK = 64
"""Positions a chunk."""

FEW = 2048
"""Positions in a batch, up to which chunks are half as long on a CPU."""


def chunk_for(positions: int) -> int:
    """Positions a chunk: where there are few in all, smaller matrices are made sooner."""
    return CHUNK // 2 if positions <= FEW else CHUNK


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


def chunk_matrices(
    decay: SystemModes, angle: SystemModes, w_re: SystemModes, w_im: SystemModes, chunk: int = CHUNK
) -> Matrices:
    """The matrices of one system or two; arguments as in `chunked_conv`."""
    decay, angle, w_re, w_im = (x.transpose(0, 1) for x in (decay, angle, w_re, w_im))
    re, im = powers(decay, angle, chunk + 1)
    enter = torch.cat([re[..., :-1, :], im[..., :-1, :]], dim=-1).flip(-2).mT
    out_re, out_im = times((2 * w_re[..., None, :], 2 * w_im[..., None, :]), (re, im))
    leave = torch.cat([out_re[..., 1:, :], -out_im[..., 1:, :]], dim=-1)
    jump = torch.stack([re[..., -1, :], im[..., -1, :]], dim=-2)
    return Matrices(out_re[..., :-1, :].sum(-1), enter, leave, jump)


def check(u: Tensor, directions: int, rows: int) -> None:
    """A sentence for what no form takes."""
    if directions not in (1, 2):
        raise ValueError(f"chunked_conv takes one system or two (directions), not {directions}")
    if u.shape[1] == 0:
        raise ValueError("chunked_conv needs a sequence of length 1 or more, not 0")
    check_rows(u.shape[1], rows)


def convolve(u: Signal, matrices: Matrices, rows: int = 1) -> Responses:
    """`chunked_conv` in the kernel of `chunked_conv_triton`, by matrices made before."""
    check(u, matrices.kernel.shape[1], rows)
    with torch.autocast(u.device.type, enabled=False):
        return _convolve(u, *matrices, rows)


def convolve_reference(u: Signal, matrices: Matrices, rows: int = 1) -> Responses:
    """The formulas of `diffussm.ops.chunked_conv`, chunk after chunk."""
    check(u, matrices.kernel.shape[1], rows)
    length, chunk = u.shape[1], matrices.kernel.shape[2]
    order = reading_order(length, rows).to(u.device)
    x = F.pad(u[:, order], (0, 0, 0, -length % chunk))
    responses = []
    for direction in range(matrices.kernel.shape[1]):
        kernel, enter, leave, jump = (matrix[:, direction] for matrix in matrices)
        lag = torch.arange(chunk)[:, None] - torch.arange(chunk)[None, :]
        within = torch.where(lag.to(u.device) >= 0, kernel[:, lag.clamp(min=0)], 0)
        z = torch.complex(jump[:, 0], jump[:, 1])
        state = torch.zeros(len(u), *z.shape, dtype=z.dtype, device=u.device)
        pieces = []
        for piece in (x.flip(1) if direction else x).split(chunk, dim=1):
            left = torch.cat([state.real, state.imag], dim=-1)
            pieces.append(
                torch.einsum("dij,bjd->bid", within, piece)
                + torch.einsum("dip,bdp->bid", leave, left)
            )
            entered = torch.einsum("dpj,bjd->bdp", enter, piece)
            state = z * state + torch.complex(*entered.chunk(2, dim=-1))
        y = torch.cat(pieces, dim=1)
        responses.append((y.flip(1) if direction else y)[:, :length])
    return torch.stack(responses, dim=2)[:, order.argsort()]


@torch.library.custom_op("diffussm::chunked_conv_triton", mutates_args=())
def _convolve(
    u: Tensor, kernel: Tensor, enter: Tensor, leave: Tensor, jump: Tensor, rows: int
) -> Tensor:
    from diffussm.ops.chunked_conv_triton import forward

    return forward(u, kernel, enter, leave, jump, rows)


@_convolve.register_fake
def _(u, kernel, enter, leave, jump, rows):
    batch, length, dim = u.shape
    if _in_place(u, rows):
        return u.new_empty(batch, kernel.shape[1], dim, length).movedim(-1, 1)
    return u.new_empty(batch, length, kernel.shape[1], dim)


def _in_place(u: Tensor, rows: int) -> bool:
    """Whether the kernel reads and writes a signal whose positions are adjacent as it lies."""
    return bool(rows == 1 and u.stride(1) == 1)


@torch.library.custom_op("diffussm::chunked_conv_triton_backward", mutates_args=())
def _convolve_backward(
    u: Tensor,
    kernel: Tensor,
    enter: Tensor,
    leave: Tensor,
    jump: Tensor,
    dy: Tensor,
    rows: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from diffussm.ops.chunked_conv_triton_backward import backward

    return backward(u, kernel, enter, leave, jump, dy, rows)


@_convolve_backward.register_fake
def _(u, kernel, enter, leave, jump, dy, rows):
    du, *others = (x.new_empty(x.shape) for x in (u, kernel, enter, leave, jump))
    return u.new_empty(u.mT.shape).mT if _in_place(u, rows) else du, *others


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.rows = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
    with torch.autocast(dy.device.type, enabled=False):
        return *_convolve_backward(*ctx.saved_tensors, dy, ctx.rows), None


_convolve.register_autograd(_backward, setup_context=_setup_context)


def chunked_conv_flops(
    batch: int, length: int, dim: int, directions: int, modes: int, chunk: int = CHUNK
) -> int:
    """Floating point operations of the products; the walk between chunks is not counted."""
    positions = batch * -(-length // chunk) * chunk
    return 2 * positions * dim * directions * (chunk + 4 * modes)


def chunked_conv_backward_flops(
    batch: int, length: int, dim: int, directions: int, modes: int, chunk: int = CHUNK
) -> int:
    """Two products within, five with the states."""
    positions = batch * -(-length // chunk) * chunk
    return 2 * positions * dim * directions * (2 * chunk + 10 * modes)


@register_flop_formula(torch.ops.diffussm.chunked_conv_triton)
def _(u_shape, kernel_shape, enter_shape, leave_shape, jump_shape, *_, **__) -> int:
    batch, length, dim = u_shape
    return chunked_conv_flops(batch, length, dim, kernel_shape[1], jump_shape[3], kernel_shape[2])


@register_flop_formula(torch.ops.diffussm.chunked_conv_triton_backward)
def _(u_shape, kernel_shape, enter_shape, leave_shape, jump_shape, *_, **__) -> int:
    batch, length, dim = u_shape
    return chunked_conv_backward_flops(
        batch, length, dim, kernel_shape[1], jump_shape[3], kernel_shape[2]
    )
