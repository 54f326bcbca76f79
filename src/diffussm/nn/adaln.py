"""adaLN-Zero: the condition sets scale and shift after each norm, and a gate on each branch.

    h = LayerNorm(x) (1 + scale) + shift,    x <- x + gate f(h)

All vectors are zero at birth, so that every block starts as the identity.

Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023, section 3.2.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from diffussm.shapes import Condition, Signal


class Modulation(nn.Module):
    """SiLU, then Linear(dim, count * width): `count` vectors for all positions.

    They are as wide as the condition unless `width` is given;
    `diffussm.nn.initialization.initialize` makes them zero at birth.
    """

    def __init__(self, dim: int, count: int, width: int | None = None):
        super().__init__()
        self.count = count
        self.linear = nn.Linear(dim, count * (width or dim))

    def forward(self, condition: Condition) -> tuple[Tensor, ...]:
        vectors = self.linear(F.silu(condition))
        return vectors[:, None].chunk(self.count, dim=-1)


class ModulatedNorm(nn.Module):
    """LayerNorm over dim without weights of its own, then the condition's scale and shift."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)

    def forward(self, x: Signal, scale: Tensor, shift: Tensor) -> Signal:
        return self.norm(x) * (1 + scale) + shift
