"""From the bytes of an image file to pixels: decode, centre crop, mirror.

The crop is ADM's: halve with a box filter while the shorter side is at least twice as long as
wanted, scale the rest of the way with a bicubic one, cut out the middle. Dhariwal and Nichol,
"Diffusion Models Beat GANs on Image Synthesis", 2021, their published data loader.
"""

import io
import warnings

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from jaxtyping import Float, UInt8
from PIL.Image import Resampling
from torch import Tensor

from diffussm.data.order import seeded

WHITE = (255, 255, 255, 255)
MODES = {1: "L", 3: "RGB"}
"""Pillow's name of images with so many channels."""


class Unreadable(ValueError):
    """An image file that cannot be decoded, with the reason."""


def read_pixels(data: bytes, size: int, channels: int) -> UInt8[np.ndarray, "size size channels"]:
    """The file `data` as `size` x `size` pixels; Unreadable for what is no good image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            picture = centre_crop(decode(data, channels), size)
    except PIL.UnidentifiedImageError:  # says where the bytes lie in memory, else nothing
        raise Unreadable("in no format of images that is known") from None
    except Exception as error:  # decoders raise of every kind when a file is damaged
        raise Unreadable(f"{type(error).__name__}: {error}") from None
    return np.asarray(picture).reshape(size, size, channels)


def decode(data: bytes, channels: int) -> PIL.Image.Image:
    """An image file in colour (3 channels) or grey (1), the right way up.

    Transparent parts are laid on white. Raises what Pillow raises, its warning of decompression
    bombs included where warnings are errors.
    """
    with PIL.Image.open(io.BytesIO(data)) as picture:
        picture.load()
        PIL.ImageOps.exif_transpose(picture, in_place=True)
        if picture.mode == "F":
            raise ValueError("pixels are floating-point numbers of unknown range")
        if picture.mode.startswith("I"):  # 16 bits a pixel; Pillow would cut them off at 255
            levels = (np.asarray(picture) / 257).round().clip(0, 255)
            picture = PIL.Image.fromarray(levels.astype(np.uint8))
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            white = PIL.Image.new("RGBA", picture.size, WHITE)
            picture = PIL.Image.alpha_composite(white, picture)
        return picture.convert(MODES[channels])


def centre_crop(picture: PIL.Image.Image, size: int) -> PIL.Image.Image:
    """The middle of a picture, scaled so that its shorter side is `size`."""
    while min(picture.size) >= 2 * size:
        half = (picture.width // 2, picture.height // 2)
        picture = picture.resize(half, Resampling.BOX)
    scale = size / min(picture.size)
    width, height = round(picture.width * scale), round(picture.height * scale)
    if width * height > (PIL.Image.MAX_IMAGE_PIXELS or width * height):
        raise ValueError(f"{picture.width} x {picture.height} pixels are too long a strip")
    picture = picture.resize((width, height), Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def is_mirrored(seed: int) -> bool:
    """Whether the image with this seed is seen as in a mirror: every other time."""
    return bool(torch.rand((), generator=seeded(seed)) < 0.5)


def to_tensor(
    pixels: UInt8[np.ndarray, "batch height width channels"],
) -> Float[Tensor, "batch channels height width"]:
    """Levels 0..255 as values in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()
