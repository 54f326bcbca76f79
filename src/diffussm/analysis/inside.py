"""What a trained DiffuSSM has learned: its kernels, how far they remember, and its gates.

    kernel           K_0, K_1, ...: what one layer makes of a single 1, without the skip D
    memory length    the smallest n for which K_0^2 + ... + K_{n-1}^2 holds a share of the energy
    gate             what a block's branch is multiplied by before it is added, at a time step

The functions answer with numbers; `diffussm.analysis.figures` draws them.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffussm.analysis.flops import diffussm_cost
from diffussm.config import choose
from diffussm.models.diffussm import DiffuSSM, DiffuSSMBlock
from diffussm.nn.embeddings import check_labels
from diffussm.shapes import Labels, TimeStep
from diffussm.ssm.bidirectional import Bidirectional
from diffussm.ssm.kernel_layer import KernelLayer
from diffussm.ssm.layer import Layer


def directions(model: nn.Module) -> tuple[str, ...]:
    """The directions in which a DiffuSSM's blocks read: "forward", and mostly "backward" too.

    Raises ValueError for a model without state space layers.
    """
    return tuple(_layers(_blocks(_sure(model))[0]))


def kernels(
    model: nn.Module, block: int, direction: str = "forward", length: int | None = None
) -> Float[Tensor, "channels length"]:
    """The kernels of one layer, one a channel, by distance in positions; without D.

    block        0 is the first
    direction    "forward" (what came before) or "backward" (what comes after)
    length       positions; those of an image as trained, unless given
    Raises ValueError for a block or direction that is not there, a model without state space
    layers, and Mamba, whose layers have no kernel.
    """
    blocks = _blocks(_sure(model))
    if not 0 <= block < len(blocks):
        raise ValueError(f"block {block} does not exist; this model has 0 to {len(blocks) - 1}")
    layer = choose("direction", direction, _layers(blocks[block]))
    if not isinstance(layer, KernelLayer):
        raise ValueError(
            f"{type(layer).__name__} chooses at each position what it remembers, so it has no "
            "fixed kernel; ask for the kernels of a model with s4d, s4 or lssl"
        )
    with torch.no_grad():
        return layer.kernel(positions(model) if length is None else length)


def memory_length(
    kernel: Float[Tensor, "channels length"], share: float = 0.9
) -> Int[Tensor, " channels"]:
    """The fewest positions that hold `share` of each kernel's energy, sum K_l^2; 0 for a zero one.

    What lies beyond the kernel's end is not seen. Raises ValueError unless 0 < share <= 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie above 0 and be at most 1, not {share}")
    held = kernel.double().square().cumsum(-1)
    before = nn.functional.pad(held, (1, 0))  # by the first 0, 1, ... positions
    return (before[:, :-1] < share * held[:, -1:]).sum(-1)


def memory_by_block(
    model: nn.Module, direction: str = "forward", share: float = 0.9
) -> Int[Tensor, "blocks channels"]:
    """`memory_length` of every block's kernels; errors as in `kernels`."""
    return torch.stack(
        [
            memory_length(kernels(model, block, direction), share)
            for block in range(_sure(model).config.depth)
        ]
    )


def gates(
    model: nn.Module, t: TimeStep, y: Labels | None = None
) -> Float[Tensor, "blocks batch dim"]:
    """Each block's gate at time steps `t` for classes `y` (none for an unconditional model).

    A block adds gate * W^3 (...) to its input: 0 leaves the image as it is. The sign means nothing
    on its own, since W^3 could carry it; look at sizes. Raises ValueError for a model that is no
    DiffuSSM or has no gates, and for labels it does not have.
    """
    model = _sure(model)
    if model.config.by_tokens:
        raise ValueError(
            "this model has no gates: its condition is among the tokens (conditioning 'tokens'); "
            "ask for the gates of one with three or six vectors"
        )
    check_labels(y, model.config.num_classes)
    with torch.no_grad():
        condition = model.time(t)
        if model.label is not None:
            condition = condition + model.label(y)
        return torch.stack([block.modulation(condition)[2][:, 0] for block in _blocks(model)])


def gate_sizes(
    model: nn.Module, t: TimeStep, y: Labels | None = None
) -> Float[Tensor, "blocks batch"]:
    """The mean size |gate| over the channels of each block; as `gates`."""
    return gates(model, t, y).abs().mean(-1)


def positions(model: nn.Module) -> int:
    """Length of the sequence that the state space layers read, for an image as trained."""
    config = _sure(model).config
    return diffussm_cost(config, *config.size).positions


def _sure(model: nn.Module) -> DiffuSSM:
    if not isinstance(model, DiffuSSM):
        raise ValueError(
            f"{type(model).__name__} has no state space layers to look into; give a DiffuSSM or "
            "a UViSSM"
        )
    return model


def _blocks(model: DiffuSSM) -> list[DiffuSSMBlock]:
    return list(model.blocks)  # pyright: ignore[reportReturnType]


def _layers(block: DiffuSSMBlock) -> dict[str, Layer]:
    if isinstance(block.ssm, Bidirectional):
        return {"forward": block.ssm.forward_ssm, "backward": block.ssm.backward_ssm}
    return {"forward": block.ssm}
