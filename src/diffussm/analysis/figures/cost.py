"""What an image costs against its size: multiply-adds by formula, and measured time beside them.

Yan, Gu and Rush, "Diffusion Models Without Attention", 2024, figure 3.
"""

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from diffussm.analysis.figures.style import decimal_log, look, new_figure, plain
from diffussm.analysis.flops import cost
from diffussm.models import model_config

FACTOR = 8
"""Pixels along a latent's side."""
LETTERS = 75
"""In a line above a panel."""
INSIDE = 0.97
"""Of the figure's width: the last tick's label reaches over the panel's right end."""

BySize = Mapping[int, float]
"""A number by pixels along an image's side."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A table of times: seconds of one forward pass, by model and size, and who measured them."""

    conditions: str
    seconds: dict[str, dict[int, float]]


def multiply_adds(names: Sequence[str], sizes: Sequence[int]) -> dict[str, dict[int, float]]:
    """G multiply-adds of one latent image by model and size in pixels.

    A name is a preset's, or a preset's with another hourglass ratio: "DiffuSSM-XL:4". Raises
    ValueError for an unknown one, and for a size that a model cannot take.
    """
    for size in sizes:
        if size % FACTOR:
            raise ValueError(f"{size} pixels have no latent: sizes must be multiples of {FACTOR}")
    found = {}
    for name in names:
        preset, colon, ratio = name.partition(":")
        if colon and not ratio.isdecimal():
            raise ValueError(f"after the colon of {name!r} comes an hourglass ratio, as in :4")
        if colon and not hasattr(model_config(preset, {}), "hourglass_ratio"):
            raise ValueError(
                f":{ratio} is an hourglass ratio, and {preset} has none; write {preset} alone"
            )
        config = model_config(preset, {"hourglass_ratio": int(ratio)} if colon else {})
        found[name] = {
            size: cost(config, size // FACTOR, size // FACTOR).total / 1e9 for size in sizes
        }
    return found


def read_measured(path: Path) -> Measured:
    """The table that `benchmarks/crossover.py --out` writes; ValueError where it is none."""
    if not path.is_file():
        raise ValueError(f"there is no table {path}; benchmarks/crossover.py --out makes one")
    try:
        table = json.loads(path.read_text())
        seconds = {
            name: {int(size): float(value) for size, value in found.items()}
            for name, found in table["seconds"].items()
        }
        return Measured(conditions=str(table["conditions"]), seconds=seconds)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{path} holds no times; give the .json that benchmarks/crossover.py --out writes"
        ) from None


def crossing(first: BySize, second: BySize) -> float | None:
    """Pixels from which `first` is less than `second`, between points of straight log-log lines.

    None where that does not happen at the sizes that both have.
    """
    sizes = sorted(first.keys() & second.keys())
    gaps = [math.log(first[size] / second[size]) for size in sizes]
    for i in range(1, len(sizes)):
        if gaps[i - 1] > 0 >= gaps[i]:
            share = gaps[i - 1] / (gaps[i - 1] - gaps[i])
            return sizes[i - 1] * (sizes[i] / sizes[i - 1]) ** share
    return None


def cost_figure(giga: Mapping[str, BySize], measured: Measured | None = None) -> Figure:
    """Lines of `multiply_adds`, and those measured in a panel beside them.

    A dotted line stands where the first model becomes cheaper than the first DiT, if it does.
    """
    figure = new_figure(10.4 if measured else 6.4, 4.9)
    figure.set_layout_engine("constrained", rect=(0, 0, INSIDE, 1))
    panels = figure.subplots(1, 2 if measured else 1, sharex=True, squeeze=False)[0]
    styles = {name: number for number, name in enumerate(giga)}
    _lines(panels[0], giga, styles)
    panels[0].set_ylabel("multiply-adds of an image, G")
    if measured:
        _lines(panels[1], measured.seconds, styles)
        panels[1].set_ylabel("time of an image and step, seconds")
        said = textwrap.fill(measured.conditions, LETTERS)
        panels[1].set_title(said, fontsize=8, color="0.3")
        panels[0].set_title("by formula", fontsize=8, color="0.3")
    lines = {line.get_label(): line for axes in panels for line in axes.get_lines()}
    figure.legend(
        list(lines.values()),
        list(lines),
        loc="outside lower center",
        ncols=5 if measured else 3,
        frameon=False,
        handlelength=3,
    )
    return figure


def _lines(axes, values: Mapping[str, BySize], styles: Mapping[str, int]) -> None:
    plain(axes)
    for name, found in values.items():
        number = styles.get(name, len(styles))
        axes.plot(list(found), list(found.values()), label=_said(name), **look(number))
    axes.set(xscale="log", yscale="log", xlabel="image side, pixels")
    ticks = sorted({size for found in values.values() for size in found})
    ticks = [size for size in ticks if math.log2(size).is_integer()] or ticks
    axes.set_xticks(ticks, [f"{size:,}" for size in ticks])
    axes.minorticks_off()
    decimal_log(axes.yaxis)
    above = axes.secondary_xaxis(
        "top", functions=(lambda side: (side / FACTOR) ** 2, lambda n: FACTOR * n**0.5)
    )
    above.set_xlabel("length: positions of its latent")
    above.set_xscale("log")
    above.set_xticks([(size // FACTOR) ** 2 for size in ticks])
    above.set_xticklabels([f"{(size // FACTOR) ** 2:,}" for size in ticks])
    above.minorticks_off()
    names = list(values)
    rivals = [name for name in names if name.startswith("DiT")]
    side = crossing(values[names[0]], values[rivals[0]]) if rivals else None
    if side:
        words = f"{_said(names[0])} below {rivals[0]}"
        axes.axvline(side, color="0.4", linestyle=":", linewidth=1.2, label=words)
        place, where = (side, 0.03), axes.get_xaxis_transform()
        style = {"fontsize": 9, "color": "0.3"}
        axes.annotate(f"{side:,.0f}", place, (4, 0), where, "offset points", **style)


def _said(name: str) -> str:
    return name.replace(":", ", M = ")
