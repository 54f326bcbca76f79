"""Powers of the modes of a diagonal system: z^0, z^s, z^2s, ... with z = exp(decay + i angle).

An exponential, a sine and a cosine for each power would cost more than what is made of the powers.
Exponents are split instead, k = i + w j: of n powers z^k = z^i z^(w j) only about 2 sqrt(n) are
computed so, the others are products. Their gradient needs nothing but themselves,

    d decay = sum_k s k Re(conj(z^k) g_k),    d angle = sum_k s k Im(conj(z^k) g_k)

with g_k what is handed back for z^k. Complex numbers are pairs of real tensors.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Modes = Float[Tensor, "*batch modes"]
Powers = Float[Tensor, "*batch powers modes"]
Pair = tuple[Tensor, Tensor]


def powers(decay: Modes, angle: Modes, count: int, stride: int = 1) -> tuple[Powers, Powers]:
    """Real and imaginary parts of z^(stride k) for k = 0 to count - 1; differentiable.

    decay    log |z|, at most 0             angle    arg z, in radians
    """
    return _Powers.apply(decay, angle, count, stride)  # pyright: ignore[reportReturnType]


def powers_reference(decay: Modes, angle: Modes, count: int, stride: int = 1) -> Pair:
    return _one_by_one(decay, angle, stride * _numbers(count, decay))


def times(x: Pair, y: Pair) -> Pair:
    """The product of complex numbers."""
    (a, b), (c, d) = x, y
    return torch.addcmul(a * c, b, d, value=-1), torch.addcmul(a * d, b, c)


class _Powers(torch.autograd.Function):
    @staticmethod
    def forward(decay: Tensor, angle: Tensor, count: int, stride: int) -> Pair:
        width = 2 ** math.ceil(math.log2(count) / 2)
        fine = _one_by_one(decay, angle, stride * _numbers(width, decay))
        steps = stride * width * _numbers(math.ceil(count / width), decay)
        coarse = _one_by_one(decay, angle, steps)
        re, im = times(
            (coarse[0].unsqueeze(-2), coarse[1].unsqueeze(-2)),
            (fine[0].unsqueeze(-3), fine[1].unsqueeze(-3)),
        )
        return re.flatten(-3, -2)[..., :count, :], im.flatten(-3, -2)[..., :count, :]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Pair) -> None:
        ctx.stride = inputs[3]
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        re, im = ctx.saved_tensors
        d_decay, d_angle = times((re, -im), (gradients[0], gradients[1]))
        exponents = ctx.stride * _numbers(re.shape[-2], re)
        return exponents @ d_decay, exponents @ d_angle, None, None


def _one_by_one(decay: Tensor, angle: Tensor, exponents: Tensor) -> Pair:
    exponents = exponents[:, None]
    size, turn = torch.exp(decay.unsqueeze(-2) * exponents), angle.unsqueeze(-2) * exponents
    return size * torch.cos(turn), size * torch.sin(turn)


def _numbers(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, dtype=like.dtype, device=like.device)
