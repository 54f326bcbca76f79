"""A chart draws its numbers where its axes say they are."""

import re

import pytest

from diffussm.demo.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Line, chart


def drawn(svg):
    """The points of each curve."""
    return [
        [tuple(map(float, point.split(","))) for point in points.split()]
        for points in re.findall(r'<polyline [^>]*points="([^"]*)"', svg)
    ]


def ticks(svg, side):
    """Place and number of each tick on the axis `side`."""
    axis = "x" if side == "below" else "y"
    found = re.findall(rf'<text class="{side}" x="([\d.]+)" y="([\d.]+)">([^<]*)<', svg)
    return [(float(x if axis == "x" else y), float(number)) for x, y, number in found]


def test_curves_fill_the_frame():
    svg = chart("t", "x", "y", [Line(name="a", x=[2, 4], y=[-1, 3])])
    assert drawn(svg) == [[(LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP)]]


@pytest.mark.parametrize("scale", [1e-3, 0.7, 1.0, 64, 12345])
def test_ticks_are_round_and_stand_where_their_numbers_are(scale):
    svg = chart("t", "x", "y", [Line(name="a", x=[0, scale], y=[0, scale])])
    numbers = ticks(svg, "below")
    assert 3 <= len(numbers) <= 7
    for place, number in numbers:
        assert place == pytest.approx(LEFT + number / scale * (WIDTH - RIGHT - LEFT), abs=0.1)
        assert len(f"{number:g}".replace(".", "").strip("0")) <= 2
    for place, number in ticks(svg, "beside"):
        along = (HEIGHT - BOTTOM + 4 - place) / (HEIGHT - BOTTOM - TOP)
        assert along == pytest.approx(number / scale, abs=0.01)


def test_a_constant_is_drawn_in_the_middle():
    svg = chart("t", "x", "y", [Line(name="a", x=[0, 1], y=[5, 5])])
    assert {y for _, y in drawn(svg)[0]} == {(TOP + HEIGHT - BOTTOM) / 2}


def test_lines_differ_in_colour_and_dashes_and_names_are_text():
    lines = [Line(name=f"<{n}>", x=[0, 1], y=[0, n]) for n in range(6)]
    svg = chart("a < b", "x", "y", [*lines, Line(name="wide", x=[0], y=[0], wide=True)], mark=0.5)
    looks = re.findall(r"<polyline (.*?) points", svg)
    assert len(set(looks)) == 7
    assert len({re.search('dasharray="(.*?)"', look)[1] for look in looks[:6]}) == 6
    assert "&lt;5&gt;" in svg
    assert "a &lt; b" in svg
    assert f"M{(LEFT + WIDTH - RIGHT) / 2:.1f} " in svg
