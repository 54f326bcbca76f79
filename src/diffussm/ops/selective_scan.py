"""A state space model whose step, input and output depend on the input, as a scan.

    h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t,    y_t = C_t h_t          h: dim x state numbers

There is no kernel: the system differs from position to position. `selective_scan` computes the
recurrence in groups of positions. Within a group all decays and inputs are made at once, and K
chunks of it walk side by side: first from nothing, to learn where each ends; then, each from its
predecessor's end, to the states themselves. Only the states at the groups' beginnings are kept;
the backward pass computes the others again, so memory stays linear in length, without the factor
`state`. Decays are only ever multiplied, never divided: no dt, however large, overflows.

`selective_scan_reference` is the recurrence as written.

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, section 3 and
algorithm 2.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from diffussm.shapes import Signal

Decays = Float[Tensor, "dim state"]
Mixing = Float[Tensor, "batch length state"]

BUFFER = {"cpu": 2**20, "cuda": 2**27}
"""Numbers in a group's buffer: cache on a CPU, few launches on a GPU."""
LANES = {"cpu": 2**14, "cuda": 2**21}
"""Numbers that one step of all chunks should touch at least."""
FEWEST = 16
"""Positions of a group, at least."""


def selective_scan(u: Signal, dt: Signal, A: Decays, B: Mixing, C: Mixing) -> Signal:
    """y of the recurrence above, from a zero state; differentiable in everything.

    dt    step sizes, at least 0              A    at most 0
    Computed in float32 (float64 for float64 input) whatever autocast says; y has u's type.
    Raises ValueError for an empty sequence or arguments of different sizes.
    """
    _check(u, dt, A, B, C)
    return _selective_scan(u, dt, A, B, C)[0]


def selective_scan_reference(u: Signal, dt: Signal, A: Decays, B: Mixing, C: Mixing) -> Signal:
    _check(u, dt, A, B, C)
    h, y = torch.zeros(len(u), *A.shape, dtype=u.dtype), []
    for t in range(u.shape[1]):
        decay = torch.exp(dt[:, t, :, None] * A)
        h = decay * h + (dt[:, t] * u[:, t])[..., None] * B[:, t, None]
        y.append((h * C[:, t, None]).sum(-1))
    return torch.stack(y, dim=1)


def _check(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> None:
    if u.shape[1] == 0:
        raise ValueError("selective_scan needs a sequence of length 1 or more, not 0")
    mixing = (*u.shape[:2], A.shape[1])
    expected = {"dt": (dt, u.shape), "A": (A, (u.shape[2], A.shape[1]))}
    expected |= {"B": (B, mixing), "C": (C, mixing)}
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(
                f"{name} is {tuple(tensor.shape)}, but u {tuple(u.shape)} and A "
                f"{tuple(A.shape)} need {tuple(shape)}"
            )


class _Group:
    """Some positions as K chunks of T: tensors are (K, T, batch, ...), in float32 or finer.

    States, and A with them, are (state, dim) from here on: channels lie side by side.
    """

    def __init__(self, first: int, last: int, chunks: int):
        self.positions, self.chunks = slice(first, last), chunks

    def take(self, x: Tensor, kind: torch.dtype) -> Tensor:
        part = x[:, self.positions].to(kind).transpose(0, 1).contiguous()
        return part.unflatten(0, (self.chunks, -1))

    def put(self, target: Tensor, value: Tensor) -> None:
        target[:, self.positions] = value.flatten(0, 1).transpose(0, 1)


def _groups(u: Tensor, A: Tensor) -> Iterator[_Group]:
    # whole numbers: a compiler's symbolic sizes become the sizes at hand
    batch, length, dim, state = (int(size) for size in (*u.shape, A.shape[1]))
    numbers = batch * dim * state
    kind = u.device.type if u.device.type in BUFFER else "cpu"
    chunks = min(max(1, LANES[kind] // numbers), max(1, int((BUFFER[kind] / numbers) ** 0.5)))
    # length / state positions have as many states as u has numbers
    size = max(FEWEST, min(BUFFER[kind] // numbers, length // state))
    size = -(-size // chunks) * chunks
    for first in range(0, length, size):
        last = min(first + size, length)
        yield _Group(first, last, chunks if (last - first) % chunks == 0 else 1)


def _kind(u: Tensor) -> torch.dtype:
    return torch.promote_types(u.dtype, torch.float32)


def _states(dt: Tensor, inputs: Tensor, a: Tensor, A: Tensor, B: Tensor, begin: Tensor) -> Tensor:
    """All states of a group whose decays are `a`, from the state before it."""
    h = inputs[..., None, :] * B[..., None]
    states, decays = h.unbind(1), a.unbind(1)
    before = begin[None]
    if len(h) > 1:
        ends = states[0].clone()
        for state, decay in zip(states[1:], decays[1:], strict=True):
            torch.addcmul(state, decay, ends, out=ends)
        before = _carried(begin, ends, torch.exp(dt.sum(1)[..., None, :] * A))
    states[0].addcmul_(decays[0], before)
    for i in range(1, len(states)):
        states[i].addcmul_(decays[i], states[i - 1])
    return h


def _adjoint_states(dt: Tensor, g: Tensor, a: Tensor, A: Tensor, end: Tensor) -> None:
    """In place: g_t <- g_t + a_{t+1} g_{t+1}, where `end` is what the group after this sends."""
    adjoints, decays = g.unbind(1), a.unbind(1)
    after = end[None]
    if len(g) > 1:
        begins = adjoints[-1].clone()
        for i in range(len(adjoints) - 2, -1, -1):
            torch.addcmul(adjoints[i], decays[i + 1], begins, out=begins)
        sent = (begins * decays[0]).flip(0)
        after = _carried(end, sent, torch.exp(dt.sum(1)[..., None, :] * A).flip(0)).flip(0)
    adjoints[-1].add_(after)
    for i in range(len(adjoints) - 2, -1, -1):
        adjoints[i].addcmul_(decays[i + 1], adjoints[i + 1])


def _carried(first: Tensor, gains: Tensor, decays: Tensor) -> Tensor:
    """What reaches each chunk: x_0 = first, x_{k+1} = gains_k + decays_k x_k."""
    reached = [first]
    for gain, decay in zip(gains[:-1], decays[:-1], strict=True):
        reached.append(torch.addcmul(gain, decay, reached[-1]))
    return torch.stack(reached)


@torch.library.custom_op("diffussm::selective_scan", mutates_args=())
def _selective_scan(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor
) -> tuple[Tensor, Tensor]:
    """y, and the state before each group."""
    kind, y = _kind(u), torch.empty_like(u, memory_format=torch.contiguous_format)
    groups, A = _groups(u, A), A.to(kind).T.contiguous()
    h, begins = A.new_zeros(len(u), *A.shape), []
    for group in groups:
        begins.append(h)
        steps, inputs, b, c = (group.take(x, kind) for x in (dt, u, B, C))
        a = (steps[..., None, :] * A).exp_()
        states = _states(steps, steps * inputs, a, A, b, h)
        group.put(y, (c[..., None, :] @ states)[..., 0, :])
        h = states[-1, -1].clone()
    return y, torch.stack(begins)


@_selective_scan.register_fake
def _(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    groups = len(list(_groups(u, A)))
    return torch.empty_like(u, memory_format=torch.contiguous_format), A.new_empty(
        groups, len(u), *A.T.shape, dtype=_kind(u)
    )


@torch.library.custom_op("diffussm::selective_scan_backward", mutates_args=())
def _selective_scan_backward(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, begins: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    kind = _kind(u)
    rates = A.to(kind).T.contiguous()
    du, ddt, dB, dC = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (u, dt, B, C)
    )
    dA, end = torch.zeros_like(rates), torch.zeros_like(begins[0])
    for group, begin in reversed(list(zip(_groups(u, A), begins, strict=True))):
        steps, inputs, b, c, dout = (group.take(x, kind) for x in (dt, u, B, C, dy))
        a = (steps[..., None, :] * rates).exp_()
        states = _states(steps, steps * inputs, a, rates, b, begin)
        group.put(dC, (states @ dout[..., None])[..., 0])

        g = dout[..., None, :] * c[..., None]
        _adjoint_states(steps, g, a, rates, end)
        end = g[0, 0] * a[0, 0]
        group.put(dB, (g @ (steps * inputs)[..., None])[..., 0])
        through_input = (b[..., None, :] @ g)[..., 0, :]  # with respect to dt u
        group.put(du, through_input * steps)

        # with respect to dt A, in place: g a h_{t-1}, positions in order
        flat = g.mul_(a).flatten(0, 1)
        earlier = states.flatten(0, 1)
        flat[1:].mul_(earlier[:-1])
        flat[0].mul_(begin)
        dA += torch.mul(flat, steps.flatten(0, 1)[..., None, :], out=earlier).sum((0, 1))
        through_decay = torch.mul(flat, rates, out=earlier).sum(-2).reshape(steps.shape)
        group.put(ddt, through_input * inputs + through_decay)
    return du, ddt, dA.T.to(A.dtype).contiguous(), dB, dC


@_selective_scan_backward.register_fake
def _(u, dt, A, B, C, begins, dy):
    contiguous = torch.contiguous_format
    return tuple(torch.empty_like(x, memory_format=contiguous) for x in (u, dt, A, B, C))


def _setup_context(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, dy: Tensor, _: Tensor):
    return _selective_scan_backward(*ctx.saved_tensors, dy)


_selective_scan.register_autograd(_backward, setup_context=_setup_context)


def selective_scan_flops(batch: int, length: int, dim: int, state: int) -> int:
    """Floating point operations: dt A, dt u B, the step and C h; exponentials are not counted."""
    return 8 * batch * length * dim * state


@register_flop_formula(torch.ops.diffussm.selective_scan)
def _(u_shape, dt_shape, A_shape, *_, **__) -> int:
    batch, length, dim = u_shape
    return selective_scan_flops(batch, length, dim, A_shape[1])


@register_flop_formula(torch.ops.diffussm.selective_scan_backward)
def _(u_shape, dt_shape, A_shape, *_, **__) -> int:
    # the states again, their adjoints, and five contractions
    batch, length, dim = u_shape
    return 3 * selective_scan_flops(batch, length, dim, A_shape[1])
