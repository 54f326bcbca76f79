"""Grids of samples, so that a person sees what a run has learned."""

from pathlib import Path

from torch import nn

from diffussm.checkpoint import Header
from diffussm.generation import Generator, picture_grid, to_uint8, write_png

PREVIEWS = "previews"
ROWS, COLUMNS = 4, 10


def draw_preview(folder: Path, network: nn.Module, header: Header) -> None:
    """Draw the same seeds and classes each time, into a file named by images seen."""
    columns = min(header.model.num_classes or COLUMNS, COLUMNS)
    seeds = range(ROWS * columns)
    generator = Generator(network, header)
    labels = generator.labels(len(seeds), range(columns)) if header.class_names else None
    pixels = to_uint8(generator.sample(seeds=seeds, labels=labels))
    names = [str(seed) if labels is None else header.class_names[labels[seed]] for seed in seeds]
    write_png(folder / PREVIEWS / f"{header.images:012d}.png", picture_grid(pixels, names, columns))
