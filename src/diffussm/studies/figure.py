"""The results of a study as pictures: a row for each claim, and the loss over the images seen."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from diffussm.analysis.figures.style import decimal_log, line_look, look, new_figure, plain
from diffussm.studies.measures import METRICS
from diffussm.studies.study import Claim, Study
from diffussm.studies.table import Results, groups, spread, values

WIDTH, ROW, CURVE = 3.6, 0.24, 2.9
"""Inches: of a panel, of a member in it, of a panel of curves."""
SHOWN = 3
"""Metrics that have a column: the study's first ones."""


def results_figure(study: Study, results: Results) -> Figure:
    """A row for each claim, a column for each metric; a line of dots, one a seed, for each member.

    The large marker is the mean, the bar one standard deviation to either side.
    """
    claims, metrics = groups(study), study.measure.metrics[:SHOWN]
    heights = [0.75 + ROW * len(claim.members) for claim in claims]
    figure = new_figure(1.6 + WIDTH * len(metrics), sum(heights))
    parts = figure.subfigures(len(claims), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, claim in zip(parts, claims, strict=True):
        part.suptitle(claim.says, x=0.01, ha="left", fontsize=10, fontweight="bold")
        panels = part.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for axes, metric in zip(panels, metrics, strict=True):
            _dots(axes, claim, metric, results)
    return figure


def curves_figure(study: Study, results: Results) -> Figure:
    """A panel for each claim: the loss on images held out, mean over the seeds, as training goes.

    No spread is drawn. A seed has noise of its own to be validated with, the same for all members:
    seeds differ by it more than members differ.
    """
    claims = groups(study)
    columns = min(2, len(claims))
    rows = -(-len(claims) // columns)
    figure = new_figure(1 + 2 * WIDTH, rows * CURVE)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, claim in zip(panels, claims, strict=False):
        _curves(axes, claim, results)
    for axes in list(panels)[len(claims) :]:
        axes.set_visible(False)
    return figure


def _dots(axes: Axes, claim: Claim, metric: str, results: Results) -> None:
    shown = METRICS[metric]
    for place, member in enumerate(claim.members):
        several = results.get(member, ())
        style, found = look(place), spread(several, metric)
        points = [shown.scale * value for value in values(several, metric)]
        axes.plot(
            points,
            [place] * len(points),
            linestyle="",
            marker=style["marker"],
            markersize=4,
            markerfacecolor="none",
            color=style["color"],
        )
        if found.mean is not None:
            axes.errorbar(
                shown.scale * found.mean,
                place,
                xerr=shown.scale * (found.deviation or 0.0),
                capsize=3,
                marker=style["marker"],
                markersize=7,
                color=style["color"],
            )
    plain(axes)
    axes.set_yticks(range(len(claim.members)), claim.members, fontsize=9)
    axes.set_ylim(len(claim.members) - 0.5, -0.5)
    axes.set_xlabel(shown.heading, fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.ticklabel_format(axis="x", useOffset=False)


def _curves(axes: Axes, claim: Claim, results: Results) -> None:
    for place, member in enumerate(claim.members):
        curves = [dict(result.curve) for result in results.get(member, ()) if result.curve]
        if not curves:
            continue
        images = sorted(set.intersection(*(set(each) for each in curves)))
        columns = [[each[number] for each in curves] for number in images]
        mean = [sum(column) / len(column) for column in columns]
        axes.plot(images, mean, label=member, **line_look(place))
    plain(axes)
    axes.set_title(claim.says, fontsize=9, loc="left", wrap=True)
    axes.set(yscale="log", xlabel="images seen", ylabel="held-out loss")
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    decimal_log(axes.yaxis)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)
