"""What an ADM U-Net is made of: residual blocks on feature maps, told the condition, and attention.

    h = conv(silu(norm(x))),    x <- shortcut(x) + conv(silu(norm(h) (1 + scale) + shift))

A block may also halve or double the map: before the first convolution, on both ways. The last
convolution of each branch is zero at birth.

Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, section 3.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffussm.nn.attention import Attention
from diffussm.nn.initialization import zero
from diffussm.shapes import Condition, Image

Map = Float[Tensor, "batch out out_height out_width"]
"""A feature map, of another size and with other channels than the one before."""


def halve(x: Tensor) -> Tensor:
    """Means of 2 x 2 squares."""
    return F.avg_pool2d(x, 2)


def double(x: Tensor) -> Tensor:
    """Each pixel four times."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


RESAMPLE = {"same": lambda x: x, "down": halve, "up": double}


class ResidualBlock(nn.Module):
    """(batch, channels, height, width), (batch, told) -> (batch, out, height', width').

    groups      of the norms; they must divide both numbers of channels
    resample    one of RESAMPLE
    """

    def __init__(self, channels: int, out: int, told: int, groups: int, resample: str = "same"):
        super().__init__()
        self.resample = RESAMPLE[resample]
        self.norm_in = nn.GroupNorm(groups, channels)
        self.conv_in = nn.Conv2d(channels, out, 3, padding=1)
        self.modulation = nn.Linear(told, 2 * out)
        self.norm_out = nn.GroupNorm(groups, out)
        self.conv_out = nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)
        zero(self.conv_out)

    def forward(self, x: Image, condition: Condition) -> Map:
        h = self.conv_in(self.resample(F.silu(self.norm_in(x))))
        scale, shift = self.modulation(F.silu(condition))[..., None, None].chunk(2, dim=1)
        h = self.norm_out(h) * (1 + scale) + shift
        return self.shortcut(self.resample(x)) + self.conv_out(F.silu(h))


class AttentionBlock(nn.Module):
    """Every pixel of a feature map reads every other, by heads of `head_width` channels."""

    def __init__(self, channels: int, head_width: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.attention = Attention(channels, max(1, channels // head_width))
        zero(self.attention.proj)

    def forward(self, x: Image) -> Image:
        pixels = self.norm(x).flatten(2).mT
        return x + self.attention(pixels).mT.unflatten(2, x.shape[2:])
