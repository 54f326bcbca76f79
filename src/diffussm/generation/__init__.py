"""Seeds to images: a trained model that draws, and the pictures it draws."""

from diffussm.generation.generator import Generator, load
from diffussm.generation.pictures import (
    picture_grid,
    sample_sheet,
    to_uint8,
    write_images,
    write_npz,
    write_png,
)

__all__ = [
    "Generator",
    "load",
    "picture_grid",
    "sample_sheet",
    "to_uint8",
    "write_images",
    "write_npz",
    "write_png",
]
