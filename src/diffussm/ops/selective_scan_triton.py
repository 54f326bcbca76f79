"""Triton kernels for `diffussm.ops.selective_scan`: states stay in registers, each walk is a loop.

    h_t = a_t h_{t-1} + dt_t u_t B_t,   y_t = C_t h_t,     a_t = exp(dt_t A) = 2^(dt_t rates)
    g_t = C_t dy_t + a_{t+1} g_{t+1}                       the gradient of h_t

A program owns an image, BLOCK channels and a chunk of the length, and walks it. Where images and
channels are too few to fill a GPU there are several chunks: each is first walked from nothing, to
learn where it ends; a program then begins where the chunks before it end. Otherwise there is one
chunk, and one walk.

The forward pass keeps the state before each group of positions. The backward pass takes the groups
from the last to the first: it walks a group, keeping every STEPS-th state in scratch memory, then
takes these from the last to the first, computes STEPS states in registers and walks g back over
them. What is kept between the passes grows with the length and the channels, not with the states:
groups are as long as a channel has states, at least. Scratch memory holds one group a program. B
and C are shared by all channels: their gradients are written for each block of channels and summed
afterwards, in the same order every time.

States lie as (state / LANES, channels, LANES): a warp is 8 channels by LANES states, so that sums
over states and sums over channels both cross few threads.

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, section 3.3.
"""

import math
from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

BLOCK = tl.constexpr(32)
"""Channels of a program."""
LANES = tl.constexpr(4)
"""States that lie side by side in a warp."""
STEPS = tl.constexpr(2)
"""Positions whose states a program holds at once."""
LN2 = tl.constexpr(math.log(2))

MIN_GROUP = 32
"""Positions from one kept state to the next, where a channel has no more states than that."""
WARPS = 1024
"""Warps that keep a GPU busy; where there are fewer, the length is cut into chunks."""
MAX_STATE = 256

_INTERPRETED = knobs.runtime.interpret  # what @triton.jit goes by, below


def unsupported(u: Tensor, A: Tensor) -> str | None:
    """Why these kernels cannot take `u` and `A`, if they cannot."""
    if not (u.is_cuda or _INTERPRETED):
        return f"it needs a CUDA device, and u is on {u.device.type!r}"
    if torch.float64 in (u.dtype, A.dtype):
        return "it computes in float32, and u or A is float64"
    if A.shape[1] > MAX_STATE:
        return f"it takes at most {MAX_STATE} states a channel, not {A.shape[1]}"
    return None


# Signals, (batch, length, column), and states, (batch, place, state, dim), come to a kernel as a
# pointer, strides and all sizes but the first. What lies outside is read as 0, and not written.
# No types are checked inside: what runs there are Triton's objects.


@triton.jit
@no_type_check
def _row(x, image, t, column):
    """x_t, in float32."""
    inside = column < tl.where(t < x[4], x[5], 0)
    place = x[0] + x[1] * image + x[2] * t + x[3] * column.to(tl.int64)
    return tl.load(place, mask=inside, other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def _put_row(x, image, t, column, value):
    inside = column < tl.where(t < x[4], x[5], 0)
    place = x[0] + x[1] * image + x[2] * t + x[3] * column.to(tl.int64)
    tl.store(place, value.to(x[0].dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def _rows(x, image, t, column):
    """x_t ... x_{t + STEPS - 1}. After the end all is 0, and dt = 0 leaves a state as it is."""
    rows = ()
    for k in tl.static_range(STEPS):
        rows += (_row(x, image, t + k, column),)
    return rows


@triton.jit
@no_type_check
def _states_of(x, image, place, n, channel):
    """Where states lie, and which of them exist."""
    inside = channel[None, :, None] < tl.where(place < x[5], x[7], 0)
    inside = inside & (n[:, None, :] < x[6])
    start = x[0] + x[1] * image + x[2] * place
    return start + x[3] * n[:, None, :] + x[4] * channel[None, :, None], inside


@triton.jit
@no_type_check
def _states(x, image, place, n, channel):
    place, inside = _states_of(x, image, place, n, channel)
    return tl.load(place, mask=inside, other=0.0)


@triton.jit
@no_type_check
def _put_states(x, image, place, n, channel, value):
    place, inside = _states_of(x, image, place, n, channel)
    tl.store(place, value, mask=inside)


@triton.jit
@no_type_check
def _place(blocks, chunks):
    """Image, chunk and block of channels of this program."""
    program = tl.program_id(0)
    image = (program // (blocks * chunks)).to(tl.int64)
    return image, (program // blocks % chunks).to(tl.int64), program % blocks


@triton.jit
@no_type_check
def _system(rates, block, STATE: tl.constexpr):
    """The states and channels of a program, and their rates."""
    n = tl.arange(0, STATE // LANES)[:, None] + tl.arange(0, LANES)[None, :] * (STATE // LANES)
    channel = block * BLOCK + tl.arange(0, BLOCK)
    return n, channel, _states(rates, 0, 0, n, channel)


@triton.jit
@no_type_check
def _next(h, rates, dt, u, b):
    return tl.exp2(rates * dt[None, :, None]) * h + b[:, None, :] * (dt * u)[None, :, None]


@triton.jit
@no_type_check
def _through(h, ends, spans, image, chunk, rates, n, channel):
    """`h` at the other end of a chunk."""
    decay = tl.exp2(rates * _row(spans, image, chunk, channel)[None, :, None])
    return decay * h + _states(ends, image, chunk, n, channel)


@triton.jit
@no_type_check
def _over_states(x):
    return tl.sum(tl.sum(x, 0), 1)


@triton.jit
@no_type_check
def _ends_kernel(
    x, dt, rates, mixing, ends, spans, blocks, chunks, size,
    WAY: tl.constexpr, STATE: tl.constexpr,
):  # fmt: skip
    """Where each chunk of `size` positions ends from nothing, and the sum of its dt.

    WAY 1, with u and B: h of its last position. WAY -1, with dy and C: a_t g_t of its first.
    """
    image, chunk, block = _place(blocks, chunks)
    n, channel, rates = _system(rates, block, STATE)
    h = tl.zeros_like(rates)
    span = tl.zeros([BLOCK], tl.float32)
    for i in range(0, size, STEPS):
        for k in tl.static_range(STEPS):
            t = chunk * size + (i + k if WAY > 0 else size - 1 - i - k)
            step, row = _row(dt, image, t, channel), _row(x, image, t, channel)
            weights = _row(mixing, image, t, n)
            if WAY > 0:
                h = _next(h, rates, step, row, weights)
            else:
                g = h + weights[:, None, :] * row[None, :, None]
                h = tl.exp2(rates * step[None, :, None]) * g
            span += step
    _put_states(ends, image, chunk, n, channel, h)
    _put_row(spans, image, chunk, channel, span)


@triton.jit
@no_type_check
def _forward_kernel(
    u, dt, rates, B, C, y, begins, ends, spans, blocks, chunks, size,
    GROUP: tl.constexpr, STATE: tl.constexpr,
):  # fmt: skip
    image, chunk, block = _place(blocks, chunks)
    n, channel, rates = _system(rates, block, STATE)
    h = tl.zeros_like(rates)
    for before in range(chunk):
        h = _through(h, ends, spans, image, before, rates, n, channel)
    for i in range(0, size, GROUP):
        start = chunk * size + i
        _put_states(begins, image, start // GROUP, n, channel, h)
        for t in range(start, tl.minimum(start + GROUP, u[4]), STEPS):
            steps, inputs = _rows(dt, image, t, channel), _rows(u, image, t, channel)
            b, c = _rows(B, image, t, n), _rows(C, image, t, n)
            for k in tl.static_range(STEPS):
                h = _next(h, rates, steps[k], inputs[k], b[k])
                _put_row(y, image, t + k, channel, _over_states(h * c[k][:, None, :]))


@triton.jit
@no_type_check
def _backward_kernel(
    u, dt, rates, B, C, dy, du, ddt, dA, dB, dC, begins, scratch, ends, spans,
    blocks, chunks, size, GROUP: tl.constexpr, STATE: tl.constexpr,
):  # fmt: skip
    """dA comes for each image and chunk, as of the rates; dB and dC for each image and block."""
    image, chunk, block = _place(blocks, chunks)
    n, channel, rates = _system(rates, block, STATE)
    program, mine = tl.program_id(0).to(tl.int64), image * blocks + block
    drates, later = tl.zeros_like(rates), tl.zeros_like(rates)  # later: a_{t+1} g_{t+1}
    for i in range(chunks - 1 - chunk):
        later = _through(later, ends, spans, image, chunks - 1 - i, rates, n, channel)
    for i in range(0, size, GROUP):
        start = (chunk + 1) * size - GROUP - i
        slots = tl.cdiv(tl.minimum(u[4] - start, GROUP), STEPS)
        h = _states(begins, image, start // GROUP, n, channel)
        tl.debug_barrier()  # some threads may still read scratch
        for slot in range(slots):
            t = start + slot * STEPS
            _put_states(scratch, program, slot, n, tl.arange(0, BLOCK), h)
            steps, inputs = _rows(dt, image, t, channel), _rows(u, image, t, channel)
            b = _rows(B, image, t, n)
            for k in tl.static_range(STEPS):
                h = _next(h, rates, steps[k], inputs[k], b[k])
        tl.debug_barrier()
        for j in range(slots):
            slot = slots - 1 - j
            t = start + slot * STEPS
            steps, inputs = _rows(dt, image, t, channel), _rows(u, image, t, channel)
            b, c = _rows(B, image, t, n), _rows(C, image, t, n)
            douts = _rows(dy, image, t, channel)
            states = (_states(scratch, program, slot, n, tl.arange(0, BLOCK)),)
            for k in tl.static_range(STEPS):
                states += (_next(states[k], rates, steps[k], inputs[k], b[k]),)
            for k in tl.static_range(STEPS - 1, -1, -1):
                step, driven = steps[k][None, :, None], (steps[k] * inputs[k])[None, :, None]
                dout = douts[k][None, :, None]
                g = later + c[k][:, None, :] * dout
                later = tl.exp2(rates * step) * g
                through_decay = later * states[k]  # the gradient of dt A
                through_input = _over_states(g * b[k][:, None, :])  # and of dt u
                drates += through_decay * step
                dstep = through_input * inputs[k] + LN2 * _over_states(through_decay * rates)
                _put_row(ddt, image, t + k, channel, dstep)
                _put_row(du, image, t + k, channel, through_input * steps[k])
                _put_row(dB, mine, t + k, n, tl.sum(g * driven, 1))
                _put_row(dC, mine, t + k, n, tl.sum(states[k + 1] * dout, 1))
    _put_states(dA, image, chunk, n, channel, drates)


class _Cut(NamedTuple):
    """How a scan is spread over programs."""

    blocks: int
    """of channels"""
    chunks: int
    """of the length"""
    size: int
    """Positions of a chunk."""
    group: int
    """Positions from one kept state to the next."""
    state: int
    """States of a channel, filled up to a power of two."""
    programs: int
    warps: int
    """of a program"""


def _cut(u: Tensor, A: Tensor) -> _Cut:
    # whole numbers: a compiler's symbolic sizes become the sizes at hand
    batch, length, dim = (int(size) for size in u.shape)
    state = max(LANES.value, triton.next_power_of_2(int(A.shape[1])))
    group = max(MIN_GROUP, state)
    warps = min(max(1, BLOCK.value * state // 512), 8)  # 16 states a thread; more, of many
    blocks = triton.cdiv(dim, BLOCK.value)
    groups = triton.cdiv(length, group)
    chunks = max(1, min(groups, WARPS // (batch * blocks * warps)))
    size = triton.cdiv(groups, chunks) * group
    chunks = triton.cdiv(length, size)
    return _Cut(blocks, chunks, size, group, state, batch * blocks * chunks, warps)


def _launch(kernel, cut: _Cut, tensors: list[Tensor], **constants: int) -> None:
    views = [(x, *x.stride(), *x.shape[1:]) for x in tensors]
    kernel[(cut.programs,)](
        *views,
        cut.blocks,
        cut.chunks,
        cut.size,
        STATE=cut.state,
        num_warps=cut.warps,
        enable_fp_fusion=True,  # later versions of Triton multiply and add apart unless asked
        **constants,
    )


def _rates(A: Tensor) -> Tensor:
    """(1, 1, state, dim), its channels side by side as those of all states."""
    return (A.float() / math.log(2)).T.contiguous()[None, None]


def _ends(
    cut: _Cut, x: Tensor, dt: Tensor, rates: Tensor, mixing: Tensor, way: int
) -> list[Tensor]:
    """What `_ends_kernel` learns of each chunk; nothing where there is one."""
    ends = rates.new_empty(len(x), cut.chunks, *rates.shape[2:])
    spans = rates.new_empty(len(x), cut.chunks, x.shape[2])
    if cut.chunks > 1:
        _launch(_ends_kernel, cut, [x, dt, rates, mixing, ends, spans], WAY=way)
    return [ends, spans]


def _contiguous_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def begins_shape(u: Tensor, A: Tensor) -> tuple[int | torch.SymInt, ...]:
    """Of the states that `forward` keeps: (batch, groups, state, dim)."""
    groups = triton.cdiv(int(u.shape[1]), _cut(u, A).group)
    return len(u), groups, *A.T.shape


def forward(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """y, and the states that `backward` begins from."""
    cut, rates = _cut(u, A), _rates(A)
    y, begins = _contiguous_like(u), rates.new_empty(begins_shape(u, A))
    with torch.cuda.device_of(u):
        ends = _ends(cut, u, dt, rates, B, 1)
        tensors = [u, dt, rates, B, C, y, begins, *ends]
        _launch(_forward_kernel, cut, tensors, GROUP=cut.group)
    return y, begins


def backward(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, begins: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of u, dt, A, B and C."""
    du, ddt, dA = (_contiguous_like(x) for x in (u, dt, A))
    dB, dC = (torch.zeros_like(x, dtype=torch.float32) for x in (B, C))
    dim, state = A.shape
    # channels so many at once that dB and dC of all their blocks are no more numbers than u
    width = BLOCK.value * max(1, dim // (2 * state))
    with torch.cuda.device_of(u):
        for first in range(0, dim, width):
            part = slice(first, first + width)
            signals = [x[..., part] for x in (u, dt, begins, dy, du, ddt)]
            dA[part], b, c = _backward_part(A[part], B, C, *signals)
            dB += b
            dC += c
    return du, ddt, dA, dB.to(B.dtype), dC.to(C.dtype)


def _backward_part(
    A: Tensor,
    B: Tensor,
    C: Tensor,
    u: Tensor,
    dt: Tensor,
    begins: Tensor,
    dy: Tensor,
    du: Tensor,
    ddt: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Fill du and ddt of some channels; their dA, and what they add to dB and dC."""
    cut, rates = _cut(u, A), _rates(A)
    batch, length = u.shape[:2]
    dA = rates.new_empty(batch, cut.chunks, *rates.shape[2:])
    dB, dC = rates.new_empty(2, batch * cut.blocks, length, A.shape[1])
    slots = triton.cdiv(min(cut.group, length), STEPS.value)
    scratch = rates.new_empty(cut.programs, slots, cut.state, BLOCK.value)
    ends = _ends(cut, dy, dt, rates, C, -1)
    tensors = [u, dt, rates, B, C, dy, du, ddt, dA, dB, dC, begins, scratch, *ends]
    _launch(_backward_kernel, cut, tensors, GROUP=cut.group)
    dB, dC = (x.unflatten(0, (batch, cut.blocks)).sum(1) for x in (dB, dC))
    return dA.sum((0, 1)).T, dB, dC
