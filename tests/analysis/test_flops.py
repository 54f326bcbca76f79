"""Costs by formula against counted ones and against published ones."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from diffussm.analysis.flops import COSTS, cost, diffussm_cost
from diffussm.analysis.ssm_flops import SSM_COSTS, krylov_products
from diffussm.models import MODELS, DiffuSSMConfig, build, create_model, model_config
from diffussm.models.diffussm import CONDITIONINGS as DIFFUSSM_CONDITIONINGS
from diffussm.models.dit import DiTConfig
from diffussm.models.dit_blocks import CONDITIONINGS
from diffussm.models.unet import UNetConfig
from diffussm.models.uvissm import UViSSMConfig
from diffussm.models.uvit import UViTConfig
from diffussm.ops.krylov import krylov
from diffussm.ssm.choices import SSMS

aten = torch.ops.aten
SCAN = torch.ops.diffussm.selective_scan

CONFIGS = [
    {"hourglass_ratio": 1},
    {"hourglass_ratio": 2},
    {"hourglass_ratio": 4},
    {"hourglass_ratio": 2, "patch_size": 2},
    {"hourglass_ratio": 1, "patch_size": 2, "matrices": "figure"},
    {"matrices": "figure"},
    {"bidirectional": False},
    {"bidirectional": False, "matrices": "figure", "hourglass_ratio": 4},
    {"learned_variance": False, "in_channels": 1},
    {"num_classes": 0},
    {"d_state": 6, "depth": 1},
    *({"conditioning": conditioning} for conditioning in DIFFUSSM_CONDITIONINGS),
    {"conditioning": "six", "matrices": "figure"},
    {"conditioning": "tokens", "hourglass_ratio": 4, "num_classes": 0},
]


def counted(config, height, width):
    """Flops of one forward pass on one image: matrix products, mixing, kernels."""
    network = build(config)
    labels = torch.zeros(1, dtype=torch.long) if config.num_classes else None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.randn(1, config.in_channels, height, width), torch.zeros(1).long(), labels)
    flops = counter.get_flop_counts()["Global"]
    return (
        flops.get(aten.addmm, 0) + flops.get(aten.mm, 0),
        flops.get(torch.ops.diffussm.long_conv, 0) + flops.get(SCAN, 0),
        flops.get(aten.bmm, 0) + flops.get(torch.ops.diffussm.vandermonde, 0),
    )


@pytest.mark.parametrize("options", CONFIGS, ids=str)
def test_the_formula_counts_what_a_counter_counts(options):
    config = DiffuSSMConfig(
        **({"input_size": 16, "d_model": 12, "depth": 3, "d_state": 8} | options)
    )
    linears, mixing, kernels = counted(config, 8, 16)
    cost = diffussm_cost(config, 8, 16)
    assert cost.linears == linears / 2
    assert cost.mixing == pytest.approx(mixing / 2, abs=config.depth)  # odd ones are rounded down
    # lengths here are powers of two, no kernel is cut, but for those with tokens at their ends
    assert cost.kernels == pytest.approx(kernels / 2, rel=0.1 if config.by_tokens else 0)
    assert cost.total == cost.linears + cost.mixing
    ends = 2 * config.hourglass_ratio if config.by_tokens else 0
    assert cost.positions == 8 * 16 / config.patch_size**2 + ends
    assert cost.tokens == cost.positions / config.hourglass_ratio


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("ssm", SSM_COSTS)
def test_the_formula_counts_every_layer(ssm, bidirectional):
    options = {"input_size": 16, "d_model": 16, "depth": 3, "ssm": ssm}
    config = DiffuSSMConfig(**options, bidirectional=bidirectional)
    linears, mixing, kernels = counted(config, 8, 16)
    cost = diffussm_cost(config, 8, 16)
    state, directions = config.ssm_options["d_state"], 2 if bidirectional else 1
    length, layers = 128, 3 * directions
    # what no counter sees: S4's FFTs, LSSL's solves, Mamba's short convolution
    unseen = {"s4": 4 * 16 * 1.25 * 256 * 8, "lssl": 16 * round(4 / 3 * state**3)}.get(ssm, 0)
    assert cost.linears == linears / 2
    assert cost.mixing - (layers * length * 16 * 4 if ssm == "mamba" else 0) == mixing / 2
    assert cost.kernels - layers * unseen == kernels / 2


def test_every_layer_has_a_cost():
    assert SSM_COSTS.keys() == SSMS.keys()


@pytest.mark.parametrize(("state", "length"), [(2, 1), (4, 2), (4, 65), (8, 64), (16, 1000)])
def test_krylov_products_are_counted(state, length):
    a_bar, b_bar, c = torch.rand(3, state, state), torch.rand(3, state), torch.rand(3, state)
    with FlopCounterMode(display=False) as counter:
        krylov(a_bar, b_bar, c, length)
    assert counter.get_total_flops() == 2 * 3 * krylov_products(state, length)


@pytest.mark.parametrize(("matrices", "giga"), [("totals", 280), ("figure", 296)])
def test_xl_costs_what_the_paper_says(matrices, giga):
    config = model_config("DiffuSSM-XL", {"matrices": matrices})
    cost = diffussm_cost(config, 32, 32)
    assert cost.total == pytest.approx(giga * 1e9, rel=0.02)
    assert 0 < cost.mixing < 0.03 * cost.total


@pytest.mark.parametrize(("matrices", "millions"), [("totals", 673.1), ("figure", 711.6)])
def test_xl_has_the_parameters_that_the_paper_says(matrices, millions):
    with torch.device("meta"):
        network = create_model("DiffuSSM-XL", matrices=matrices)
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters == pytest.approx(millions * 1e6, rel=0.005)


def test_cost_grows_hardly_faster_than_the_image():
    config = model_config("DiffuSSM-XL", {})
    small, large = diffussm_cost(config, 32, 32).total, diffussm_cost(config, 128, 128).total
    assert 16 < large / small < 16.2


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="width 33"):
        diffussm_cost(model_config("DiffuSSM-S", {}), 32, 33)


# Peebles and Xie, 2023, and their code at twice the side
PUBLISHED = [("DiT-S/2", 32, 6.06), ("DiT-L/2", 32, 80.7), ("DiT-XL/2", 32, 118.6)]
PUBLISHED += [("DiT-B/2", 32, 23.0)]
PUBLISHED += [("DiT-XL/2", 64, 524.5)]


@pytest.mark.parametrize(("name", "size", "giga"), PUBLISHED)
def test_dit_costs_what_is_published(name, size, giga):
    counted = cost(model_config(name, {}), size, size)
    assert counted.total == pytest.approx(giga * 1e9, rel=0.005)
    assert counted.tokens == (size // 2) ** 2


# Bao et al., 2023, table 2; Dhariwal and Nichol's U-Net as Peebles and Xie count it, table 2
@pytest.mark.parametrize(
    ("name", "size", "giga"),
    [("U-ViT-L/2", 32, 77), ("U-ViT-H/2", 32, 133), ("ADM-256", 256, 1120)],
)
def test_the_baselines_cost_what_is_published(name, size, giga):
    assert cost(model_config(name, {}), size, size).total == pytest.approx(giga * 1e9, rel=0.008)


BASELINES = [
    UViTConfig(d_model=16, depth=5, num_heads=2, num_classes=3),
    UViTConfig(d_model=16, depth=1, num_heads=2, num_classes=0, patch_size=4),
    UViTConfig(d_model=16, depth=3, num_heads=2, mlp_ratio=2.5, learned_variance=True),
    UNetConfig(base_channels=32, multipliers=(1, 2, 2), blocks=1, attention_levels=(1,)),
    UNetConfig(base_channels=32, multipliers=(2, 1), blocks=2, attention_levels=()),
    UNetConfig(base_channels=64, multipliers=(1,), attention_levels=(0,), num_classes=0),
    UViSSMConfig(d_model=12, depth=5, d_state=8, conditioning="tokens"),
    UViSSMConfig(d_model=12, depth=5, d_state=8),
]


@pytest.mark.parametrize("config", BASELINES, ids=str)
def test_the_formula_counts_every_baseline(config):
    network, channels = build(config), config.in_channels
    labels = torch.zeros(1, dtype=torch.long) if config.num_classes else None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.randn(1, channels, 8, 16), torch.zeros(1).long(), labels)
    flops = counter.get_flop_counts()["Global"]
    seen = sum(flops.get(kind, 0) for kind in (aten.addmm, aten.mm, aten.convolution))
    assert cost(config, 8, 16).linears == seen / 2


def test_the_mixing_of_the_baselines():
    """By hand: no counter sees attention on a CPU."""
    vit = cost(UViTConfig(d_model=16, depth=5, num_heads=2), 8, 16)
    assert (vit.positions, vit.mixing) == (34, 5 * 2 * 34**2 * 16)
    small = UNetConfig(base_channels=32, multipliers=(1, 2, 2), blocks=1, attention_levels=(1,))
    unet = cost(small, 8, 16)  # two attentions on the way up, one down, one in the middle
    assert (unet.positions, unet.mixing) == (32, 3 * 2 * 32**2 * 64 + 2 * 8**2 * 64)
    straight = DiffuSSMConfig(d_model=12, depth=5, d_state=8)
    assert cost(BASELINES[-1], 8, 16).mixing == cost(straight, 8, 16).mixing


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_the_formula_counts_every_dit(conditioning, classes):
    options = {"input_size": 8, "d_model": 16, "depth": 2, "num_heads": 2, "num_classes": classes}
    config = DiTConfig(conditioning=conditioning, **options)
    network = build(config)
    labels = torch.zeros(1, dtype=torch.long) if classes else None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.randn(1, 4, 4, 8), torch.zeros(1).long(), labels)
    flops = counter.get_flop_counts()["Global"]
    counted = cost(config, 4, 8)
    assert counted.linears == (flops.get(aten.addmm, 0) + flops.get(aten.mm, 0)) / 2
    length, told = counted.positions, 2 if classes else 1
    read = told if conditioning == "cross-attention" else 0
    assert counted.mixing == 2 * 2 * length * (length + read) * 16  # no counter sees it on a CPU
    assert counted.tokens == 8 == length - (told if conditioning == "in-context" else 0)


def test_every_model_has_a_cost():
    assert COSTS.keys() == {config for _, config in MODELS.values()}
