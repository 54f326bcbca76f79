"""Attention, what DiffuSSM does without and its baselines are made of.

    attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V,    d = dim / heads

Each head attends with its own d columns of Q, K and V; the heads' answers lie side by side.

Vaswani et al., "Attention Is All You Need", 2017, equation 1 and section 3.2.2.
"""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from diffussm.shapes import Signal

Context = Float[Tensor, "batch told dim"]
"""A second sequence, of any length, that the first one reads."""


class Attention(nn.Module):
    """Self-attention, (batch, length, dim) -> same; every position reads every other.

    Raises ValueError where `heads` do not divide `dim`.
    """

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool = True):
        super().__init__()
        check_heads(dim, heads)
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Signal) -> Signal:
        queries, keys, values = _split(self.qkv(x), 3, self.heads)
        return self.proj(_attend(queries, keys, values))


class CrossAttention(nn.Module):
    """`x` reads `context`: (batch, length, dim), (batch, told, dim) -> (batch, length, dim).

    Raises ValueError where `heads` do not divide `dim`.
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        check_heads(dim, heads)
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Signal, context: Context) -> Signal:
        (queries,) = _split(self.q(x), 1, self.heads)
        keys, values = _split(self.kv(context), 2, self.heads)
        return self.proj(_attend(queries, keys, values))


def check_heads(dim: int, heads: int) -> None:
    """ValueError where `heads` do not divide `dim`."""
    if heads < 1 or dim % heads:
        raise ValueError(f"num_heads must be at least 1 and divide the width {dim}, not {heads}")


def _split(joined: Tensor, parts: int, heads: int) -> Tensor:
    return rearrange(joined, "b l (part head d) -> part b head l d", part=parts, head=heads)


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    attended = F.scaled_dot_product_attention(queries, keys, values)
    return rearrange(attended, "b head l d -> b l (head d)")
