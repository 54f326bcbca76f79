"""The list of images: made once, made again when no longer true, never believed if damaged."""

import os
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from pictures import contents, in_folder, in_lmdbs, in_parquet, in_tar, in_zip, stored, tree

from diffussm.data.index import open_index
from diffussm.data.sources import find_source
from diffussm.data.sources.source import Source

FILES = {b"a/1.png": b"1", b"a/2.png": b"2", b"b/3.png": b"3"}


@pytest.fixture
def scans(monkeypatch):
    """The sources that were looked through."""
    seen = []

    def watch(kind):
        scan = kind.scan

        def noted(self, column=""):
            seen.append(self)
            return scan(self, column)

        monkeypatch.setattr(kind, "scan", noted)

    for kind in Source.__subclasses__():
        watch(kind)
    return seen


def test_made_once_and_not_beside_the_images(tmp_path, cache, scans):
    path = in_folder(FILES, tmp_path / "it")
    before = sorted(path.rglob("*"))
    first, second = stored(path), stored(path)
    assert contents(first) == contents(second) == [("a", b"1"), ("a", b"2"), ("b", b"3")]
    assert len(scans) == 1
    assert sorted(path.rglob("*")) == before
    assert [entry.suffix for entry in sorted(cache.iterdir())] == [".index", ".lock"]
    assert first.index.fingerprint == second.index.fingerprint


def test_other_labels_are_another_list(tmp_path, scans):
    path = in_folder(FILES, tmp_path / "it")
    (path / "labels.csv").write_text("name,label\na/1.png,x\na/2.png,y\nb/3.png,z\n")
    datas = [stored(path, labels) for labels in ("folders", "none", "labels.csv")]
    assert [len(data.class_names) for data in datas] == [2, 0, 3]
    assert len({data.index.fingerprint for data in datas}) == len(scans) == 3


def later(path):
    """Let a file's time go on, however coarse the clock of the disk is."""
    now = path.stat().st_mtime_ns + 10**7
    os.utime(path, ns=(now, now))


def add_file(path):
    (path / "b" / "4.png").write_bytes(b"4")
    later(path / "b")


def add_folder(path):
    in_folder({b"c/4.png": b"4"}, path)
    later(path)


def remove_file(path):
    (path / "a" / "2.png").unlink()
    later(path / "a")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [(add_file, 4), (add_folder, 4), (remove_file, 2)],
    ids=["add file", "add folder", "remove file"],
)
def test_a_changed_folder_is_looked_through_again(tmp_path, scans, change, wanted):
    path = in_folder(FILES, tmp_path / "it")
    stored(path)
    change(path)
    assert len(stored(path)) == len(stored(path)) == wanted
    assert len(scans) == 2


@pytest.mark.parametrize("store", [in_tar, in_zip])
def test_a_changed_archive_is_looked_through_again(tmp_path, scans, store):
    path = store(FILES, tmp_path / {in_tar: "it.tar", in_zip: "it.zip"}[store])
    stored(path)
    store(FILES | {b"b/4.png": b"4"}, path)
    later(path)
    assert len(stored(path)) == 4
    assert len(scans) == 2


def test_archives_and_databases_are_watched_one_by_one(tmp_path, scans):
    parquet = in_parquet(tree(), tmp_path / "parquet")
    lsun = in_lmdbs(tree(), tmp_path / "lsun")
    for path, labels, part in (
        (parquet, "label", "train-1.parquet"),
        (lsun, "folders", "pears/data.mdb"),
    ):
        stored(path, labels), stored(path, labels)
        later(path / part)
        stored(path, labels), stored(path, labels)
    assert len(scans) == 4


def test_a_changed_table_is_read_again(tmp_path):
    path = in_folder({b"1.png": b"1"}, tmp_path / "it")
    for label in ("one", "two"):
        (path / "l.csv").write_text(f"name,label\n1.png,{label}\n")
        later(path / "l.csv")
        assert stored(path, "l.csv").class_names == (label,)


def test_damaged_lists_are_made_again(tmp_path, cache, scans):
    path = in_tar(FILES, tmp_path / "it.tar")
    wanted = contents(stored(path))
    (file,) = cache.glob("*.index")
    whole = file.read_bytes()
    draw = random.Random(0)
    damaged = [whole[:size] for size in (0, 1, 30, len(whole) // 2, len(whole) - 1)]
    damaged += [whole + b"more", b"{}\n", b"[]\n", b"\xff" * 100]
    for _ in range(40):
        place, flipped = draw.randrange(len(whole)), bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        damaged.append(bytes(flipped))
    for data in damaged:
        file.write_bytes(data)
        assert contents(stored(path)) == wanted
        assert file.read_bytes() == whole
    assert len(scans) == 1 + len(damaged)


def test_processes_that_start_together_look_once(tmp_path, scans):
    path = in_folder(FILES, tmp_path / "it")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: open_index(find_source(path), "folders"), range(4)))
    assert [len(index) for index in found] == [3] * 4
    assert len(scans) == 1


def test_copies_know_when_the_list_was_replaced(tmp_path):
    path = in_folder(FILES, tmp_path / "it")
    copy = pickle.dumps(stored(path))
    assert len(pickle.loads(copy)) == 3
    add_file(path)
    stored(path)
    with pytest.raises(ValueError, match=r"the images changed, and .* with them; start again"):
        pickle.loads(copy)


def test_no_place_for_the_list(tmp_path, monkeypatch, cache):
    path = in_folder(FILES, tmp_path / "it")
    monkeypatch.setenv("XDG_CACHE_HOME", str(path / "a" / "1.png"))
    with pytest.raises(
        OSError, match=r"cannot keep the list of images in .* XDG_CACHE_HOME may name another"
    ):
        stored(path)


FULL_DISK = """
import resource, signal, sys
from diffussm.data import DataConfig, load_data
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    load_data(DataConfig(name="images", path=sys.argv[1]))
except OSError as error:
    print(error)
"""


def test_a_full_disk_leaves_nothing(tmp_path, cache):
    path = in_folder(FILES, tmp_path / "it")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True)
    assert "is there space?" in done.stdout, done.stderr
    assert [entry.suffix for entry in cache.iterdir()] == [".lock"]
    assert len(stored(path)) == 3
