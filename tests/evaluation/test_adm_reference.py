"""Files of ADM's evaluator: what is in them comes out, and what could harm is refused."""

import hashlib
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from diffussm.evaluation.adm_reference import AdmFile
from diffussm.generation import write_npz

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 3), dtype=np.uint8)


def symmetric(dim):
    x = np.random.default_rng(1).standard_normal((dim, dim))
    return x @ x.T


def saved(path, save=np.savez, **arrays):
    with path.open("wb") as file:
        save(file, **arrays)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "it.npz"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("batch", [1, 3, 7, 100])
def test_images_in_order(path, save, batch):
    file = AdmFile(saved(path, save, arr_0=PIXELS))
    assert (file.count, file.image_shape, file.labels) == (7, (3, 4, 6), None)
    batches = list(file.images(batch))
    assert [len(images) for images in batches[:-1]] == [batch] * (len(batches) - 1)
    images = torch.cat(batches)
    assert images.dtype == torch.uint8
    assert images.is_contiguous()
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1), PIXELS)


def test_samples_as_this_package_writes_them(path):
    write_npz(path, PIXELS, [3, 1, 4, 1, 5, 9, 2])
    file = AdmFile(path)
    assert file.labels.tolist() == [3, 1, 4, 1, 5, 9, 2]
    assert file.identity == hashlib.sha256(path.read_bytes()).hexdigest()
    np.testing.assert_array_equal(next(file.images(2))[1].permute(1, 2, 0), PIXELS[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments(path, dtype):
    mu, sigma = np.arange(5, dtype=dtype), symmetric(5).astype(dtype)
    file = AdmFile(saved(path, mu=mu, sigma=sigma, mu_s=mu[:3], sigma_s=sigma[:3, :3]))
    assert (file.count, file.image_shape) == (None, None)
    for space, dim in (("pool", 5), ("spatial", 3)):
        found = file.moments(space)
        assert (found.count, found.dim, found.warning) == (None, dim, None)
        assert found.mean.dtype == found.covariance.dtype == torch.float64
        np.testing.assert_array_equal(found.mean, mu[:dim])
        np.testing.assert_array_equal(found.covariance, sigma[:dim, :dim])
    with pytest.raises(ValueError, match=r"has no images \(arr_0\)"):
        next(file.images())


def test_moments_that_are_not_there(path):
    file = AdmFile(saved(path, arr_0=PIXELS, mu=np.zeros(3)))
    assert file.moments("pool") is None
    assert file.moments("spatial") is None


def test_images_are_not_all_in_memory(path):
    saved(path, np.savez_compressed, arr_0=np.zeros((400, 64, 64, 3), np.uint8))  # 4.9 MB
    tracemalloc.start()
    seen = sum(len(images) for images in AdmFile(path).images(batch=10))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == 400
    assert peak < 1.5e6


def test_other_sizes(path):
    file = AdmFile(saved(path, arr_0=PIXELS))
    file.check_size((3, 4, 6))
    with pytest.raises(ValueError, match=r"4x6 pixels and 3 channels, .* of 8x8 pixels and 1 "):
        file.check_size((1, 8, 8))
    AdmFile(saved(path, mu=np.zeros(3), sigma=np.eye(3))).check_size((1, 8, 8))


class Code:
    def __reduce__(self):
        return ran.append, (1,)


ran = []


@pytest.mark.parametrize("name", ["arr_0", "mu", "sigma_s"])
def test_pickled_objects_are_refused(path, name):
    objects = np.empty(2, dtype=object)
    objects[:] = [Code(), Code()]
    saved(path, **{"arr_1": np.arange(3), name: objects})
    with pytest.raises(ValueError, match=f"{name} .* pickled Python objects.* refused"):
        AdmFile(path)
    assert not ran


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.99])
def test_truncated_files(path, save, kept):
    content = saved(path, save, arr_0=PIXELS, mu=np.zeros(3), sigma=np.eye(3)).read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(ValueError, match="is no npz, or not all of one"):
        AdmFile(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_images(path, save):
    content = bytearray(saved(path, save, arr_0=PIXELS).read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no npz, or not all of one"):
        list(AdmFile(path).images(2))


def test_damaged_moments(path):
    content = bytearray(saved(path, mu=np.zeros(300), sigma=np.eye(300)).read_bytes())
    content[2000] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no npz, or not all of one"):
        AdmFile(path).moments("pool")


def test_an_array_shorter_than_it_says(path):
    saved(path, arr_0=PIXELS)
    with zipfile.ZipFile(path) as archive:
        array = archive.read("arr_0.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", array[:-1])
    with pytest.raises(ValueError, match=r"shape is .7, 4, 6, 3., but it is 503 bytes long"):
        AdmFile(path)


BAD = {
    "float images": ({"arr_0": PIXELS / 255}, "float64 of shape .* must be uint8 images"),
    "signed images": ({"arr_0": PIXELS.astype(np.int64)}, "int64 of shape .* must be uint8"),
    "one image": ({"arr_0": PIXELS[0]}, "must be uint8 images .count, height, width, channels"),
    "channels first": ({"arr_0": PIXELS.transpose(0, 3, 1, 2).copy()}, "channels last"),
    "no images": ({"arr_0": PIXELS[:0]}, "at least one"),
    "labels": ({"arr_0": PIXELS, "arr_1": np.zeros(7)}, "arr_1 .* must be whole numbers"),
    "few labels": ({"arr_0": PIXELS, "arr_1": np.arange(6)}, "6 labels for 7 images"),
    "whole moments": ({"mu": np.arange(3), "sigma": np.eye(3)}, "mu .* floating-point"),
    "unlike moments": ({"mu": np.zeros(3), "sigma": np.eye(4)}, "do not belong together"),
    "no square": ({"mu_s": np.zeros(3), "sigma_s": np.ones((3, 4))}, "do not belong together"),
    "flat": ({"mu": np.zeros((1, 3)), "sigma": np.eye(3)}, "mu .* of shape .1, 3."),
    "others": ({"x": np.zeros(3)}, "neither images nor moments"),
    "columns": ({"arr_0": np.asfortranarray(PIXELS)}, "ascontiguousarray"),
}


@pytest.mark.parametrize("case", BAD)
def test_other_arrays(path, case):
    arrays, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        AdmFile(saved(path, **arrays))


def test_moments_with_nan(path):
    file = AdmFile(saved(path, mu=np.array([0, np.nan]), sigma=np.eye(2)))
    with pytest.raises(ValueError, match="holds NaN"):
        file.moments("pool")


def test_no_file_and_no_npz(path):
    with pytest.raises(ValueError, match=r"no file .*it.npz"):
        AdmFile(path)
    np.save(path.with_suffix(".npy"), PIXELS)
    with pytest.raises(ValueError, match="is no npz"):
        AdmFile(path.with_suffix(".npy"))
