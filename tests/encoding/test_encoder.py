"""Shards hold the network's own posteriors, and their bytes do not depend on who made them when."""

import multiprocessing
import resource
import subprocess
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file
from tiny_latents import FACTOR, SCALE, SIDE, Pictures, contents, encode

from diffussm.autoencoder import PIXELS, Autoencoder, find_autoencoder
from diffussm.data.latent_index import read_index

PICTURES = Pictures(10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, autoencoder):
    folder = tmp_path_factory.mktemp("latents")
    encode(PICTURES, autoencoder, folder, precision="float32")
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, autoencoder):
    folder = tmp_path_factory.mktemp("undisturbed")
    encode(PICTURES, autoencoder, folder)
    return folder


def arrays(folder, name):
    return torch.cat([load_file(path)[name] for path in sorted(folder.glob("*.safetensors"))])


def test_moments_are_those_of_images_and_their_mirror_images(folder, autoencoder):
    images = torch.stack([PICTURES.image(number) for number in range(10)])
    for side, flipped in enumerate((images, images.flip(-1))):
        with torch.no_grad():
            posterior = autoencoder.network.encode(flipped).latent_dist
        mean, std = arrays(folder, "mean")[:, side], arrays(folder, "std")[:, side]
        assert mean.shape == (10, 3, SIDE // FACTOR, SIDE // FACTOR)
        torch.testing.assert_close(mean, posterior.mean)
        torch.testing.assert_close(std, posterior.var.sqrt())
    assert arrays(folder, "labels").tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


def test_a_mirror_image_is_encoded_not_its_latent_mirrored(folder):
    mean = arrays(folder, "mean")
    assert (mean[:, 1] - mean[:, 0].flip(-1)).abs().mean() > 0.01 * mean.abs().mean()


def test_half_precision_rounds_to_eleven_bits(folder, undisturbed):
    for name in ("mean", "std"):
        exact, stored = arrays(folder, name), arrays(undisturbed, name)
        assert stored.dtype == torch.float16
        error = ((stored.float() - exact).abs() / exact.abs()).max()
        assert 2**-13 < error <= 2**-11


def test_the_index_says_what_there_is(undisturbed, autoencoder):
    index = read_index(undisturbed)
    assert index.images == 10
    assert [entry.images for entry in index.shards] == [4, 4, 2]
    assert index.latents.autoencoder == autoencoder.config
    assert (index.latents.autoencoder.scale, index.latents.autoencoder.factor) == (SCALE, FACTOR)
    assert index.latents.class_names == ("a", "b", "c")
    names = sorted(path.name for path in undisturbed.iterdir())
    assert names == ["index.json", *(f"latents-0000{k}-of-00003.safetensors" for k in range(3))]


def test_checksums_are_those_of_sha256sum(undisturbed):
    lines = [f"{entry.sha256}  {entry.file}\n" for entry in read_index(undisturbed).shards]
    checked = subprocess.run(
        ["sha256sum", "-c"], input="".join(lines), text=True, cwd=undisturbed, capture_output=True
    )
    assert checked.returncode == 0, checked.stderr


def test_workers_and_a_second_run_change_nothing(tmp_path, undisturbed, autoencoder):
    encode(PICTURES, autoencoder, tmp_path, workers=2)
    assert contents(tmp_path) == contents(undisturbed)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    encode(PICTURES, autoencoder, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("ranks", [2, 5])
def test_ranks_one_after_the_other(tmp_path, undisturbed, autoencoder, ranks):
    done = [encode(PICTURES, autoencoder, tmp_path, rank, ranks) for rank in range(ranks)]
    first = min(ranks, 3) - 1  # who finds the last of three shards there
    assert [index is not None for index in done] == [rank >= first for rank in range(ranks)]
    assert contents(tmp_path) == contents(undisturbed)


def test_ranks_at_once(tmp_path, undisturbed, autoencoder):
    context = multiprocessing.get_context("fork")
    arguments = [(PICTURES, autoencoder, tmp_path, rank, 2) for rank in range(2)]
    ranks = [context.Process(target=encode, args=each) for each in arguments]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0]
    assert contents(tmp_path) == contents(undisturbed)


def test_what_is_lost_or_damaged_is_made_anew(tmp_path, undisturbed, autoencoder):
    encode(PICTURES, autoencoder, tmp_path)
    files = sorted(tmp_path.iterdir())
    for file in files:
        for damage in ("delete", "truncate", "flip"):
            content = bytearray(file.read_bytes())
            if damage == "delete":
                file.unlink()
            elif damage == "truncate":
                file.write_bytes(content[:-1])
            else:
                content[len(content) * 2 // 3] ^= 4
                file.write_bytes(content)
            whole = next(other for other in files[1:] if other != file)
            before = whole.stat().st_mtime_ns
            encode(PICTURES, autoencoder, tmp_path)
            assert contents(tmp_path) == contents(undisturbed), (file.name, damage)
            assert whole.stat().st_mtime_ns == before


def test_an_index_waits_until_a_damaged_shard_is_whole(tmp_path, autoencoder):
    encode(PICTURES, autoencoder, tmp_path)
    path = tmp_path / read_index(tmp_path).latents.file(0)
    path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / "index.json").unlink()
    assert encode(PICTURES, autoencoder, tmp_path, 1, 2) is None
    assert not (tmp_path / "index.json").exists()
    assert encode(PICTURES, autoencoder, tmp_path, 0, 2) is not None


@pytest.mark.parametrize("unreadable", [{1}, {0, 5, 8}, {4, 5, 6, 7}])
def test_images_that_cannot_be_read_are_left_out(tmp_path, autoencoder, unreadable):
    data = Pictures(10, frozenset(unreadable))
    index = encode(data, autoencoder, tmp_path / "some", precision="float32")
    kept = [number for number in range(10) if number not in unreadable]
    assert index.corrupt == [f"image {number} (truncated)" for number in sorted(unreadable)]
    assert read_index(tmp_path / "some") == index
    assert index.images == len(kept)
    encode(PICTURES, autoencoder, tmp_path / "all", precision="float32")
    for name in ("mean", "std", "labels"):
        expected = arrays(tmp_path / "all", name)[kept]
        torch.testing.assert_close(arrays(tmp_path / "some", name), expected)


def test_no_readable_image_is_an_error(tmp_path, autoencoder):
    with pytest.raises(ValueError, match=r"no image could be read; the first: image 0"):
        encode(Pictures(3, frozenset(range(3))), autoencoder, tmp_path)
    assert not (tmp_path / "index.json").exists()


def test_pixels_are_their_own_latents(tmp_path):
    encode(PICTURES, Autoencoder(PIXELS), tmp_path, precision="float32")
    images = torch.stack([PICTURES.image(number) for number in range(10)])
    assert torch.equal(arrays(tmp_path, "mean"), torch.stack([images, images.flip(-1)], 1))
    assert not arrays(tmp_path, "std").any()


def test_no_images(tmp_path, autoencoder):
    with pytest.raises(ValueError, match="no images; there is nothing to encode"):
        encode(Pictures(0), autoencoder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


MISTAKES = {
    "odd sides": (Pictures(2, side=9), {}, r"9x9 pixels have no latent: .* multiples of 2"),
    "no shard": (PICTURES, {"shard_images": 0}, "at least 1 image, not 0"),
    "no batch": (PICTURES, {"batch_size": 0}, "batch_size must be at least 1, not 0"),
    "precision": (PICTURES, {"precision": "float8"}, "unknown precision 'float8'"),
    "rank": (PICTURES, {"rank": 2, "ranks": 2}, "no process 2 of 2"),
}


@pytest.mark.parametrize(("data", "options", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_leave_no_folder(tmp_path, autoencoder, data, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        encode(data, autoencoder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_latents_too_large_for_half_precision(tmp_path, network_folder):
    large = find_autoencoder(str(network_folder))
    with torch.no_grad():
        large.network.quant_conv.bias[0] = 1e5
    with pytest.raises(ValueError, match=r"images 0 to 3 are not all finite in float16.*float32"):
        encode(PICTURES, large, tmp_path / "half")
    assert encode(PICTURES, large, tmp_path / "whole", precision="float32") is not None


@contextmanager
def largest_file(size):
    """As on a full disk, no file grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_loses_nothing(tmp_path, autoencoder):
    encode(PICTURES, autoencoder, tmp_path / "whole", shard_images=1)
    whole = contents(tmp_path / "whole")
    *shards, index = sorted(len(content) for content in whole.values())
    assert shards[-1] < index == len(whole["index.json"])
    before, folder = {}, tmp_path / "full"
    for limit in (shards[0] - 1, index - 1):  # no shard fits; all do, but the index does not
        with largest_file(limit), pytest.raises(OSError, match=r"could not write .* untouched"):
            encode(PICTURES, autoencoder, folder, shard_images=1)
        left = contents(folder)
        assert not any(name.endswith(".part") for name in left)
        assert len(left) > len(before)
        before = left
    assert len(left) == len(whole)  # with the lock file, without the index
    encode(PICTURES, autoencoder, folder, shard_images=1)
    assert contents(folder) == whole
