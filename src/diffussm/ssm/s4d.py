"""S4D: a state space model with diagonal A, one for each channel.

    h' = A h + B u,   y = 2 Re(C h) + D u        state / 2 conjugate pairs, one of each pair kept

The same system is a convolution (training: all positions at once) and a recurrence (`step`: one
position at a time, constant memory).

Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models", 2022.
"""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from diffussm.config import choose
from diffussm.ops.vandermonde import vandermonde
from diffussm.ssm.discretization import DISCRETIZATIONS
from diffussm.ssm.hippo import legs_normal_eigenvalues
from diffussm.ssm.kernel_layer import KernelLayer, Modes
from diffussm.ssm.layer import Position, check_state
from diffussm.ssm.parameters import ssm_parameter


def lin(state: int) -> tuple[Tensor, Tensor]:
    """S4D-Lin, equation 9: A_n = -1/2 + i pi n, a Fourier basis with a decay."""
    n = torch.arange(state // 2, dtype=torch.float64)
    return torch.full_like(n, -0.5), math.pi * n


def inv(state: int) -> tuple[Tensor, Tensor]:
    """S4D-Inv, equation 8: A_n = -1/2 + i (N / pi)(N / (2n + 1) - 1), an approximation of LegS."""
    n = torch.arange(state // 2, dtype=torch.float64)
    return torch.full_like(n, -0.5), state / math.pi * (state / (2 * n + 1) - 1)


def legs(state: int) -> tuple[Tensor, Tensor]:
    """S4D-LegS, section 4.1: the normal part of HiPPO-LegS, its rank-one part dropped."""
    im = legs_normal_eigenvalues(state)
    return torch.full_like(im, -0.5), im


def real(state: int) -> tuple[Tensor, Tensor]:
    """S4D-Real, section 4.2: A_n = -(n + 1), an average over exponentially fading windows."""
    n = torch.arange(state // 2, dtype=torch.float64)
    return -(n + 1), torch.zeros_like(n)


INITS = {"lin": lin, "inv": inv, "legs": legs, "real": real}


def check_pairs(d_state: int) -> None:
    """A sentence for a state size that is not made of conjugate pairs."""
    if d_state < 2 or d_state % 2:
        raise ValueError(f"d_state must be even and at least 2 (conjugate pairs), not {d_state}")


class S4D(KernelLayer):
    """A diagonal state space model on each channel: (batch, length, dim) -> the same shape.

    dim               channels, each with a system of its own
    d_state           size N of a system's state, even: N / 2 conjugate pairs
    init              the continuous A at birth, one of INITS
    discretization    one of DISCRETIZATIONS
    dt_min, dt_max    range of the step sizes at birth, see KernelLayer
    Raises ValueError for an odd state size, an empty range or an unknown name.
    """

    def __init__(
        self,
        dim: int,
        *,
        d_state: int = 64,
        init: str = "lin",
        discretization: str = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ):
        super().__init__(dim, dt_min, dt_max)
        check_pairs(d_state)
        self._discretize = choose("discretization", discretization, DISCRETIZATIONS)
        a_re, a_im = choose("S4D init", init, INITS)(d_state)

        self.log_decay = ssm_parameter(torch.log(-a_re).float().repeat(dim, 1))
        self.frequency = ssm_parameter(a_im.float().repeat(dim, 1))
        # B = 1 at birth, C complex normal of unit variance; real and imaginary part last
        self.B = ssm_parameter(torch.tensor([1.0, 0.0]).repeat(dim, d_state // 2, 1))
        self.C = nn.Parameter(torch.randn(dim, d_state // 2, 2) * 0.5**0.5)
        self.D = nn.Parameter(torch.randn(dim))

    @property
    def pairs(self) -> int:
        """State / 2."""
        return self.frequency.shape[1]

    def modes(self) -> Modes:
        """Logarithms of A_bar_n, and weights C_n B_n gain_n."""
        decay, angle, gain_re, gain_im = self._discrete()
        b_re, b_im = self.B.unbind(-1)
        c_re, c_im = self.C.unbind(-1)
        re, im = b_re * c_re - b_im * c_im, b_re * c_im + b_im * c_re
        return decay, angle, re * gain_re - im * gain_im, re * gain_im + im * gain_re

    def kernel(self, length: int) -> Float[Tensor, "dim length"]:
        """K_l = 2 Re sum_n C_n B_n gain_n A_bar_n^l, float32, without D."""
        return vandermonde(*self.modes(), length)

    def initial_state(self, batch: int) -> Complex[Tensor, "batch dim state"]:
        """The state before the first input: nothing remembered."""
        zeros = torch.zeros(batch, *self.frequency.shape, 2, device=self.D.device)
        return torch.view_as_complex(zeros.to(self.D.dtype))

    def step(
        self, u_t: Position, state: Complex[Tensor, "states dim state"]
    ) -> tuple[Position, Complex[Tensor, "batch dim state"]]:
        """The output at one position, and the state to hand to the next."""
        check_state(u_t, state)
        decay, angle, gain_re, gain_im = self._discrete()
        a_bar = torch.polar(torch.exp(decay), angle)
        b_bar = torch.complex(gain_re, gain_im) * torch.view_as_complex(self.B)
        state = a_bar * state + b_bar * u_t[..., None]
        y = 2 * (torch.view_as_complex(self.C) * state).sum(-1).real
        return (y + self.D * u_t).to(u_t.dtype), state

    def _discrete(self):
        return self._discretize(self.dt, -torch.exp(self.log_decay), self.frequency)
