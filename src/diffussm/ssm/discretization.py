"""From the continuous system h' = A h + B u to one step of length dt, for diagonal A.

    h_l = A_bar h_{l-1} + gain B u_l                                              z = dt A

    zoh                     A_bar = exp(z)                            gain = dt (exp(z) - 1) / z
    generalized bilinear    A_bar = (1 + (1 - alpha) z) / (1 - alpha z)  gain = dt / (1 - alpha z)

alpha 0 is forward Euler, 1/2 bilinear (Tustin's trapezoidal rule), 1 backward Euler. Forward Euler
can explode however stable A is, so layers take only the others.

A_bar is kept as log A_bar = decay + i angle, from which any power is one exponential. Complex
numbers are pairs of real tensors: compilers and autocast know those.

Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models", 2022,
section 3; Gu et al., "Combining Recurrent, Convolutional, and Continuous-time Models with Linear
State-Space Layers", 2021, section 2 (the bilinear family).
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
    """Zero-order hold: exact for an input that is constant between samples; A may be 0."""
    x, y = dt[:, None] * a_re, dt[:, None] * a_im
    re, im = _expm1_over(x, y)
    return Discrete(x, y, dt[:, None] * re, dt[:, None] * im)


def generalized_bilinear(dt: StepSize, a_re: Modes, a_im: Modes, *, alpha: float) -> Discrete:
    """alpha of the step implicit, the rest explicit; stable for every stable A from 1/2 on."""
    x, y = dt[:, None] * a_re, dt[:, None] * a_im
    beta, square = 1 - alpha, x**2 + y**2
    # |1 + beta z|^2 is 0 where the system forgets all in one step
    nearly_zero = torch.finfo(x.dtype).eps - 1
    ahead = (2 * beta * x + beta**2 * square).clamp(min=nearly_zero)
    behind = alpha**2 * square - 2 * alpha * x
    decay = (torch.log1p(ahead) - torch.log1p(behind)) / 2
    angle = torch.atan2(y, 1 + (beta - alpha) * x - alpha * beta * square)
    scale = dt[:, None] / (1 + behind)
    return Discrete(decay, angle, scale * (1 - alpha * x), scale * alpha * y)


def forward_euler(dt: StepSize, a_re: Modes, a_im: Modes) -> Discrete:
    """The slope at the step's beginning; unstable where |1 + dt A| > 1."""
    return generalized_bilinear(dt, a_re, a_im, alpha=0.0)


def bilinear(dt: StepSize, a_re: Modes, a_im: Modes) -> Discrete:
    """Tustin's trapezoidal rule, of second order; stable for every stable A."""
    return generalized_bilinear(dt, a_re, a_im, alpha=0.5)


def backward_euler(dt: StepSize, a_re: Modes, a_im: Modes) -> Discrete:
    """The slope at the step's end, of first order; damps fast modes; stable for every stable A."""
    return generalized_bilinear(dt, a_re, a_im, alpha=1.0)


DISCRETIZATIONS = {"zoh": zoh, "bilinear": bilinear, "backward_euler": backward_euler}


def _expm1_over(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(exp(z) - 1) / z at z = x + i y, by its series where z is nearly 0."""
    small = x**2 + y**2 < 2**-10
    re, im = torch.zeros_like(x), torch.zeros_like(x)
    for divisor in (8, 7, 6, 5, 4, 3, 2):  # 1 + z/2 (1 + z/3 (1 + ...)), below rounding after z^7
        re, im = 1 + re, im
        re, im = (x * re - y * im) / divisor, (x * im + y * re) / divisor
    near = 1 + re, im

    x, y = torch.where(small, 1, x), torch.where(small, 0, y)
    # exp(z) - 1 without cancellation
    re = torch.expm1(x) * torch.cos(y) - 2 * torch.sin(y / 2) ** 2
    im = torch.exp(x) * torch.sin(y)
    square = x**2 + y**2
    far = (re * x + im * y) / square, (im * x - re * y) / square
    return torch.where(small, near[0], far[0]), torch.where(small, near[1], far[1])
