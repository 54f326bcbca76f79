"""Figures of the paper and of what was learned; each is a function from numbers to a Figure."""

from collections.abc import Callable

from matplotlib.figure import Figure

from diffussm.analysis.figures.cost import cost_figure
from diffussm.analysis.figures.hippo import hippo_figure
from diffussm.analysis.figures.kernels import kernels_figure
from diffussm.analysis.figures.same_noise import same_noise_figure
from diffussm.analysis.figures.training import training_figure

FIGURES: dict[str, Callable[..., Figure]] = {
    "cost": cost_figure,
    "training": training_figure,
    "same-noise": same_noise_figure,
    "kernels": kernels_figure,
    "hippo": hippo_figure,
}
"""By the name that `diffussm figures` knows them by."""
