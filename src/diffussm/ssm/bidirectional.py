"""Two state space layers on one sequence, one from each end, their outputs side by side.

    Y = [forward(U), flip(backward(flip(U)))]        (batch, length, 2 dim)

Both see the present position (lag 0), each through its own D. (S4's own bidirectional
convolution starts the backward kernel one position later.)
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffussm.shapes import Signal
from diffussm.ssm.kernel_layer import KernelLayer, respond
from diffussm.ssm.layer import Layer


class Bidirectional(nn.Module):
    """(batch, length, dim) -> (batch, length, 2 dim): two scans.

    Two convolutions share what they make of u. `rows` as in `Layer.forward`.
    """

    def __init__(self, forward_ssm: Layer, backward_ssm: Layer):
        super().__init__()
        self.forward_ssm = forward_ssm
        self.backward_ssm = backward_ssm

    def forward(self, u: Signal, rows: int = 1) -> Float[Tensor, "batch length both"]:
        ahead, behind = self.forward_ssm, self.backward_ssm
        if isinstance(ahead, KernelLayer) and isinstance(behind, KernelLayer):
            return respond([ahead, behind], u, rows).flatten(2)
        # a flipped raster, read column by column, is the column-by-column reading flipped
        return torch.cat([ahead(u, rows), behind(u.flip(1), rows).flip(1)], dim=-1)
