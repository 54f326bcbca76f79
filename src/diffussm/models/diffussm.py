"""DiffuSSM: a denoiser of bidirectional gated state space blocks with an hourglass.

One block (l a position, j = l div M its token, k = l mod M its place in it):

    h = LayerNorm(x) (1 + scale) + shift                     tokens x D
    U_l = act(W_k^up act(W^0 h_j))                           positions x D
    Y = [SSM_forward(U), SSM_backward(U)]                    positions x 2D
    I_{j,k} = act(W_k^down Y_l)                              tokens x 2D
    x <- x + gate W^3 (act(W^2 I) * act(W^1 h))              tokens x D

Yan, Gu and Rush, "Diffusion Models Without Attention", 2024, section 4.2. What the paper leaves
open, and what we chose, is in docs/choices.md. Two other ways to tell the blocks the time step and
the class stand beside the published three vectors, see CONDITIONINGS; they are not the paper's.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffussm.config import choose
from diffussm.models.denoiser_config import DenoiserConfig
from diffussm.nn.adaln import ModulatedNorm, Modulation
from diffussm.nn.embeddings import LabelEmbedding, TimestepEmbedding, check_labels, grid_positions
from diffussm.nn.hourglass import Contract, Expand
from diffussm.nn.initialization import initialize, zero
from diffussm.nn.scan_order import SCANS
from diffussm.shapes import Condition, Image, Labels, Predicted, Signal, TimeStep
from diffussm.ssm.bidirectional import Bidirectional
from diffussm.ssm.choices import SSMS, ssm_options
from diffussm.ssm.layer import Layer


@dataclass(frozen=True)
class Widths:
    """Output widths of the block's matrices, in units of D; W^3 always returns to D."""

    dense: int
    """W^0."""
    fused: int
    """W^1 and W^2, whose outputs are multiplied."""


# The paper prints no shapes. "totals" matches its parameter and multiply-add counts, "figure" its
# figure 2 and the formulas of section 4.2.
MATRICES = {"totals": Widths(dense=2, fused=1), "figure": Widths(dense=1, fused=2)}


@dataclass(frozen=True, kw_only=True)
class DiffuSSMConfig(DenoiserConfig):
    """Everything that makes one DiffuSSM, without its weights."""

    patch_size: int = 1
    """Side of the square of pixels that shares a token; the paper needs none."""
    d_model: int = 384
    """Width D of the residual stream, divisible by 4."""
    depth: int = 13
    """Blocks."""
    hourglass_ratio: int = 2
    """M, positions along the scan that share a token of the residual stream."""
    matrices: str = "totals"
    """Reading of the paper's matrix shapes, one of MATRICES."""
    bidirectional: bool = True
    """Scan from both ends; otherwise from the first position only."""
    scan: str = "raster"
    """Order in which the blocks read the image, one of SCANS."""
    conditioning: str = "three"
    """How blocks are told the time step and the class, one of CONDITIONINGS."""
    ssm: str = "s4d"
    """State space layer, one of SSMS."""
    d_state: int | None = None
    """State size N of each channel's system, even (mamba: any); 64 (mamba: 16) unless given."""
    ssm_init: str | None = None
    """Continuous A at birth, one of the layer's inits; the layer's own default unless given."""
    discretization: str | None = None
    """One of the layer's discretizations; the layer's own default unless given."""
    dt_min: float = 1e-3
    """Smallest step size at birth; 1 / dt positions are about what a channel remembers."""
    dt_max: float = 1e-1
    """Largest step size at birth."""

    def __post_init__(self):
        super().__post_init__()
        choose("matrices", self.matrices, MATRICES)
        choose("scan", self.scan, SCANS)
        choose("conditioning", self.conditioning, CONDITIONINGS)
        if self.by_tokens and self.scan != "raster":
            raise ValueError(
                f"scan {self.scan!r} reads the sequence as a grid, which it is not with a token at "
                "either end (conditioning 'tokens'); choose raster, or another conditioning"
            )
        # what was left to the layer is written down, so that a file says everything
        options = self.ssm_options
        object.__setattr__(self, "d_state", options["d_state"])
        object.__setattr__(self, "ssm_init", options.get("init"))
        object.__setattr__(self, "discretization", options.get("discretization"))
        self.check_positive("patch_size", "d_model", "depth", "hourglass_ratio")
        if self.d_model % 4:
            raise ValueError(
                f"d_model must be divisible by 4 for 2-D positions, not {self.d_model}"
            )
        self.tokens(*self.size)

    @property
    def by_tokens(self) -> bool:
        """Whether a token at either end of the sequence tells the condition."""
        return self.conditioning == "tokens"

    @property
    def ssm_options(self) -> dict[str, Any]:
        """Keyword arguments of each state space layer; a ValueError for one it does not have."""
        return ssm_options(
            self.ssm,
            d_state=self.d_state,
            init=self.ssm_init,
            discretization=self.discretization,
            dt_min=self.dt_min,
            dt_max=self.dt_max,
        )

    def tokens(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens for an image; a ValueError where it does not divide."""
        across = self.patch_size * self.hourglass_ratio
        if height < 1 or height % self.patch_size:
            raise ValueError(
                f"height {height} must be a positive multiple of patch_size {self.patch_size}"
            )
        if width < 1 or width % across:
            raise ValueError(
                f"width {width} must be a positive multiple of {across} "
                f"(patch_size {self.patch_size} x hourglass_ratio {self.hourglass_ratio})"
            )
        return height // self.patch_size, width // across


class DiffuSSMBlock(nn.Module):
    """One gated, bidirectional state space layer at full length between dense layers at J."""

    def __init__(self, config: DiffuSSMConfig):
        super().__init__()
        dim, ratio = config.d_model, config.hourglass_ratio
        widths = MATRICES[config.matrices]
        self.listen(dim)
        self.dense = nn.Linear(dim, widths.dense * dim)  # W^0
        self.up = Expand(widths.dense * dim, dim, ratio)  # W_k^up
        self.ssm = (
            Bidirectional(_ssm(config), _ssm(config)) if config.bidirectional else _ssm(config)
        )
        both = 2 * dim if config.bidirectional else dim
        self.down = Contract(both, 2 * dim, ratio)  # W_k^down
        self.gate = nn.Linear(dim, widths.fused * dim)  # W^1
        self.value = nn.Linear(2 * dim, widths.fused * dim)  # W^2
        self.out = nn.Linear(widths.fused * dim, dim)  # W^3

    def listen(self, dim: int) -> None:
        """Make what the condition sets before the matrices."""
        self.modulation = Modulation(dim, 3)
        self.norm = ModulatedNorm(dim)

    def forward(self, x: Signal, condition: Condition, rows: int = 1) -> Signal:
        """`rows` above 1: the state space layer reads the image of that many rows by columns."""
        scale, shift, gate = self.modulation(condition)
        return x + gate * self.branch(self.norm(x, scale, shift), condition, rows)

    def branch(self, h: Signal, condition: Condition, rows: int) -> Signal:
        """What the block adds to the stream, before its gate."""
        u = _act(self.up(_act(self.dense(h))))
        contracted = _act(self.down(self.ssm(u, rows)))
        return self.out(self.fuse(self.value(contracted), self.gate(h), condition))

    def fuse(self, value: Tensor, gate: Tensor, condition: Condition) -> Tensor:
        """What W^3 reads, from the outputs of W^2 and W^1."""
        return _act(value) * _act(gate)


class SixVectorBlock(DiffuSSMBlock):
    """A second triple of vectors sets scale, shift and gate of the fusion, the block's second half:

        x <- x + gate W^3 (act((W^2 I) (1 + scale') + shift') * act(W^1 h) (1 + gate'))

    With the second triple at zero, as at birth, it is the published block.
    """

    def __init__(self, config: DiffuSSMConfig):
        super().__init__(config)
        dim = config.d_model
        self.fusion_modulation = Modulation(dim, 3, MATRICES[config.matrices].fused * dim)

    def fuse(self, value: Tensor, gate: Tensor, condition: Condition) -> Tensor:
        scale, shift, more = self.fusion_modulation(condition)
        return _act(value * (1 + scale) + shift) * _act(gate) * (1 + more)


class TokenBlock(DiffuSSMBlock):
    """No vectors: the condition is among the tokens, and the norm has weights, as in plain blocks.

    W^3 is zero at birth in place of the gate, so that the block is the identity then.
    """

    def listen(self, dim: int) -> None:
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Signal, condition: Condition, rows: int = 1) -> Signal:
        return x + self.branch(self.norm(x), condition, rows)


CONDITIONINGS: dict[str, type[DiffuSSMBlock]] = {
    "three": DiffuSSMBlock,
    "six": SixVectorBlock,
    "tokens": TokenBlock,
}
"""three: the published vectors; six: three more at the fusion; tokens: the condition as a token
before the image's and another one behind, dropped at the end."""


class DiffuSSM(nn.Module):
    """The denoiser: noisy image, time step and class in; noise (and variance) out.

    (batch, channels, height, width), (batch,), (batch,) -> (batch, channels or 2 channels, height,
    width). Works at any size whose height the patch divides and whose width patch x ratio divides.
    """

    def __init__(self, config: DiffuSSMConfig):
        super().__init__()
        self.config = config
        dim = config.d_model
        pixels = config.hourglass_ratio * config.patch_size**2  # of a token
        self.embed = nn.Linear(pixels * config.in_channels, dim)
        self.time = TimestepEmbedding(dim)
        self.label = None
        if config.num_classes:
            self.label = LabelEmbedding(config.num_classes, dim, config.label_std)
        self.blocks = nn.ModuleList(
            CONDITIONINGS[config.conditioning](config) for _ in range(config.depth)
        )
        self.by_tokens = config.by_tokens
        if self.by_tokens:
            self.final_norm = nn.LayerNorm(dim, eps=1e-6)
        else:
            self.final_modulation = Modulation(dim, 2)
            self.final_norm = ModulatedNorm(dim)
        self.decode = nn.Linear(dim, pixels * config.out_channels)
        initialize(self)
        zero(self.decode)
        if self.by_tokens:  # no gate is there to be zero
            for block in self.blocks:
                zero(block.out)  # pyright: ignore[reportArgumentType]

    def forward(self, x_t: Image, t: TimeStep, y: Labels | None = None) -> Predicted:
        rows, columns = self.config.tokens(*x_t.shape[2:])
        x = self.embed(self._tokens(x_t, rows, columns))
        x = x + grid_positions(rows, columns, x.shape[-1], x.device).to(x.dtype)
        condition = self._condition(t, y)
        if self.by_tokens:
            end = condition[:, None].to(x.dtype)
            x = self.through_blocks(torch.cat([end, x, end], dim=1), condition, rows)[:, 1:-1]
            return self._image(self.decode(self.final_norm(x)), rows, columns)
        x = self.through_blocks(x, condition, rows)
        shift, scale = self.final_modulation(condition)
        return self._image(self.decode(self.final_norm(x, scale, shift)), rows, columns)

    def through_blocks(self, x: Signal, condition: Condition, rows: int) -> Signal:
        """`x` after all blocks, an image of `rows` rows of tokens."""
        read = SCANS[self.config.scan]
        for number, block in enumerate(self.blocks):
            x = block(x, condition, read(number, rows))
        return x

    def _tokens(self, image: Tensor, rows: int, columns: int) -> Tensor:
        """Pixels of each token side by side: its patches, in them rows, columns and channels."""
        patch, ratio = self.config.patch_size, self.config.hourglass_ratio
        grid = image.reshape(*image.shape[:2], rows, patch, columns, ratio, patch)
        return grid.permute(0, 2, 4, 5, 3, 6, 1).flatten(3).flatten(1, 2)

    def _image(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        """The way back from `_tokens`, for any number of channels."""
        patch, ratio = self.config.patch_size, self.config.hourglass_ratio
        grid = tokens.unflatten(2, (ratio, patch, patch, -1)).unflatten(1, (rows, columns))
        return grid.permute(0, 6, 1, 4, 2, 3, 5).flatten(4).flatten(2, 3)

    def _condition(self, t: Tensor, y: Tensor | None) -> Tensor:
        check_labels(y, self.config.num_classes)
        condition = self.time(t)
        return condition if self.label is None else condition + self.label(y)


def _ssm(config: DiffuSSMConfig) -> Layer:
    return SSMS[config.ssm].layer(config.d_model, **config.ssm_options)


def _act(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")
