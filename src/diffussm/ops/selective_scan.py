"""A state space model whose step, input and output depend on the input, as a scan.

    h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t,    y_t = C_t h_t          h: dim x state numbers

There is no kernel: the system differs from position to position. `selective_scan` computes the
recurrence in groups of positions: all decays and inputs of a group are made at once, in buffers
that every group uses again, and then walked. Only the states at the groups' beginnings are kept;
the backward pass computes the others again. With groups of sqrt(length) positions, beginnings and
buffers hold a few sqrt(length) states, never length of them.

Where one position is too little work for the machine, a group is cut into chunks that walk side by
side: first from nothing, to learn where each ends; then, each from its predecessor's end, to the
states themselves. Decays are only ever multiplied, never divided: no dt, however large, overflows.

`selective_scan_reference` is the recurrence as written; `selective_scan_triton.py` has the same
two passes for a GPU, where the states need not leave the registers.

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, section 3 and
algorithm 2.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from diffussm.ops.forms import asked_form
from diffussm.shapes import Signal

Decays = Float[Tensor, "dim state"]
Mixing = Float[Tensor, "batch length state"]

BUFFER = {"cpu": 2**17, "cuda": 2**24}
"""Numbers that a group's buffer may hold however short the sequence."""
CACHE = 2**20
"""Numbers of a buffer that a CPU keeps at hand; a larger batch is scanned part by part."""
LANES = {"cpu": 2**12, "cuda": 2**21}
"""Numbers that one step of a walk should touch at least."""


def selective_scan(u: Signal, dt: Signal, A: Decays, B: Mixing, C: Mixing) -> Signal:
    """y of the recurrence above, from a zero state; differentiable in everything.

    dt    step sizes, at least 0              A    at most 0
    Computed in float32 (float64 for float64 input) whatever autocast says; y has u's type.
    Takes the Triton form on a GPU where that can, or whatever `forms.use_form` asks for.
    Raises ValueError for an empty sequence, arguments of different sizes, or a form that is asked
    for and cannot take them.
    """
    _check(u, dt, A, B, C)
    return _selective_scan(u, dt, A, B, C, _form(u, A))[0]


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


def _form(u: Tensor, A: Tensor) -> str:
    asked = asked_form("selective_scan")
    if asked == "torch" or (asked is None and not u.is_cuda):
        return "torch"
    obstacle = _triton_obstacle(u, A)
    if obstacle is None:
        return "triton"
    if asked is None:
        return "torch"
    raise ValueError(
        f"selective_scan cannot take its form 'triton' here: {obstacle}; ask for 'torch'"
    )


def _triton_obstacle(u: Tensor, A: Tensor) -> str | None:
    try:
        from diffussm.ops.selective_scan_triton import unsupported
    except ImportError:
        return "Triton is not installed (pip install 'diffussm[kernels]')"
    return unsupported(u, A)


def _kind(u: Tensor) -> torch.dtype:
    return torch.promote_types(u.dtype, torch.float32)


def _groups(u: Tensor, A: Tensor) -> list[slice]:
    """The positions of each group."""
    # whole numbers: a compiler's symbolic sizes become the sizes at hand
    batch, length, dim, state = (int(size) for size in (*u.shape, A.shape[1]))
    free = _on(u.device, BUFFER) // (batch * dim * state)
    return _cut(length, max(free, math.isqrt(length - 1) + 1))


def _parts(u: Tensor, numbers: int) -> list[slice]:
    """The batch, in parts whose buffers, `numbers` for each sequence, stay in a CPU's cache."""
    batch = len(u)
    return _cut(batch, max(1, CACHE // numbers) if u.device.type == "cpu" else batch)


def _on(device: torch.device, numbers: dict[str, int]) -> int:
    return numbers["cpu" if device.type == "cpu" else "cuda"]


def _cut(whole: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, whole)) for first in range(0, whole, size)]


def _chunks(x: Tensor) -> int:
    """Into how many equal chunks a group x is cut: 2 len / chunks + chunks steps are fewest."""
    wanted = min(math.isqrt(2 * len(x)), _on(x.device, LANES) // x[0].numel())
    return next((count for count in range(wanted, 1, -1) if len(x) % count == 0), 1)


def _walk(x: Tensor, decays: Tensor, before: Tensor, way: int = 1) -> None:
    """In place: x_t <- x_t + decays_t x_{t-1}, from `before`; with way -1 from the other end."""
    chunks = _chunks(x)
    x, decays = (part.unflatten(0, (chunks, -1)) for part in (x, decays))
    steps = list(zip(x.unbind(1), decays.unbind(1), strict=True))[::way]
    if chunks > 1:
        ends = steps[0][0].clone()
        for inputs, decay in steps[1:]:
            torch.addcmul(inputs, decay, ends, out=ends)
        spans, reached = decays.prod(1), torch.empty_like(ends)
        for chunk in range(chunks)[::way]:
            reached[chunk] = before
            before = torch.addcmul(ends[chunk], spans[chunk], before)
        before = reached
    for inputs, decay in steps:
        before = inputs.addcmul_(decay, before)


def _states(
    steps: Tensor, inputs: Tensor, b: Tensor, rates: Tensor, begin: Tensor, a: Tensor, h: Tensor
) -> None:
    """Fill `a` with a group's decays and `h` with its states, from the state `begin` before it.

    Both are (positions, batch, state, dim), and `rates`, which is A, (state, dim): channels lie
    side by side.
    """
    torch.mul(steps[..., None, :], rates, out=a).exp_()
    torch.mul(inputs[..., None, :], b[..., None], out=h)
    _walk(h, a, begin)


def _dot(x: Tensor, y: Tensor, axis: int | tuple[int, int], buffer: Tensor) -> Tensor:
    """The sum of x y along `axis`. No product of matrices: autocast would round that."""
    return torch.mul(x, y, out=buffer).sum(axis)


def _take(here: tuple[slice, slice], *signals: Tensor) -> list[Tensor]:
    """Some sequences and positions of signals: (positions, sequences, ...), float32 or finer."""
    kind = _kind(signals[0])
    return [signal[here].to(kind).transpose(0, 1).contiguous() for signal in signals]


def _contiguous_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("diffussm::selective_scan", mutates_args=())
def _selective_scan(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, form: str = "torch"
) -> tuple[Tensor, Tensor]:
    """y, and the state before each group: (groups, batch, state, dim), or as Triton has it."""
    if form == "triton":
        from diffussm.ops.selective_scan_triton import forward

        return forward(u, dt, A, B, C)
    rates, y = A.to(_kind(u)).T.contiguous(), _contiguous_like(u)
    groups = _groups(u, A)
    parts = _parts(u, groups[0].stop * rates.numel())
    begins = rates.new_empty(len(groups), len(u), *rates.shape)
    buffers = rates.new_empty(2, groups[0].stop, parts[0].stop, *rates.shape)
    for part in parts:
        h = torch.zeros_like(begins[0, part])
        for group, begin in zip(groups, begins[:, part], strict=True):
            begin.copy_(h)
            steps, inputs, b, c = _take((part, group), dt, u, B, C)
            a, states = buffers[:, : len(steps), : len(h)]
            _states(steps, steps * inputs, b, rates, begin, a, states)
            y[part, group] = _dot(states, c[..., None], -2, a).transpose(0, 1)
            h = states[-1]
    return y, begins


@_selective_scan.register_fake
def _(u, dt, A, B, C, form="torch"):
    if form == "triton":
        from diffussm.ops.selective_scan_triton import begins_shape

        shape = begins_shape(u, A)
    else:
        shape = len(_groups(u, A)), len(u), *A.T.shape
    return _contiguous_like(u), A.new_empty(shape, dtype=_kind(u))


@torch.library.custom_op("diffussm::selective_scan_backward", mutates_args=())
def _selective_scan_backward(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    begins: Tensor,
    dy: Tensor,
    form: str = "torch",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    if form == "triton":
        from diffussm.ops.selective_scan_triton import backward

        return backward(u, dt, A, B, C, begins, dy)
    rates = A.to(_kind(u)).T.contiguous()
    du, ddt, dB, dC = (_contiguous_like(x) for x in (u, dt, B, C))
    dA = torch.zeros_like(rates)
    groups = _groups(u, A)
    parts = _parts(u, groups[0].stop * rates.numel())
    buffers = rates.new_empty(3, groups[0].stop + 1, parts[0].stop, *rates.shape)
    for part in parts:
        later = end = torch.zeros_like(begins[0, part])  # a and g of the position after a group
        for group, begin in reversed(list(zip(groups, begins[:, part], strict=True))):
            steps, inputs, b, c, dout = _take((part, group), dt, u, B, C, dy)
            driven, size = steps * inputs, len(steps)
            decays = buffers[0, : size + 1, : len(end)]
            a, (h, g) = decays[:-1], buffers[1:, :size, : len(end)]
            _states(steps, driven, b, rates, begin, a, h)
            dC[part, group] = _dot(h, dout[..., None, :], -1, g).transpose(0, 1)

            # g_t = C_t dy_t + a_{t+1} g_{t+1}: the gradient of h_t
            torch.mul(dout[..., None, :], c[..., None], out=g)
            decays[-1] = later
            _walk(g, decays[1:], end, way=-1)
            later, end = a[0].clone(), g[0].clone()
            a[1:].mul_(h[:-1])
            a[0].mul_(begin)
            dB[part, group] = _dot(g, driven[..., None, :], -1, h).transpose(0, 1)
            through_input = _dot(g, b[..., None], -2, h)  # the gradient of dt u
            du[part, group] = (through_input * steps).transpose(0, 1)

            g.mul_(a)  # g_t a_t h_{t-1}: the gradient of dt A
            dA += _dot(g, steps[..., None, :], (0, 1), h)
            through_decay = _dot(g, rates, -2, h)
            ddt[part, group] = (through_input * inputs + through_decay).transpose(0, 1)
    return du, ddt, dA.T.to(A.dtype).contiguous(), dB, dC


@_selective_scan_backward.register_fake
def _(u, dt, A, B, C, begins, dy, form="torch"):
    return tuple(_contiguous_like(x) for x in (u, dt, A, B, C))


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.form = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, dy: Tensor, _: Tensor):
    return *_selective_scan_backward(*ctx.saved_tensors, dy, ctx.form), None


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
