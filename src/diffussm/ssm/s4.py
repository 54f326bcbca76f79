"""S4: a state space model whose A is normal plus low rank, one for each channel.

    h' = (Lambda - P P*) h + B u,   y = 2 Re(C h) + D u         one of each conjugate pair is kept

This is what HiPPO's matrices are in a basis where their normal part is diagonal. The step is
bilinear; the kernel comes from sums of poles and the Woodbury identity (`ops.cauchy`).

Gu, Goel and Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022, section 3
and appendix C.
"""

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from diffussm.config import choose
from diffussm.ops.cauchy import low_rank_kernel
from diffussm.ssm.discretization import bilinear
from diffussm.ssm.hippo import HIPPO, normal_plus_low_rank
from diffussm.ssm.kernel_layer import KernelLayer
from diffussm.ssm.layer import Position, check_state
from diffussm.ssm.parameters import ssm_parameter
from diffussm.ssm.s4d import check_pairs

SLOWEST_DECAY = 1e-4
"""Of a mode at birth: the decay is kept as a logarithm, and some HiPPO modes have none."""


class S4(KernelLayer):
    """A normal-plus-low-rank system on each channel: (batch, length, dim) -> the same shape.

    dim               channels, each with a system of its own
    d_state           size N of a system's state, even: N / 2 conjugate pairs
    init              the continuous A and B at birth, one of HIPPO; legt is of rank 2
    dt_min, dt_max    range of the step sizes at birth, see KernelLayer
    Raises ValueError for an odd state size, an empty range or an unknown name.
    """

    def __init__(
        self,
        dim: int,
        *,
        d_state: int = 64,
        init: str = "legs",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ):
        super().__init__(dim, dt_min, dt_max)
        check_pairs(d_state)
        choose("S4 init", init, HIPPO)
        half = d_state // 2
        system = normal_plus_low_rank(init, d_state)
        decay = -system.eigenvalues[:half].real

        def channels(value: Tensor) -> nn.Parameter:
            return ssm_parameter(value.to(self.log_dt).expand(dim, *value.shape).clone())

        self.log_decay = channels(decay.clamp(min=SLOWEST_DECAY).log())
        self.frequency = channels(system.eigenvalues[:half].imag)
        self.P = channels(torch.view_as_real(system.P[:, :half].resolve_conj()))
        self.B = channels(torch.view_as_real(system.B[:half].resolve_conj()))
        self.C = nn.Parameter(torch.randn(dim, half, 2) * 0.5**0.5)
        self.D = nn.Parameter(torch.randn(dim))

    def kernel(self, length: int) -> Float[Tensor, "dim length"]:
        """K_l = C A_bar^l B_bar, float32, without D."""
        return low_rank_kernel(*self.poles(), length)

    def poles(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The arguments of `low_rank_kernel`: poles of the diagonal part's step, their weights.

        The weights are X_n Y_n gain_n for X in (C, P*) and Y in (B, P).
        """
        decay, angle, gain_re, gain_im = bilinear(
            self.dt, -torch.exp(self.log_decay), self.frequency
        )
        left = torch.cat([self.C[:, None], self.P * self.P.new_tensor([1.0, -1.0])], dim=1)
        right = torch.cat([self.B[:, None], self.P], dim=1)
        x_re, x_im = left[:, :, None].unbind(-1)
        y_re, y_im = right[:, None].unbind(-1)
        re, im = x_re * y_re - x_im * y_im, x_re * y_im + x_im * y_re
        gain_re, gain_im = gain_re[:, None, None], gain_im[:, None, None]
        return decay, angle, re * gain_re - im * gain_im, re * gain_im + im * gain_re

    def initial_state(self, batch: int) -> Complex[Tensor, "batch dim state"]:
        """The state before the first input: nothing remembered."""
        zeros = torch.zeros(batch, *self.frequency.shape, 2, device=self.D.device)
        return torch.view_as_complex(zeros.to(self.D.dtype))

    def step(
        self, u_t: Position, state: Complex[Tensor, "states dim state"]
    ) -> tuple[Position, Complex[Tensor, "batch dim state"]]:
        """(1 - dt/2 A) h_l = (1 + dt/2 A) h_{l-1} + dt B u_l, at a cost linear in the state."""
        check_state(u_t, state)
        half_dt = self.dt[:, None] / 2
        eigenvalues = torch.complex(-torch.exp(self.log_decay), self.frequency)
        p = torch.view_as_complex(self.P)  # dim, rank, state

        right = state + half_dt * (eigenvalues * state - (p * _products(p, state)).sum(2))
        right = right + 2 * half_dt * torch.view_as_complex(self.B) * u_t[..., None]
        inverse = 1 / (1 - half_dt * eigenvalues)
        right = inverse * right
        # Woodbury: (X + dt/2 P P*)^-1 = X^-1 - X^-1 P (2/dt + P* X^-1 P)^-1 P* X^-1
        scaled = inverse[:, None] * p
        coupling = 2 * torch.einsum("drn,dsn->drs", p.conj(), scaled).real
        coupling = coupling + torch.diag_embed((1 / half_dt).expand(-1, p.shape[1]))
        feedback = torch.linalg.solve(coupling, _products(p, right))
        state = right - (scaled * feedback).sum(2)
        y = 2 * (torch.view_as_complex(self.C) * state).sum(-1).real
        return (y + self.D * u_t).to(u_t.dtype), state


def _products(p: Tensor, state: Tensor) -> Tensor:
    """P* h for each channel, over both halves of each pair: (batch, dim, rank, 1), real."""
    return 2 * (p.conj() * state[:, :, None]).sum(-1, keepdim=True).real
