"""Line charts as SVG that take the page's own colours, light or dark, and stay sharp at any size.

Lines differ in colour (Okabe and Ito's, which colour-blind people can tell apart) and in dashes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 78, 14, 12, 56
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")
DASHES = ("", "7 3", "2 3", "10 3 2 3", "4 4", "1 4")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve."""

    name: str
    x: Sequence[int | float]
    y: Sequence[int | float]
    wide: bool = False
    """Drawn broad and pale, under the others."""


def chart(
    title: str, x_label: str, y_label: str, lines: Sequence[Line], mark: int | float | None = None
) -> str:
    """A figure of `lines` with axes and a legend, as HTML; `mark` is an x to point out."""
    across = _Axis([value for line in lines for value in line.x], LEFT, WIDTH - RIGHT)
    up = _Axis([value for line in lines for value in line.y], HEIGHT - BOTTOM, TOP)
    middle = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    parts = [
        *(_grid_line(value, across, vertical=True) for value in across.ticks),
        *(_grid_line(value, up, vertical=False) for value in up.ticks),
        f'<text class="label" x="{middle[0]}" y="{HEIGHT - 6}">{escape(x_label)}</text>',
        f'<text class="label" transform="translate(18 {middle[1]}) rotate(-90)">'
        f"{escape(y_label)}</text>",
    ]
    if mark is not None:
        parts.append(f'<path class="mark" d="M{across.place(mark):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
    legend, looks = [], cycle(zip(COLOURS, DASHES, strict=True))
    for line in lines:
        look = 'class="pale"'
        if not line.wide:
            look = 'stroke="{}" stroke-dasharray="{}"'.format(*next(looks))
        places = zip(map(across.place, line.x), map(up.place, line.y), strict=True)
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline {look} points="{points}"/>')
        key = f'<svg viewBox="0 0 28 8" aria-hidden="true"><path {look} d="M0 4H28"/></svg>'
        legend.append(f"<li>{key}{escape(line.name)}</li>")
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg><ul>{''.join(legend)}</ul></figure>"
    )


class _Axis:
    """Values laid between two places, with round numbers to mark."""

    def __init__(self, values: Sequence[int | float], start: int, end: int):
        low, high = min(values), max(values)
        if low == high:
            low, high = low - 0.5, high + 0.5
        step = 10 ** math.floor(math.log10((high - low) / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
        first = math.ceil(low / step - 1e-9)
        count = math.floor(high / step + 1e-9) - first + 1
        self.ticks = [(first + n) * step for n in range(count)]
        self.low, self.high, self.start, self.end = low, high, start, end

    def place(self, value: int | float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _grid_line(value: int | float, axis: _Axis, *, vertical: bool) -> str:
    place, text = axis.place(value), f"{value:.6g}"
    if vertical:
        line = f'x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"'
        where = f'class="below" x="{place:.1f}" y="{HEIGHT - BOTTOM + 20}"'
    else:
        line = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place:.1f}" y2="{place:.1f}"'
        where = f'class="beside" x="{LEFT - 6}" y="{place + 4:.1f}"'
    return f'<line class="grid" {line}/><text {where}>{text}</text>'
