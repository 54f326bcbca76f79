"""State space layers in plain operators, for programs that run without this package.

A time-invariant layer is a convolution with a kernel that depends on its parameters alone. Other
runtimes have no fast Fourier transform, or a slow one; all have matrix products. With
length = coarse fine, w the 2 length-th root of unity, l = i fine + j a position and
k = p + 2 coarse q a frequency,

    U_k = sum_j w^(-j k) sum_i w^(-i fine p) u_l

is two of them: over i, one matrix for all; over j, one for each p. A real signal needs no p above
`coarse`. On the way back stand the same matrices, transposed. Channels stay innermost throughout.
With fine near sqrt(length / 2) that is about 6 sqrt(length) products a number, each way.

A selective layer has no kernel. Its scan is cut into about sqrt(length) chunks that walk side by
side, each from nothing; then the states between chunks are walked, and what they add is added.
"""

import copy
import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffussm.ops.selective_scan import Decays, Mixing
from diffussm.shapes import Signal
from diffussm.ssm.bidirectional import Bidirectional
from diffussm.ssm.kernel_layer import KernelLayer
from diffussm.ssm.mamba import Mamba


class FixedConvolution(nn.Module):
    """What time-invariant layers do at one length: a convolution with kernels that rest.

    (batch, length, dim) -> (batch, length, directions dim); the second layer, if there is one,
    reads from the other end. `rows` as in `ssm.layer.Layer.forward`.
    """

    analysis: Tensor
    """Real and imaginary parts of the sum over i: (2 (coarse + 1), coarse)."""
    twist: Tensor
    """The sum over j, for pairs of real and imaginary parts: (coarse + 1, 2 fine, 2 fine)."""
    spectra: Tensor
    """Of the kernels, their skips in them: real and imaginary, (2, directions, p, fine, dim)."""

    def __init__(self, layers: list[KernelLayer], length: int):
        super().__init__()
        fine = _divisor(length, math.sqrt(length / 2))
        coarse = length // fine
        analysis, twist = _transform(coarse, fine)
        kernels = torch.stack([layer.kernel(length) for layer in layers]).double()
        kernels[:, :, 0] += torch.stack([layer.D for layer in layers])
        re, im = _analyse(kernels.mT, analysis, twist).chunk(2, dim=-2)
        im = im * im.new_tensor([1.0, -1.0])[: len(layers), None, None, None]  # read from the end
        # both p and its conjugate, 2 coarse - p; the ends of the range are their own
        weight = torch.full((coarse + 1, 1, 1), 1 / length, dtype=re.dtype)
        weight[[0, -1]] /= 2
        self.register_buffer("analysis", analysis.float())
        self.register_buffer("twist", twist.float())
        self.register_buffer("spectra", (torch.stack([re, im]) * weight).float())

    def forward(self, u: Signal, rows: int = 1) -> Float[Tensor, "batch length all"]:
        u = _turned(u, rows)
        re, im = _analyse(u, self.analysis, self.twist)[:, None].chunk(2, dim=-2)
        k_re, k_im = self.spectra
        y = self.twist.mT @ torch.cat([re * k_re - im * k_im, re * k_im + im * k_re], dim=-2)
        y = self.analysis.mT @ y.unflatten(-2, (2, -1)).flatten(-4, -3).flatten(-2)
        # batch, directions, coarse, fine dim
        y = y.unflatten(-1, (-1, u.shape[-1])).flatten(2, 3).movedim(1, 2).flatten(2)
        return _turned(y, y.shape[1] // rows)


def plain_selective_scan(u: Signal, dt: Signal, A: Decays, B: Mixing, C: Mixing) -> Signal:
    """`ops.selective_scan.selective_scan`, which holds batch x length x dim x state numbers."""
    chunk = _divisor(u.shape[1], math.sqrt(u.shape[1]))
    u, dt, B, C = (x.unflatten(1, (-1, chunk)) for x in (u, dt, B, C))
    decays = torch.exp(dt[..., None] * A)
    inputs = (dt * u)[..., None] * B[..., None, :]
    h = _walk(inputs.unbind(2), decays.unbind(2), 2)

    reach = torch.exp(dt.cumsum(2)[..., None] * A)
    ends, spans = h[:, :, -1], reach[:, :, -1]
    after = _walk(ends.unbind(1), spans.unbind(1), 1)
    before = torch.cat([torch.zeros_like(after[:, :1]), after[:, :-1]], dim=1)
    h = h + reach * before[:, :, None]
    return (h * C[..., None, :]).sum(-1).flatten(1, 2)


def plain(network: nn.Module, *inputs: Tensor) -> nn.Module:
    """A copy of `network`, on the CPU, whose layers are of plain operators.

    It works at the size of `inputs` only; a ValueError where the network itself cannot take them.
    """
    network = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    lengths: dict[nn.Module, int] = {}

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        lengths[module] = args[0].shape[1]

    hooks = [
        module.register_forward_pre_hook(note)
        for module in network.modules()
        if _time_invariant(module)
    ]
    network(*inputs)
    for hook in hooks:
        hook.remove()
    for module in network.modules():
        if isinstance(module, Mamba):
            module.scan = plain_selective_scan
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if child in lengths:
                fixed = FixedConvolution(_time_invariant(child), lengths[child])
                setattr(parent, name, fixed)
    return network


def _time_invariant(module: nn.Module) -> list[KernelLayer]:
    """The layers whose kernels are all that `module` is made of; none for any other module."""
    layers = [module]
    if isinstance(module, Bidirectional):
        layers = [module.forward_ssm, module.backward_ssm]
    kept = [layer for layer in layers if isinstance(layer, KernelLayer)]
    return kept if len(kept) == len(layers) else []


def _transform(coarse: int, fine: int) -> tuple[Tensor, Tensor]:
    """`analysis` and `twist`, in float64."""
    p = torch.arange(coarse + 1)[:, None]
    first = _unit(p * torch.arange(coarse), 2 * coarse)
    analysis = torch.stack([first.real, first.imag], dim=1).flatten(0, 1)
    j = torch.arange(fine)
    k = p + 2 * coarse * j
    second = _unit(k[..., None] * j, 2 * coarse * fine)
    above = torch.cat([second.real, -second.imag], dim=2)
    below = torch.cat([second.imag, second.real], dim=2)
    return analysis, torch.cat([above, below], dim=1)


def _unit(turns: Tensor, whole: int) -> Tensor:
    """exp(-2 pi i turns / whole)."""
    angle = (turns % whole).double() * (-2 * math.pi / whole)
    return torch.polar(torch.ones_like(angle), angle)


def _analyse(u: Tensor, analysis: Tensor, twist: Tensor) -> Tensor:
    """(batch, length, dim) -> (batch, p, 2 fine, dim): the spectrum, real parts first."""
    fine = twist.shape[-1] // 2
    grid = u.unflatten(1, (-1, fine)).flatten(2)
    return twist @ (analysis @ grid).unflatten(1, (-1, 2)).unflatten(-1, (fine, -1)).flatten(2, 3)


def _turned(u: Tensor, rows: int) -> Tensor:
    """A grid of `rows` rows, one after another, column by column."""
    return u if rows == 1 else u.unflatten(1, (rows, -1)).transpose(1, 2).flatten(1, 2)


def _walk(inputs: tuple[Tensor, ...], decays: tuple[Tensor, ...], axis: int) -> Tensor:
    """h_t = decays_t h_{t-1} + inputs_t from nothing, all of them along a new `axis`."""
    states = [inputs[0]]
    for step, decay in zip(inputs[1:], decays[1:], strict=True):
        states.append(torch.addcmul(step, decay, states[-1]))
    return torch.stack(states, dim=axis)


def _divisor(whole: int, near: float) -> int:
    """The divisor of `whole` that is nearest `near`, by ratio."""
    divisors = [size for size in range(1, whole + 1) if whole % size == 0]
    return min(divisors, key=lambda size: abs(math.log(size / near)))
