"""DiT: a denoiser of attention blocks, the baseline that DiffuSSM is measured against.

    x <- Embed(patches) + positions,    x <- Block(x, told) for each block,    answer <- Final(x)

A token is a square of patch x patch pixels; what the blocks are, and how they are told the time
step and the class, is in `dit_blocks.py`. With "adaln-zero" the parameters have the names and
shapes of the published checkpoints; `diffussm.interop.dit_checkpoint` reads these.

Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023 (arXiv 2212.09748), section 3.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from diffussm.config import choose
from diffussm.models.denoiser_config import DenoiserConfig, patches
from diffussm.models.dit_blocks import (
    CONDITIONINGS,
    AdaLNZeroBlock,
    AdaptiveFinal,
    PlainFinal,
)
from diffussm.nn.attention import check_heads
from diffussm.nn.embeddings import (
    LabelEmbedding,
    TimestepEmbedding,
    check_labels,
    grid_positions,
)
from diffussm.nn.initialization import initialize, zero
from diffussm.shapes import Image, Labels, Predicted, Signal, TimeStep


@dataclass(frozen=True, kw_only=True)
class DiTConfig(DenoiserConfig):
    """Everything that makes one DiT, without its weights."""

    patch_size: int = 2
    """Side of the square of pixels that shares a token."""
    d_model: int = 384
    """Width of the tokens, divisible by 4 and by num_heads."""
    depth: int = 12
    """Blocks."""
    num_heads: int = 6
    """Heads of each attention."""
    mlp_ratio: int | float = 4
    """Hidden width of each block's perceptron, in units of d_model."""
    conditioning: str = "adaln-zero"
    """How blocks are told the time step and the class, one of CONDITIONINGS."""

    def __post_init__(self):
        super().__post_init__()
        choose("conditioning", self.conditioning, CONDITIONINGS)
        self.check_positive("patch_size", "d_model", "depth")
        if self.d_model % 4:
            raise ValueError(
                f"d_model must be divisible by 4 for 2-D positions, not {self.d_model}"
            )
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

    def tokens(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens for an image; a ValueError where it does not divide."""
        return patches(height, width, self.patch_size)


class PatchEmbedding(nn.Module):
    """Squares of pixels to tokens, (batch, channels, height, width) -> (batch, length, dim).

    By name and shape a convolution, as published; computed as the matrix product that it is.
    """

    def __init__(self, channels: int, dim: int, patch: int):
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)
        nn.init.xavier_uniform_(self.proj.weight.flatten(1))
        nn.init.zeros_(self.proj.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Image) -> Signal:
        pixels = rearrange(
            x, "b c (row p) (col q) -> b (row col) (c p q)", p=self.patch, q=self.patch
        )
        return F.linear(pixels, self.proj.weight.flatten(1), self.proj.bias)


class PublishedLabels(LabelEmbedding):
    """A label embedding whose table goes by its published name."""

    def __init__(self, num_classes: int, dim: int, std: float):
        super().__init__(num_classes, dim, std)
        self.embedding_table = self._modules.pop("table")

    @property
    def table(self):
        return self.embedding_table


class DiT(nn.Module):
    """The denoiser: noisy image, time step and class in; noise (and variance) out.

    (batch, channels, height, width), (batch,), (batch,) -> (batch, channels or 2 channels, height,
    width). Works at any size that the patch divides.
    """

    pos_embed: Tensor

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.config = config
        self.conditioning = CONDITIONINGS[config.conditioning]
        dim, pixels = config.d_model, config.patch_size**2
        self.x_embedder = PatchEmbedding(config.in_channels, dim, config.patch_size)
        self.t_embedder = TimestepEmbedding(dim)
        self.y_embedder = None
        if config.num_classes:
            self.y_embedder = PublishedLabels(config.num_classes, dim, config.label_std)
        self.register_buffer("pos_embed", grid_positions(*config.tokens(*config.size), dim)[None])
        block = self.conditioning.block
        self.blocks = nn.ModuleList(
            block(dim, config.num_heads, config.mlp_width) for _ in range(config.depth)
        )
        final = AdaptiveFinal if self.conditioning.adaptive else PlainFinal
        self.final_layer = final(dim, pixels * config.out_channels)
        self._initialize()

    def forward(self, x_t: Image, t: TimeStep, y: Labels | None = None) -> Predicted:
        rows, columns = self.config.tokens(*x_t.shape[2:])
        x = self.x_embedder(x_t) + self._positions(rows, columns)
        told = self._told(t, y)
        extra = told.shape[1] if self.conditioning.among_tokens else 0
        if extra:  # where they stand is not encoded: attention knows them by their content
            x = torch.cat([told, x], dim=1)
        for block in self.blocks:
            x = block(x, told)
        patch = self.config.patch_size
        return rearrange(
            self.final_layer(x[:, extra:], told),
            "b (row col) (p q c) -> b c (row p) (col q)",
            row=rows,
            p=patch,
            q=patch,
        )

    def _told(self, t: Tensor, y: Tensor | None) -> Tensor:
        """What the blocks are told: (batch, 1, dim), or (batch, 2, dim) for time step and class."""
        check_labels(y, self.config.num_classes)
        time = self.t_embedder(t)
        if self.y_embedder is None:
            return time[:, None]
        label = self.y_embedder(y)
        if self.conditioning.adaptive:
            return (time + label)[:, None]
        return torch.stack([time, label], dim=1)

    def _positions(self, rows: int, columns: int) -> Tensor:
        if (rows, columns) == self.config.tokens(*self.config.size):
            return self.pos_embed
        dim, trained = self.config.d_model, self.pos_embed
        return grid_positions(rows, columns, dim, trained.device).to(trained.dtype)

    def _initialize(self) -> None:
        # The paper leaves open how blocks without gates start: like any linear, also their
        # modulation. Whatever the blocks, the final layer starts at zero.
        initialize(self)
        for part in (*self.blocks, self.final_layer):
            if isinstance(part, AdaLNZeroBlock | AdaptiveFinal):
                for parameter in part.adaLN_modulation.parameters():
                    nn.init.zeros_(parameter)
        zero(self.final_layer.linear)


_SIZES: dict[str, dict[str, Any]] = {
    "S": {"depth": 12, "d_model": 384, "num_heads": 6},
    "B": {"depth": 12, "d_model": 768, "num_heads": 12},
    "L": {"depth": 24, "d_model": 1024, "num_heads": 16},
    "XL": {"depth": 28, "d_model": 1152, "num_heads": 16},
}

DIT_PRESETS: dict[str, dict[str, Any]] = {
    f"DiT-{size}/{patch}": options | {"patch_size": patch}
    for size, options in _SIZES.items()
    for patch in (1, 2, 4, 8)
}
"""The paper's sizes (table 1) and patches; patch 1, which it does not train, beside them."""
