"""U-ViT: a transformer with long skips, to which time step and class are tokens like all others.

    x <- [time, class, Embed(patches)] + positions
    x <- Block(x), kept            for the first half
    x <- Block(x)                  in the middle
    x <- Block(W [x, kept])        for the second half, the last one kept first

Blocks have weights in their norms and no bias in Q, K and V. A 3 x 3 convolution ends it. Other
image sizes than the trained one read the learned positions interpolated.

Bao et al., "All are Worth Words: A ViT Backbone for Diffusion Models", 2023 (arXiv 2209.12152),
section 3 and table 1.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from diffussm.models.denoiser_config import DenoiserConfig, patches
from diffussm.models.dit_blocks import Perceptron
from diffussm.nn.attention import Attention, check_heads
from diffussm.nn.embeddings import LabelEmbedding, check_labels, sinusoids
from diffussm.shapes import Image, Labels, Predicted, Signal, TimeStep

STD = 0.02
"""Standard deviation of linears and positions at birth."""


@dataclass(frozen=True, kw_only=True)
class UViTConfig(DenoiserConfig):
    """Everything that makes one U-ViT, without its weights."""

    patch_size: int = 2
    """Side of the square of pixels that shares a token."""
    d_model: int = 512
    """Width of the tokens, even and divisible by num_heads."""
    depth: int = 13
    """Blocks, odd: a middle one and two halves."""
    num_heads: int = 8
    """Heads of each attention."""
    mlp_ratio: int | float = 4
    """Hidden width of each block's perceptron, in units of d_model."""
    label_std: float = 1.0
    """Standard deviation of the label embeddings at birth; 1 as published."""
    learned_variance: bool = False
    """Predict the variance's interpolation beside the noise; the paper does not."""

    def __post_init__(self):
        super().__post_init__()
        self.check_positive("patch_size", "d_model", "depth")
        check_odd(self.depth)
        if self.d_model % 2:
            raise ValueError(f"d_model must be even for the time token, not {self.d_model}")
        check_heads(self.d_model, self.num_heads)
        if self.mlp_width < 1:
            raise ValueError(
                f"mlp_ratio must leave each perceptron at least one unit, not {self.mlp_ratio}"
            )
        self.tokens(*self.size)

    @property
    def mlp_width(self) -> int:
        """Hidden units of each block's perceptron."""
        return round(self.d_model * self.mlp_ratio)

    @property
    def told(self) -> int:
        """Tokens in front of the image's."""
        return 2 if self.num_classes else 1

    def tokens(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens for an image; a ValueError where it does not divide."""
        return patches(height, width, self.patch_size)


def check_odd(depth: int) -> None:
    """A sentence for a depth without a middle."""
    if depth % 2 == 0:
        raise ValueError(f"depth must be odd, a middle block and two halves, not {depth}")


class UViTBlock(nn.Module):
    """Attention and perceptron, each after a norm; in the second half, behind a long skip."""

    def __init__(self, dim: int, heads: int, mlp_width: int, *, joins: bool):
        super().__init__()
        self.skip_linear = nn.Linear(2 * dim, dim) if joins else None
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, qkv_bias=False)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Perceptron(dim, mlp_width)

    def forward(self, x: Signal, kept: Signal | None = None) -> Signal:
        if self.skip_linear is not None and kept is not None:
            x = self.skip_linear(torch.cat([x, kept], dim=-1))
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class UViT(nn.Module):
    """The denoiser: noisy image, time step and class in; noise (and variance) out.

    (batch, channels, height, width), (batch,), (batch,) -> (batch, channels or 2 channels, height,
    width). Works at any size that the patch divides.
    """

    def __init__(self, config: UViTConfig):
        super().__init__()
        self.config = config
        dim, patch = config.d_model, config.patch_size
        half, rows, columns = config.depth // 2, *config.tokens(*config.size)
        self.patch_embed = nn.Conv2d(config.in_channels, dim, patch, stride=patch)
        self.label = None
        if config.num_classes:
            self.label = LabelEmbedding(config.num_classes, dim, config.label_std)
        self.pos_embed = nn.Parameter(torch.empty(1, config.told + rows * columns, dim))
        self.in_blocks, self.mid_block, self.out_blocks = (
            nn.ModuleList(
                UViTBlock(dim, config.num_heads, config.mlp_width, joins=joins)
                for _ in range(count)
            )
            for count, joins in ((half, False), (1, False), (half, True))
        )
        self.norm = nn.LayerNorm(dim)
        self.decoder_pred = nn.Linear(dim, patch**2 * config.out_channels)
        self.final_layer = nn.Conv2d(config.out_channels, config.out_channels, 3, padding=1)
        self._initialize()

    def forward(self, x_t: Image, t: TimeStep, y: Labels | None = None) -> Predicted:
        rows, columns = self.config.tokens(*x_t.shape[2:])
        told = self._told(t, y)
        x = self.patch_embed(x_t).flatten(2).mT
        x = torch.cat([told.to(x.dtype), x], dim=1) + self._positions(rows, columns)
        kept = []
        for block in self.in_blocks:
            x = block(x)
            kept.append(x)
        for block in self.mid_block:
            x = block(x)
        for block in self.out_blocks:
            x = block(x, kept.pop())
        image = rearrange(
            self.decoder_pred(self.norm(x))[:, told.shape[1] :],
            "b (row col) (p q c) -> b c (row p) (col q)",
            row=rows,
            p=self.config.patch_size,
            q=self.config.patch_size,
        )
        return self.final_layer(image)

    @property
    def blocks(self) -> list[nn.Module]:
        """All blocks, in order."""
        return [*self.in_blocks, *self.mid_block, *self.out_blocks]

    def _told(self, t: Tensor, y: Tensor | None) -> Tensor:
        """Time, and class where there are any, as tokens: (batch, 1 or 2, dim)."""
        check_labels(y, self.config.num_classes)
        time = sinusoids(t, self.config.d_model)
        return time[:, None] if self.label is None else torch.stack([time, self.label(y)], dim=1)

    def _positions(self, rows: int, columns: int) -> Tensor:
        trained = self.config.tokens(*self.config.size)
        if (rows, columns) == trained:
            return self.pos_embed
        told, image = self.pos_embed.tensor_split([self.config.told], dim=1)
        grid = image.mT.unflatten(2, trained)
        grid = F.interpolate(grid, size=(rows, columns), mode="bilinear", align_corners=False)
        return torch.cat([told, grid.flatten(2).mT], dim=1)

    def _initialize(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


UVIT_PRESETS: dict[str, dict[str, Any]] = {
    "U-ViT-S/2": {"depth": 13, "d_model": 512, "num_heads": 8},
    "U-ViT-M/2": {"depth": 17, "d_model": 768, "num_heads": 12},
    "U-ViT-L/2": {"depth": 21, "d_model": 1024, "num_heads": 16},
    "U-ViT-H/2": {"depth": 29, "d_model": 1152, "num_heads": 16},
}
"""The paper's sizes (table 1), at patch 2 on latents."""
