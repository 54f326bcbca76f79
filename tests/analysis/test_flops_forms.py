"""What each form of a layer costs, and attention, which counters see when it is written out."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffussm.analysis.flops import cost
from diffussm.models import DiffuSSMConfig, build
from diffussm.models.dit import DiTConfig
from diffussm.models.dit_blocks import CONDITIONINGS
from diffussm.models.unet import UNetConfig
from diffussm.models.uvit import UViTConfig
from diffussm.ops.forms import use_form

SMALL = {"in_channels": 1, "num_classes": 0}


def counted(config, height, width):
    """Flops of a forward pass on one image, by operator."""
    network = build(config)
    x = torch.randn(1, config.in_channels, height, width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, torch.zeros(1).long())
    return counter.get_flop_counts()["Global"]


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("width", [8, 10, 34])  # a chunk, more than one, many
def test_chunks_are_counted(width, bidirectional):
    config = DiffuSSMConfig(
        d_model=12, depth=2, d_state=6, bidirectional=bidirectional, hourglass_ratio=2, **SMALL
    )
    with use_form("diagonal_conv", "chunked"):
        seen = counted(config, 8, width).get(torch.ops.diffussm.chunked_conv, 0)
        found = cost(config, 8, width)
    assert seen > 0
    assert found.mixing == seen / 2
    assert found.linears == cost(config, 8, width).linears
    assert found.mixing != cost(config, 8, width).mixing


def test_chunks_cost_the_same_at_every_position():
    """docs/performance.md: 4 (c + 2 N) flops a number and both directions, c = 64."""
    config = DiffuSSMConfig(d_model=12, depth=1, d_state=64, num_classes=0)
    with use_form("diagonal_conv", "chunked"):
        short, long = (cost(config, side, side) for side in (32, 256))
    for found in (short, long):
        assert 2 * found.mixing == found.positions * 12 * 4 * (64 + 2 * 64)
    assert short.kernels == long.kernels  # a chunk's matrices, however long the sequence


def test_other_layers_have_one_form():
    config = DiffuSSMConfig(d_model=12, depth=1, ssm="s4", num_classes=0)
    with use_form("diagonal_conv", "chunked"):
        asked = cost(config, 32, 32)
    assert asked == cost(config, 32, 32)


ATTENTIVE = [
    DiTConfig(d_model=16, depth=2, num_heads=2, conditioning=name, **SMALL)
    for name in CONDITIONINGS
]
ATTENTIVE += [
    UViTConfig(d_model=16, depth=3, num_heads=2, **SMALL),
    UNetConfig(base_channels=32, multipliers=(1, 2), blocks=1, attention_levels=(0, 1), **SMALL),
]


@pytest.mark.parametrize("config", ATTENTIVE, ids=str)
def test_attention_is_counted_where_it_is_written_out(config):
    with sdpa_kernel(SDPBackend.MATH):
        seen = counted(config, 8, 16).get(torch.ops.aten.bmm, 0)
    assert cost(config, 8, 16).mixing == seen / 2
