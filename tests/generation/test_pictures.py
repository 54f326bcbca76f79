"""Pictures and arrays: exact bytes, exact places, files that are whole."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from diffussm.generation import picture_grid, to_uint8, write_images, write_npz, write_png
from diffussm.generation.pictures import CAPTION, PADDING, PAPER, TILE


def random_pixels(batch=5, height=8, width=8, channels=1):
    numbers = np.random.default_rng(0)
    return numbers.integers(0, 256, (batch, height, width, channels), dtype=np.uint8)


def test_every_byte_comes_back():
    values = torch.arange(256) / 127.5 - 1
    assert to_uint8(values.reshape(1, 1, 16, 16)).flatten().tolist() == list(range(256))


def test_bytes_are_rounded_and_clamped():
    values = torch.tensor([-2.0, -1.0, -0.997, -0.995, 0.999, 1.0, 3.0, 10.4 / 127.5 - 1])
    pixels = to_uint8(values.reshape(1, 1, 2, 4)).flatten()
    assert pixels.tolist() == [0, 0, 0, 1, 255, 255, 255, 10]


def test_channels_come_last():
    images = torch.zeros(2, 3, 4, 6)
    images[1, 2] = 1
    pixels = to_uint8(images)
    assert (pixels.shape, pixels.dtype) == ((2, 4, 6, 3), np.uint8)
    assert pixels[1, 0, 0].tolist() == [128, 128, 255]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 8), (100, 60)])
def test_the_grid_has_room_for_all(height, width):
    pixels = random_pixels(7, height, width, 3)
    grid = picture_grid(pixels, ["x"] * 7, columns=3)
    scale = math.ceil(TILE / max(height, width))
    assert grid.size == (
        PADDING + 3 * (width * scale + PADDING),
        PADDING + 3 * (height * scale + CAPTION + PADDING),
    )


def test_each_image_stands_in_its_place_enlarged_exactly():
    pixels = random_pixels(5, 8, 4, 3)
    grid = np.asarray(picture_grid(pixels, [""] * 5, columns=2))
    for number, image in enumerate(pixels):
        top = PADDING + number // 2 * (64 + CAPTION + PADDING)
        left = PADDING + number % 2 * (32 + PADDING)
        tile = grid[top : top + 64, left : left + 32]
        np.testing.assert_array_equal(tile, image.repeat(8, 0).repeat(8, 1))


def test_captions_are_written_below_their_images():
    pixels = random_pixels(4)
    plain, named = (
        np.asarray(picture_grid(pixels, names, columns=2)).astype(int)
        for names in (["", "", "", ""], ["", "seven", "", ""])
    )
    rows, columns = np.nonzero((plain != named).any(-1))
    assert len(rows) > 20
    assert PADDING + 64 <= rows.min() <= rows.max() < PADDING + 64 + CAPTION + PADDING
    assert columns.min() > PADDING + 64  # the second column's
    assert plain[PADDING + 64 + 2, PADDING + 10].tolist() == list(PAPER)


def test_a_square_grid_unless_said_otherwise():
    def width(count):
        return picture_grid(random_pixels(count), [""] * count).width

    assert width(9) == width(7) < width(10)


def test_grey_and_many_channels():
    for channels in (1, 4):
        pixels = random_pixels(1, 64, 64, channels)
        grid = np.asarray(picture_grid(pixels, [""]))
        tile = grid[PADDING : PADDING + 64, PADDING : PADDING + 64]
        np.testing.assert_array_equal(tile, pixels[0, ..., :1].repeat(3, -1))


def test_each_image_needs_a_caption():
    with pytest.raises(ValueError, match="argument"):
        picture_grid(random_pixels(3), ["one"])


def test_the_array_that_evaluators_read(tmp_path):
    pixels = random_pixels()
    path = tmp_path / "deep" / "samples.npz"
    write_npz(path, pixels, [3, 1, 4, 1, 5])
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays.files == ["arr_0", "arr_1"]
        np.testing.assert_array_equal(arrays["arr_0"], pixels)
        assert arrays["arr_0"].dtype == np.uint8
        assert arrays["arr_1"].tolist() == [3, 1, 4, 1, 5]
    write_npz(path, pixels, None)
    with np.load(path) as arrays:
        assert arrays.files == ["arr_0"]


def test_single_images_are_named_by_seed(tmp_path):
    pixels = random_pixels(2)
    write_images(tmp_path / "out", pixels, [3, 1_234_567])
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["000003.png", "1234567.png"]
    with Image.open(tmp_path / "out" / "000003.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), pixels[0, ..., 0])


def test_a_picture_is_png_whatever_its_name(tmp_path):
    write_png(tmp_path / "grid.jpg", picture_grid(random_pixels(1), ["a"]))
    with Image.open(tmp_path / "grid.jpg") as picture:
        assert picture.format == "PNG"
