"""Time-invariant layers: one system at every position, hence a convolution.

    y_l = sum_m K_m u_{l-m} + D u_l

D is one more value of the kernel, at lag 0. How the convolution is computed depends on the shapes
(`diffussm.ops.diagonal_conv`); only sums of modes, K_l = 2 Re sum_n w_n z_n^l, have a choice.

A kernel depends on the parameters and the length alone, yet a sampler calls the network hundreds
of times. `reusing_kernels` makes of a network a function that keeps them. The kernels live and die
with that function, so they cannot outlast a change of parameters: whoever samples again makes a
new one.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffussm.ops.chunk_system import Matrices, chunk_matrices
from diffussm.ops.chunked_conv import convolve
from diffussm.ops.diagonal_conv import diagonal_form
from diffussm.ops.long_conv import Responses, long_conv
from diffussm.shapes import Signal
from diffussm.ssm.layer import Layer, check_steps
from diffussm.ssm.parameters import ssm_parameter

Modes = tuple[Tensor, Tensor, Tensor, Tensor]
T = TypeVar("T")


class KernelLayer(Layer):
    """A layer that is a convolution with a kernel made of its parameters, and a skip D.

    dt_min, dt_max    range of the step sizes at birth, log-uniform over channels; 1 / dt is
                      about the number of positions a channel remembers
    """

    D: nn.Parameter  # (dim,)

    def __init__(self, dim: int, dt_min: float, dt_max: float):
        super().__init__()
        check_steps(dt_min, dt_max)
        log_dt = torch.empty(dim).uniform_(math.log(dt_min), math.log(dt_max))
        self.log_dt = ssm_parameter(log_dt)
        self._kept: dict[Hashable, Any] | None = None

    @property
    def dt(self) -> Float[Tensor, " dim"]:
        """The step sizes, at the present rate."""
        return torch.exp(self.log_dt) * self.rate

    @abstractmethod
    def kernel(self, length: int) -> Float[Tensor, "dim length"]:
        """The first `length` values of the impulse response, float32, without D."""

    @property
    def pairs(self) -> int:
        """How many modes the kernel is a sum of; 0 where it is no such sum."""
        return 0

    def modes(self) -> Modes:
        """decay, angle, and real and imaginary weight of each mode, (dim, pairs)."""
        raise NotImplementedError(f"the kernel of {type(self).__name__} is no sum of modes")

    def forward(self, u: Signal, rows: int = 1) -> Signal:
        return respond([self], u, rows).squeeze(2)

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns, remembered inside a network made by `reusing_kernels`."""
        if self._kept is None:
            return make()
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def respond(layers: Sequence[KernelLayer], u: Signal, rows: int = 1) -> Responses:
    """What one layer makes of `u`, or two, the second from the other end; `rows` as in Layer."""
    length, pairs = u.shape[1], layers[0].pairs
    diagonal = pairs and all(layer.pairs == pairs for layer in layers)
    form = diagonal_form(u, pairs) if diagonal else "fft"
    if form == "fft":
        kernels = layers[0].kept(length, lambda: _kernels(layers, length))
        return long_conv(u, kernels, rows)
    matrices = layers[0].kept("chunks", lambda: _matrices(layers))
    return convolve(u, matrices, rows, triton=form == "triton")


def _kernels(layers: Sequence[KernelLayer], length: int) -> Tensor:
    """(layers, dim, length), with D."""
    kernels = torch.stack([layer.kernel(length) for layer in layers])
    return _at_lag_0(kernels, torch.stack([layer.D for layer in layers]))


def _matrices(layers: Sequence[KernelLayer]) -> Matrices:
    systems = zip(*(layer.modes() for layer in layers), strict=True)
    decay, angle, w_re, w_im = (torch.stack(values) for values in systems)
    matrices = chunk_matrices(decay, angle, w_re, w_im)
    skip = torch.stack([layer.D for layer in layers], dim=1)
    return matrices._replace(kernel=_at_lag_0(matrices.kernel, skip))


def _at_lag_0(kernel: Tensor, skip: Tensor) -> Tensor:
    lag = torch.zeros(1, dtype=torch.long, device=kernel.device)
    return kernel.index_add(-1, lag, skip[..., None])


def reusing_kernels(network: nn.Module) -> Callable[..., Tensor]:
    """`network` as a function that computes each kernel once; parameters must rest meanwhile."""
    layers = [module for module in network.modules() if isinstance(module, KernelLayer)]
    memories: list[dict[Hashable, Any]] = [{} for _ in layers]

    def call(*args: Tensor | None) -> Tensor:
        for layer, memory in zip(layers, memories, strict=True):
            layer._kept = memory
        try:
            return network(*args)
        finally:
            for layer in layers:
                layer._kept = None

    return call
