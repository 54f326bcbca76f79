"""From files to pixels: every kind of image, ADM's crop by independent means, and bad files."""

from contextlib import suppress
from functools import partial

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import PHOTOGRAPHS, encoded, noise, photograph
from PIL.Image import Transpose
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from diffussm.data.transform import (
    Unreadable,
    centre_crop,
    decode,
    is_mirrored,
    read_pixels,
    to_tensor,
)


def pixels(picture):
    return np.asarray(picture).astype(int)


def decoded(picture, kind="PNG", channels=3, **options):
    return pixels(decode(encoded(picture, kind, **options), channels))


# Decoding


def test_grey_is_three_equal_channels_and_the_other_way_round():
    grey = PIL.Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert (decoded(grey) == pixels(grey)[..., None]).all()
    assert (decoded(grey, channels=1) == pixels(grey)).all()
    colours = pixels(noise(0))
    luma = colours @ [0.299, 0.587, 0.114]  # ITU-R BT.601
    assert abs(decoded(noise(0), channels=1) - luma).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_lies_on_white(channels):
    levels = np.zeros((1, 3, 4), np.uint8)
    levels[0, :, 3] = 0, 51, 255  # black, seen through, half seen through, and not
    found = decoded(PIL.Image.fromarray(levels), channels=channels).reshape(3, channels)
    assert found.tolist() == [[value] * channels for value in (255, 204, 0)]
    with_grey = PIL.Image.fromarray(levels[..., 2:])
    assert with_grey.mode == "LA"
    assert decoded(with_grey, channels=channels).reshape(3, -1)[:, 0].tolist() == [255, 204, 0]


def test_palettes_with_and_without_a_transparent_entry():
    picture = PIL.Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    wanted = [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    assert decoded(picture)[0].tolist() == wanted
    assert decoded(picture, "GIF")[0].tolist() == wanted
    wanted[1] = [255, 255, 255]
    assert decoded(picture, transparency=1)[0].tolist() == wanted


def test_inks_and_one_bit():
    ink = PIL.Image.new("CMYK", (8, 8), (255, 0, 0, 0))  # cyan and nothing else
    assert abs(decoded(ink, "TIFF")[0, 0] - [0, 255, 255]).max() <= 2
    assert abs(decoded(ink, "JPEG")[0, 0] - [0, 255, 255]).max() <= 2
    assert decoded(PIL.Image.new("1", (2, 2), 1)).min() == 255


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_range(kind):
    levels = np.arange(256, dtype=np.uint16)[None] * 257  # 0 to 65535
    wanted = list(range(256))
    assert decoded(PIL.Image.fromarray(levels), kind, channels=1)[0].tolist() == wanted
    assert decoded(PIL.Image.fromarray(levels), kind)[0, :, 0].tolist() == wanted


# What EXIF calls 1 to 8: how the stored picture is turned so that it stands upright
UPRIGHT = [None, Transpose.FLIP_LEFT_RIGHT, Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM]
UPRIGHT += [Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90]


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_cameras_held_sideways(kind, number):
    stored = photograph("coffee", step=4)
    turn = UPRIGHT[number - 1]
    upright = stored if turn is None else stored.transpose(turn)
    exif = PIL.Image.Exif()
    exif[0x0112] = number
    found = decoded(stored, kind, exif=exif)
    assert found.shape == pixels(upright).shape
    assert abs(found - pixels(upright)).mean() < (10 if kind == "JPEG" else 1e-9)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_every_kind_of_file(kind):
    picture = photograph("astronaut", step=4)
    assert abs(decoded(picture, kind) - pixels(picture)).mean() < 8


# Bad files


def unreadable(data, size=8):
    with pytest.raises(Unreadable) as caught:
        read_pixels(data, size, 3)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_cut_files(kind):
    data = encoded(noise(0, (64, 64)), kind)
    for size in (0, 1, 10, 100, len(data) // 2, len(data) * 9 // 10):
        unreadable(data[:size])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=64), st.sampled_from(["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"]))
def test_any_bytes_are_an_image_or_unreadable(data, kind):
    start = encoded(noise(0, (4, 4)), kind)[:20]
    for file in (data, start + data):
        with suppress(Unreadable):
            assert read_pixels(file, 8, 3).shape == (8, 8, 3)


def test_bombs_and_strips_are_refused(monkeypatch):
    bomb = encoded(PIL.Image.new("1", (300, 300)))
    strip = encoded(PIL.Image.new("L", (1, 900)))
    assert read_pixels(bomb, 8, 3).shape == (8, 8, 3)
    for limit in (60_000, 100):  # Pillow warns of the first and refuses the second
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
        assert "DecompressionBomb" in unreadable(bomb)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 900 * 8 * 8 - 1)
    assert "1 x 900 pixels are too long a strip" in unreadable(strip)


def test_numbers_of_unknown_range_are_refused():
    picture = PIL.Image.fromarray(np.ones((4, 4), np.float32))
    assert "floating-point" in unreadable(encoded(picture, "TIFF"))


# The crop


def crop_by_torch(levels, size):
    """ADM's crop in torch's filters, on levels (height, width, channels).

    As in Pillow, rows come first and are rounded to levels before columns.
    """

    def both(image, filtered, height, width):
        for shape in ((image.shape[2], width), (height, width)):
            image = (filtered(image, shape) + 0.5).floor().clamp(0, 255)
        return image

    image = torch.from_numpy(levels).permute(2, 0, 1)[None].double()
    while min(image.shape[2:]) >= 2 * size:
        image = both(image, adaptive_avg_pool2d, *[length // 2 for length in image.shape[2:]])
    scale = size / min(image.shape[2:])
    shape = [round(length * scale) for length in image.shape[2:]]
    image = both(image, partial(interpolate, mode="bicubic", antialias=True), *shape)
    top, left = ((length - size) // 2 for length in shape)
    return image[0, :, top : top + size, left : left + size].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("size", [32, 64, 150, 256, 300])
def test_photographs_beside_another_implementation(name, size):
    picture = photograph(name)
    if min(picture.size) >= 2 * size:  # whole halves, so that both box filters mean the same
        even = [length // 16 * 16 for length in picture.size]
        picture = picture.crop((0, 0, *even))
    difference = abs(pixels(centre_crop(picture, size)) - crop_by_torch(np.array(picture), size))
    assert difference.max() <= 1  # a level, where a half is rounded the other way
    assert difference.mean() < 0.01


def test_a_half_is_the_mean_of_four_pixels():
    levels = pixels(noise(0, (16, 16)))
    wanted = levels.reshape(8, 2, 8, 2, 3).mean((1, 3))
    found = pixels(centre_crop(noise(0, (16, 16)), 8))
    assert abs(found - wanted).max() <= 1  # rows are rounded, then columns
    # the middle of what is longer, and twice
    wide = noise(0, (16, 24))
    wanted = pixels(wide)[:, 4:20].reshape(4, 4, 4, 4, 3).mean((1, 3))
    assert abs(pixels(centre_crop(wide, 4)) - wanted).max() <= 2


def test_what_has_the_size_already_is_cut_only():
    levels = pixels(noise(1, (9, 13)))
    assert (pixels(centre_crop(noise(1, (9, 13)), 9)) == levels[:, 2:11]).all()
    assert (pixels(centre_crop(noise(1, (12, 9)), 9)) == pixels(noise(1, (12, 9)))[1:10]).all()


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 24))
def test_any_size_is_cropped_and_one_colour_stays_one(width, height, size):
    found = pixels(centre_crop(PIL.Image.new("RGB", (width, height), (7, 77, 177)), size))
    assert found.shape == (size, size, 3)
    assert (found == [7, 77, 177]).all()


@pytest.mark.parametrize("shape", [(40, 60), (61, 33), (20, 90)])
def test_a_gradient_keeps_its_middle(shape):
    height, width = shape
    down, right = np.mgrid[:height, :width]
    levels = np.stack([down - height / 2, right - width / 2, 0 * down], -1) + 128.5
    found = pixels(centre_crop(PIL.Image.fromarray(levels.astype(np.uint8)), 16))
    assert abs(found[..., 0].mean() - 127.5) < 2
    assert abs(found[..., 1].mean() - 127.5) < 2
    step = min(shape) / 16  # an even slope
    inside = np.diff(found[2:-2, 2:-2, 1], axis=1)
    assert abs(inside.mean() - step) < 0.2


# Mirrors and values


def test_every_other_image_is_mirrored():
    mirrored = [is_mirrored(seed) for seed in range(1000)]
    assert mirrored == [is_mirrored(seed) for seed in range(1000)]
    assert 430 < sum(mirrored) < 570  # 4.4 standard deviations


def test_levels_become_values():
    levels = np.array([[[[0, 51, 255]]]], np.uint8)
    assert to_tensor(levels).flatten().tolist() == pytest.approx([-1, -0.6, 1])
    many = np.stack([np.asarray(noise(0)), np.asarray(noise(1))])
    assert (
        to_tensor(many).permute(0, 2, 3, 1).add(1).mul(127.5).round().byte().numpy() == many
    ).all()
