"""The list of a source's images: made once, kept in a file of its own, mapped into memory.

    line 1   JSON: number of images, names of the classes, files watched, checksum; padded
    then     for each image in the order of names: offset, size, end of its name, label, part
    then     the names, one after another

The file lies in a cache folder, never beside the images. It is made again where a watched file or
folder has another size or time, or where its checksum is wrong.
"""

import fcntl
import hashlib
import json
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from diffussm.data.labels import column_of, csv_file, find_labels
from diffussm.data.sources import Place, Source

FORMAT = 1
"""Goes into the checksum: lists of another format are made again."""

ROW = np.dtype(
    [("offset", "<i8"), ("size", "<i8"), ("name_end", "<i8"), ("label", "<i4"), ("part", "<i4")]
)
ALIGNED = 64


class Index:
    """The images of a source by number, in the order of their names.

    Copies in other processes map the same file; they raise ValueError if it was replaced meanwhile.
    """

    def __init__(self, path: Path, checksum: str = ""):
        self.path = path
        with path.open("rb") as file:
            line = file.readline()
        header = json.loads(line)
        if checksum not in ("", header["checksum"]):
            raise ValueError(f"the images changed, and {path} with them; start again")
        count = header["count"]
        names_at = len(line) + count * ROW.itemsize
        self.checksum: str = header["checksum"]
        self.class_names: tuple[str, ...] = tuple(header["classes"])
        self.watched: list[list[Any]] = header["watched"]
        self.rows = np.memmap(path, ROW, "r", len(line), (count,))
        self.names = np.memmap(path, np.uint8, "r", names_at)

    def __reduce__(self):
        return Index, (self.path, self.checksum)

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, number: int) -> Place:
        """Name and place of an image."""
        row = self.rows[number]
        start = self.rows[number - 1]["name_end"] if number else 0
        name = self.names[start : row["name_end"]].tobytes()
        return Place(name, int(row["part"]), int(row["offset"]), int(row["size"]))

    def label(self, number: int) -> int:
        """The label of an image; 0 where there are no classes."""
        return int(self.rows[number]["label"])

    @property
    def fingerprint(self) -> str:
        """The same for the same images with the same labels, wherever they lie."""
        return _checksum(self._content(), self.class_names, [])

    def is_good(self) -> bool:
        """Whether the file is undamaged, and what it lists unchanged."""
        content = self._content()
        return (
            _checksum(content, self.class_names, self.watched) == self.checksum
            and _stamps([Path(path) for path, *_ in self.watched]) == self.watched
        )

    def _content(self) -> Any:
        """The hash, begun, of all that is listed."""
        content = hashlib.sha256(self.rows.view(np.uint8).data)
        content.update(self.names.data)
        return content


def open_index(source: Source, labels: str) -> Index:
    """The index of a source with labels as `data.labels` asks, from the cache if it is there.

    Raises ValueError where the source has no images or no such labels, and OSError where the cache
    cannot be written.
    """
    table = csv_file(labels, source)
    key = [type(source).__name__, os.path.abspath(source.path), str(table and table.resolve())]
    name = hashlib.sha256(os.fsencode("\n".join([*key, labels]))).hexdigest()[:32]
    path = cache_folder() / f"{name}.index"
    with _locked(path):
        return _good(path) or _write(path, *_build(source, labels, [table] if table else []))


def cache_folder() -> Path:
    """Where indices are kept: $XDG_CACHE_HOME/diffussm, usually ~/.cache/diffussm."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "diffussm"


def _good(path: Path) -> Index | None:
    """The index in a file, if it is there, undamaged and still true."""
    try:
        index = Index(path)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return index if index.is_good() else None


def _build(source: Source, labels: str, tables: list[Path]) -> tuple[dict[str, Any], list[bytes]]:
    """The header and the content of an index file."""
    names: list[bytes] = []
    given: list[Any] = []
    parts, offsets, sizes = array("i"), array("q"), array("q")
    for place in source.scan(column_of(labels)):
        names.append(place.name)
        given.append(place.label)
        parts.append(place.part)
        offsets.append(place.offset)
        sizes.append(place.size)
    if not names:
        raise ValueError(f"there are no images in {source.path}, nor in folders in it")
    watched = _stamps([*source.watched, *tables])
    last = {name: number for number, name in enumerate(names)}  # as unpacking an archive would do
    order = [last[name] for name in sorted(last)]
    names = [names[number] for number in order]
    classes, numbers = find_labels(source, labels, names, [given[number] for number in order])
    rows = np.empty(len(names), ROW)
    for field, values in (("part", parts), ("offset", offsets), ("size", sizes)):
        rows[field] = np.asarray(values)[order]
    rows["label"] = numbers
    rows["name_end"] = np.cumsum([len(name) for name in names])
    content = [rows.tobytes(), b"".join(names)]
    header = {"count": len(names), "classes": classes, "watched": watched}
    summed = hashlib.sha256(content[0])
    summed.update(content[1])
    return header | {"checksum": _checksum(summed, classes, watched)}, content


def _checksum(content: Any, classes: tuple[str, ...], watched: list[list[Any]]) -> str:
    """Of the content, whose hash is begun, and of what the header says."""
    content.update(json.dumps([FORMAT, classes, watched]).encode())
    return content.hexdigest()


def _stamps(paths: list[Path]) -> list[list[Any]]:
    """Name, size and time of each file or folder; of one that is gone, the name."""
    stamps = []
    for path in paths:
        try:
            found = path.stat()
            stamps.append([str(path.absolute()), found.st_size, found.st_mtime_ns])
        except OSError:
            stamps.append([str(path.absolute())])
    return stamps


def _write(path: Path, header: dict[str, Any], content: list[bytes]) -> Index:
    """Put the file there once all of it is on the disk."""
    line = json.dumps(header).encode()
    line += b" " * (-(len(line) + 1) % ALIGNED) + b"\n"
    temporary = path.with_suffix(".part")
    try:
        with temporary.open("wb") as file:
            file.writelines([line, *content])
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        return Index(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _no_place(path, error) from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time, of those on this machine, see to a file of the cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("w")
    except OSError as error:
        raise _no_place(path, error) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _no_place(path: Path, error: OSError) -> OSError:
    return OSError(
        f"cannot keep the list of images in {path.parent} ({error.strerror}); is there space? "
        "XDG_CACHE_HOME may name another folder for such lists"
    )
