"""However images are stored, the same files with the same classes come out; the rest is refused."""

import os
import pickle
import sys
import zipfile

import pytest
from pictures import (
    FORMATS,
    contents,
    encoded,
    images_of,
    in_folder,
    in_lmdbs,
    in_parquet,
    in_tar,
    in_webdataset,
    in_zip,
    noise,
    stored,
    tree,
)

from diffussm.data.sources import ARCHIVES, Folders, find_source


def expected():
    return sorted(
        (name.partition(b"/")[0].decode(), data) for name, data in images_of(tree()).items()
    )


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_the_same_images(tmp_path, name):
    store, labels = FORMATS[name]
    data = stored(store(tree(), tmp_path / name), labels)
    assert data.class_names == ("apples", "pears")
    assert contents(data) == expected()
    assert contents(pickle.loads(pickle.dumps(data))) == expected()


@pytest.mark.parametrize("name", ["folder", "a.zip", "deflated.ZIP", "gnu.tar", "pax.tar"])
def test_names_are_those_of_the_files(tmp_path, name):
    store, labels = FORMATS[name]
    data = stored(store(tree(), tmp_path / name), labels)
    names = [data.index.place(number).name for number in range(len(data))]
    assert names == sorted(images_of(tree()))


def test_names_of_rows_keep_their_order(tmp_path):
    data = stored(in_parquet(tree(), tmp_path / "it"), "label")
    names = [data.index.place(number).name.decode() for number in range(len(data))]
    assert names == [f"train-{file}.parquet/{row:09d}" for file in (0, 1) for row in range(4)]


def test_every_kind_of_archive_is_among_the_formats(tmp_path):
    kinds = {
        type(find_source(store(tree(), tmp_path / name))) for name, (store, _) in FORMATS.items()
    }
    assert kinds == {*ARCHIVES.values(), Folders}


@pytest.mark.parametrize("name", FORMATS)
def test_labels_may_be_none(tmp_path, name):
    store, _ = FORMATS[name]
    data = stored(store(tree(), tmp_path / name), "none")
    assert data.class_names == ()
    assert [image for _, image in contents(data)] == sorted(images_of(tree()).values())


def test_webdataset_numbers_its_classes(tmp_path):
    path = in_webdataset(tree(), tmp_path / "shards")
    for column in ("cls", "number"):
        data = stored(path, column)
        assert data.class_names == ("0", "1")
        named = [(["apples", "pears"][int(label)], image) for label, image in contents(data)]
        assert sorted(named) == expected()
    with pytest.raises(
        ValueError, match=r"00000000.jpg has no label.*00000000.txt, nor a field 'txt'"
    ):
        stored(path, "txt")
    bad = in_tar({b"1.jpg": b"", b"1.json": b"[]"}, tmp_path / "bad.tar")
    with pytest.raises(ValueError, match=r"1\.json holds no label"):
        stored(bad, "label")


def test_one_database_and_its_file(tmp_path):
    path = in_lmdbs(tree(), tmp_path / "lsun") / "pears"
    wanted = [image for label, image in expected() if label == "pears"]
    for place in (path, path / "data.mdb"):
        assert [image for _, image in contents(stored(place, "none"))] == wanted


def test_links_are_followed_but_not_in_circles(tmp_path):
    files = {b"apples/1.png": b"1", b"pears/2.png": b"2"}
    path = in_folder(files, tmp_path / "images")
    elsewhere = in_folder({b"x/3.png": b"3"}, tmp_path / "elsewhere")
    (path / "plums").symlink_to(elsewhere / "x")
    (path / "apples" / "up").symlink_to(path)
    (path / "pears" / "here.png").symlink_to("nowhere.png")
    (path / "pears" / "again").symlink_to(path / "pears")
    (path / "pears" / "4.png").symlink_to(path / "apples" / "1.png")
    wanted = [("apples", b"1"), ("pears", b"1"), ("pears", b"2"), ("plums", b"3")]
    assert contents(stored(path)) == wanted


def test_a_folder_without_images_is_no_class(tmp_path):
    path = in_folder(tree() | {b"empty/notes.txt": b""}, tmp_path / "images")
    assert stored(path).class_names == ("apples", "pears")


def test_of_two_members_of_one_name_the_later_one_counts(tmp_path):
    path = in_tar({b"a/1.png": b"old", b"a/2.png": b"two"}, tmp_path / "twice.tar")
    more = in_tar({b"./a/1.png": b"new"}, tmp_path / "more.tar").read_bytes()
    path.write_bytes(path.read_bytes()[: 4 * 512] + more)
    assert contents(stored(path)) == [("a", b"new"), ("a", b"two")]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], r"no images in .*/it"),
        (["a/notes.txt", "a/.x.png"], r"no images in .*/it"),
        (["a.tar", "b.zip"], r"a\.tar and b\.zip side by side"),
        (["n01.tar", "n01/1.png"], r"n01\.tar and n01 side by side"),
        (["a.zip", "1.png"], r"a\.zip and 1\.png side by side"),
    ],
)
def test_folders_that_say_nothing_clear(tmp_path, names, problem):
    (tmp_path / "it").mkdir()
    in_folder({name.encode(): b"" for name in names}, tmp_path / "it")
    with pytest.raises(ValueError, match=problem):
        stored(tmp_path / "it")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nothing", "there is no .*nothing"),
        ("it.txt", "no folder, nor an archive by its name"),
        ("it.tar.gz", "cannot be read at random: uncompress it"),
        ("it.zip", "damaged, or no zip archive"),
        ("it.tar", "damaged, or no tar"),
        ("it.parquet", "damaged, or no Parquet file"),
        ("data.mdb", "damaged, or no LMDB database"),
    ],
)
def test_what_is_no_archive(tmp_path, name, problem):
    if name != "nothing":
        (tmp_path / name).write_bytes(b"certainly something else" * 100)
    with pytest.raises(ValueError, match=problem):
        stored(tmp_path / name)


@pytest.mark.parametrize("package", ["lmdb", "pyarrow"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package):
    store = {"lmdb": in_lmdbs, "pyarrow": in_parquet}[package]
    path = store(tree(), tmp_path / "it")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"needs {package}: pip install 'diffussm\[data\]'"):
        stored(path)


def test_a_locked_zip(tmp_path):
    path = in_zip({b"a/1.png": encoded(noise(0))}, tmp_path / "a.zip")
    for flag, method in ((1, 0), (0, zipfile.ZIP_LZMA)):
        data = bytearray(path.read_bytes())
        central = data.rindex(b"PK\x01\x02")
        data[central + 8] |= flag
        data[central + 10] = method
        locked = tmp_path / f"locked-{flag}.zip"
        locked.write_bytes(data)
        with pytest.raises(ValueError, match=r"a/1\.png is encrypted or packed in a rare way"):
            stored(locked)


def test_a_column_that_is_not_there(tmp_path):
    path = in_parquet(tree(), tmp_path / "it")
    with pytest.raises(ValueError, match=r"unknown data.labels 'labels'; did you mean 'label'\?"):
        stored(path, "labels")
    with pytest.raises(ValueError, match=r"unknown data.labels 'folder'; did you mean 'folders'\?"):
        stored(in_folder(tree(), tmp_path / "images"), "folder")


def test_what_vanished_is_an_error_of_reading(tmp_path):
    for name, (store, labels) in FORMATS.items():
        if name.startswith("parquet") or name == "lmdb":  # these stay open
            continue
        path = store(tree(), tmp_path / name)
        data = stored(path, labels)
        first = data.index.place(0)
        path.rename(tmp_path / "away")
        with pytest.raises(OSError, match="No such file"):
            data.source.read(first)
        os.rename(tmp_path / "away", path)
