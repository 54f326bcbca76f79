"""The kernels that a layer has learned, and how far every layer remembers."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from diffussm.analysis.figures.style import line_look, look, new_figure, plain
from diffussm.analysis.inside import memory_length

Kernels = Mapping[str, Float[Tensor, "channels length"]]
"""By direction."""
Memories = Mapping[float, Mapping[str, Int[Tensor, "blocks channels"]]]
"""Memory lengths by share of the energy and direction."""

DRAWN = (0.1, 0.5, 0.9)
"""Channels to draw, by the share of channels that remember less."""


def kernels_figure(block: int, kernels: Kernels, memories: Memories) -> Figure:
    """Three channels of one layer, and the memory of all channels in all layers.

    Left: the weight that a position gives to the others; on its left what came before it, by the
    forward kernel, on its right what comes after. Right: for the smallest share of the energy, the
    median over channels and a bar without the lowest and the highest tenth; medians for the others.
    """
    figure = new_figure(11, 4.6)
    parts: Any = figure.subfigures(1, 2, wspace=0.03)
    left, right = parts
    _responses(left, block, kernels)
    _memory(right.subplots(), memories, _length(kernels))
    return figure


def channels_drawn(kernel: Float[Tensor, "channels length"]) -> list[int]:
    """The channels of DRAWN, ordered by their memory length."""
    order = memory_length(kernel).argsort(stable=True)
    return [int(order[int(share * (len(order) - 1))]) for share in DRAWN]


def _length(kernels: Kernels) -> int:
    return next(iter(kernels.values())).shape[1]


def _responses(part, block: int, kernels: Kernels) -> None:
    chosen = channels_drawn(kernels["forward"])
    panels = part.subplots(len(chosen), 1, sharex=True)
    reach = _length(kernels) - 1
    for axes, channel in zip(panels, chosen, strict=True):
        plain(axes)
        drawn = {way: kernel[channel].double() for way, kernel in kernels.items()}
        largest = max(float(values.abs().max()) for values in drawn.values()) or 1.0
        said = []
        for number, (way, values) in enumerate(drawn.items()):
            where = torch.arange(len(values)) * SIDES[way]
            axes.plot(where, values / largest, **line_look(number))
            said.append(f"{int(memory_length(values[None]))} {way}")
        axes.axvline(0, color="0.6", linewidth=0.8)
        axes.set(ylim=(-1.1, 1.1), yticks=[-1, 0, 1])
        axes.set_title(
            f"channel {channel}: 90% of the energy in {', '.join(said)}", loc="left", fontsize=9
        )
    panels[-1].set(
        xlim=(-reach, reach if "backward" in kernels else 0),
        xlabel="position, from the present one",
    )
    part.supylabel("weight, of the largest", fontsize=10)
    part.suptitle(f"Block {block}: what three channels look at", fontsize=11)


SIDES = {"forward": -1, "backward": 1}
"""Where the past and the future lie."""


def _memory(axes, memories: Memories, length: int) -> None:
    plain(axes)
    smallest = min(memories)
    for share, ways in memories.items():
        for number, (way, lengths) in enumerate(ways.items()):
            place = torch.arange(len(lengths)) + BESIDE * SIDES[way]
            tenths = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
            low, median, high = lengths.double().quantile(tenths, dim=1)
            style = look(number) | {"linestyle": ""}
            if share == smallest:
                axes.vlines(place, low, high, color=style["color"], linewidth=3, alpha=0.4)
            else:
                style |= {"markerfacecolor": "white"}
            axes.plot(place, median, label=f"{share:.0%} of the energy, {way}", **style)
    axes.axhline(length, color="0.4", linewidth=1)
    said = f"the whole image: {length:,} positions"
    axes.annotate(said, (0, length), (0, 3), textcoords="offset points", fontsize=9)
    axes.set(ylim=(0, 1.1 * length), xlabel="block", ylabel="memory length, positions")
    axes.set_title("How far the channels of each block remember", fontsize=11)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False, fontsize=9)


BESIDE = 0.12
"""Of the two directions, to either side of their block."""
