"""What training holds in memory, counted on a network without numbers.

A forward pass runs on fake tensors, which have shapes and no content: nothing is allocated, however
large the model and the image. What it keeps for the way back is counted as autograd keeps it.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from diffussm.models import build

STATE = 4 * 5
"""Bytes a parameter: weight, gradient, two moments and average, float32 each."""


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Bytes."""

    state: int
    """Weights, gradients, optimiser and average, on one device."""
    image: int
    """Kept for the way back, for each image of a batch."""
    fixed: int
    """Kept whatever the batch: kernels, and weights rounded to half precision."""


def training_memory(config: Any, height: int, width: int, dtype: torch.dtype) -> TrainingMemory:
    """Of a model at a size of its input; `dtype` is what autocast computes in, or float32.

    Raises ValueError for a size that the model cannot take.
    """
    with torch.device("meta"):
        network = build(replace(config, num_classes=0))  # a label keeps nothing of note
        parameters = sum(parameter.numel() for parameter in build(config).parameters())
    one, two = (_kept(network, config, batch, height, width, dtype) for batch in (1, 2))
    return TrainingMemory(state=STATE * parameters, image=two - one, fixed=2 * one - two)


def _kept(network, config, batch: int, height: int, width: int, dtype: torch.dtype) -> int:
    storages: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        storages[storage._cdata] = storage.nbytes()
        kept.append(storage)  # its address must not be given to another
        return x

    kept: list[Any] = []
    with FakeTensorMode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        named = [*network.named_parameters(), *network.named_buffers()]
        values = {name: torch.empty(x.shape, dtype=x.dtype) for name, x in named}
        for name, parameter in network.named_parameters():
            values[name].requires_grad_(parameter.requires_grad)
        x = torch.empty(batch, config.in_channels, height, width)
        with saved_tensors_hooks(note, lambda x: x):
            functional_call(network, values, (x, torch.zeros(batch, dtype=torch.long)))
        own = {value.untyped_storage()._cdata for value in values.values()}
    return sum(size for address, size in storages.items() if address not in own)
