"""Two state space models on one sequence, one from each end, their outputs side by side.

    Y = [forward(U), flip(backward(flip(U)))]        (batch, length, 2 dim)

Both see the present position (lag 0), each through its own D. (S4's own bidirectional
convolution starts the backward kernel one position later.)
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffussm.ops.long_conv import long_conv
from diffussm.shapes import Signal
from diffussm.ssm.s4d import S4D


class Bidirectional(nn.Module):
    """(batch, length, dim) -> (batch, length, 2 dim), the two convolutions sharing one FFT of u."""

    def __init__(self, forward_ssm: S4D, backward_ssm: S4D):
        super().__init__()
        self.forward_ssm = forward_ssm
        self.backward_ssm = backward_ssm

    def forward(self, u: Signal) -> Float[Tensor, "batch length both"]:
        length = u.shape[1]
        ssms = (self.forward_ssm, self.backward_ssm)
        kernels = torch.stack([ssm.cached_kernel(length) for ssm in ssms])
        skip = torch.stack([ssm.D for ssm in ssms]).to(u.dtype)
        return (long_conv(u, kernels) + skip * u[:, :, None]).flatten(2)
