"""How a model is laid over the ranks, and how its blocks spend memory and time.

    ddp     every rank holds all of it and sees a part of the batch; gradients are averaged
    fsdp    each rank keeps a slice of every weight, average and moment; a block's weights are
            gathered when it runs

Li et al., "PyTorch Distributed", 2020; Zhao et al., "PyTorch FSDP", 2023, in its second edition,
which is imported where it is used: it takes half a second.
"""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from diffussm.ssm.bidirectional import Bidirectional
from diffussm.ssm.layer import Layer
from diffussm.training.distributed import World

Lay = Callable[[nn.Module, nn.Module, torch.device, World, bool], nn.Module]
"""(model, average, device, world, whether in bfloat16) -> the network to train."""


def ddp(
    model: nn.Module, average: nn.Module, device: torch.device, world: World, bfloat16: bool
) -> nn.Module:
    """The model on every rank, its gradients averaged while they are computed."""
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def fsdp(
    model: nn.Module, average: nn.Module, device: torch.device, world: World, bfloat16: bool
) -> nn.Module:
    """Model and average, each in slices; in bfloat16 only what is gathered for a block's run."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy

    # nothing here writes into what a block returns
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (world.size,))
    rough = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bfloat16 else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # autocast knows which operations stay in float32
    )
    _slice(model, mesh, rough)
    _slice(average, mesh, MixedPrecisionPolicy())
    return model


PARALLELS: dict[str, Lay] = {"ddp": ddp, "fsdp": fsdp}


def rework_blocks(model: nn.Module, *, checkpointed: bool, compiled: bool) -> None:
    """Let each of `model.blocks` be compiled, or forget what it computed and compute it again."""
    for block in model.blocks:  # pyright: ignore[reportGeneralTypeIssues]
        if compiled:
            block.forward = torch.compile(block.forward)
        if checkpointed:  # nothing is drawn inside a block
            block.forward = partial(
                checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
            )


def without_averaging(network: nn.Module, more_to_come: bool) -> AbstractContextManager[None]:
    """Inside it, DDP adds up gradients without averaging them where there are `more_to_come`."""
    if more_to_come and isinstance(network, DistributedDataParallel):
        return network.no_sync()
    return nullcontext()


def local(tensor: Tensor) -> Tensor:
    """This rank's slice of a tensor; all of one that is not sliced."""
    return tensor.to_local() if is_sliced(tensor) else tensor  # pyright: ignore


def whole(tensor: Tensor) -> Tensor:
    """All of a sliced tensor, on every rank; every rank must ask."""
    return tensor.full_tensor() if is_sliced(tensor) else tensor  # pyright: ignore


def is_sliced(tensor: Tensor) -> bool:
    """Whether each rank has a part of it only."""
    return hasattr(tensor, "to_local")


def _slice(model: nn.Module, mesh: Any, rough: Any) -> None:
    from torch.distributed.fsdp import fully_shard

    shard = partial(fully_shard, mesh=mesh, reshard_after_forward=True)
    tags = {name: getattr(p, "optimizer_tags", None) for name, p in model.named_parameters()}
    for block in model.blocks:  # pyright: ignore[reportGeneralTypeIssues]
        for layer in _state_spaces(block):  # in float32, whatever the rest is gathered in
            shard(layer)
        shard(block, mp_policy=rough)
    shard(model, mp_policy=rough)
    for name, parameter in model.named_parameters():  # slices are new parameters, without tags
        if tags[name] is not None:
            parameter.optimizer_tags = tags[name]  # pyright: ignore[reportAttributeAccessIssue]


def _state_spaces(module: nn.Module) -> list[nn.Module]:
    """The outermost state space layers in a module: those that are called as layers."""
    if isinstance(module, Bidirectional | Layer):
        return [module]
    return [layer for child in module.children() for layer in _state_spaces(child)]
