"""Kernels computed once and reused while parameters rest, as they do while sampling.

A time-invariant layer's kernel depends on its parameters and the length alone, yet a sampler calls
the network hundreds of times. `reusing_kernels` makes of a network a function that keeps them. The
kernels live and die with that function, so they cannot outlast a change of parameters: whoever
samples again makes a new one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn


class KernelLayer(nn.Module, ABC):
    """A layer that is a convolution with a kernel made of its parameters."""

    def __init__(self):
        super().__init__()
        self._kernels: dict[int, Tensor] | None = None

    @abstractmethod
    def kernel(self, length: int) -> Tensor:
        """The first `length` values of the impulse response, (dim, length)."""

    def cached_kernel(self, length: int) -> Tensor:
        """`kernel(length)`, remembered inside a network made by `reusing_kernels`."""
        if self._kernels is None:
            return self.kernel(length)
        if length not in self._kernels:
            self._kernels[length] = self.kernel(length)
        return self._kernels[length]


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
