"""Pictures a person can look at, and the array that evaluators read."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from diffussm.checkpoint import make_folder, write_safely
from diffussm.shapes import Image

Pixels = UInt8[np.ndarray, "batch height width channels"]

TILE = 64
"""Least side of an image in a grid, in screen pixels; smaller ones are enlarged."""
PADDING = 6
CAPTION = 14
MAX_COLUMNS = 16
PAPER, INK = (255, 255, 255), (80, 80, 80)


def to_uint8(images: Image) -> Pixels:
    """Images in [-1, 1] as bytes 0 to 255, rounded, channels last."""
    scaled = (images.float() * 127.5 + 127.5).round().clamp(0, 255)
    return scaled.byte().permute(0, 2, 3, 1).cpu().numpy()


def picture_grid(pixels: Pixels, captions: Sequence[str], columns: int | None = None):
    """A Pillow picture of all images in rows, each with its caption below.

    `columns` is the square root of their number, rounded up, unless given. Images of 1 or 3
    channels; others (latents) show their first channel.
    """
    columns = columns or math.ceil(math.sqrt(len(pixels)))
    rows = math.ceil(len(pixels) / columns)
    height, width = pixels.shape[1:3]
    scale = max(1, math.ceil(TILE / max(height, width)))
    cell_width = width * scale + PADDING
    cell_height = height * scale + CAPTION + PADDING
    grid = Pillow.new("RGB", (columns * cell_width + PADDING, rows * cell_height + PADDING), PAPER)
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(11)
    for number, (image, caption) in enumerate(zip(pixels, captions, strict=True)):
        left = PADDING + number % columns * cell_width
        top = PADDING + number // columns * cell_height
        tile = _picture(image).resize((width * scale, height * scale), Pillow.Resampling.NEAREST)
        grid.paste(tile, (left, top))
        middle = left + width * scale / 2
        draw.text((middle, top + height * scale + 1), caption, INK, font, anchor="ma")
    return grid


def sample_sheet(
    pixels: Pixels,
    seeds: Sequence[int],
    labels: Sequence[int] | None,
    class_names: Sequence[str],
    classes: int,
) -> Pillow.Image:
    """The grid of samples that commands write, each with its class below, else its seed.

    classes    how many were drawn in turn: whole rounds of them make a row, so that each has
               columns of its own
    """
    captions = [str(number) for number in labels or seeds]
    if labels and class_names:
        captions = [class_names[label] for label in labels]
    columns = None
    if 0 < classes <= MAX_COLUMNS:
        columns = classes * max(1, round(math.sqrt(len(pixels)) / classes))
    return picture_grid(pixels, captions, columns)


def write_png(path: Path, picture: Pillow.Image) -> None:
    """Write a picture whole or not at all, as PNG whatever the name's ending."""
    make_folder(path.parent)
    write_safely(path, lambda temporary: picture.save(temporary, format="PNG"))


def write_npz(path: Path, pixels: Pixels, labels: Sequence[int] | None) -> None:
    """Write `arr_0` (images) and, if there are any, `arr_1` (labels), as ADM's evaluator reads."""
    arrays = [pixels] if labels is None else [pixels, np.array(labels)]
    make_folder(path.parent)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, *arrays)

    write_safely(path, write)


def write_images(folder: Path, pixels: Pixels, seeds: Sequence[int]) -> None:
    """Write each image as SEED.png."""
    for image, seed in zip(pixels, seeds, strict=True):
        write_png(folder / f"{seed:06d}.png", _picture(image))


def _picture(image: np.ndarray) -> Pillow.Image:
    return Pillow.fromarray(image if image.shape[-1] == 3 else image[..., 0])
