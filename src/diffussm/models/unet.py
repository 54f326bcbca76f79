"""The ADM U-Net: convolutions on a pyramid of feature maps, attention on chosen levels or none.

    down     blocks on each level, then half the size; every map is kept
    middle   block, attention, block
    up       blocks that also read the kept maps, last one first, then twice the size

`attention_levels = ()` makes it attention-free, also in the middle: the baseline of convolutions
alone. Without classes or learned variance it is the model of the paper's unconditional runs. The
paper's dropout, on in some of its runs, is left out.

Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, section 3 and table 11.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffussm.models.denoiser_config import DenoiserConfig
from diffussm.nn.embeddings import LabelEmbedding, check_labels, sinusoids
from diffussm.nn.initialization import zero
from diffussm.nn.unet_blocks import AttentionBlock, ResidualBlock
from diffussm.shapes import Image, Labels, Predicted, TimeStep


@dataclass(frozen=True, kw_only=True)
class UNetConfig(DenoiserConfig):
    """Everything that makes one U-Net, without its weights."""

    input_size: int | tuple[int, int] = 64
    """Height and width of the image it is trained on; other sizes work at run time."""
    in_channels: int = 3
    """Channels of the image or latent."""
    base_channels: int = 192
    """Channels of the first level, even; all others are multiples."""
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    """Channels of each level, in units of base_channels; each level has half the size."""
    blocks: int = 3
    """Residual blocks a level on the way down; one more on the way up."""
    attention_levels: tuple[int, ...] = (1, 2, 3)
    """Levels whose blocks are followed by attention, 0 the full size; () for none anywhere."""
    head_width: int = 64
    """Channels of an attention head; a level that attends with fewer channels has one head."""
    norm_groups: int = 32
    """Groups of each normalisation; they divide base_channels."""
    label_std: float = 1.0
    """Standard deviation of the label embeddings at birth."""

    def __post_init__(self):
        super().__post_init__()
        self.check_positive("base_channels", "blocks", "head_width", "norm_groups")
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"multipliers must be numbers above 0, not {self.multipliers}")
        if self.base_channels % 2 or self.base_channels % self.norm_groups:
            raise ValueError(
                f"base_channels must be even and divisible by norm_groups {self.norm_groups}, "
                f"not {self.base_channels}"
            )
        levels = len(self.multipliers)
        if not all(0 <= level < levels for level in self.attention_levels):
            raise ValueError(
                f"attention_levels must lie in 0..{levels - 1}, not {self.attention_levels}"
            )
        attending = {stage.out for part in plan(self) for stage in part if stage.attention}
        for channels in sorted(attending):
            if channels > self.head_width and channels % self.head_width:
                raise ValueError(
                    f"head_width {self.head_width} must divide the {channels} channels that attend"
                )
        self.check(*self.size)

    @property
    def told(self) -> int:
        """Width of the condition."""
        return 4 * self.base_channels

    def check(self, height: int, width: int) -> None:
        """A ValueError where the image cannot be halved from level to level."""
        factor = 2 ** (len(self.multipliers) - 1)
        for name, side in (("height", height), ("width", width)):
            if side < 1 or side % factor:
                raise ValueError(
                    f"{name} {side} must be a positive multiple of {factor}, which "
                    f"{len(self.multipliers)} levels halve"
                )


@dataclass(frozen=True)
class Stage:
    """One residual block, and the attention that may follow it."""

    channels: int
    out: int
    level: int
    """Of its output: the image's size over 2^level."""
    resample: str = "same"
    attention: bool = False
    joins: bool = False
    """It also reads a kept map of the way down, whose channels are counted in `channels`."""


def plan(config: UNetConfig) -> tuple[list[Stage], list[Stage], list[Stage]]:
    """The stages down, in the middle and up; what is built and what is counted."""
    base, last = config.base_channels, len(config.multipliers) - 1
    channels = base * config.multipliers[0]
    kept, down, up = [channels], [], []
    for level, times in enumerate(config.multipliers):
        attends = level in config.attention_levels
        for _ in range(config.blocks):
            down.append(Stage(channels, base * times, level, attention=attends))
            channels = base * times
            kept.append(channels)
        if level < last:
            down.append(Stage(channels, channels, level + 1, "down"))
            kept.append(channels)
    plain = Stage(channels, channels, last)
    attending = Stage(channels, channels, last, attention=bool(config.attention_levels))
    for level in reversed(range(last + 1)):
        out, attends = base * config.multipliers[level], level in config.attention_levels
        for _ in range(config.blocks + 1):
            stage = Stage(channels + kept.pop(), out, level, attention=attends, joins=True)
            up.append(stage)
            channels = out
        if level:
            up.append(Stage(channels, channels, level - 1, "up"))
    return down, [attending, plain], up


class StageBlock(nn.Module):
    """A stage as a network."""

    def __init__(self, stage: Stage, config: UNetConfig):
        super().__init__()
        self.joins = stage.joins
        groups, told = config.norm_groups, config.told
        self.residual = ResidualBlock(stage.channels, stage.out, told, groups, stage.resample)
        self.attention = None
        if stage.attention:
            self.attention = AttentionBlock(stage.out, config.head_width, groups)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = self.residual(x, condition)
        return x if self.attention is None else self.attention(x)


class UNet(nn.Module):
    """The denoiser: noisy image, time step and class in; noise (and variance) out.

    (batch, channels, height, width), (batch,), (batch,) -> (batch, channels or 2 channels, height,
    width). Works at any size that its levels can halve.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        base, told = config.base_channels, config.told
        self.time = nn.Sequential(nn.Linear(base, told), nn.SiLU(), nn.Linear(told, told))
        self.label = None
        if config.num_classes:
            self.label = LabelEmbedding(config.num_classes, told, config.label_std)
        first = base * config.multipliers[0]
        self.enter = nn.Conv2d(config.in_channels, first, 3, padding=1)
        self.down, self.middle, self.up = (
            nn.ModuleList(StageBlock(stage, config) for stage in stages) for stages in plan(config)
        )
        self.norm = nn.GroupNorm(config.norm_groups, first)
        self.leave = nn.Conv2d(first, config.out_channels, 3, padding=1)
        zero(self.leave)

    def forward(self, x_t: Image, t: TimeStep, y: Labels | None = None) -> Predicted:
        self.config.check(*x_t.shape[2:])
        check_labels(y, self.config.num_classes)
        condition = self.time(sinusoids(t, self.config.base_channels).to(x_t.dtype))
        if self.label is not None:
            condition = condition + self.label(y)
        x = self.enter(x_t)
        kept = [x]
        for stage in self.down:
            x = stage(x, condition)
            kept.append(x)
        for stage in self.middle:
            x = stage(x, condition)
        for stage in self.up:
            x = stage(torch.cat([x, kept.pop()], dim=1) if stage.joins else x, condition)
        return self.leave(F.silu(self.norm(x)))

    @property
    def blocks(self) -> list[nn.Module]:
        """All blocks, in order."""
        return [*self.down, *self.middle, *self.up]


UNET_PRESETS: dict[str, dict[str, Any]] = {
    "ADM-64": {},
    "ADM-256": {
        "input_size": 256,
        "base_channels": 256,
        "multipliers": (1, 1, 2, 2, 4, 4),
        "blocks": 2,
        "attention_levels": (3, 4, 5),
    },
}
"""ImageNet at 64 and 256 pixels, class-conditional (table 11)."""
