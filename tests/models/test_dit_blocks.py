"""The blocks of DiT without gates are torch's own transformer layers, under other names."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffussm.models.dit_blocks import AdaLNBlock, AdaLNZeroBlock, CrossAttentionBlock, PlainBlock


def gelu(x):
    return F.gelu(x, approximate="tanh")


def load_torch_layer(theirs, block, names):
    """Copy a block's weights into a layer of torch."""
    weights = block.state_dict()
    renamed = {}
    for name, other in names.items():
        for kind in ("weight", "bias"):
            value = weights[f"{name}.{kind}"]
            renamed[f"{other}_{kind}" if other.endswith("in_proj") else f"{other}.{kind}"] = value
    theirs.load_state_dict(renamed)
    return theirs.eval()


def drawn(block):
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block.eval().requires_grad_(False)


SELF_ATTENTION = {
    "norm1": "norm1",
    "attn.qkv": "self_attn.in_proj",
    "attn.proj": "self_attn.out_proj",
}
LAYER = {"dropout": 0.0, "activation": gelu, "layer_norm_eps": 1e-6, "batch_first": True}


# Tokens of variance 1e-6 show the eps of the norms, of the later ones where attention is silent.
SIZES = pytest.mark.parametrize(("size", "silent"), [(1, False), (1e-3, False), (1e-3, True)])


def silence(attention):
    for parameter in attention.proj.parameters():
        nn.init.zeros_(parameter)


@SIZES
def test_a_plain_block_is_torchs_encoder_layer(size, silent):
    block = drawn(PlainBlock(16, 2, 40))
    if silent:
        silence(block.attn)
    theirs = nn.TransformerEncoderLayer(16, 2, 40, norm_first=True, **LAYER)
    names = SELF_ATTENTION | {"norm2": "norm2", "mlp.fc1": "linear1", "mlp.fc2": "linear2"}
    x, told = size * torch.randn(2, 7, 16), torch.randn(2, 2, 16)
    torch.testing.assert_close(block(x, told), load_torch_layer(theirs, block, names)(x))


@SIZES
@pytest.mark.parametrize("read", [True, False])
def test_a_cross_attention_block_is_torchs_decoder_layer(size, silent, read):
    block = drawn(CrossAttentionBlock(16, 2, 40))
    if silent:
        silence(block.attn)
    if not read:
        silence(block.cross_attn)
    joined = nn.ModuleDict({"block": block, "in_proj": nn.Linear(16, 48)})
    with torch.no_grad():
        for kind in ("weight", "bias"):
            parts = [getattr(part, kind) for part in (block.cross_attn.q, block.cross_attn.kv)]
            getattr(joined.in_proj, kind).copy_(torch.cat(parts))
    names = {f"block.{ours}": other for ours, other in SELF_ATTENTION.items()} | {
        "block.norm_cross": "norm2",
        "in_proj": "multihead_attn.in_proj",
        "block.cross_attn.proj": "multihead_attn.out_proj",
        "block.norm2": "norm3",
        "block.mlp.fc1": "linear1",
        "block.mlp.fc2": "linear2",
    }
    theirs = nn.TransformerDecoderLayer(16, 2, 40, norm_first=True, **LAYER)
    x, told = size * torch.randn(2, 7, 16), torch.randn(2, 2, 16)
    expected = load_torch_layer(theirs, joined, names)(x, told)
    torch.testing.assert_close(block(x, told), expected)


def test_adaln_is_adaln_zero_with_open_gates():
    block, gated = drawn(AdaLNBlock(16, 2, 40)), AdaLNZeroBlock(16, 2, 40).requires_grad_(False)
    weights = block.state_dict()
    for kind, gate in (("weight", torch.zeros(16, 16)), ("bias", torch.ones(16))):
        name = f"adaLN_modulation.1.{kind}"
        first, second = weights[name].chunk(2)
        weights[name] = torch.cat([first, gate, second, gate])
    gated.load_state_dict(weights)
    x, told = torch.randn(2, 7, 16), torch.randn(2, 1, 16)
    torch.testing.assert_close(block(x, told), gated(x, told))
