"""The hourglass: dense layers on the short sequence, the state space layer on the long one.

`Expand` opens each of J tokens into M positions, `Contract` closes M positions into one token;
each of the M places has a matrix of its own. Positions of a token are neighbours in scan order.

    expand      U_{M j + k} = W_k^up h_j
    contract    I_{j, k}    = W_k^down Y_{M j + k},   the M pieces side by side

Yan, Gu and Rush, "Diffusion Models Without Attention", 2024, section 4.2.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Expand(nn.Linear):
    """(batch, tokens, dim_in) -> (batch, ratio * tokens, dim_out)."""

    def __init__(self, dim_in: int, dim_out: int, ratio: int):
        super().__init__(dim_in, ratio * dim_out)
        self.dim_out = dim_out

    def forward(self, h: Float[Tensor, "batch tokens a"]) -> Float[Tensor, "batch length b"]:
        return super().forward(h).reshape(h.shape[0], -1, self.dim_out)


class Contract(nn.Module):
    """(batch, ratio * tokens, dim_in) -> (batch, tokens, dim_out), dim_out / ratio a position."""

    def __init__(self, dim_in: int, dim_out: int, ratio: int):
        super().__init__()
        if dim_out % ratio:
            raise ValueError(
                f"hourglass_ratio {ratio} must divide the contracted width {dim_out}; "
                "choose another ratio or d_model"
            )
        self.ratio = ratio
        self.weight = nn.Parameter(torch.empty(ratio, dim_out // ratio, dim_in))
        self.bias = nn.Parameter(torch.empty(dim_out))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for piece in self.weight:
            nn.init.kaiming_uniform_(piece, a=math.sqrt(5))
        nn.init.zeros_(self.bias)

    def forward(self, y: Float[Tensor, "batch length a"]) -> Float[Tensor, "batch tokens b"]:
        places = y.unflatten(1, (-1, self.ratio)).unbind(2)
        pieces = [place @ weight.T for place, weight in zip(places, self.weight, strict=True)]
        return torch.cat(pieces, dim=-1) + self.bias
