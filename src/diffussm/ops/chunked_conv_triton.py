"""Triton kernel of `chunked_conv`, and what `chunked_conv_triton_backward` shares with it.

One program takes one direction of one channel and holds this channel's T, P and Q. A tile has a row
for each of `block` segments, pieces of equal length of as many sequences as fill it. The program
walks over the segments' chunks, all rows abreast: three matrix products a chunk, and the states
stay in registers. So the walk costs no scan. What a segment begins with is found in two moves: a
first walk from a state of zero, which needs P alone, and a scan over segments, once. With one
segment a sequence (many images, short sequences) neither is needed. The second direction is the
same walk over mirrored matrices, from the other end.

Fast layout: channels first, u[b, :, d] adjacent in memory. Such signals are read where they lie,
with any strides of batch and dim, and the answer lies channels first too. Others, and grids that
are read column by column, are copied into that order and back: to use 2 of each 32 bytes that
memory hands out would cost more.

bfloat16 signals meet matrices and states rounded to bfloat16, float16 ones meet them in TF32 (the
states outgrow float16), float32 ones are multiplied as they are; sums and states are float32.
"""

from dataclasses import dataclass
from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from triton import knobs

from diffussm.ops.long_conv import Responses
from diffussm.ops.reading_order import channels_first, channels_last
from diffussm.shapes import Signal

Kernel = Float[Tensor, "dim directions chunk"]
Enter = Float[Tensor, "dim directions parts chunk"]
Leave = Float[Tensor, "dim directions chunk parts"]
Jump = Float[Tensor, "dim directions 2 modes"]

PROGRAMS = 264
"""Programs that fill a large GPU: two on each of 132 multiprocessors."""

MOST_MODES = 64
"""More do not fit the registers."""


@dataclass(frozen=True, kw_only=True)
class Products:
    """How signals of one type are multiplied, in sizes that fit a Hopper GPU's registers."""

    operand: tl.dtype
    """Type of a matrix product's factors."""
    precision: str
    """How factors of float32 are multiplied, `input_precision` of `tl.dot`."""
    block: int
    """Segments that a program walks abreast, a power of two."""
    stages: int
    """Steps of a walk that are in flight."""

    def warps(self, modes: int) -> int:
        """Of a program."""
        return 4 if self.operand == tl.bfloat16 and modes <= 32 else 8


PRODUCTS = {
    torch.bfloat16: Products(operand=tl.bfloat16, precision="tf32", block=64, stages=3),
    torch.float16: Products(operand=tl.float32, precision="tf32", block=32, stages=1),
    torch.float32: Products(operand=tl.float32, precision="ieee", block=16, stages=1),
}

INTERPRETED = tl.constexpr(knobs.runtime.interpret)
"""Whether the kernels below run in Triton's interpreter; `triton.jit` decides it on import."""


def unsupported(u: Tensor, modes: int) -> str | None:
    """Why these kernels cannot take `u` through systems of `modes` modes; None if they can."""
    if u.dtype not in PRODUCTS:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in PRODUCTS)
        return f"it takes {names}, not {str(u.dtype).removeprefix('torch.')}"
    if modes > MOST_MODES:
        return f"it takes at most {MOST_MODES} modes a channel, not {modes}"
    if INTERPRETED.value:
        return None
    if u.device.type != "cuda":
        return f"it runs on a CUDA device, not on {u.device.type}"
    major, minor = torch.cuda.get_device_capability(u.device)
    if major < 8:
        return f"it needs a GPU of compute capability 8.0 or more, not {major}.{minor}"
    return None


def forward(
    u: Signal, kernel: Kernel, enter: Enter, leave: Leave, jump: Jump, rows: int = 1
) -> Responses:
    """`u` through the matrices of `chunked_conv.chunk_matrices`, float32; result of u's type.

    rows    as in `chunked_conv`
    """
    dim, directions, _ = kernel.shape
    x, y = adjacent(u, rows), empty_answer(u, rows, directions, dim)
    tensors = [x, y, *(matrix.contiguous() for matrix in (kernel, enter, leave, jump))]
    cut = plan(u, dim * directions, kernel.shape[2])
    launch(_forward_kernel, dim * directions, cut, u, enter, tensors, (*strides(x), *strides(y)))
    return answer(y, u, rows)


def lies_adjacent(x: Tensor, rows: int) -> bool:
    """Whether each channel's positions lie side by side, in the order in which they are read.

    Where those of `u` do, those of the response and of `u`'s gradient will.
    """
    return rows == 1 and x.stride(1) == 1


def adjacent(x: Tensor, rows: int) -> Tensor:
    """(batch, length, ..., dim) -> (batch, ..., dim, length), the positions side by side."""
    return x.movedim(1, -1) if lies_adjacent(x, rows) else channels_first(x, rows).movedim(-2, 0)


def empty_answer(u: Tensor, rows: int, *dims: int) -> Tensor:
    """Memory for a result that belongs to `u`, (batch, *dims, length), positions side by side."""
    batch, length, _ = u.shape
    if lies_adjacent(u, rows):
        return u.new_empty(batch, *dims, length)
    return u.new_empty(*dims, batch, length).movedim(-2, 0)


def answer(y: Tensor, u: Tensor, rows: int) -> Tensor:
    """An `empty_answer`, filled, in the order of `u`: (batch, length, *dims)."""
    return y.movedim(-1, 1) if lies_adjacent(u, rows) else channels_last(y.movedim(0, -2), rows)


class Cut(NamedTuple):
    """How the walks over a batch of sequences are shared out."""

    segments: int
    """Pieces of a sequence, a power of two."""
    steps: int
    """Chunks of a segment."""
    groups: int
    """Programs to which a system's segments go, those of a sequence to one program."""


def plan(u: Tensor, systems: int, chunk: int) -> Cut:
    """Sequences are cut until they fill a tile, and further while there are too few programs."""
    batch, chunks, block = len(u), triton.cdiv(u.shape[1], chunk), PRODUCTS[u.dtype].block
    segments = 1
    while segments < min(block, chunks) and (
        batch * segments < block or systems * (batch * segments // block) < PROGRAMS
    ):
        segments *= 2
    return Cut(segments, triton.cdiv(chunks, segments), triton.cdiv(batch * segments, block))


def strides(x: Tensor) -> tuple[int, ...]:
    """All but that of the positions, which is 1."""
    return x.stride()[:-1]


def launch(
    kernel,
    systems: int,
    cut: Cut,
    u: Tensor,
    enter: Tensor,
    tensors: list[Tensor],
    strides: tuple[int, ...],
) -> None:
    """Run one of the kernels on `tensors`, a program for each of `systems` and each group."""
    (batch, length, _), (_, directions, parts, chunk) = u.shape, enter.shape
    how, modes = PRODUCTS[u.dtype], parts // 2
    with torch.cuda.device_of(u):
        kernel[systems, cut.groups](
            *tensors, batch, length, modes, cut.steps, *strides,
            DIRECTIONS=directions, CHUNK=chunk, MODES=padded(modes), SEGMENTS=cut.segments,
            BLOCK=how.block, OPERAND=how.operand, PRECISION=how.precision,
            num_warps=how.warps(modes), num_stages=how.stages, enable_fp_fusion=True,
        )  # fmt: skip


def padded(modes: int) -> int:
    """The next power of two, 16 at least: what a matrix product takes."""
    return max(16, triton.next_power_of_2(modes))


@triton.jit
@no_type_check
def _forward_kernel(
    x, y, kernel, enter, leave, jump, batch, length, modes, steps,
    x_batch, x_dim, y_batch, y_direction, y_dim,
    DIRECTIONS: tl.constexpr, CHUNK: tl.constexpr, MODES: tl.constexpr, SEGMENTS: tl.constexpr,
    BLOCK: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    system, direction = tl.program_id(0).to(tl.int64), tl.program_id(0) % DIRECTIONS
    channel = system // DIRECTIONS
    x += channel * x_dim
    y += channel * y_dim + direction * y_direction
    within = toeplitz(kernel + system * CHUNK, direction, CHUNK).to(OPERAND)
    enter += system * 2 * modes * CHUNK
    leave += system * 2 * modes * CHUNK
    into_re = half(enter, 0, CHUNK, 1, modes, direction, CHUNK, MODES).to(OPERAND)
    into_im = half(enter, modes, CHUNK, 1, modes, direction, CHUNK, MODES).to(OPERAND)
    out_re = half(leave, 0, 1, 2 * modes, modes, direction, CHUNK, MODES).to(OPERAND).trans()
    out_im = half(leave, modes, 1, 2 * modes, modes, direction, CHUNK, MODES).to(OPERAND).trans()
    a = pair(jump + system * 2 * modes, 0, modes, MODES)
    b = pair(jump + system * 2 * modes, modes, modes, MODES)
    image, chunk, ahead = segments_of(direction, steps, SEGMENTS, BLOCK)
    source, target = x + image * x_batch, y + image * y_batch
    here = image < batch
    re = tl.zeros([BLOCK, MODES], tl.float32)
    im = tl.zeros([BLOCK, MODES], tl.float32)
    if SEGMENTS > 1:
        for step in range(steps):
            u = tile(source, chunk + step * ahead, length, here, CHUNK).to(OPERAND)
            re, im = advanced(re, im, a, b, u, into_re, into_im, PRECISION)
        re, im = begins(re, im, a, b, steps, SEGMENTS, BLOCK, MODES)
    for step in range(steps):
        u = tile(source, chunk + step * ahead, length, here, CHUNK).to(OPERAND)
        before_re, before_im = re.to(OPERAND), im.to(OPERAND)
        re, im = advanced(re, im, a, b, u, into_re, into_im, PRECISION)
        response = tl.zeros([BLOCK, CHUNK], tl.float32)
        response = product(u, within, response, PRECISION)
        response = product(before_re, out_re, response, PRECISION)
        response = product(before_im, out_im, response, PRECISION)
        keep(target, response, chunk + step * ahead, length, here, CHUNK)


@triton.jit
@no_type_check
def toeplitz(kernel, direction, CHUNK: tl.constexpr):
    """T as a right factor, (from, to)."""
    start, end = tl.arange(0, CHUNK)[:, None], tl.arange(0, CHUNK)[None, :]
    lag = tl.where(direction == 0, end - start, start - end)
    return tl.load(kernel + lag, mask=lag >= 0, other=0.0)


@triton.jit
@no_type_check
def half_pointers(
    matrix, first, mode_stride, place_stride, modes, direction,
    CHUNK: tl.constexpr, MODES: tl.constexpr,
):  # fmt: skip
    """Where real (first = 0) or imaginary parts of P or Q lie, (place, mode), if they exist."""
    place, mode = tl.arange(0, CHUNK)[:, None], tl.arange(0, MODES)[None, :]
    place = tl.where(direction == 0, place, CHUNK - 1 - place)
    return matrix + (first + mode) * mode_stride + place * place_stride, mode < modes


@triton.jit
@no_type_check
def half(
    matrix, first, mode_stride, place_stride, modes, direction,
    CHUNK: tl.constexpr, MODES: tl.constexpr,
):  # fmt: skip
    """Real (first = 0) or imaginary parts of P or Q, (place, mode), of float32."""
    where, exists = half_pointers(
        matrix, first, mode_stride, place_stride, modes, direction, CHUNK, MODES
    )
    return tl.load(where, mask=exists, other=0.0)


@triton.jit
@no_type_check
def pair(jump, first, modes, MODES: tl.constexpr):
    """Real (first = 0) or imaginary parts of z^c, (1, mode)."""
    mode = tl.arange(0, MODES)[None, :]
    return tl.load(jump + first + mode, mask=mode < modes, other=0.0)


@triton.jit
@no_type_check
def segments_of(direction, steps, SEGMENTS: tl.constexpr, BLOCK: tl.constexpr):
    """For each row of the program's tile its image and first chunk; by how much a step leads ahead.

    The second direction's first segment is the last piece of the sequence, padding and all.
    """
    row = tl.arange(0, BLOCK)
    image = (tl.program_id(1) * (BLOCK // SEGMENTS) + row // SEGMENTS).to(tl.int64)
    walked = row % SEGMENTS * steps
    chunk = tl.where(direction == 0, walked, SEGMENTS * steps - 1 - walked)
    return image, chunk, 1 - 2 * direction


@triton.jit
@no_type_check
def tile_pointers(x, chunk, length, here, CHUNK: tl.constexpr):
    position = chunk[:, None] * CHUNK + tl.arange(0, CHUNK)[None, :]
    return x[:, None] + position, (position < length) & here[:, None]


@triton.jit
@no_type_check
def tile(x, chunk, length, here, CHUNK: tl.constexpr):
    """One chunk of each row, (row, place); zeros after the end."""
    where, exists = tile_pointers(x, chunk, length, here, CHUNK)
    return tl.load(where, mask=exists, other=0.0)


@triton.jit
@no_type_check
def keep(y, value, chunk, length, here, CHUNK: tl.constexpr):
    """Write what `tile` would read."""
    where, exists = tile_pointers(y, chunk, length, here, CHUNK)
    tl.store(where, value.to(y.dtype.element_ty), mask=exists)


@triton.jit
@no_type_check
def product(left, right, total, PRECISION: tl.constexpr):
    """total + left right; the factors are of the type OPERAND."""
    if INTERPRETED:  # it would multiply the bits of bfloat16 numbers
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, acc=total, input_precision=PRECISION)


@triton.jit
@no_type_check
def advanced(re, im, a, b, u, into_re, into_im, PRECISION: tl.constexpr):
    """z^c s + P u."""
    turned_re, turned_im = a * re - b * im, a * im + b * re
    re = product(u, into_re, turned_re, PRECISION)
    im = product(u, into_im, turned_im, PRECISION)
    return re, im


@triton.jit
@no_type_check
def power(a, b, exponent):
    """(a + ib)^exponent."""
    re, im = tl.full(a.shape, 1.0, tl.float32), tl.zeros(a.shape, tl.float32)
    for _ in range(exponent):
        re, im = re * a - im * b, re * b + im * a
    return re, im


@triton.jit
@no_type_check
def earlier(x, by, SEGMENTS: tl.constexpr, BLOCK: tl.constexpr, MODES: tl.constexpr):
    """The same of the segment that was walked `by` segments before; zeros where there is none."""
    row = tl.arange(0, BLOCK)[:, None]
    index = tl.broadcast_to(tl.maximum(row - by, 0), [BLOCK, MODES])
    return tl.where(row % SEGMENTS >= by, tl.gather(x, index, 0), 0.0)


@triton.jit
@no_type_check
def begins(re, im, a, b, steps, SEGMENTS: tl.constexpr, BLOCK: tl.constexpr, MODES: tl.constexpr):
    """States at the beginning of each segment from those that a state of zero ends with."""
    a, b = power(a, b, steps)
    re, im = earlier(re, 1, SEGMENTS, BLOCK, MODES), earlier(im, 1, SEGMENTS, BLOCK, MODES)
    reach = 1
    while reach < SEGMENTS:
        told_re = earlier(re, reach, SEGMENTS, BLOCK, MODES)
        told_im = earlier(im, reach, SEGMENTS, BLOCK, MODES)
        re += a * told_re - b * told_im
        im += a * told_im + b * told_re
        a, b, reach = a * a - b * b, 2 * a * b, 2 * reach
    return re, im
