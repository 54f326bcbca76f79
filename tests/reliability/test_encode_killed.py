"""Encoding that is killed at any instant goes on, and ends with the bytes of an undisturbed one."""

import os
import random
import signal
import time

import pytest
from tiny_latents import Pictures, contents, encode, write_autoencoder

from diffussm.autoencoder import find_autoencoder
from diffussm.data.latent_shards import Shard
from diffussm.data.latents import Latents

PICTURES = Pictures(12)
DIED = 9


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    return find_autoencoder(str(write_autoencoder(tmp_path_factory.mktemp("network"))))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, autoencoder):
    folder = tmp_path_factory.mktemp("undisturbed")
    encode(PICTURES, autoencoder, folder)
    return contents(folder)


def in_a_child(act):
    """Run `act` in a copy of this process; its exit code, 0 where `act` came to its end."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def assert_finished_shards_are_whole(folder):
    for path in folder.glob("*.safetensors"):
        Shard(path).check()


@pytest.mark.slow
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_killed_inside_every_write(tmp_path, monkeypatch, autoencoder, undisturbed, call):
    usual, codes = getattr(os, call), []
    for number in range(20):
        calls = []

        def die_or_go_on(*arguments, number=number, calls=calls):
            if len(calls) == number:
                os._exit(DIED)
            calls.append(arguments)
            return usual(*arguments)

        folder = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, die_or_go_on)
            codes.append(in_a_child(lambda folder=folder: encode(PICTURES, autoencoder, folder)))
        if codes[-1] == 0:
            break
        assert not (folder / "index.json").exists() or call == "fsync"
        assert_finished_shards_are_whole(folder)
        encode(PICTURES, autoencoder, folder)
        assert contents(folder) == undisturbed
    # three shards and the index; each write flushes the file, then the folder
    assert codes == [DIED] * {"fsync": 8, "replace": 4}[call] + [0]


@pytest.mark.slow
def test_killed_while_a_file_is_written(tmp_path, monkeypatch, autoencoder, undisturbed):
    def half(path, *arguments, **options):
        path.write_bytes(next(iter(undisturbed.values()))[:200])
        os._exit(DIED)

    with monkeypatch.context() as patch:
        patch.setattr("diffussm.encoding.encoder.write_shard", half)
        assert in_a_child(lambda: encode(PICTURES, autoencoder, tmp_path)) == DIED
    assert [path.suffix for path in tmp_path.iterdir() if path.name != ".lock"] == [".part"]
    encode(PICTURES, autoencoder, tmp_path)
    assert contents(tmp_path) == undisturbed


@pytest.mark.slow
def test_killed_while_a_damaged_shard_is_made_anew(tmp_path, monkeypatch, autoencoder, undisturbed):
    encode(PICTURES, autoencoder, tmp_path)
    path = next(tmp_path.glob("*-00001-*"))
    path.write_bytes(path.read_bytes()[:-1])
    with monkeypatch.context() as patch:
        patch.setattr("diffussm.encoding.encoder.write_shard", lambda *_: os._exit(DIED))
        assert in_a_child(lambda: encode(PICTURES, autoencoder, tmp_path)) == DIED
    with pytest.raises(ValueError, match="not done"):  # no index speaks of what is not there
        Latents(tmp_path)
    encode(PICTURES, autoencoder, tmp_path)
    assert contents(tmp_path) == undisturbed


@pytest.mark.slow
def test_one_of_two_ranks_dies(tmp_path, monkeypatch, autoencoder, undisturbed):
    def die(*arguments):
        os._exit(DIED)

    assert in_a_child(lambda: encode(PICTURES, autoencoder, tmp_path, 0, 2)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        assert in_a_child(lambda: encode(PICTURES, autoencoder, tmp_path, 1, 2)) == DIED
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert len(kept) == 2
    encode(PICTURES, autoencoder, tmp_path)  # now alone
    assert contents(tmp_path) == undisturbed
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def killed_at_random(tmp_path, autoencoder, data, kills):
    """Kill the encoding of `data` at random instants, each folder a few times; how many were hit.

    Then every folder is finished, and ends with the bytes of an undisturbed one.
    """
    started = time.monotonic()
    encode(data, autoencoder, tmp_path / "undisturbed", shard_images=20)
    whole = time.monotonic() - started
    chance, hit = random.Random(0), 0
    folders = [tmp_path / str(number // 3) for number in range(kills)]
    for folder in folders:
        child = os.fork()
        if child == 0:
            encode(data, autoencoder, folder, shard_images=20)
            os._exit(0)
        time.sleep(chance.uniform(0, whole / 4))
        os.kill(child, signal.SIGKILL)
        hit += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert_finished_shards_are_whole(folder)
    for folder in set(folders):
        encode(data, autoencoder, folder, shard_images=20)
        assert contents(folder) == contents(tmp_path / "undisturbed")
    return hit


@pytest.mark.slow
def test_killed_at_random_instants(tmp_path, autoencoder):
    assert killed_at_random(tmp_path, autoencoder, Pictures(200), kills=3) >= 1


@pytest.mark.slow
def test_killed_at_many_random_instants(tmp_path, autoencoder):
    assert killed_at_random(tmp_path, autoencoder, Pictures(500), kills=30) >= 20
