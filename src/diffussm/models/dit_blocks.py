"""The blocks of DiT: four ways to tell a transformer block the time step and the class.

The published one, adaLN-Zero, on tokens x:

    h = LayerNorm(x) (1 + scale) + shift,    x <- x + gate Attention(h)
    h = LayerNorm(x) (1 + scale) + shift,    x <- x + gate W_2 gelu(W_1 h)

its six vectors being made from the sum of both. The others have no gates (adaLN), or a plain block
that reads the two as a second sequence (cross-attention) or among its tokens (in-context).

Every block maps (x, told) -> x. Parameters have the names of the published checkpoints.

Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023, section 3.2 and figure 3.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from diffussm.nn.adaln import ModulatedNorm
from diffussm.nn.attention import Attention, Context, CrossAttention
from diffussm.shapes import Signal


class Perceptron(nn.Module):
    """W_2 gelu(W_1 x), at each position alone; GELU in its tanh form."""

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, width)
        self.fc2 = nn.Linear(width, dim)

    def forward(self, x: Signal) -> Signal:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class PlainBlock(nn.Module):
    """The block of a vision transformer, told nothing: the tokens hold the condition.

    The paper draws no weights in the norms of blocks without adaLN; here they have them, as in ViT.
    """

    def __init__(self, dim: int, heads: int, mlp_width: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Perceptron(dim, mlp_width)

    def forward(self, x: Signal, told: Context) -> Signal:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class CrossAttentionBlock(PlainBlock):
    """A plain block whose tokens read the condition after they have read each other.

    The paper does not say whether the condition is normalised; here it is read as it is.
    """

    def __init__(self, dim: int, heads: int, mlp_width: int):
        super().__init__(dim, heads, mlp_width)
        self.norm_cross = nn.LayerNorm(dim, eps=1e-6)
        self.cross_attn = CrossAttention(dim, heads)

    def forward(self, x: Signal, told: Context) -> Signal:
        x = x + self.attn(self.norm1(x))
        x = x + self.cross_attn(self.norm_cross(x), told)
        return x + self.mlp(self.norm2(x))


class AdaLNBlock(nn.Module):
    """The condition, one vector, sets scale and shift after each norm."""

    vectors = 4

    def __init__(self, dim: int, heads: int, mlp_width: int):
        super().__init__()
        self.norm1 = ModulatedNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = ModulatedNorm(dim)
        self.mlp = Perceptron(dim, mlp_width)
        self.adaLN_modulation = _modulation(dim, self.vectors)

    def forward(self, x: Signal, told: Context) -> Signal:
        shift_msa, scale_msa, shift_mlp, scale_mlp = self.adaLN_modulation(told).chunk(4, dim=-1)
        x = x + self.attn(self.norm1(x, scale_msa, shift_msa))
        return x + self.mlp(self.norm2(x, scale_mlp, shift_mlp))


class AdaLNZeroBlock(AdaLNBlock):
    """adaLN and a gate on each branch; zero modulation makes it the identity."""

    vectors = 6

    def forward(self, x: Signal, told: Context) -> Signal:
        vectors = self.adaLN_modulation(told).chunk(6, dim=-1)
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = vectors
        x = x + gate_msa * self.attn(self.norm1(x, scale_msa, shift_msa))
        return x + gate_mlp * self.mlp(self.norm2(x, scale_mlp, shift_mlp))


class PlainFinal(nn.Module):
    """Norm and linear decoder, (batch, length, dim) -> (batch, length, out)."""

    def __init__(self, dim: int, out: int):
        super().__init__()
        self.norm_final = nn.LayerNorm(dim, eps=1e-6)
        self.linear = nn.Linear(dim, out)

    def forward(self, x: Signal, told: Context) -> Tensor:
        return self.linear(self.norm_final(x))


class AdaptiveFinal(nn.Module):
    """Norm, scaled and shifted by the condition, and linear decoder."""

    def __init__(self, dim: int, out: int):
        super().__init__()
        self.norm_final = ModulatedNorm(dim)
        self.linear = nn.Linear(dim, out)
        self.adaLN_modulation = _modulation(dim, 2)

    def forward(self, x: Signal, told: Context) -> Tensor:
        shift, scale = self.adaLN_modulation(told).chunk(2, dim=-1)
        return self.linear(self.norm_final(x, scale, shift))


@dataclass(frozen=True)
class Conditioning:
    """One way to tell the blocks the time step and the class."""

    block: type[PlainBlock] | type[AdaLNBlock]
    """Kind of block."""
    adaptive: bool = False
    """Blocks are told one vector, the sum of both, which also sets the final norm's scale and
    shift; otherwise a sequence of two."""
    among_tokens: bool = False
    """The sequence runs through the blocks, in front of the image's tokens."""


CONDITIONINGS = {
    "adaln-zero": Conditioning(AdaLNZeroBlock, adaptive=True),
    "adaln": Conditioning(AdaLNBlock, adaptive=True),
    "cross-attention": Conditioning(CrossAttentionBlock),
    "in-context": Conditioning(PlainBlock, among_tokens=True),
}


def _modulation(dim: int, vectors: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(dim, vectors * dim))
