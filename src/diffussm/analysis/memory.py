"""What training holds in memory, counted on a network without numbers.

A forward pass runs on fake tensors, which have shapes and no content: nothing is allocated, however
large the model and the image. What it keeps for the way back is counted as autograd keeps it.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
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


def training_memory(
    config: Any, height: int, width: int, dtype: torch.dtype, *, checkpointed: bool = False
) -> TrainingMemory:
    """Of a model at a size of its input; `dtype` is what autocast computes in, or float32.

    checkpointed    blocks are computed again on the way back: of each only what enters is kept,
                    and one at a time is kept whole
    Raises ValueError for a size that the model cannot take.
    """
    with torch.device("meta"):
        network = build(replace(config, num_classes=0))  # a label keeps nothing of note
        parameters = sum(parameter.numel() for parameter in build(config).parameters())

    def kept(batch: int) -> int:
        x = batch, config.in_channels, height, width
        return _kept(network, x, dtype, checkpointed)

    one, two = kept(1), kept(2)
    return TrainingMemory(state=STATE * parameters, image=two - one, fixed=2 * one - two)


Storages = dict[int, int]
"""Bytes by address."""


def _kept(network, shape: tuple[int, ...], dtype: torch.dtype, checkpointed: bool) -> int:
    outside: Storages = {}
    inside: list[Storages] = []
    here = outside
    alive: list[Any] = []  # an address must not be given to another

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        here[storage._cdata] = storage.nbytes()
        alive.append(storage)
        return x

    def enter(block: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal here
        for x in inputs:
            if isinstance(x, Tensor):
                note(x)
        here = {}
        inside.append(here)

    def leave(*_: Any) -> None:
        nonlocal here
        here = outside

    hooks = []
    for block in network.blocks if checkpointed else ():
        hooks += [block.register_forward_pre_hook(enter), block.register_forward_hook(leave)]
    with FakeTensorMode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        named = [*network.named_parameters(), *network.named_buffers()]
        values = {name: torch.empty(x.shape, dtype=x.dtype) for name, x in named}
        for name, parameter in network.named_parameters():
            values[name].requires_grad_(parameter.requires_grad)
        with saved_tensors_hooks(note, lambda x: x):
            t = torch.zeros(shape[0], dtype=torch.long)
            functional_call(network, values, (torch.empty(shape), t))
        own = {value.untyped_storage()._cdata for value in values.values()}
    for hook in hooks:
        hook.remove()
    whole = [_bytes(storages, own | outside.keys()) for storages in inside]
    return _bytes(outside, own) + max(whole, default=0)


def _bytes(storages: Storages, without: set[int]) -> int:
    return sum(size for address, size in storages.items() if address not in without)
