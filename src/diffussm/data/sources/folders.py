"""Images as files in folders, any number of levels deep; links are followed, hidden names not."""

import os
from collections.abc import Iterator
from pathlib import Path

from diffussm.data.sources.source import Place, Source, is_image


class Folders(Source):
    """A folder of image files."""

    _folders: tuple[Path, ...] = ()

    def scan(self, column: str = "") -> Iterator[Place]:
        if column:
            raise self.no_column(column)
        found: list[Path] = []
        for name in _walk(os.fsencode(self.path), b"", frozenset(), found):
            yield Place(name)
        self._folders = tuple(found)

    def read(self, place: Place) -> bytes:
        with open(os.path.join(os.fsencode(self.path), place.name), "rb") as file:
            return file.read()

    @property
    def watched(self) -> list[Path]:
        return list(self._folders)


def _walk(root: bytes, below: bytes, above: frozenset, found: list[Path]) -> Iterator[bytes]:
    """Names of the images in a folder; `above` are the folders that it lies in, by device and node.

    A link to one of these would lead round in circles and is not followed.
    """
    path = os.path.join(root, below)
    here = os.stat(path)
    found.append(Path(os.fsdecode(path)))
    above = above | {(here.st_dev, here.st_ino)}
    folders = []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith(b"."):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif is_image(entry.name) and entry.is_file():
                yield below + entry.name
    for name in folders:
        inside = os.stat(os.path.join(path, name))
        if (inside.st_dev, inside.st_ino) not in above:
            yield from _walk(root, below + name + b"/", above, found)
