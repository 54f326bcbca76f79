"""The same noise through several models, a row each.

Yan, Gu and Rush, "Diffusion Models Without Attention", 2024, figure 5.
"""

from collections.abc import Mapping, Sequence

from jaxtyping import UInt8
from matplotlib.figure import Figure
from numpy import ndarray

from diffussm.analysis.figures.style import new_figure

Pixels = UInt8[ndarray, "batch height width channels"]

SIDE = 0.9
"""Inches of an image."""
LETTER = 0.085
"""Inches of a letter."""
COLUMNS = 32
"""Most noises in a figure."""


def check_columns(count: int) -> None:
    """ValueError for more than COLUMNS noises."""
    if count > COLUMNS:
        raise ValueError(f"a figure holds at most {COLUMNS} seeds, not {count}; ask for fewer")


def same_noise_figure(pixels: Mapping[str, Pixels], captions: Sequence[str]) -> Figure:
    """Images in a grid: a row for each model, labelled; a column for each noise, captioned.

    Raises ValueError for more than COLUMNS columns.
    """
    columns = len(captions)
    check_columns(columns)
    height, width = next(iter(pixels.values())).shape[1:3]
    margin = 0.3 + LETTER * max(map(len, pixels))
    figure = new_figure(margin + SIDE * columns, 0.4 + SIDE * height / width * len(pixels))
    grid = figure.subplots(len(pixels), columns, squeeze=False)
    for row, (name, images) in zip(grid, pixels.items(), strict=True):
        for axes, image in zip(row, images, strict=True):
            one = image if image.shape[-1] == 3 else image[..., 0]
            axes.imshow(one, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for axes, caption in zip(grid[0], captions, strict=True):
        axes.set_title(caption, fontsize=9)
    return figure
