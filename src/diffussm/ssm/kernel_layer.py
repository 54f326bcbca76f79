"""Time-invariant layers: one system at every position, hence a convolution.

    y_l = sum_m K_m u_{l-m} + D u_l

A kernel depends on the parameters and the length alone, yet a sampler calls the network hundreds
of times. `reusing_kernels` makes of a network a function that keeps them. The kernels live and die
with that function, so they cannot outlast a change of parameters: whoever samples again makes a
new one.
"""

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffussm.ops.long_conv import long_conv
from diffussm.shapes import Signal
from diffussm.ssm.layer import Layer, check_steps
from diffussm.ssm.parameters import ssm_parameter


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
        self._kernels: dict[int, Tensor] | None = None

    @property
    def dt(self) -> Float[Tensor, " dim"]:
        """The step sizes, at the present rate."""
        return torch.exp(self.log_dt) * self.rate

    @abstractmethod
    def kernel(self, length: int) -> Float[Tensor, "dim length"]:
        """The first `length` values of the impulse response, float32, without D."""

    def cached_kernel(self, length: int) -> Float[Tensor, "dim length"]:
        """`kernel(length)`, remembered inside a network made by `reusing_kernels`."""
        if self._kernels is None:
            return self.kernel(length)
        if length not in self._kernels:
            self._kernels[length] = self.kernel(length)
        return self._kernels[length]

    def forward(self, u: Signal, rows: int = 1) -> Signal:
        kernel = self.cached_kernel(u.shape[1])
        return long_conv(u, kernel[None], rows).squeeze(2) + self.D.to(u.dtype) * u


def reusing_kernels(network: nn.Module) -> Callable[..., Tensor]:
    """`network` as a function that computes each kernel once; parameters must rest meanwhile."""
    layers = [module for module in network.modules() if isinstance(module, KernelLayer)]
    kernels: list[dict[int, Tensor]] = [{} for _ in layers]

    def call(*args: Tensor | None) -> Tensor:
        for layer, cache in zip(layers, kernels, strict=True):
            layer._kernels = cache
        try:
            return network(*args)
        finally:
            for layer in layers:
                layer._kernels = None

    return call
