"""Mamba: the selective state space layer (S6) in its gated block.

    x, z = in_proj(u);  x = silu(conv(x));  dt, B, C = x_proj(x);  dt = softplus(dt_proj(dt))
    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t,   y_t = C_t h_t + D x_t,   out_proj(y silu(z))

Names, shapes and initial values are the published ones: original weights load as they are.

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, section 3.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffussm.ops.reading_order import check_rows
from diffussm.ops.selective_scan import selective_scan
from diffussm.shapes import Signal
from diffussm.ssm.layer import Layer, Position, check_state, check_steps
from diffussm.ssm.parameters import ssm_parameter

DT_FLOOR = 1e-4
"""Smallest step size at birth, as published."""


class MambaState(NamedTuple):
    """What the layer remembers between steps."""

    conv: Float[Tensor, "batch inner taps"]
    """The last inputs of the convolution, the newest at the end."""
    ssm: Float[Tensor, "batch inner state"]
    """h."""


class Mamba(Layer):
    """The selective layer: (batch, length, dim) -> the same shape.

    dim               channels in and out; expand * dim inside
    d_state           numbers of state a channel inside
    d_conv            width of the short causal convolution
    dt_rank           width of the bottleneck that makes dt; dim / 16, rounded up, unless given
    dt_min, dt_max    range of softplus(dt_proj.bias) at birth, log-uniform over channels
    Raises ValueError for a size below 1 or an empty range.
    """

    scan: Callable[..., Signal] = staticmethod(selective_scan)
    """All positions at once; a plainer one takes its place where ours cannot go."""

    def __init__(
        self,
        dim: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ):
        super().__init__()
        dt_rank = math.ceil(dim / 16) if dt_rank is None else dt_rank
        sizes = {"d_state": d_state, "d_conv": d_conv, "expand": expand, "dt_rank": dt_rank}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        check_steps(dt_min, dt_max)
        inner = expand * dim
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, groups=inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(inner, dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(dt_rank, inner)
        nn.init.uniform_(self.dt_proj.weight, -(dt_rank**-0.5), dt_rank**-0.5)
        dt = torch.empty(inner).uniform_(math.log(dt_min), math.log(dt_max)).exp()
        dt = dt.clamp(min=DT_FLOOR)
        self.dt_proj.bias = ssm_parameter(dt + torch.log(-torch.expm1(-dt)))  # softplus^-1(dt)
        self.A_log = ssm_parameter(torch.arange(1.0, d_state + 1).log().repeat(inner, 1))
        self.D = ssm_parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, u: Signal, rows: int = 1) -> Signal:
        check_rows(u.shape[1], rows)
        if u.shape[1] == 0:
            raise ValueError("Mamba needs a sequence of length 1 or more, not 0")
        # a grid is turned where it is narrowest: before the first projection, after the last
        u = u.unflatten(1, (rows, -1)).transpose(1, 2).flatten(1, 2)
        x, z = self.in_proj(u).chunk(2, dim=-1)
        x = F.silu(self._convolved(x))
        dt, B, C = self._selected(x)
        A = -torch.exp(self.A_log.to(dt.dtype))
        y = self.scan(x, dt, A, B, C) + self.D.to(x.dtype) * x
        y = self.out_proj(y * F.silu(z))
        return y.unflatten(1, (-1, rows)).transpose(1, 2).flatten(1, 2)

    def initial_state(self, batch: int) -> MambaState:
        """The state before the first input: nothing remembered."""
        inner, _, width = self.conv1d.weight.shape
        options = {"dtype": self.A_log.dtype, "device": self.A_log.device}
        return MambaState(
            conv=torch.zeros(batch, inner, width - 1, **options),
            ssm=torch.zeros(batch, *self.A_log.shape, **options),
        )

    def step(self, u_t: Position, state: MambaState) -> tuple[Position, MambaState]:
        """The output at one position, and the state to hand to the next."""
        for part in state:
            check_state(u_t, part)
        x, z = self.in_proj(u_t).chunk(2, dim=-1)
        seen = torch.cat([state.conv.to(x.dtype), x[..., None]], dim=-1)
        taps, bias = self._filter(x.dtype)
        x = F.silu((seen * taps).sum(-1) + bias)
        dt, B, C = (part[:, 0] for part in self._selected(x[:, None]))
        A = -torch.exp(self.A_log)
        h = torch.exp(dt[..., None] * A) * state.ssm + (dt * x)[..., None] * B[:, None]
        y = (h * C[:, None]).sum(-1).to(x.dtype) + self.D.to(x.dtype) * x
        kept = MambaState(conv=seen[..., 1:].to(state.conv.dtype), ssm=h)
        return self.out_proj(y * F.silu(z)), kept

    def _convolved(self, x: Signal) -> Signal:
        """The causal convolution, tap by tap: faster than a depthwise one, and nothing turned."""
        taps, y = self._filter(x.dtype)
        width, length = taps.shape[1], x.shape[1]
        padded = F.pad(x, (0, 0, width - 1, 0))
        for tap in range(width):
            y = torch.addcmul(y, padded[:, tap : tap + length], taps[:, tap])
        return y

    def _filter(self, kind: torch.dtype) -> tuple[Tensor, Tensor]:
        """Weights (inner, taps) and bias of the convolution."""
        bias = self.conv1d.bias
        assert bias is not None
        return self.conv1d.weight[:, 0].to(kind), bias.to(kind)

    def _selected(self, x: Signal) -> tuple[Tensor, Tensor, Tensor]:
        """dt, B and C of each position; dt in float32 or finer."""
        rank, state = self.dt_proj.in_features, self.A_log.shape[1]
        dt, B, C = self.x_proj(x).split([rank, state, state], dim=-1)
        bias = self.dt_proj.bias
        dt = F.softplus(F.linear(dt, self.dt_proj.weight).to(bias.dtype) + bias) * self.rate
        return dt, B, C
