"""What figures draw is the data they are given, with legends, and axes that say their units."""

import itertools
import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

import diffussm.analysis
from diffussm.analysis.figures import style
from diffussm.analysis.figures.cost import (
    Measured,
    cost_figure,
    crossing,
    multiply_adds,
    read_measured,
)
from diffussm.analysis.figures.hippo import band_limited, hippo_figure, recalled
from diffussm.analysis.figures.kernels import channels_drawn, kernels_figure
from diffussm.analysis.figures.same_noise import same_noise_figure
from diffussm.analysis.figures.training import protocols_told, smoothed, training_figure
from diffussm.analysis.flops import cost
from diffussm.analysis.inside import memory_length
from diffussm.analysis.records import Record
from diffussm.models import model_config

NAMES = ["DiffuSSM-XL", "DiffuSSM-XL:4", "DiT-XL/2"]
SIZES = [256, 1024, 1536, 2048]


def lines(axes):
    """y by x of each labelled line."""
    found = {line.get_label(): line for line in axes.get_lines()}
    return {
        name: dict(zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True))
        for name, line in found.items()
        if not str(name).startswith("_")
    }


def legend(owner):
    return [text.get_text() for text in owner.get_texts()]


def test_the_cost_lines_are_the_formula():
    figure = cost_figure(multiply_adds(NAMES, SIZES))
    (axes,) = figure.axes
    drawn = lines(axes)
    for name, label, options in (
        ("DiffuSSM-XL", "DiffuSSM-XL", {}),
        ("DiffuSSM-XL", "DiffuSSM-XL, M = 4", {"hourglass_ratio": 4}),
        ("DiT-XL/2", "DiT-XL/2", {}),
    ):
        config = model_config(name, options)
        expected = {size: cost(config, size // 8, size // 8).total / 1e9 for size in SIZES}
        assert drawn[label] == pytest.approx(expected)
    assert drawn["DiT-XL/2"][256] == pytest.approx(118.6, rel=0.005)  # published
    assert (axes.get_xlabel(), axes.get_xscale()) == ("image side, pixels", "log")
    assert axes.get_ylabel() == "multiply-adds of an image, G"
    assert legend(figure.legends[0]) == [
        "DiffuSSM-XL",
        "DiffuSSM-XL, M = 4",
        "DiT-XL/2",
        "DiffuSSM-XL below DiT-XL/2",
    ]
    (above,) = axes.child_axes
    assert above.get_xlabel() == "length: positions of its latent"
    figure.draw_without_rendering()
    assert [text.get_text() for text in above.get_xticklabels()] == ["1,024", "16,384", "65,536"]


def test_the_crossing_is_where_the_formulas_cross():
    sizes = [size * 32 for size in range(8, 80)]
    giga = multiply_adds(["DiffuSSM-XL", "DiT-XL/2"], sizes)
    ours, theirs = giga.values()
    side = crossing(*giga.values())
    before, after = int(side // 32 * 32), int(side // 32 * 32 + 32)
    assert ours[before] > theirs[before]
    assert ours[after] <= theirs[after]
    # straight lines over wide gaps are not far from it
    few = crossing(*multiply_adds(["DiffuSSM-XL", "DiT-XL/2"], SIZES).values())
    assert few == pytest.approx(side, rel=0.02)
    assert crossing({1: 1.0, 10: 100.0}, {1: 10.0, 10: 1.0}) is None  # never cheaper again
    assert crossing({1: 10.0, 10: 10.0}, {1: 1.0, 10: 100.0}) == pytest.approx(10**0.5)
    assert crossing({1: 10.0}, {2: 1.0}) is None


def test_measured_times_stand_beside(tmp_path):
    seconds = {"DiffuSSM-XL": {256: 0.5, 1024: 5.0}, "DiT-XL/2": {256: 0.1, 1024: 9.0}}
    path = tmp_path / "times.json"
    path.write_text(json.dumps({"conditions": "a machine, " * 20, "seconds": seconds}))
    measured = read_measured(path)
    assert measured == Measured(conditions="a machine, " * 20, seconds=seconds)
    figure = cost_figure(multiply_adds(NAMES, SIZES), measured)
    left, right = figure.axes
    drawn = lines(right)
    assert drawn.pop("DiffuSSM-XL below DiT-XL/2")
    assert drawn == seconds
    assert right.get_ylabel() == "time of an image and step, seconds"
    assert max(map(len, right.get_title().splitlines())) <= 75
    colours = [
        {line.get_label(): line.get_color() for line in axes.get_lines()} for axes in (left, right)
    ]
    assert colours[1].items() <= colours[0].items()


@pytest.mark.parametrize("text", ["", "[]", '{"seconds": {}}', '{"conditions": "", "seconds": 3}'])
def test_tables_without_times(tmp_path, text):
    path = tmp_path / "times.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="holds no times"):
        read_measured(path)
    with pytest.raises(ValueError, match="there is no table"):
        read_measured(tmp_path / "absent.json")


RUNS = {
    "a": Record(
        loss={step * 10: 1 / step for step in range(1, 101)},
        validation={500: 0.3, 1000: 0.2},
        evaluations={
            "FD-digits": {"": {1000: 4.0, 500: 8.0}, "0123456789": {900: 5.0}},
            "precision": {"": {1000: 0.5}},
        },
        protocols={"0123456789": {"guidance_scale": 1.0}},
    ),
    "b": Record(loss={100: 0.5}, evaluations={"FID": {"": {100: 30.0}}}),
}


def test_training_draws_losses_and_distances():
    loss, *others = training_figure(RUNS).axes
    drawn = lines(loss)
    assert drawn["a"] == pytest.approx(smoothed(RUNS["a"].loss))
    assert drawn["a, held out"] == RUNS["a"].validation
    assert drawn["b"] == {100: 0.5}
    assert legend(loss.get_legend()) == ["a", "a, held out", "b"]
    assert loss.get_xlabel() == "images seen"
    assert loss.get_ylabel() == "squared error of the prediction"
    assert [axes.get_ylabel() for axes in others] == ["FD-digits", "FID"]
    assert lines(others[0]) == {"a": {500: 8.0, 1000: 4.0}, "a, protocol 012345": {900: 5.0}}
    assert list(others[0].get_lines()[0].get_xdata()) == [500, 1000]
    assert lines(others[1]) == {"b": {100: 30.0}}
    # a run keeps its look in every panel
    assert others[1].get_lines()[0].get_color() == style.look(1)["color"]
    assert len(training_figure({"c": Record(loss={1: 1.0})}).axes) == 1


def evaluated(**protocols):
    curves = {hash: {100: 1.0} for hash in protocols}
    return Record(loss={100: 0.5}, evaluations={"FID": curves}, protocols=protocols)


def test_protocols_are_told_by_what_differs_and_by_their_markers():
    plain = {"count": 500, "sampler": "ddim", "guidance_scale": 1.0, "guidance_interval": None}
    guided = plain | {"guidance_scale": 1.5, "guidance_interval": [0.1, 0.8]}
    runs = {"x": evaluated(aa=plain, bb=guided), "y": evaluated(bb=guided)}
    drawn = training_figure(runs).axes[1].get_lines()
    assert [line.get_label() for line in drawn] == [
        "x, guidance 1.0",
        "x, guidance 1.5",
        "y, guidance 1.5",
    ]
    assert len({line.get_marker() for line in drawn[:2]}) == 2
    assert drawn[1].get_marker() == drawn[2].get_marker()
    assert drawn[0].get_color() == drawn[1].get_color() != drawn[2].get_color()
    half = guided | {"guidance_interval": [0.2, 0.5]}
    fewer = plain | {"count": 50, "resize": "other"}
    told = protocols_told({"x": evaluated(aa=guided, bb=half, cc=fewer, dddddddd=fewer)})
    assert told == {
        "aa": "guidance 1.5, interval 0.1 to 0.8",
        "bb": "guidance 1.5, interval 0.2 to 0.5",
        "cc": "guidance 1.0, no interval, protocol cc",
        "dddddddd": "guidance 1.0, no interval, protocol dddddd",
    }


def test_the_last_tick_of_cost_has_room():
    figure = cost_figure(multiply_adds(NAMES, SIZES))
    figure.draw_without_rendering()
    (above,) = figure.axes[0].child_axes
    last = above.get_xticklabels()[-1].get_window_extent()
    assert last.x1 < figure.bbox.x1 - 0.1 * figure.dpi  # inches


def test_smoothing_is_the_mean_of_the_last_fiftieth():
    curve = {n: float(n) for n in range(1, 1001)}
    found = smoothed(curve)
    assert found[1] == 1
    for images in (15, 500, 1000):
        window = [value for n, value in curve.items() if images - 20 < n <= images]
        assert found[images] == pytest.approx(sum(window) / len(window))
    assert smoothed({10: 3.0, 1000: 5.0}) == {10: 3.0, 1000: 5.0}


@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_noise_is_a_row_a_model(channels):
    shape = (3, 4, 6, channels)
    pixels = {
        name: torch.randint(256, shape, dtype=torch.uint8).numpy() for name in ("first", "other")
    }
    figure = same_noise_figure(pixels, ["seed 0", "seed 1", "seed 7"])
    images = [axes.get_images()[0] for axes in figure.axes]
    expected = np.concatenate(list(pixels.values())).reshape(6, 4, 6, channels).squeeze()
    assert np.array_equal([np.asarray(image.get_array()) for image in images], expected)
    assert {image.get_clim() for image in images if channels == 1} <= {(0, 255)}
    assert [figure.axes[i].get_ylabel() for i in (0, 3)] == ["first", "other"]
    assert [axes.get_title() for axes in figure.axes[:4]] == ["seed 0", "seed 1", "seed 7", ""]


def test_too_many_seeds():
    with pytest.raises(ValueError, match="at most 32 seeds, not 33"):
        same_noise_figure({"a": np.zeros((33, 2, 2, 1), np.uint8)}, [""] * 33)


def learned(ways=("forward", "backward")):
    decay = torch.linspace(0.5, 0.95, 11)
    kernels = {
        way: 3 * sign * decay[:, None] ** torch.arange(64)
        for way, sign in zip(ways, (1, -1), strict=False)
    }
    by_block = {
        way: torch.stack([memory_length(kernel), memory_length(kernel) // 2])
        for way, kernel in kernels.items()
    }
    more = {way: lengths + 5 for way, lengths in by_block.items()}
    return kernels, {0.9: by_block, 0.99: more}


def test_kernels_lie_on_both_sides_of_the_present():
    kernels, memories = learned()
    figure = kernels_figure(1, kernels, memories)
    *panels, memory = figure.axes
    assert channels_drawn(kernels["forward"]) == [1, 5, 9]
    for axes, channel in zip(panels, (1, 5, 9), strict=True):
        past, future = axes.get_lines()[:2]
        assert list(past.get_xdata()) == [-lag for lag in range(64)]
        assert list(future.get_xdata()) == list(range(64))
        np.testing.assert_allclose(past.get_ydata(), kernels["forward"][channel] / 3, rtol=1e-6)
        np.testing.assert_allclose(future.get_ydata(), -np.asarray(past.get_ydata()))
        length = int(memory_length(kernels["forward"][channel][None]))
        assert f"channel {channel}: 90% of the energy in {length} forward" in axes.get_title("left")
    assert panels[-1].get_xlabel() == "position, from the present one"
    drawn = {line.get_label(): line.get_ydata() for line in memory.get_lines()}
    for share, name in ((0.9, "90%"), (0.99, "99%")):
        for way, lengths in memories[share].items():
            medians = lengths.double().median(dim=1).values
            assert list(drawn[f"{name} of the energy, {way}"]) == medians.tolist()
    assert memory.get_ylabel() == "memory length, positions"
    assert len(legend(memory.get_legend())) == 4


def test_kernels_of_one_direction():
    kernels, memories = learned(("forward",))
    axes = kernels_figure(0, kernels, memories).axes[0]
    assert axes.get_xlim() == (-63, 0)
    assert len(axes.get_lines()) == 2  # and the line of the present


def test_hippo_draws_what_is_recalled():
    signal = band_limited(60, 3)
    found = {"legs": recalled(signal, "legs", [2, 4, 8, 16])}
    found["fourier"] = recalled(signal, "fourier", [2, 4], 20)
    figure = hippo_figure(signal, found)
    panels = {axes.get_label(): axes for axes in figure.axes}
    assert panels.keys() == {"legs", "fourier", "error"}
    whole = panels["legs"].get_lines()
    assert [line.get_label() for line in whole] == ["signal", "N = 2", "N = 4", "N = 16"]
    np.testing.assert_allclose(whole[0].get_ydata(), signal)
    np.testing.assert_allclose(whole[3].get_ydata(), found["legs"].by_state[16])
    assert list(panels["fourier"].get_lines()[1].get_xdata()) == list(range(40, 60))
    errors = lines(panels["error"])
    assert errors == {"LegS": found["legs"].errors(), "Fourier": found["fourier"].errors()}
    assert errors["LegS"][16] < errors["LegS"][2]
    assert panels["error"].get_xlabel() == "state size N"


def test_a_signal_is_as_asked():
    signal = band_limited(100, 7, seed=3)
    power = torch.fft.rfft(signal).abs()
    assert signal.square().mean() == pytest.approx(1)
    assert power[1:8].min() > 1e-3
    assert max(power[0], power[8:].max()) < 1e-10
    with pytest.raises(ValueError, match="10 samples hold 1 to 4 periods, not 5"):
        band_limited(10, 5)


HEADS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("ending", HEADS)
def test_figures_are_files(tmp_path, ending):
    before = dict(matplotlib.rcParams)
    written = [tmp_path / "new" / f"{turn}.{ending}" for turn in "ab"]
    for path in written:
        style.write_figure(path, cost_figure({"DiT-S/8": {256: 1.0, 512: 4.0}}))
    assert written[0].read_bytes().startswith(HEADS[ending])
    assert written[0].read_bytes() == written[1].read_bytes()
    assert dict(matplotlib.rcParams) == before
    if ending == "svg":
        # letters, not their outlines
        assert ">multiply-adds of an image, G</text>" in written[0].read_text()


def test_other_files_are_refused(tmp_path):
    for name in ("a.jpg", "a", "png"):
        with pytest.raises(ValueError, match=r"a figure is a .png, .svg or .pdf file"):
            style.check_file(tmp_path / name)


def test_lines_differ_for_every_eye():
    """Any two in colour, in line style and in marker, and in grey or in blue."""
    for one, other in itertools.combinations(style.LOOKS, 2):
        assert all(one[key] != other[key] for key in ("color", "linestyle", "marker"))
        red, green, blue = np.abs(
            np.subtract(*map(matplotlib.colors.to_rgb, (one["color"], other["color"])))
        )
        # who sees no red or no green still sees their mixture, and blue
        assert max((red + green) / 2, blue) > 0.15
    assert style.look(len(style.LOOKS)) == style.look(0)


def test_nothing_of_matplotlib_is_global():
    folder = Path(diffussm.analysis.__file__).parent / "figures"
    for path in folder.glob("*.py"):
        assert "pyplot" not in path.read_text().replace("without pyplot", ""), path.name
