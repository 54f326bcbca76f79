"""What a network is told besides the image: the time step, the class, and where each token is."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffussm.shapes import Condition, Labels, TimeStep

FREQUENCIES = 256


class TimestepEmbedding(nn.Module):
    """t -> sinusoids -> two-layer perceptron, (batch,) -> (batch, dim)."""

    def __init__(self, dim: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: TimeStep) -> Condition:
        return self.mlp(sinusoids(t, FREQUENCIES).to(next(self.parameters()).dtype))


class LabelEmbedding(nn.Module):
    """One learned row a class, and a last one, `num_classes`, that says "no label".

    Raises ValueError for a label without a row where labels are on the CPU; looking at those of a
    GPU would make it wait, so there the device itself complains.
    """

    def __init__(self, num_classes: int, dim: int, std: float):
        super().__init__()
        self.num_classes = num_classes
        self.table = nn.Embedding(num_classes + 1, dim)
        nn.init.normal_(self.table.weight, std=std)

    def forward(self, y: Labels) -> Condition:
        if y.device.type == "cpu" and not torch.compiler.is_compiling():
            wrong = y[(y < 0) | (y > self.num_classes)]
            if len(wrong):
                raise ValueError(
                    f"labels must lie in 0..{self.num_classes - 1}, or be {self.num_classes} for "
                    f"no label, not {wrong[0].item()}"
                )
        return self.table(y)


def check_labels(y: Tensor | None, num_classes: int) -> None:
    """A sentence for labels where a model has no classes, or none where it has some."""
    if num_classes == 0 and y is not None:
        raise ValueError("this model is unconditional (num_classes 0): give no labels")
    if num_classes and y is None:
        raise ValueError(
            f"this model needs labels 0..{num_classes - 1} ({num_classes} for no label)"
        )


def sinusoids(t: TimeStep, count: int) -> Float[Tensor, "batch count"]:
    """cos(f_i t) then sin(f_i t), f_i = 10000^(-i / (count / 2)).

    Ho et al., "Denoising Diffusion Probabilistic Models", 2020, after Vaswani et al., 2017.
    """
    half = count // 2
    frequencies = torch.exp(-math.log(10_000) / half * torch.arange(half, device=t.device))
    angles = t[:, None].float() * frequencies
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)


def grid_positions(
    rows: int, columns: int, dim: int, device: torch.device | None = None
) -> Float[Tensor, "length dim"]:
    """Fixed 2-D sinusoids for `rows` x `columns` tokens in raster order, for any size.

    Column first: dim / 4 sines and cosines of the column, then the same of the row. Computed in
    float64. Raises ValueError where dim is not divisible by 4. As in DiT (Peebles and Xie, 2023).
    """
    if dim % 4:
        raise ValueError(f"d_model must be divisible by 4 for 2-D positions, not {dim}")
    quarter = dim // 4
    index = torch.arange(quarter, dtype=torch.float64, device=device)
    frequencies = 10_000 ** (-index / quarter)

    def encode(count: int) -> Tensor:
        place = torch.arange(count, dtype=torch.float64, device=device)
        angles = torch.outer(place, frequencies)
        return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)

    column = encode(columns).repeat(rows, 1)
    row = encode(rows).repeat_interleave(columns, dim=0)
    return torch.cat([column, row], dim=1).float()
