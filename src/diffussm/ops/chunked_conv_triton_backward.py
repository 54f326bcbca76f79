"""Triton kernel of the gradients of `chunked_conv`; layouts and types as in `chunked_conv_triton`.

One program takes one channel, one direction after the other, in two walks. With dy the gradient of
the response and q = dy Q, that of the state before a chunk through the chunk's own response:

    with time       s <- z^c s + P u                 dT = sum u dy,  dQ = sum dy s
                    t <- z^c t + s                   dz^c = sum conj(t) q
    against time    g <- conj(z^c) g + q             dP = sum g u,   du = T' dy + P' g

Here s is the state before a chunk, t its derivative by z^c, and g the gradient of what enters in a
chunk. Neither walk needs the other's states, so none are kept: what autograd saves is the inputs,
and everything else stays in registers. Sums over images and chunks are sums of matrix products.
The second direction adds its du to the first one's, in memory that the same program wrote.

Where a channel's segments are shared out among several programs, each writes sums of its own, and
these are added in the end, in one order: no atomic additions, so the same numbers at each call.
"""

from typing import no_type_check

import triton
import triton.language as tl
from torch import Tensor

from diffussm.ops.chunked_conv_triton import (
    Enter,
    Jump,
    Kernel,
    Leave,
    adjacent,
    advanced,
    answer,
    begins,
    earlier,
    empty_answer,
    half,
    half_pointers,
    keep,
    launch,
    pair,
    plan,
    product,
    segments_of,
    strides,
    tile,
    tile_pointers,
    toeplitz,
)
from diffussm.ops.long_conv import Responses
from diffussm.shapes import Signal


def backward(
    u: Signal,
    kernel: Kernel,
    enter: Enter,
    leave: Leave,
    jump: Jump,
    dy: Responses,
    rows: int = 1,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of what `forward` takes, like it in shape and type, from that of its result."""
    dim, _, chunk = kernel.shape
    x, dx, cotangent = adjacent(u, rows), empty_answer(u, rows, dim), adjacent(dy, rows)
    matrices = [matrix.contiguous() for matrix in (kernel, enter, leave, jump)]
    cut = plan(u, dim, chunk)
    sums = [matrix.new_empty(cut.groups, *matrix.shape) for matrix in matrices]
    tensors = [x, cotangent, dx, *matrices, *sums]
    lies = (*strides(x), *strides(cotangent), *strides(dx))
    launch(_backward_kernel, dim, cut, u, enter, tensors, lies)
    dkernel, denter, dleave, djump = (total.sum(0) for total in sums)
    return answer(dx, u, rows), dkernel, denter, dleave, djump


@triton.jit
@no_type_check
def _backward_kernel(
    x, dy, dx, kernel, enter, leave, jump, dkernel, denter, dleave, djump,
    batch, length, modes, steps,
    x_batch, x_dim, dy_batch, dy_direction, dy_dim, dx_batch, dx_dim,
    DIRECTIONS: tl.constexpr, CHUNK: tl.constexpr, MODES: tl.constexpr, SEGMENTS: tl.constexpr,
    BLOCK: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    for turn in tl.range(2 * DIRECTIONS, disable_licm=True):
        direction, channel = turn // 2, tl.program_id(0).to(tl.int64)
        system = channel * DIRECTIONS + direction
        partial = tl.program_id(1) * tl.num_programs(0) * DIRECTIONS + system
        both = 2 * modes * CHUNK
        if turn % 2 == 0:
            _with_time(
                x + channel * x_dim, dy + channel * dy_dim + direction * dy_direction,
                enter + system * both, leave + system * both, jump + system * 2 * modes,
                dleave + partial * both, djump + partial * 2 * modes,
                direction, batch, length, modes, steps, x_batch, dy_batch,
                CHUNK, MODES, SEGMENTS, BLOCK, OPERAND, PRECISION,
            )  # fmt: skip
        else:
            _against_time(
                x + channel * x_dim, dy + channel * dy_dim + direction * dy_direction,
                dx + channel * dx_dim, kernel + system * CHUNK,
                enter + system * both, leave + system * both, jump + system * 2 * modes,
                dkernel + partial * CHUNK, denter + partial * both,
                direction, batch, length, modes, steps, x_batch, dy_batch, dx_batch,
                CHUNK, MODES, SEGMENTS, BLOCK, OPERAND, PRECISION,
            )  # fmt: skip
        tl.debug_barrier()  # the next direction reads what other threads wrote of dx


@triton.jit
@no_type_check
def _with_time(
    x, dy, enter, leave, jump, dleave, djump,
    direction, batch, length, modes, steps, x_batch, dy_batch,
    CHUNK: tl.constexpr, MODES: tl.constexpr, SEGMENTS: tl.constexpr, BLOCK: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of Q and z^c."""
    into_re = half(enter, 0, CHUNK, 1, modes, direction, CHUNK, MODES).to(OPERAND)
    into_im = half(enter, modes, CHUNK, 1, modes, direction, CHUNK, MODES).to(OPERAND)
    out_re = half(leave, 0, 1, 2 * modes, modes, direction, CHUNK, MODES).to(OPERAND)
    out_im = half(leave, modes, 1, 2 * modes, modes, direction, CHUNK, MODES).to(OPERAND)
    a, b = pair(jump, 0, modes, MODES), pair(jump, modes, modes, MODES)
    dout_re = tl.zeros([CHUNK, MODES], tl.float32)
    dout_im = tl.zeros([CHUNK, MODES], tl.float32)
    da = tl.zeros([BLOCK, MODES], tl.float32)
    db = tl.zeros([BLOCK, MODES], tl.float32)
    none = tl.zeros([BLOCK, MODES], tl.float32)
    image, chunk, ahead = segments_of(direction, steps, SEGMENTS, BLOCK)
    source, cotangent, here = x + image * x_batch, dy + image * dy_batch, image < batch
    re, im, t_re, t_im = none, none, none, none
    if SEGMENTS > 1:
        for step in range(steps):
            u = tile(source, chunk + step * ahead, length, here, CHUNK).to(OPERAND)
            t_re, t_im = a * t_re - b * t_im + re, a * t_im + b * t_re + im
            re, im = advanced(re, im, a, b, u, into_re, into_im, PRECISION)
        re, im, t_re, t_im = _begins(
            re, im, t_re, t_im, a, b, steps, SEGMENTS, BLOCK, MODES
        )  # fmt: skip
    for step in range(steps):
        u = tile(source, chunk + step * ahead, length, here, CHUNK).to(OPERAND)
        g = tile(cotangent, chunk + step * ahead, length, here, CHUNK).to(OPERAND)
        before_re, before_im = re.to(OPERAND), im.to(OPERAND)
        q = product(g, out_re, none, PRECISION)
        da += q * t_re
        db -= q * t_im
        q = product(g, out_im, none, PRECISION)
        da += q * t_im
        db += q * t_re
        t_re, t_im = a * t_re - b * t_im + re, a * t_im + b * t_re + im
        re, im = advanced(re, im, a, b, u, into_re, into_im, PRECISION)
        dout_re = product(g.trans(), before_re, dout_re, PRECISION)
        dout_im = product(g.trans(), before_im, dout_im, PRECISION)
    _keep_halves(dleave, dout_re, dout_im, 1, 2 * modes, modes, direction, CHUNK, MODES)
    mode = tl.arange(0, MODES)
    tl.store(djump + mode, tl.sum(da, 0), mask=mode < modes)
    tl.store(djump + modes + mode, tl.sum(db, 0), mask=mode < modes)


@triton.jit
@no_type_check
def _against_time(
    x, dy, dx, kernel, enter, leave, jump, dkernel, denter,
    direction, batch, length, modes, steps, x_batch, dy_batch, dx_batch,
    CHUNK: tl.constexpr, MODES: tl.constexpr, SEGMENTS: tl.constexpr, BLOCK: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of u, K and P."""
    within = toeplitz(kernel, 1 - direction, CHUNK).to(OPERAND)
    into_re = half(enter, 0, CHUNK, 1, modes, direction, CHUNK, MODES).to(OPERAND).trans()
    into_im = half(enter, modes, CHUNK, 1, modes, direction, CHUNK, MODES).to(OPERAND).trans()
    out_re = half(leave, 0, 1, 2 * modes, modes, direction, CHUNK, MODES).to(OPERAND)
    out_im = half(leave, modes, 1, 2 * modes, modes, direction, CHUNK, MODES).to(OPERAND)
    a, b = pair(jump, 0, modes, MODES), -pair(jump, modes, modes, MODES)
    dwithin = tl.zeros([CHUNK, CHUNK], tl.float32)
    dinto_re = tl.zeros([CHUNK, MODES], tl.float32)
    dinto_im = tl.zeros([CHUNK, MODES], tl.float32)
    image, chunk, ahead = segments_of(1 - direction, steps, SEGMENTS, BLOCK)
    source, cotangent, here = x + image * x_batch, dy + image * dy_batch, image < batch
    target = dx + image * dx_batch
    re = tl.zeros([BLOCK, MODES], tl.float32)
    im = tl.zeros([BLOCK, MODES], tl.float32)
    if SEGMENTS > 1:
        for step in range(steps):
            g = tile(cotangent, chunk + step * ahead, length, here, CHUNK).to(OPERAND)
            re, im = advanced(re, im, a, b, g, out_re, out_im, PRECISION)
        re, im = begins(re, im, a, b, steps, SEGMENTS, BLOCK, MODES)
    for step in range(steps):
        u = tile(source, chunk + step * ahead, length, here, CHUNK).to(OPERAND)
        g = tile(cotangent, chunk + step * ahead, length, here, CHUNK).to(OPERAND)
        before_re, before_im = re.to(OPERAND), im.to(OPERAND)
        re, im = advanced(re, im, a, b, g, out_re, out_im, PRECISION)
        dwithin = product(u.trans(), g, dwithin, PRECISION)
        dinto_re = product(u.trans(), before_re, dinto_re, PRECISION)
        dinto_im = product(u.trans(), before_im, dinto_im, PRECISION)
        where, exists = tile_pointers(target, chunk + step * ahead, length, here, CHUNK)
        told = tl.load(where, mask=exists & (direction > 0), other=0.0).to(tl.float32)
        told = product(g, within, told, PRECISION)
        told = product(before_re, into_re, told, PRECISION)
        told = product(before_im, into_im, told, PRECISION)
        keep(target, told, chunk + step * ahead, length, here, CHUNK)
    tl.store(dkernel + tl.arange(0, CHUNK), _along_diagonals(dwithin, direction, CHUNK))
    _keep_halves(denter, dinto_re, dinto_im, CHUNK, 1, modes, direction, CHUNK, MODES)


@triton.jit
@no_type_check
def _keep_halves(
    matrix, re, im, mode_stride, place_stride, modes, direction,
    CHUNK: tl.constexpr, MODES: tl.constexpr,
):  # fmt: skip
    """Write what `half` would read."""
    where, exists = half_pointers(
        matrix, 0, mode_stride, place_stride, modes, direction, CHUNK, MODES
    )
    tl.store(where, re, mask=exists)
    tl.store(where + modes * mode_stride, im, mask=exists)


@triton.jit
@no_type_check
def _along_diagonals(within, direction, CHUNK: tl.constexpr):
    """The gradient of K from that of T: for each lag the sum over (from, to) that far apart."""
    lag, end = tl.arange(0, CHUNK)[:, None], tl.arange(0, CHUNK)[None, :]
    start = tl.where(direction == 0, end - lag, end + lag)
    exists = (start >= 0) & (start < CHUNK)
    return tl.sum(tl.where(exists, tl.gather(within, tl.where(exists, start, 0), 0), 0.0), 1)


@triton.jit
@no_type_check
def _begins(
    re, im, t_re, t_im, a, b, steps,
    SEGMENTS: tl.constexpr, BLOCK: tl.constexpr, MODES: tl.constexpr,
):  # fmt: skip
    """`begins` for s and t. A segment is s <- A s + ..., t <- A t + A' s + ..., A = z^(c steps)."""
    base_re, base_im = a, b
    a, b = tl.full(a.shape, 1.0, tl.float32), tl.zeros(a.shape, tl.float32)
    da, db = b, b
    for _ in range(steps):
        da, db = da * base_re - db * base_im + a, da * base_im + db * base_re + b
        a, b = a * base_re - b * base_im, a * base_im + b * base_re
    re, im = earlier(re, 1, SEGMENTS, BLOCK, MODES), earlier(im, 1, SEGMENTS, BLOCK, MODES)
    t_re, t_im = earlier(t_re, 1, SEGMENTS, BLOCK, MODES), earlier(t_im, 1, SEGMENTS, BLOCK, MODES)
    reach = 1
    while reach < SEGMENTS:
        s_re = earlier(re, reach, SEGMENTS, BLOCK, MODES)
        s_im = earlier(im, reach, SEGMENTS, BLOCK, MODES)
        told_re = earlier(t_re, reach, SEGMENTS, BLOCK, MODES)
        told_im = earlier(t_im, reach, SEGMENTS, BLOCK, MODES)
        t_re += a * told_re - b * told_im + da * s_re - db * s_im
        t_im += a * told_im + b * told_re + da * s_im + db * s_re
        re += a * s_re - b * s_im
        im += a * s_im + b * s_re
        da, db = 2 * (a * da - b * db), 2 * (a * db + b * da)
        a, b, reach = a * a - b * b, 2 * a * b, 2 * reach
    return re, im, t_re, t_im
