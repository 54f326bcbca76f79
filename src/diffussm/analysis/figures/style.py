"""How all figures look: colours, lines and markers that differ for every eye, and their files.

The colours are Okabe and Ito's ("Color Universal Design", 2008), without the yellow that is faint
on paper; each comes with a line style and a marker of its own, so that a figure survives a printer
without colours. Figures are made without pyplot: nothing global is touched.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from diffussm.checkpoint import make_folder, write_safely

LOOKS: list[dict[str, Any]] = [
    {"color": "#0072B2", "linestyle": "-", "marker": "o"},  # blue
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},  # vermilion
    {"color": "#009E73", "linestyle": "-.", "marker": "^"},  # green
    {"color": "#CC79A7", "linestyle": ":", "marker": "D"},  # purple
    {"color": "#E69F00", "linestyle": (0, (6, 1, 1, 1, 1, 1)), "marker": "v"},  # orange
    {"color": "#56B4E9", "linestyle": (0, (3, 1)), "marker": "P"},  # sky
    {"color": "#000000", "linestyle": (0, (1, 1)), "marker": "X"},
]
GREY = "0.75"

FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}
DOTS = 150
"""Dots an inch of a PNG."""

# Letters stay letters, and the same figure is the same file.
FILES: dict[Any, Any] = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "diffussm"}
METADATA: Mapping[str, dict[str, Any]] = {
    "png": {},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


def look(number: int) -> dict[str, Any]:
    """Colour, line style and marker of line `number`."""
    return {"linewidth": 1.8, "markersize": 5} | LOOKS[number % len(LOOKS)]


def line_look(number: int) -> dict[str, Any]:
    """`look` without the marker, for lines of many points."""
    return look(number) | {"marker": None}


def new_figure(width: int | float, height: int | float) -> Figure:
    """An empty figure of so many inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Axes) -> Axes:
    """`axes` with nothing in them that says nothing."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def decimal_log(axis: Any) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5, written as one says them: 0.05, 200."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def check_file(path: Path) -> str:
    """The format that a file's ending means; ValueError for one that is none of FORMATS."""
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise ValueError(f"a figure is a .png, .svg or .pdf file, not {str(path)!r}")
    return FORMATS[ending]


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure whole or not at all; ValueError for an unknown ending, OSError for no room."""
    kind = check_file(path)
    make_folder(path.parent)

    def write(temporary: Path) -> None:
        with matplotlib.rc_context(FILES):
            figure.savefig(temporary, format=kind, dpi=DOTS, metadata=METADATA[kind])

    write_safely(path, write)
