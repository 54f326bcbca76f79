"""UViSSM: DiffuSSM's blocks in U-ViT's arrangement, an ablation of the paper.

    x <- Block(x), kept            for the first half
    x <- Block(x)                  in the middle
    x <- Block(W [x, kept])        for the second half, the last one kept first

All else is DiffuSSM's, also how blocks are told the time step and the class.

Yan, Gu and Rush, "Diffusion Models Without Attention", 2024, section 5.3; long skips after Bao et
al., "All are Worth Words", 2023.
"""

from dataclasses import dataclass

import torch
from torch import nn

from diffussm.models.diffussm import DiffuSSM, DiffuSSMConfig
from diffussm.models.uvit import check_odd
from diffussm.nn.scan_order import SCANS
from diffussm.shapes import Condition, Signal


@dataclass(frozen=True, kw_only=True)
class UViSSMConfig(DiffuSSMConfig):
    """A DiffuSSM's settings; `depth` is odd, a middle block and two halves."""

    def __post_init__(self):
        super().__post_init__()
        check_odd(self.depth)


class UViSSM(DiffuSSM):
    """A DiffuSSM whose second half also reads what the first half made."""

    def __init__(self, config: UViSSMConfig):
        super().__init__(config)
        dim = config.d_model
        skips = [nn.Linear(2 * dim, dim) for _ in range(config.depth // 2)]
        for linear in skips:
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.skips = nn.ModuleList(skips)

    def through_blocks(self, x: Signal, condition: Condition, rows: int) -> Signal:
        read, half = SCANS[self.config.scan], len(self.skips)
        kept = []
        for number, block in enumerate(self.blocks):
            if number > half:
                x = self.skips[number - half - 1](torch.cat([x, kept.pop()], dim=-1))
            x = block(x, condition, read(number, rows))
            if number < half:
                kept.append(x)
        return x
