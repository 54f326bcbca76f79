"""Multiply-adds of U-ViT and of the U-Net, by formula."""

from diffussm.analysis.cost import Cost
from diffussm.models.unet import Stage, UNetConfig, plan
from diffussm.models.uvit import UViTConfig


def uvit_cost(config: UViTConfig, height: int, width: int) -> Cost:
    """Cost of a U-ViT on one latent of `height` x `width`; ValueError where it does not fit."""
    rows, columns = config.tokens(height, width)
    dim, tokens = config.d_model, rows * columns
    length = tokens + config.told
    pixels = config.patch_size**2

    block = length * (4 * dim**2 + 2 * dim * config.mlp_width)
    skips = config.depth // 2 * length * 2 * dim**2
    ends = tokens * pixels * config.in_channels * dim + length * dim * pixels * config.out_channels
    smooth = height * width * 9 * config.out_channels**2
    return Cost(
        linears=config.depth * block + skips + ends + smooth,
        mixing=config.depth * 2 * length**2 * dim,
        kernels=0,
        positions=length,
        tokens=length,
    )


def unet_cost(config: UNetConfig, height: int, width: int) -> Cost:
    """Cost of a U-Net on one image of `height` x `width`; ValueError where it does not fit.

    Positions are those of its widest attention, none where it has no attention.
    """
    config.check(height, width)
    pixels, told, base = height * width, config.told, config.base_channels
    stages = [stage for part in plan(config) for stage in part]
    first = base * config.multipliers[0]

    def attended(stage: Stage) -> int:
        return pixels // 4**stage.level if stage.attention else 0

    ends = 9 * pixels * first * (config.in_channels + config.out_channels) + base * told + told**2
    return Cost(
        linears=ends
        + sum(_residual(stage, pixels // 4**stage.level, told) for stage in stages)
        + sum(4 * attended(stage) * stage.out**2 for stage in stages),
        mixing=sum(2 * attended(stage) ** 2 * stage.out for stage in stages),
        kernels=0,
        positions=max(map(attended, stages)),
        tokens=pixels,
    )


def _residual(stage: Stage, pixels: int, told: int) -> int:
    """Two convolutions, the modulation and the shortcut of a residual block."""
    shortcut = stage.channels * stage.out if stage.channels != stage.out else 0
    convolutions = 9 * (stage.channels + stage.out) * stage.out + shortcut
    return pixels * convolutions + told * 2 * stage.out
