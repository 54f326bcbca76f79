"""What every kind of storage does: list its images once, and read one of them at any time."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from diffussm.config import unknown

IMAGE_SUFFIXES = frozenset(b"bmp gif jpeg jpg pbm pgm png ppm tif tiff webp".split())
"""Endings of the names of image files, in capitals too."""


class Place(NamedTuple):
    """An image's name, and where its bytes lie."""

    name: bytes
    """Path inside the source, levels parted by "/"; bytes, for it need not be UTF-8."""
    part: int = 0
    """Which of the source's `parts` holds it."""
    offset: int = 0
    size: int = 0
    """Bytes from where, and how many; sources without offsets give these their own meaning."""
    label: int | str | None = None
    """From the column that was asked for."""


class Source(ABC):
    """Images at `path`, lying in `parts`: archives, databases, or nothing but a folder.

    A source holds names only and opens files as it reads, so that every process can have a copy.
    """

    def __init__(self, path: Path, parts: Sequence[Path] = ()):
        self.path = path
        self.parts = tuple(parts) or (path,)

    @abstractmethod
    def scan(self, column: str = "") -> Iterator[Place]:
        """Every image, in any order, with labels from `column` if one is named.

        Raises ValueError for damaged storage and for a column that is not there.
        """

    @abstractmethod
    def read(self, place: Place) -> bytes:
        """The file of one image, as `scan` placed it; OSError where it is no longer there."""

    @property
    def watched(self) -> list[Path]:
        """Files and folders whose size and time change with the images; known after a scan."""
        return list(dict.fromkeys([self.path, *self.parts]))

    def label_names(self, column: str) -> tuple[str, ...]:
        """Names of the labels 0, 1, ... of a column, where the source tells them."""
        return ()

    def prefix(self, part: int) -> bytes:
        """What names in a part begin with: the part's own name, unless it is the only one."""
        path = self.parts[part]
        return b"" if path == self.path else bytes(path.relative_to(self.path)) + b"/"

    def no_column(self, column: str, columns: Sequence[str] = ()) -> ValueError:
        """The error for a column that is not there."""
        allowed = ["folders", "none", "FILE.csv", *columns]
        return ValueError(f"{self.path}: {unknown('data.labels', column, allowed)}")


def is_image(name: bytes) -> bool:
    """Whether a file is an image by its name; what is hidden is not, nor what lies in it."""
    suffix = name.rpartition(b".")[2]
    return suffix.lower() in IMAGE_SUFFIXES and b"/." not in b"/" + name and name != suffix


def read_bytes(path: Path, offset: int, size: int) -> bytes:
    """A piece of a file; OSError where the file ends before it does."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise OSError(f"{path} ends before byte {offset + size}")
    return data


def shown(name: bytes) -> str:
    """A name as text that any terminal and file bears."""
    return name.decode("utf-8", "backslashreplace")
