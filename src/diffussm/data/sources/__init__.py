"""Where images lie: every kind of storage, told by a look at it."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from diffussm.data.sources.folders import Folders
from diffussm.data.sources.lsun import DATABASE, Lsun
from diffussm.data.sources.parquet import Parquet
from diffussm.data.sources.source import Place, Source, is_image, shown
from diffussm.data.sources.tars import Tars
from diffussm.data.sources.zips import Zips

ARCHIVES: dict[str, Callable[[Path, Sequence[Path]], Source]] = {
    ".tar": Tars,
    ".zip": Zips,
    ".parquet": Parquet,
    DATABASE: Lsun,
}
"""Kinds of storage by the ending of their files' names; a folder of images is the other one."""

__all__ = ["ARCHIVES", "Folders", "Place", "Source", "find_source", "is_image", "shown"]


def find_source(path: Path) -> Source:
    """What lies at `path`: one archive, a folder of archives of one kind, or a folder of images.

    Raises ValueError where there is nothing, something else, or a mixture.
    """
    path = path.expanduser().absolute()  # workers may have another working directory
    if not path.exists():
        raise ValueError(f"there is no {path}; data.path is a folder or an archive of images")
    if path.is_file():
        return _archive(path)
    if (path / DATABASE).is_file():
        return Lsun(path, [path])
    archives: dict[str, list[Path]] = {}
    others: list[Path] = []
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):
            continue
        if (entry / DATABASE).is_file():
            archives.setdefault(DATABASE, []).append(entry)
        elif entry.suffix.lower() in ARCHIVES and entry.is_file():
            archives.setdefault(entry.suffix.lower(), []).append(entry)
        elif entry.is_dir() or is_image(os.fsencode(entry.name)):
            others.append(entry)
    firsts = [found[0].name for found in [*archives.values(), others] if found]
    if archives and len(firsts) > 1:
        raise ValueError(
            f"{path} holds {' and '.join(firsts)} side by side; give data.path one of them, or a "
            "folder with images or archives of one kind only"
        )
    for kind, parts in archives.items():
        return ARCHIVES[kind](path, parts)
    return Folders(path)


def _archive(path: Path) -> Source:
    if path.name == DATABASE:
        return Lsun(path.parent, [path.parent])
    kind = path.suffix.lower()
    if kind not in ARCHIVES:
        hint = ""
        if kind in (".gz", ".tgz", ".xz", ".bz2", ".zst"):
            hint = "; a compressed tar cannot be read at random: uncompress it, keeping the tar"
        raise ValueError(
            f"{path} is no folder, nor an archive by its name ({', '.join(ARCHIVES)}){hint}"
        )
    return ARCHIVES[kind](path, [path])
