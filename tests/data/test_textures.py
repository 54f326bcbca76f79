"""Crops of bundled photographs: the same ones for everybody, and none of a photograph held out."""

import importlib.util
import socket

import numpy as np
import pytest
import torch
from PIL import Image

from diffussm.data import DataConfig, Subset, hold_out, load_data
from diffussm.data.dataset import Divided
from diffussm.data.textures import CROPS, SEEN, UNSEEN


def textures(**options):
    return load_data(DataConfig(name="textures", **({"size": 8} | options)))


@pytest.fixture(scope="module")
def small():
    """Crops of 8 pixels, not mirrored."""
    return textures(flip=False)


@pytest.fixture(scope="module")
def again():
    """The same, mirrored by chance."""
    return textures()


def crops(data, numbers):
    return data.batch(torch.tensor(numbers), numbers).images


def test_crops_are_images(small):
    assert small.shape == (3, 8, 8)
    assert small.class_names == ()
    assert len(small) == CROPS * 16
    batch = small.batch(torch.arange(64), range(64))
    assert batch.images.shape == (64, 3, 8, 8)
    assert -1 <= batch.images.min() < -0.9 < 0.9 < batch.images.max() <= 1
    assert not batch.labels.any()
    assert batch.images.std(dim=(1, 2, 3)).median() > 0.05  # there is something to see


def test_a_crop_is_a_function_of_its_number(small, again):
    alone, among = crops(small, [77])[0], crops(again, [5, 77, 8000])[1]
    assert torch.equal(alone, among) or torch.equal(alone, among.flip(-1))
    assert len({crop.numpy().tobytes() for crop in crops(small, list(range(0, 8192, 64)))}) > 120


@pytest.mark.parametrize("number", [0, 12, 3, 1023])
def test_a_crop_is_part_of_its_photograph(small, number):
    name, package = list(SEEN.items())[number % len(SEEN)]
    spec = importlib.util.find_spec(package)
    path = spec.submodule_search_locations[0] + "/" + name
    picture = Image.open(path).convert("RGB")
    scale = 32 / min(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    whole = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))
    crop = ((crops(small, [number])[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(whole, (8, 8, 3))[:, :, 0]
    assert (windows == crop).all(axis=(-1, -2, -3)).any()


def test_crops_held_out_are_of_other_photographs(small):
    assert isinstance(small, Divided)
    assert not SEEN.keys() & UNSEEN.keys()
    known, unseen = hold_out(small, 40)
    assert isinstance(known, Subset)
    assert (len(known), len(unseen)) == (CROPS * len(SEEN), 40)
    whole, names = [*SEEN, *UNSEEN], []
    for part in (known, unseen):
        first = part.batch(torch.arange(12), range(12)).images
        photographs = set()
        for crop in first:
            bytes_of = ((crop + 1) * 127.5).round()
            for name, photograph in zip(whole, small.photographs, strict=True):
                windows = ((photograph + 1) * 127.5).round().unfold(1, 8, 1).unfold(2, 8, 1)
                same = windows == bytes_of[:, None, None]
                if same.all(dim=(0, 3, 4)).any():
                    photographs.add(name)
        names.append(photographs)
    assert names == [set(SEEN), set(UNSEEN)]


def test_a_larger_crop_shows_the_same_piece_at_more_pixels(small):
    large = textures(size=16, channels=1)
    assert crops(large, [9]).shape == (1, 1, 16, 16)
    for few, many in zip(small.photographs, large.photographs, strict=True):
        assert many.numel() == pytest.approx(4 * few.numel() / 3, rel=0.05)


def test_half_of_them_are_mirrored_by_their_seeds(small, again):
    seen = again.batch(torch.zeros(200).long(), range(200)).images
    plain = crops(small, [0])[0]
    mirrored = [torch.equal(crop, plain.flip(-1)) for crop in seen]
    assert all(torch.equal(crop, plain) for crop, m in zip(seen, mirrored, strict=True) if not m)
    assert 60 < sum(mirrored) < 140


def test_nothing_is_fetched(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    assert len(crops(textures(), [0, 1])) == 2


def test_mistakes(small, monkeypatch):
    with pytest.raises(ValueError, match=r"data.size is 256; textures are crops of at most 64"):
        load_data(DataConfig(name="textures"))
    with pytest.raises(ValueError, match="keeps 3000 crops, but only 2048 are of photographs"):
        hold_out(small, 3000)
    monkeypatch.setattr("diffussm.data.textures.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install scikit-image"):
        textures()
