"""A folder holds latents of one kind, made by one process a shard."""

import subprocess
import sys
import threading

import pytest
from tiny_latents import Pictures, encode, write_autoencoder

from diffussm.autoencoder import find_autoencoder
from diffussm.encoding.folder import LOCK_FILE, alone, held

PICTURES = Pictures(6)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, autoencoder):
    folder = tmp_path_factory.mktemp("finished")
    encode(PICTURES, autoencoder, folder)
    return folder


OTHERWISE = {
    "scale": ({"scale": 0.7}, {}, PICTURES, r"autoencoder.scale was 0.5, now 0.7"),
    "weights": ({"seed": 1}, {}, PICTURES, "another autoencoder"),
    "precision": ({}, {"precision": "float32"}, PICTURES, "precision was 'float16', now"),
    "shards": ({}, {"shard_images": 5}, PICTURES, "shard_images was 4, now 5"),
    "source": ({}, {"source": "others"}, PICTURES, "other images or labels"),
    "images": ({}, {}, Pictures(7), "images was 6, now 7"),
    "classes": ({}, {}, Pictures(6, class_names=("a", "b")), "other classes"),
    "size": ({}, {}, Pictures(6, side=10), r"image_shape was \[3, 8, 8\], now \[3, 10, 10\]"),
}


@pytest.mark.parametrize(
    ("coder", "options", "data", "sentence"), OTHERWISE.values(), ids=OTHERWISE
)
@pytest.mark.parametrize("part", ["all", "index", "shard"])
def test_latents_made_otherwise_are_refused(
    tmp_path, finished, coder, options, data, sentence, part
):
    folder = tmp_path / "latents"
    folder.mkdir()
    for path in finished.iterdir():
        if part == "all" or path.name.startswith(
            {"index": "index", "shard": "latents-00001"}[part]
        ):
            (folder / path.name).write_bytes(path.read_bytes())
    before = {path: path.read_bytes() for path in folder.iterdir()}
    network = write_autoencoder(tmp_path / "network", seed=coder.get("seed", 0))
    autoencoder = find_autoencoder(str(network), coder.get("scale"))
    with pytest.raises(ValueError, match=f"made otherwise: .*{sentence}.*another folder"):
        encode(data, autoencoder, folder, **options)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_an_autoencoder_may_move(tmp_path, finished, autoencoder):
    moved = find_autoencoder(str(write_autoencoder(tmp_path / "elsewhere")))
    assert moved.config.name != autoencoder.config.name
    assert encode(PICTURES, moved, finished) is not None


def test_a_folder_of_something_else_is_left_alone(tmp_path, autoencoder):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other things \(notes.txt\)"):
        encode(PICTURES, autoencoder, tmp_path)
    with pytest.raises(ValueError, match="is a file; give a folder"):
        encode(PICTURES, autoencoder, tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


HOLDER = """
import sys
from pathlib import Path
from diffussm.encoding.folder import alone, held
with held(Path(sys.argv[1]), [0, 2]) as lock, alone(lock, int(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path, request):
    """Another process that makes shards 0 and 2, and writes the index of so many."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), str(request.param)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("holder", [99], indirect=True)
def test_the_same_shards_are_made_once(tmp_path, autoencoder, holder):
    with pytest.raises(ValueError, match=r"another process encodes into .*; wait for it"):
        encode(Pictures(10), autoencoder, tmp_path)
    assert encode(Pictures(10), autoencoder, tmp_path, 1, 2) is None  # shard 1 is free
    holder.kill()
    holder.wait()
    assert encode(Pictures(10), autoencoder, tmp_path) is not None  # the dead hold nothing
    assert not (tmp_path / LOCK_FILE).exists()


@pytest.mark.parametrize("holder", [3], indirect=True)
def test_indexing_waits_for_its_turn(tmp_path, holder):
    entered = []

    def enter():
        with held(tmp_path, [1]) as lock, alone(lock, 3):
            entered.append(True)

    waiting = threading.Thread(target=enter)
    waiting.start()
    waiting.join(0.3)
    assert not entered
    holder.communicate("")
    waiting.join(10)
    assert entered
