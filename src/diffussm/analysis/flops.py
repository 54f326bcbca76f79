"""Multiply-adds of one forward pass for one image, by formula.

Counters miss FFTs and some attention kernels, so costs here are arithmetic, checked in the tests
against counted ones where a counter can see. As in the literature a "Gflop" is 1e9 multiply-adds.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from diffussm.analysis.cost import Cost
from diffussm.analysis.ssm_flops import SSM_COSTS
from diffussm.analysis.unet_flops import unet_cost, uvit_cost
from diffussm.models.diffussm import MATRICES, DiffuSSMConfig
from diffussm.models.dit import DiTConfig
from diffussm.models.unet import UNetConfig
from diffussm.models.uvissm import UViSSMConfig
from diffussm.models.uvit import UViTConfig
from diffussm.nn.embeddings import FREQUENCIES


def diffussm_cost(config: DiffuSSMConfig, height: int, width: int) -> Cost:
    """Cost of a DiffuSSM on one latent of `height` x `width`; ValueError where it does not fit."""
    rows, columns = config.tokens(height, width)
    dim, ratio, pictured = config.d_model, config.hourglass_ratio, rows * columns
    widths, directions = MATRICES[config.matrices], 2 if config.bidirectional else 1
    tokens = pictured + (2 if config.by_tokens else 0)
    positions = tokens * ratio
    pixels = ratio * config.patch_size**2

    dense = tokens * dim * widths.dense * dim
    expand = positions * widths.dense * dim * dim
    contract = positions * directions * dim * (2 * dim // ratio)
    fusion = tokens * widths.fused * dim * (dim + 2 * dim + dim)
    vectors = {"three": 3, "six": 3 + 3 * widths.fused, "tokens": 0}[config.conditioning] * dim**2
    block = dense + expand + contract + fusion + vectors
    final = 0 if config.by_tokens else 2 * dim**2
    ends = pictured * dim * pixels * (config.in_channels + config.out_channels) + final
    condition = FREQUENCIES * dim + dim**2
    layer = SSM_COSTS[config.ssm](dim, positions, directions, config.ssm_options)
    return Cost(
        linears=config.depth * (block + layer.linears) + ends + condition,
        mixing=config.depth * layer.mixing,
        kernels=config.depth * layer.kernels,
        positions=positions,
        tokens=tokens,
    )


def uvissm_cost(config: UViSSMConfig, height: int, width: int) -> Cost:
    """Cost of a UViSSM, a DiffuSSM with long skips; ValueError where the image does not fit."""
    straight = diffussm_cost(config, height, width)
    skips = config.depth // 2 * straight.tokens * 2 * config.d_model**2
    return replace(straight, linears=straight.linears + skips)


def dit_cost(config: DiTConfig, height: int, width: int) -> Cost:
    """Cost of a DiT on one latent of `height` x `width`; ValueError where it does not fit."""
    rows, columns = config.tokens(height, width)
    dim, tokens = config.d_model, rows * columns
    told = 2 if config.num_classes else 1
    among = told if config.conditioning == "in-context" else 0
    length = tokens + among
    pixels = config.patch_size**2

    linears = length * (4 * dim**2 + 2 * dim * config.mlp_width)
    products = 2 * length**2 * dim
    if config.conditioning == "cross-attention":
        linears += 2 * tokens * dim**2 + 2 * told * dim**2
        products += 2 * tokens * told * dim
    modulation = {"adaln-zero": 6, "adaln": 4}.get(config.conditioning, 0) * dim**2
    final = 2 * dim**2 if modulation else 0
    ends = (
        tokens * dim * pixels * (config.in_channels + config.out_channels)
        + final
        + FREQUENCIES * dim
        + dim**2
    )
    return Cost(
        linears=config.depth * (linears + modulation) + ends,
        mixing=config.depth * products,
        kernels=0,
        positions=length,
        tokens=tokens,
    )


COSTS: dict[type, Callable[[Any, int, int], Cost]] = {
    DiffuSSMConfig: diffussm_cost,
    UViSSMConfig: uvissm_cost,
    DiTConfig: dit_cost,
    UViTConfig: uvit_cost,
    UNetConfig: unet_cost,
}


def cost(config: Any, height: int, width: int) -> Cost:
    """Cost of the model of any config on one image or latent; ValueError where it does not fit."""
    return COSTS[type(config)](config, height, width)
