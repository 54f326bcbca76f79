"""From the continuous system h' = A h + B u to one step of length dt, for a full matrix A.

    h_l = A_bar h_{l-1} + B_bar u_l

    zoh                     exp(dt [[A, B], [0, 0]]) = [[A_bar, B_bar], [0, 1]]
    generalized bilinear    A_bar = (I - alpha dt A)^-1 (I + (1 - alpha) dt A)
                            B_bar = (I - alpha dt A)^-1 dt B

alpha 0 is forward Euler, 1/2 bilinear, 1 backward Euler. One exponential makes both matrices of a
zero-order hold, so A may be singular. One A serves many channels, each with a dt of its own.

Gu et al., "Combining Recurrent, Convolutional, and Continuous-time Models with Linear State-Space
Layers", 2021, section 2 and appendix C.1.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

StepSize = Float[Tensor, " dim"]
Matrix = Float[Tensor, "state state"]
Vector = Float[Tensor, " state"]
Dense = tuple[Float[Tensor, "dim state state"], Float[Tensor, "dim state"]]


def zoh(dt: StepSize, a: Matrix, b: Vector) -> Dense:
    """Zero-order hold: exact for an input that is constant between samples."""
    held = functional.pad(torch.cat([a, b[:, None]], dim=1), (0, 0, 0, 1))
    # torch 2.13 errs in the fifth digit on one matrix alone (pytorch issue 196592)
    several = dt if len(dt) > 1 else dt.expand(2)
    step = torch.linalg.matrix_exp(several[:, None, None] * held)[: len(dt)]
    return step[:, :-1, :-1], step[:, :-1, -1]


def generalized_bilinear(dt: StepSize, a: Matrix, b: Vector, *, alpha: float) -> Dense:
    """alpha of the step implicit, the rest explicit; stable for every stable A from 1/2 on."""
    dt, identity = dt[:, None, None], torch.eye(len(a), dtype=a.dtype, device=a.device)
    right = torch.cat([identity + (1 - alpha) * dt * a, dt * b[:, None]], dim=-1)
    step = torch.linalg.solve(identity - alpha * dt * a, right)
    return step[..., :-1], step[..., -1]


def forward_euler(dt: StepSize, a: Matrix, b: Vector) -> Dense:
    """The slope at the step's beginning; unstable where an eigenvalue of I + dt A is above 1."""
    return generalized_bilinear(dt, a, b, alpha=0.0)


def bilinear(dt: StepSize, a: Matrix, b: Vector) -> Dense:
    """Tustin's trapezoidal rule, of second order; stable for every stable A."""
    return generalized_bilinear(dt, a, b, alpha=0.5)


def backward_euler(dt: StepSize, a: Matrix, b: Vector) -> Dense:
    """The slope at the step's end, of first order; stable for every stable A."""
    return generalized_bilinear(dt, a, b, alpha=1.0)


DENSE_DISCRETIZATIONS = {"bilinear": bilinear, "zoh": zoh, "backward_euler": backward_euler}
