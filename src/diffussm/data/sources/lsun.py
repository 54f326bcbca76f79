"""Images in LMDB databases, as LSUN is distributed: each value is an image file.

Yu et al., "LSUN: Construction of a Large-scale Image Dataset using Deep Learning with Humans in the
Loop", 2015. A database is a folder with a data.mdb; it or a folder of them, one a class.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from diffussm.data.sources.source import Place, Source, shown

DATABASE = "data.mdb"


class Lsun(Source):
    """One or more databases; a name is a database's folder and a key."""

    def scan(self, column: str = "") -> Iterator[Place]:
        if column:
            raise self.no_column(column)
        for part, path in enumerate(self.parts):
            prefix = self.prefix(part)
            with _reading(path) as reading, reading.cursor() as cursor:
                for key in cursor.iternext(keys=True, values=False):
                    yield Place(prefix + key, part)

    def read(self, place: Place) -> bytes:
        key = place.name.removeprefix(self.prefix(place.part))
        path = self.parts[place.part]
        with _reading(path) as reading:
            data = reading.get(key)
        if data is None:
            raise OSError(f"{path} no longer holds the key {shown(key)}")
        return data

    @property
    def watched(self) -> list[Path]:
        # a folder's own time changes when a lock file is made, a database's does not
        return [path / DATABASE for path in self.parts]


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """A look into a database; OSError where it is damaged."""
    environment = _environment(path)
    import lmdb

    try:
        with environment.begin() as reading:
            yield reading
    except lmdb.Error as error:
        raise OSError(f"{path} is damaged: {error}") from None


@cache  # LMDB forbids to open a database twice in one process
def _environment(path: Path) -> Any:
    try:
        import lmdb
    except ImportError:
        raise ValueError(
            f"{path} is an LMDB database, which needs lmdb: pip install 'diffussm[data]'"
        ) from None
    try:
        return lmdb.open(str(path), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise ValueError(f"{path} is damaged, or no LMDB database: {error}") from None
