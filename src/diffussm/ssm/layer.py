"""What every state space layer is: a map of sequences that can also walk, one position at a time.

    y = layer(u)                        (batch, length, dim) -> (batch, length, dim)
    y_t, state = layer.step(u_t, state)           the same map, from `initial_state(batch)`

A layer is a continuous system sampled with a step dt. `rate` multiplies dt: the same weights at
rate 1/2 read a sequence of twice the length that shows the same signal twice as finely.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from diffussm.shapes import Signal

Position = Float[Tensor, "batch dim"]


class Layer(nn.Module, ABC):
    """A state space layer; parameters that are not finite are refused when they are loaded."""

    def __init__(self):
        super().__init__()
        self.rate = 1.0
        self.register_load_state_dict_post_hook(_refuse_non_finite)

    @abstractmethod
    def forward(self, u: Signal, rows: int = 1) -> Signal:
        """The output at all positions at once.

        With `rows` above 1 the sequence is a grid of that many rows, laid one after another, and
        the layer reads it column by column; the output lies as the input does.
        """

    @abstractmethod
    def initial_state(self, batch: int) -> Any:
        """The state before the first input: nothing remembered."""

    @abstractmethod
    def step(self, u_t: Position, state: Any) -> tuple[Position, Any]:
        """The output at one position, and the state to hand to the next."""


def resample(network: nn.Module, rate: float) -> None:
    """Let every state space layer in `network` step by `rate` times the dt it was trained with.

    Raises ValueError unless `rate` is positive and finite.
    """
    if not 0 < rate < math.inf:
        raise ValueError(f"rate must be positive and finite, not {rate}")
    for module in network.modules():
        if isinstance(module, Layer):
            module.rate = rate


def check_state(u_t: Tensor, state: Tensor) -> None:
    """A sentence for a state that belongs to another batch or lies on another device."""
    if state.shape[0] != u_t.shape[0]:
        raise ValueError(
            f"the state belongs to a batch of {state.shape[0]}, the input has {u_t.shape[0]}; "
            "start from initial_state(batch)"
        )
    if state.device != u_t.device:
        raise ValueError(
            f"the state is on {state.device}, the input on {u_t.device}; move one to the other"
        )


def check_steps(dt_min: float, dt_max: float) -> None:
    """A sentence for step sizes that are no range of positive numbers."""
    if not 0 < dt_min <= dt_max < math.inf:
        raise ValueError(f"need 0 < dt_min <= dt_max, not {dt_min} and {dt_max}")


def _refuse_non_finite(module: nn.Module, _keys: object) -> None:
    for name, values in [*module.named_parameters(), *module.named_buffers()]:
        if not values.is_meta and not values.isfinite().all():
            value = values[~values.isfinite()][0].item()
            raise ValueError(f"{name} holds {value}; these weights cannot be used")
