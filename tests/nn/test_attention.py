"""Attention against torch's own, which was written apart from ours, and against its definition."""

import math

import pytest
import torch
from torch import nn

from diffussm.nn.attention import Attention, CrossAttention

DIM = 12


def torch_attention(heads, projections, biases, out):
    """torch's multi-head attention with these weights."""
    theirs = nn.MultiheadAttention(DIM, heads, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat(projections))
        theirs.in_proj_bias.copy_(torch.cat(biases))
        theirs.out_proj.weight.copy_(out.weight)
        theirs.out_proj.bias.copy_(out.bias)
    return theirs


@pytest.mark.parametrize("heads", [1, 3, 12])
@pytest.mark.parametrize("length", [1, 7])
def test_self_attention_is_torchs(heads, length):
    ours = Attention(DIM, heads)
    theirs = torch_attention(heads, [ours.qkv.weight], [ours.qkv.bias], ours.proj)
    x = torch.randn(2, length, DIM)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize("heads", [1, 3, 12])
@pytest.mark.parametrize("told", [1, 2, 5])
def test_cross_attention_is_torchs(heads, told):
    ours = CrossAttention(DIM, heads)
    weights, biases = [ours.q.weight, ours.kv.weight], [ours.q.bias, ours.kv.bias]
    theirs = torch_attention(heads, weights, biases, ours.proj)
    x, context = torch.randn(2, 7, DIM), torch.randn(2, told, DIM)
    expected = theirs(x, context, context, need_weights=False)[0]
    torch.testing.assert_close(ours(x, context), expected)


def test_is_equation_1_place_by_place():
    heads, width = 3, 4
    attention = Attention(DIM, heads).double().requires_grad_(False)
    x = torch.randn(5, DIM, dtype=torch.float64)
    q, k, v = attention.qkv(x).chunk(3, dim=-1)
    answer = torch.empty_like(x)
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        for i in range(5):
            scores = torch.tensor([q[i, own] @ k[j, own] / math.sqrt(width) for j in range(5)])
            share = scores.exp() / scores.exp().sum()
            answer[i, own] = sum(share[j] * v[j, own] for j in range(5))
    torch.testing.assert_close(attention(x[None])[0], attention.proj(answer))


def test_positions_are_a_set():
    attention, x, order = Attention(DIM, 3), torch.randn(2, 6, DIM), torch.randperm(6)
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order])


@pytest.mark.parametrize("kind", [Attention, CrossAttention])
@pytest.mark.parametrize("heads", [0, -1, 5, 24])
def test_heads_must_divide_the_width(kind, heads):
    with pytest.raises(ValueError, match=f"divide the width 12, not {heads}"):
        kind(DIM, heads)
