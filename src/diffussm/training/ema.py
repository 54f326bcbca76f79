"""The exponential moving average of the weights, which is what samples are drawn from.

    ema <- d ema + (1 - d) weights,    d = min(decay, (1 + n) / (10 + n)) after n updates

The smaller d of the first updates forgets the initial weights; a fixed decay would keep their
trace for thousands of steps. Where weights lie in slices over the ranks, so does their average.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from diffussm.training.parallel import local


class EMA:
    """A float32 copy of a model that follows its weights."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.model = deepcopy(model).float().eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, updates: int) -> None:
        """Move towards `model`'s weights, `updates` having been made before."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        averages: list[Tensor] = [local(average) for average in self.model.parameters()]
        weights = [local(parameter).float() for parameter in model.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore

    @torch.no_grad()
    def distances(self, model: nn.Module) -> Tensor:
        """|ema - weights|^2 and |weights|^2, (2,), of what lies on this rank."""
        apart, size = [], []
        for average, weight in zip(self.model.parameters(), model.parameters(), strict=True):
            weight = local(weight).float()
            apart.append(torch.dist(local(average), weight))
            size.append(weight.norm())
        return torch.stack([torch.stack(norms).square().sum() for norms in (apart, size)])
