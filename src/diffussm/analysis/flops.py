"""Multiply-adds of one forward pass for one image, by formula.

Counters miss FFTs and some attention kernels, so costs here are arithmetic, checked in the tests
against counted ones where a counter can see. As in the literature a "Gflop" is 1e9 multiply-adds.
"""

from dataclasses import dataclass

from diffussm.analysis.ssm_flops import SSM_COSTS
from diffussm.models.diffussm import MATRICES, DiffuSSMConfig
from diffussm.nn.embeddings import FREQUENCIES


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Multiply-adds of the parts of a forward pass."""

    linears: int
    """Matrix products."""
    mixing: int
    """What carries information along the sequence: FFTs and spectra of convolutions, or scans."""
    kernels: int
    """Making the kernels: once a batch in training, once in all while sampling."""
    positions: int
    """Sequence length that the state space layer, or attention, works on."""
    tokens: int
    """Length of the residual stream."""

    @property
    def total(self) -> int:
        """Linears and mixing, what the paper counts."""
        return self.linears + self.mixing


def diffussm_cost(config: DiffuSSMConfig, height: int, width: int) -> Cost:
    """Cost of a DiffuSSM on one latent of `height` x `width`; ValueError where it does not fit."""
    rows, columns = config.tokens(height, width)
    dim, ratio, tokens = config.d_model, config.hourglass_ratio, rows * columns
    widths, directions = MATRICES[config.matrices], 2 if config.bidirectional else 1
    positions = tokens * ratio
    pixels = ratio * config.patch_size**2 * config.in_channels
    outputs = pixels * (2 if config.learned_variance else 1)

    dense = tokens * dim * widths.dense * dim
    expand = positions * widths.dense * dim * dim
    contract = positions * directions * dim * (2 * dim // ratio)
    fusion = tokens * widths.fused * dim * (dim + 2 * dim + dim)
    block = dense + expand + contract + fusion + 3 * dim**2
    ends = tokens * dim * (pixels + outputs) + 2 * dim**2
    condition = FREQUENCIES * dim + dim**2
    layer = SSM_COSTS[config.ssm](dim, positions, directions, config.ssm_options)
    return Cost(
        linears=config.depth * (block + layer.linears) + ends + condition,
        mixing=config.depth * layer.mixing,
        kernels=config.depth * layer.kernels,
        positions=positions,
        tokens=tokens,
    )


@dataclass(frozen=True, kw_only=True)
class PublishedDiT:
    """A DiT as published, for comparison; Peebles and Xie, 2023, table 4."""

    dim: int
    depth: int
    patch: int
    parameters: int

    def cost(self, height: int, width: int) -> Cost:
        """Blocks, attention products and final layer on one latent, 4 channels in and 8 out."""
        tokens = (height // self.patch) * (width // self.patch)
        pixels = self.patch**2
        block = 12 * tokens * self.dim**2 + 2 * tokens**2 * self.dim + 6 * self.dim**2
        ends = tokens * self.dim * pixels * (4 + 8) + 2 * self.dim**2
        linears = self.depth * block + ends + FREQUENCIES * self.dim + self.dim**2
        return Cost(linears=linears, mixing=0, kernels=0, positions=tokens, tokens=tokens)


DITS = {
    "DiT-S/2": PublishedDiT(dim=384, depth=12, patch=2, parameters=32_963_360),
    "DiT-L/2": PublishedDiT(dim=1024, depth=24, patch=2, parameters=458_102_816),
    "DiT-XL/2": PublishedDiT(dim=1152, depth=28, patch=2, parameters=675_129_632),
}
"""The published counterparts of DiffuSSM-S, L and XL."""
