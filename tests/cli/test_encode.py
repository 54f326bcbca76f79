"""`diffussm encode`: images in folders to latents that a recipe can name, and their check."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from test_mistakes import assert_refused
from tiny import SETTINGS
from tiny_latents import contents, write_autoencoder

from diffussm.autoencoder import find_autoencoder
from diffussm.checkpoint import load_model
from diffussm.data.latents import Latents


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return write_autoencoder(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Nine pictures in two classes, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(9):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 20, 3), np.uint8)
        path = folder / ("cats" if number < 5 else "dogs") / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:100])
    return folder


@pytest.fixture
def encode(diffussm, photos, network):
    """`diffussm encode` of the pictures into a folder, with more options."""

    def command(folder, *options):
        words = ["encode", photos, "--autoencoder", network, "--size", 8, "--shard-images", 4]
        return diffussm(*words, "--out", folder, *options)

    return command


def test_pictures_become_latents(tmp_path, encode, photos, network):
    said = encode(tmp_path / "latents")
    assert said.code == 0, said.err
    assert "9 images in 3 shards of latents" in said.out
    assert "left out, because they cannot be read: 1 (dogs/8.png" in said.out
    assert f"--set data.path={tmp_path / 'latents'}" in said.out
    assert "100%" in said.err
    data = Latents(tmp_path / "latents", flip=False)
    assert (len(data), data.shape, data.class_names) == (8, (3, 4, 4), ("cats", "dogs"))
    assert data.batch(torch.arange(8), range(8)).labels.tolist() == [0] * 5 + [1] * 3
    assert data.autoencoder == find_autoencoder(str(network)).config
    again = encode(tmp_path / "latents")
    assert (again.code, "done: 8 images" in again.out) == (0, True)


def test_a_moved_autoencoder_is_found_from_anywhere(tmp_path, encode, network, monkeypatch):
    monkeypatch.chdir(network.parent)
    encode(tmp_path / "latents", "--autoencoder", network.name)
    assert Latents(tmp_path / "latents").autoencoder.name == str(network)


def test_options_reach_the_files(tmp_path, encode):
    options = ["--scale", "0.25", "--labels", "none", "--precision", "float32", "--batch-size", 2]
    assert encode(tmp_path / "latents", *options, "--workers", 1, "--shard-images", 100).code == 0
    latents = Latents(tmp_path / "latents").index.latents
    assert (latents.autoencoder.scale, latents.precision, latents.shards) == (0.25, "float32", 1)
    assert latents.class_names == ()


def test_a_model_is_trained_on_them(tmp_path, encode, diffussm):
    encode(tmp_path / "latents")
    settings = [*SETTINGS, "data.name=latents", f"data.path={tmp_path / 'latents'}"]
    words = [word for setting in settings for word in ("--set", setting)]
    said = diffussm("train", "digits", "--out", tmp_path / "run", *words)
    assert said.code == 0, said.err
    _, header = load_model(tmp_path / "run")
    assert header.autoencoder == Latents(tmp_path / "latents").autoencoder
    said = diffussm("sample", tmp_path / "run", "--out", tmp_path / "a.png", "--seeds", "0-1")
    assert said.code == 0, said.err


def test_a_rank_does_its_share(tmp_path, encode, monkeypatch):
    encode(tmp_path / "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, sentence in ((1, "done here (rank 1 of 2)"), (0, "done: 8 images")):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        said = encode(tmp_path / "two")
        assert (said.code, sentence in said.out) == (0, True), said
        assert ("%" in said.err) == (rank == 0)  # one bar for all
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.slow
def test_two_ranks_by_torchrun(tmp_path, encode, photos, network):
    encode(tmp_path / "one")
    words = ["torch.distributed.run", "--nproc-per-node", "2", "-m", "diffussm", "encode", photos]
    words += ["--autoencoder", network, "--size", 8, "--shard-images", 4, "--out", tmp_path / "two"]
    command = [sys.executable, "-m", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "(rank 1 of 2)" in done.stdout
    assert done.stdout.count("done: 8 images") >= 1
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_whole_latents_are_verified(tmp_path, encode, diffussm):
    encode(tmp_path / "latents")
    said = diffussm("encode", "--verify", "--out", tmp_path / "latents")
    assert said.code == 0, said.err
    assert "all 3 shards" in said.out
    assert "are whole: 8 images" in said.out


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "flipped": lambda path: path.write_bytes(
        path.read_bytes()[:-9] + b"\0" + path.read_bytes()[-8:]
    ),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_named_and_mended(tmp_path, encode, diffussm, damage):
    folder = tmp_path / "latents"
    encode(folder)
    whole = contents(folder)
    hurt = [path for path in sorted(folder.iterdir()) if "00001" in path.name or "2-" in path.name]
    for path in hurt:
        damage(path)
    said = diffussm("encode", "--verify", "--out", folder)
    assert said.code == 1
    lines = [line for line in said.err.splitlines() if line.startswith("diffussm: ")]
    assert len(lines) == len(hurt) > 1
    for line, path in zip(lines, hurt, strict=True):
        assert path.name in line
        assert "again" in line
    assert encode(folder).code == 0
    assert contents(folder) == whole


def test_a_folder_to_verify_that_holds_no_latents(tmp_path, encode, diffussm):
    said = diffussm("encode", "--verify", "--out", tmp_path)
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "has no index.json" in said.err
    encode(tmp_path / "latents")
    index = tmp_path / "latents" / "index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"images": 7}))
    said = diffussm("encode", "--verify", "--out", tmp_path / "latents")
    assert (said.code, "index.json is damaged" in said.err) == (1, True)


MISTAKES = [
    (["--scale", "0"], "scale must be above 0, not 0"),
    (["--scale", "nan"], "scale must be above 0, not nan"),
    (["--autoencoder", "identity", "--scale", "2"], "scale and factor of 'identity' are 1 and 1"),
    (["--size", "9"], "9x9 pixels have no latent: sides must be multiples of 2"),
    (["--batch-size", "0"], "batch_size must be at least 1, not 0"),
    (["--shard-images", "0"], "at least 1 image, not 0"),
    (["--precision", "half"], "unknown precision 'half'"),
    (["--autoencoder", "some/name"], "cannot load the autoencoder some/name"),
    (["--workers", "-1"], "workers must be at least 0, not -1"),
    (["--device", "gpu"], "cannot run on device 'gpu'"),
]


@pytest.mark.parametrize(("options", "sentence"), MISTAKES, ids=str)
def test_mistakes(tmp_path, encode, options, sentence):
    assert_refused(encode(tmp_path / "latents", *options), sentence)
    assert not (tmp_path / "latents").exists()


def test_other_settings_in_the_same_folder(tmp_path, encode):
    encode(tmp_path / "latents")
    before = contents(tmp_path / "latents")
    for options, sentence in (
        (["--scale", "0.3"], "autoencoder.scale was 0.5, now 0.3"),
        (["--size", "10"], "image_shape was [3, 8, 8], now [3, 10, 10]"),
        (["--labels", "none"], "other classes; other images or labels"),
    ):
        words = [word for word in options if word]
        assert_refused(encode(tmp_path / "latents", *words), sentence)
    assert contents(tmp_path / "latents") == before


def test_what_is_missing_is_asked_for(tmp_path, diffussm, photos, network):
    assert_refused(diffussm("encode", photos, "--out", tmp_path / "a"), "DATA and --autoencoder")
    words = ["encode", photos, "--autoencoder", network, "--out"]
    assert_refused(diffussm(*words, ""), "--out needs the name of a folder")
    assert_refused(diffussm(*words, photos), "holds other things (cats)")
    (tmp_path / "empty").mkdir()
    words = ["encode", tmp_path / "empty", "--autoencoder", network, "--out", tmp_path / "out"]
    assert_refused(diffussm(*words), "no images")
    grey = ["encode", "digits", "--autoencoder", network, "--out", tmp_path / "out"]
    assert_refused(diffussm(*grey), "takes images of 3 channels, not 1")


def test_help_says_what_it_does(diffussm):
    said = diffussm("encode", "--help")
    assert said.code == 0
    for option in ("--autoencoder", "--scale", "--shard-images", "--verify", "torchrun"):
        assert option in said.out
