"""Stored images as a data set: the right pixels, mirrored by chance, whatever cannot be read."""

import shutil

import numpy as np
import PIL.Image
import pytest
import torch
from pictures import (
    deflated,
    encoded,
    in_folder,
    in_parquet,
    in_tar,
    noise,
    photograph,
    stored,
    tree,
)

from diffussm.autoencoder import PIXELS
from diffussm.data import Dataset, read_ahead, seeded
from diffussm.data.images import MAX_UNREADABLE

FILES = {f"{'ab'[n % 2]}/{n}.png".encode(): encoded(noise(n)) for n in range(8)}


def everything(data, seed=0):
    count = len(data)
    return data.batch(torch.arange(count), range(seed, seed + count))


def test_pixels_by_number(tmp_path):
    picture = photograph("astronaut", step=8)
    data = stored(in_folder({b"x/1.png": encoded(picture)}, tmp_path / "it"), flip=False)
    assert isinstance(data, Dataset)
    assert (data.shape, data.autoencoder, len(data)) == ((3, 8, 8), PIXELS, 1)
    images, labels, corrupt = everything(data)
    # 64 x 64 halved three times: blocks of 8 x 8 have their mean
    means = np.asarray(picture).reshape(8, 8, 8, 8, 3).mean((1, 3)).transpose(2, 0, 1)
    assert abs(images[0].numpy() - (means / 127.5 - 1)).max() < 3 / 127.5
    assert (labels.tolist(), corrupt) == ([0], ())


def test_grey_images_have_one_channel(tmp_path):
    data = stored(in_folder(FILES, tmp_path / "it"), channels=1)
    assert data.shape == everything(data).images.shape[1:] == (1, 8, 8)


def test_a_seed_mirrors_an_image_or_not(tmp_path):
    path = in_folder({b"1.png": encoded(noise(1))}, tmp_path / "it")
    plain = everything(stored(path, "none", flip=False)).images[0]
    seeds = range(200)
    found = stored(path, "none").batch(torch.zeros(200, dtype=torch.long), seeds).images
    mirrored = [torch.equal(image, plain.flip(2)) for image in found]
    assert [not same for same in mirrored] == [torch.equal(image, plain) for image in found]
    wanted = [bool(torch.rand((), generator=seeded(seed)) < 0.5) for seed in seeds]
    assert mirrored == wanted
    assert 60 < sum(mirrored) < 140  # 5.7 standard deviations


def test_labels_are_those_of_the_images(tmp_path):
    colours = {"dark": 10, "light": 240, "middling": 128}
    files = {
        f"{name}/{n}.png".encode(): encoded(PIL.Image.new("L", (9, 9), level))
        for name, level in colours.items()
        for n in range(3)
    }
    data = stored(in_tar(files, tmp_path / "it.tar"))
    images, labels, _ = next(read_ahead(data, 0, [range(9)], 0))
    for image, label in zip(images, labels, strict=True):
        level = colours[data.class_names[label]]
        assert image.mean().item() == pytest.approx(level / 127.5 - 1, abs=1e-5)


@pytest.mark.parametrize("store", [in_folder, in_tar])
def test_unreadable_images_are_replaced_by_the_next_one(tmp_path, store):
    bad = FILES | {b"a/2.png": b"", b"b/7.png": FILES[b"b/7.png"][:300], b"b/5.png": b"text"}
    data = stored(store(bad, tmp_path / {in_folder: "it", in_tar: "it.tar"}[store]), flip=False)
    good = stored(in_folder(FILES, tmp_path / "good"), flip=False)
    images, labels, corrupt = everything(data)
    # in the order of names: a/0 a/2 a/4 a/6 b/1 b/3 b/5 b/7
    instead = [0, 2, 2, 3, 4, 5, 0, 0]
    wanted = good.batch(torch.tensor(instead), range(8))
    assert torch.equal(images, wanted.images)
    assert torch.equal(labels, wanted.labels)
    assert [trouble.split(" (")[0] for trouble in corrupt] == ["a/2.png", "b/5.png", "b/7.png"]
    assert "no format of images" in corrupt[1]
    assert everything(data)[2] == corrupt  # in the same words, or they would count as others


def test_a_vanished_image_is_replaced_too(tmp_path):
    path = in_folder(FILES, tmp_path / "it")
    data = stored(path, flip=False)
    before = everything(data)
    (path / "a" / "2.png").unlink()
    images, labels, corrupt = everything(data)
    assert torch.equal(images[1], before.images[2])
    assert torch.equal(labels, before.labels)
    assert [trouble.split(" (")[0] for trouble in corrupt] == ["a/2.png"]


def test_a_lost_disk_is_an_error_at_once(tmp_path):
    files = {b"%d.png" % n: b"" for n in range(MAX_UNREADABLE + 1)}
    data = stored(in_folder(files, tmp_path / "it"), "none")
    with pytest.raises(
        ValueError, match=rf"{MAX_UNREADABLE} images in a row .* beginning with 0\.png"
    ):
        everything(data)
    few = in_folder(FILES, tmp_path / "few")
    data = stored(few)
    shutil.rmtree(few)
    with pytest.raises(
        ValueError, match=r"few: 8 images in a row .*No such file.* disk still there"
    ):
        everything(data)


def test_names_that_are_no_text_are_told(tmp_path):
    data = stored(
        in_folder({b"\xff\xfe.png": b"", b"1.png": encoded(noise(1))}, tmp_path / "it"), "none"
    )
    (trouble,) = everything(data).corrupt
    assert trouble.encode("ascii").startswith(rb"\xff\xfe.png (")


@pytest.mark.parametrize(
    ("store", "name", "lost"), [(deflated, "it.zip", 1), (in_parquet, "it", 3)]
)
def test_damage_inside_of_archives_is_borne(tmp_path, store, name, lost):
    data = stored(store(tree(), tmp_path / name), "label" if store is in_parquet else "folders")
    file, place = data.source.parts[0], data.index.place(0)
    whole = bytearray(file.read_bytes())
    start = 40 if store is in_parquet else place.offset + 30 + len(place.name)
    whole[start : start + 400] = b"\xff" * 400
    file.write_bytes(whole)
    troubles = everything(data).corrupt
    assert len(troubles) == lost  # an image, or those of a group of rows
    assert all("is damaged" in trouble for trouble in troubles)
