"""Loss over the images seen, and Frechet distances where they were measured.

Yan, Gu and Rush, "Diffusion Models Without Attention", 2024, figure 6.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from diffussm.analysis.figures.style import decimal_log, line_look, look, new_figure, plain
from diffussm.analysis.records import Curve, Record

DISTANCES = ("FD", "FID", "sFID", "sFD", "Frechet")
"""How the names of metrics begin that are drawn."""

TOLD = {
    "guidance_scale": "guidance",
    "sampler": "sampler",
    "steps": "steps",
    "eta": "eta",
    "count": "samples",
    "seeds": "seeds",
    "labels": "classes",
    "guidance_interval": "interval",
    "guidance_channels": "guided channels",
    "features": "features",
    "reference": "reference",
}
"""What a legend says of protocols that differ in it, what people choose most often first."""

ENTRY = 0.18
"""Inches of a line of a legend, which stands under its panel where protocols make it long."""
WINDOW = 1 / 50


def training_figure(runs: Mapping[str, Record]) -> Figure:
    """A panel for the loss and one for each distance; a line for each run and protocol of it.

    The loss in training is `smoothed`, its single values faint behind it; that of held-out images
    is a marker each. Colour and dashes tell the run, the marker its protocol.
    """
    metrics, told = distances(runs), protocols_told(runs)
    places = {protocol: place for place, protocol in enumerate(told, start=1)}
    below = ENTRY * (1 + len(told)) * len(runs) if told else 0
    figure = new_figure(6.2 + 4.2 * len(metrics), 4.2 + below)
    loss, *others = figure.subplots(1, 1 + len(metrics), squeeze=False)[0]
    for number, (name, record) in enumerate(runs.items()):
        color = look(number)["color"]
        loss.plot(list(record.loss), list(record.loss.values()), color=color, alpha=0.2, lw=0.6)
        smooth = smoothed(record.loss)
        loss.plot(list(smooth), list(smooth.values()), label=name, **line_look(number))
        if record.validation:
            held_out = list(record.validation), list(record.validation.values())
            style = look(number) | {"linestyle": "", "markerfacecolor": "white"}
            loss.plot(*held_out, label=f"{name}, held out", **style)
    loss.set_ylabel("squared error of the prediction")
    for axes, metric in zip(others, metrics, strict=True):
        for number, (name, record) in enumerate(runs.items()):
            for protocol, curve in record.evaluations.get(metric, {}).items():
                label, style = name, look(number)
                if protocol:
                    label = f"{name}, {told[protocol]}"
                    style["marker"] = look(places[protocol])["marker"]
                    style["markerfacecolor"] = "white"
                images = sorted(curve)
                axes.plot(images, [curve[at] for at in images], label=label, **style)
        axes.set_ylabel(metric)
    for axes in (loss, *others):
        plain(axes)
        axes.set(yscale="log", xlabel="images seen", xlim=(0, None))
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        decimal_log(axes.yaxis)
        under = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12)} if told else {}
        axes.legend(frameon=False, fontsize=9, handlelength=3, **under)
    return figure


def protocols_told(runs: Mapping[str, Record]) -> dict[str, str]:
    """In what each protocol differs from the others, by its hash: "guidance 1.5, steps 50".

    As few fields of TOLD as tell apart what they can; the hash where they cannot.
    """
    protocols = {hash: table for run in runs.values() for hash, table in run.protocols.items()}
    said: dict[str, list[str]] = {protocol: [] for protocol in protocols}
    for field, word in TOLD.items():
        more = {
            hash: [*said[hash], _shown(word, table.get(field))] for hash, table in protocols.items()
        }
        if len(set(map(tuple, more.values()))) > len(set(map(tuple, said.values()))):
            said = more
    alike = Counter(map(tuple, said.values()))
    return {
        hash: ", ".join(found if found and alike[tuple(found)] == 1 else [*found, _named(hash)])
        for hash, found in said.items()
    }


def _shown(word: str, value: Any) -> str:
    if value is None:
        return f"no {word}"
    return f"{word} {' to '.join(map(str, value)) if isinstance(value, list) else value}"


def _named(hash: str) -> str:
    return f"protocol {hash[:6]}"


def smoothed(curve: Curve) -> Curve:
    """The mean over the WINDOW before each point, a share of all images."""
    points = sorted(curve.items())
    window, first, total, means = WINDOW * points[-1][0], 0, 0.0, {}
    for last, (images, value) in enumerate(points):
        total += value
        while points[first][0] <= images - window:
            total -= points[first][1]
            first += 1
        means[images] = total / (last + 1 - first)
    return means


def distances(runs: Mapping[str, Record]) -> list[str]:
    """The distances that any run has, in the order in which they were first found."""
    names = dict.fromkeys(name for record in runs.values() for name in record.evaluations)
    return [name for name in names if name.startswith(DISTANCES)]
