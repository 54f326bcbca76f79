"""LSSL: a state space model with a dense A, one for all channels.

    h' = A h + B u,   y = C h + D u

A and B are HiPPO's or random, and fixed or trained; dt, C and D are each channel's own. A trained A
is A = S - S^T - F F^T: its symmetric part is never positive, so that no step of training can make
the system unstable. Every matrix of HIPPO has this form.

Gu et al., "Combining Recurrent, Convolutional, and Continuous-time Models with Linear State-Space
Layers", 2021.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffussm.config import choose
from diffussm.ops.krylov import krylov
from diffussm.ssm.dense import DENSE_DISCRETIZATIONS
from diffussm.ssm.hippo import HIPPO, System
from diffussm.ssm.kernel_layer import KernelLayer
from diffussm.ssm.layer import Position, check_state
from diffussm.ssm.parameters import ssm_parameter

State = Float[Tensor, "batch dim state"]


def random(state: int) -> System:
    """A Gaussian matrix over sqrt(state), shifted until its symmetric part is at most -1/2.

    That is the symmetric part's bound in HiPPO-LegS too. The slowest mode then has a real part
    between about -0.7 and -1, where LegS's has -1. B is Gaussian.
    """
    a = torch.randn(state, state, dtype=torch.float64) / math.sqrt(state)
    growth = torch.linalg.eigvalsh((a + a.T) / 2)[-1]
    shift = (growth + 0.5) * torch.eye(state, dtype=a.dtype)
    return a - shift, torch.randn(state, dtype=a.dtype)


INITS = HIPPO | {"random": random}


class LSSL(KernelLayer):
    """A dense system, and its readings by each channel: (batch, length, dim) -> the same shape.

    dim               channels, each with its own dt, C and D
    d_state           size N of each channel's state
    init              the continuous A and B at birth, one of INITS
    discretization    one of DENSE_DISCRETIZATIONS
    train_A           train A and B; otherwise they stay as they are born
    dt_min, dt_max    range of the step sizes at birth, see KernelLayer
    Raises ValueError for a state size below 1, an empty range or an unknown name.
    """

    fixed_A: Tensor
    B: Tensor

    def __init__(
        self,
        dim: int,
        *,
        d_state: int = 64,
        init: str = "legs",
        discretization: str = "bilinear",
        train_A: bool = False,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ):
        super().__init__(dim, dt_min, dt_max)
        if d_state < 1:
            raise ValueError(f"d_state must be at least 1, not {d_state}")
        self._discretize = choose("discretization", discretization, DENSE_DISCRETIZATIONS)
        with torch.device("cpu"):  # values are checked below, also where a model is only sized up
            a, b = choose("LSSL init", init, INITS)(d_state)
            growth = torch.linalg.eigvalsh((a + a.T) / 2)[-1].item()
        if not growth < 1e-9 * a.abs().max().item():
            raise ValueError(
                f"the A of init {init!r} is unstable: its symmetric part has an eigenvalue "
                f"{growth:.3g}, and the largest allowed is 0"
            )
        a, b = a.to(self.log_dt.device), b.to(self.log_dt.device)
        self.train_A = train_A
        if train_A:
            self.skew = ssm_parameter((torch.triu(a - a.T, diagonal=1) / 2).float())
            self.factor = ssm_parameter(_square_root(-(a + a.T) / 2).float())
            self.B = ssm_parameter(b.float())
        else:
            self.register_buffer("fixed_A", a.float())
            self.register_buffer("B", b.float())
        self.C = nn.Parameter(torch.randn(dim, d_state) / math.sqrt(d_state))
        self.D = nn.Parameter(torch.randn(dim))

    @property
    def A(self) -> Float[Tensor, "state state"]:
        """The continuous matrix."""
        if not self.train_A:
            return self.fixed_A
        with torch.autocast(self.D.device.type, enabled=False):
            return self.skew - self.skew.T - self.factor @ self.factor.T

    def kernel(self, length: int) -> Float[Tensor, "dim length"]:
        """K_l = C A_bar^l B_bar, float32, without D."""
        return krylov(*self._step_matrices(), self.C, length)

    def initial_state(self, batch: int) -> State:
        """The state before the first input: nothing remembered."""
        return torch.zeros(batch, *self.C.shape, dtype=self.C.dtype, device=self.C.device)

    def step(
        self, u_t: Position, state: Float[Tensor, "states dim state"]
    ) -> tuple[Position, State]:
        """The output at one position, and the state to hand to the next."""
        check_state(u_t, state)
        a_bar, b_bar = self._step_matrices()
        with torch.autocast(self.D.device.type, enabled=False):
            state = torch.einsum("dnm,bdm->bdn", a_bar, state) + b_bar * u_t[..., None]
            y = (self.C * state).sum(-1)
        return (y + self.D * u_t).to(u_t.dtype), state

    def _step_matrices(self):
        with torch.autocast(self.D.device.type, enabled=False):
            return self._discretize(self.dt, self.A, self.B)


def _square_root(matrix: Tensor) -> Tensor:
    """The symmetric square root of a matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T
