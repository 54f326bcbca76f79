"""A diagonal state space model along a sequence, in one or both directions, by matrix products.

    forward    y_l = sum_{m >= 0} K_m u_{l-m}          K_l = 2 Re sum_n w_n z_n^l
    backward   y_l = sum_{m >= 0} K_m u_{l+m}          both see the present, lag 0

This is `long_conv` of `vandermonde`, without a kernel as long as the sequence and without an FFT.
The length is cut into chunks of c positions. With s the state before a chunk (after it, for the
backward direction), for each channel and chunk:

    y = T u + 2 Re(Q s),    T_ij = K_{i-j},    Q_in = w_n z_n^(i+1)
    s <- z^c s + P u,       P_ni = z_n^(c-1-i)

T, Q and P are the same for all chunks and images, so these are batched products; only s walks from
chunk to chunk, by doubling: after k rounds each state holds what 2^k chunks told it. The cost is
linear in the length, c + 4 states multiply-adds a number and direction, and so is the memory.

Complex numbers are pairs of real ones here, real parts first. Dao and Gu, "Transformers are SSMs",
2024, section 6, has the same scheme for selective models; a time-invariant one shares its matrices.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffussm.ops.long_conv import Responses, long_conv_reference
from diffussm.ops.vandermonde import vandermonde_reference
from diffussm.shapes import Signal

Modes = Float[Tensor, "directions dim modes"]

CHUNK = 64
"""Positions a chunk."""

AT_ONCE = 2**17
"""Numbers of the signal that are worked on together: what a processor's cache holds."""


def chunked_conv(u: Signal, decay: Modes, angle: Modes, w_re: Modes, w_im: Modes) -> Responses:
    """`u` through one diagonal system (forward) or two (forward, backward); differentiable in all.

    decay, angle    log |z|, at most 0, and arg z in radians
    w_re, w_im      the modes' weights
    Computed in float32 (float64 for float64 input) whatever autocast says; the result has the type
    of `u`. Raises ValueError for a length of 0 or more than two directions.
    """
    _check(u, decay)
    matrices = _matrices(decay, angle, w_re, w_im, CHUNK)
    with torch.autocast(u.device.type, enabled=False):
        return _chunked_conv(u, *matrices)


def chunked_conv_reference(
    u: Signal, decay: Modes, angle: Modes, w_re: Modes, w_im: Modes
) -> Responses:
    _check(u, decay)
    systems = zip(decay, angle, w_re, w_im, strict=True)
    kernels = [vandermonde_reference(*system, u.shape[1]) for system in systems]
    return long_conv_reference(u, torch.stack(kernels))


def _check(u: Tensor, decay: Tensor) -> None:
    if len(decay) not in (1, 2):
        raise ValueError(f"chunked_conv takes one system or two (directions), not {len(decay)}")
    if u.shape[1] == 0:
        raise ValueError("chunked_conv needs a sequence of length 1 or more, not 0")


def _matrices(
    decay: Tensor, angle: Tensor, w_re: Tensor, w_im: Tensor, chunk: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """K, P, Q and z^c of each channel, all directions in the order of a forward one.

    (dim, directions, chunk), (dim, directions, 2 modes, chunk), (dim, directions, chunk, 2 modes),
    (dim, directions, 2, modes)
    """
    decay, angle, w_re, w_im = (x.transpose(0, 1) for x in (decay, angle, w_re, w_im))
    exponents = torch.arange(chunk + 1, dtype=decay.dtype, device=decay.device)
    size, turn = torch.exp(decay[..., None] * exponents), angle[..., None] * exponents
    re, im = size * torch.cos(turn), size * torch.sin(turn)
    enter = torch.cat([re[..., :-1], im[..., :-1]], dim=-2).flip(-1)
    w_re, w_im = 2 * w_re[..., None], 2 * w_im[..., None]
    out_re, out_im = w_re * re - w_im * im, w_re * im + w_im * re
    leave = torch.cat([out_re[..., 1:], -out_im[..., 1:]], dim=-2).mT
    jump = torch.stack([re[..., -1], im[..., -1]], dim=-2)
    return out_re[..., :-1].sum(-2), enter, leave, jump


def _groups(batch: int, length: int, dim: int) -> list[slice]:
    size = max(1, AT_ONCE // (batch * length))
    return [slice(start, start + size) for start in range(0, dim, size)]


def _cut(x: Tensor, chunk: int) -> Tensor:
    """(batch, length, ..., dim) -> (dim, ..., chunk, chunks batch), zeros after the end."""
    length = x.shape[1]
    x = x.movedim((-1, 1, 0), (0, -2, -1))  # dim, ..., length, batch
    x = F.pad(x, (0, 0, 0, -length % chunk))
    return x.unflatten(-2, (-1, chunk)).transpose(-3, -2).flatten(-2)


def _joined(y: Tensor, batch: int, length: int) -> Tensor:
    """The way back from `_cut`."""
    y = y.unflatten(-1, (-1, batch)).transpose(-3, -2).flatten(-3, -2)[..., :length, :]
    return y.movedim((0, -2, -1), (-1, 1, 0))


def _toeplitz(kernel: Tensor) -> Tensor:
    """T of each kernel, (..., chunk) -> (..., chunk, chunk), lower triangular."""
    chunk = kernel.shape[-1]
    lag = torch.arange(chunk)[:, None] - torch.arange(chunk)
    return F.pad(kernel, (1, 0))[..., lag.clamp(min=-1).to(kernel.device) + 1]


def _from_toeplitz(grad: Tensor) -> Tensor:
    """The gradient of a kernel from that of its T: sums along the diagonals."""
    chunk = grad.shape[-1]
    skewed = F.pad(grad.flip(-1), (0, chunk)).flatten(-2)[..., : chunk * (2 * chunk - 1)]
    return skewed.unflatten(-1, (chunk, -1)).sum(-2)[..., chunk - 1 :]


def _walk(entered: Tensor, jump: Tensor, batch: int, *, mirrored: bool) -> Tensor:
    """States before each chunk, of what enters in each; last axis (chunks, batch).

    mirrored    the second direction starts at the end; so does the first one's adjoint
    """
    state = torch.zeros_like(entered)
    for direction, (new, old) in enumerate(zip(state.unbind(1), entered.unbind(1), strict=True)):
        from_end = mirrored != (direction == 1)
        late, early = _shifted(new, batch, from_end)[0], _shifted(old, batch, from_end)[1]
        late.copy_(early)
        a, b = jump[:, direction, 0, :, None], jump[:, direction, 1, :, None]
        reach = batch
        while reach < state.shape[-1] - batch:
            late, early = _shifted(new, reach, from_end)
            (late_re, late_im), (re, im) = late.chunk(2, dim=1), early.chunk(2, dim=1)
            told = torch.addcmul(a * re, b, im, value=-1), torch.addcmul(a * im, b, re)
            late_re += told[0]
            late_im += told[1]
            a, b, reach = a * a - b * b, 2 * a * b, 2 * reach
    return state


def _shifted(x: Tensor, by: int, from_end: bool) -> tuple[Tensor, Tensor]:
    """What is reached, and from where, by walking `by` along the last axis."""
    ahead, behind = x[..., by:], x[..., : x.shape[-1] - by]
    return (behind, ahead) if from_end else (ahead, behind)


def _oriented(kernel: Tensor, enter: Tensor, leave: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """T, P and Q; the second direction's positions in reverse. Its own inverse for P and Q."""

    def turned(x: Tensor, *axes: int) -> Tensor:
        return torch.cat([x[:, :1], x[:, 1:].flip(axes)], dim=1)

    return turned(_toeplitz(kernel), -2, -1), turned(enter, -1), turned(leave, -2)


@torch.library.custom_op("diffussm::chunked_conv", mutates_args=())
def _chunked_conv(u: Tensor, kernel: Tensor, enter: Tensor, leave: Tensor, jump: Tensor) -> Tensor:
    batch, length, dim = u.shape
    directions, chunk = kernel.shape[1:]
    y = u.new_empty(batch, length, directions, dim)
    for part in _groups(batch, length, dim):
        x = _cut(u[..., part].to(kernel.dtype), chunk)
        within, into, out = _oriented(kernel[part], enter[part], leave[part])
        entered = (into.flatten(1, 2) @ x).unflatten(1, (directions, -1))
        state = _walk(entered, jump[part], batch, mirrored=False)
        response = (within.flatten(1, 2) @ x).unflatten(1, (directions, -1))
        response.flatten(0, 1).baddbmm_(out.flatten(0, 1), state.flatten(0, 1))
        y[..., part] = _joined(response, batch, length)
    return y


@_chunked_conv.register_fake
def _(u: Tensor, kernel: Tensor, enter: Tensor, leave: Tensor, jump: Tensor) -> Tensor:
    batch, length, dim = u.shape
    return u.new_empty(batch, length, kernel.shape[1], dim)


@torch.library.custom_op("diffussm::chunked_conv_backward", mutates_args=())
def _chunked_conv_backward(
    u: Tensor, kernel: Tensor, enter: Tensor, leave: Tensor, jump: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, length, dim = u.shape
    directions, chunk = kernel.shape[1:]
    du = torch.empty_like(u)
    gradients = [torch.empty_like(x) for x in (kernel, enter, leave, jump)]
    for part in _groups(batch, length, dim):
        x = _cut(u[..., part].to(kernel.dtype), chunk)
        dresponse = _cut(dy[..., part].to(kernel.dtype), chunk)
        within, into, out = _oriented(kernel[part], enter[part], leave[part])
        entered = (into.flatten(1, 2) @ x).unflatten(1, (directions, -1))
        state = _walk(entered, jump[part], batch, mirrored=False)

        dstate = out.mT @ dresponse
        dentered = _walk(dstate, _conjugate(jump[part]), batch, mirrored=True)
        dx = within.flatten(1, 2).mT @ dresponse.flatten(1, 2)
        dx.baddbmm_(into.flatten(1, 2).mT, dentered.flatten(1, 2))
        du[..., part] = _joined(dx, batch, length)

        dwithin = (dresponse.flatten(1, 2) @ x.mT).unflatten(1, (directions, -1))
        dinto = (dentered.flatten(1, 2) @ x.mT).unflatten(1, (directions, -1))
        dout = dresponse @ state.mT
        parts = _unoriented(dwithin, dinto, dout)
        for gradient, value in zip(gradients, (*parts, _djump(dentered, state)), strict=True):
            gradient[part] = value
    dkernel, denter, dleave, djump = gradients
    return du, dkernel, denter, dleave, djump


@_chunked_conv_backward.register_fake
def _(u, kernel, enter, leave, jump, dy):
    return tuple(torch.empty_like(x) for x in (u, kernel, enter, leave, jump))


def _conjugate(jump: Tensor) -> Tensor:
    return jump * jump.new_tensor([1.0, -1.0])[:, None]


def _unoriented(within: Tensor, into: Tensor, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of K, P and Q from those of what `_oriented` makes of them."""

    def turned(x: Tensor, *axes: int) -> Tensor:
        return torch.cat([x[:, :1], x[:, 1:].flip(axes)], dim=1)

    return _from_toeplitz(turned(within, -2, -1)), turned(into, -1), turned(out, -2)


def _djump(dstate: Tensor, state: Tensor) -> Tensor:
    """The gradient of z^c: that of what it gives times what it is given, over all chunks."""
    (d_re, d_im), (re, im) = dstate.chunk(2, dim=-2), state.chunk(2, dim=-2)
    return torch.stack([(d_re * re + d_im * im).sum(-1), (d_im * re - d_re * im).sum(-1)], dim=-2)


def _setup_context(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, dy: Tensor) -> tuple[Tensor, ...]:
    with torch.autocast(dy.device.type, enabled=False):
        return _chunked_conv_backward(*ctx.saved_tensors, dy)


_chunked_conv.register_autograd(_backward, setup_context=_setup_context)
