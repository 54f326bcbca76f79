"""From the continuous system h' = A h + B u to one step of length dt, for diagonal A.

    h_l = A_bar h_{l-1} + gain B u_l

    zoh        A_bar = exp(dt A)                         gain = A^-1 (exp(dt A) - 1)
    bilinear   A_bar = (1 + dt A / 2) / (1 - dt A / 2)   gain = dt / (1 - dt A / 2)

A_bar is kept as log A_bar = decay + i angle, from which any power is one exponential. Complex
numbers are pairs of real tensors: compilers and autocast know those.

Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models", 2022,
section 3.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Modes = Float[Tensor, "dim state"]
StepSize = Float[Tensor, " dim"]


class Discrete(NamedTuple):
    """One step of a diagonal system: A_bar = exp(decay + i angle), gain = gain_re + i gain_im."""

    decay: Tensor
    angle: Tensor
    gain_re: Tensor
    gain_im: Tensor


def zoh(dt: StepSize, a_re: Modes, a_im: Modes) -> Discrete:
    """Zero-order hold: exact for an input that is constant between samples."""
    x, y = dt[:, None] * a_re, dt[:, None] * a_im
    # exp(x + iy) - 1 without cancellation where dt A is small
    w_re = torch.expm1(x) * torch.cos(y) - 2 * torch.sin(y / 2) ** 2
    w_im = torch.exp(x) * torch.sin(y)
    size = a_re**2 + a_im**2
    return Discrete(x, y, (w_re * a_re + w_im * a_im) / size, (w_im * a_re - w_re * a_im) / size)


def bilinear(dt: StepSize, a_re: Modes, a_im: Modes) -> Discrete:
    """Tustin's trapezoidal rule: stable for every stable A."""
    x, y = dt[:, None] * a_re, dt[:, None] * a_im
    square = (x**2 + y**2) / 4
    # |1 + z/2|^2 = 1 + x + |z|^2/4 is 0 at z = -2: a system that forgets all in one step
    nearly_zero = torch.finfo(x.dtype).eps - 1
    decay = (torch.log1p((x + square).clamp(min=nearly_zero)) - torch.log1p(square - x)) / 2
    angle = torch.atan2(y, 1 - square)
    scale = dt[:, None] / (1 - x + square)
    return Discrete(decay, angle, scale * (1 - x / 2), scale * y / 2)


DISCRETIZATIONS = {"zoh": zoh, "bilinear": bilinear}
