"""A folder in which several processes write latents: whose it is, and who writes which part."""

import fcntl
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from diffussm.config import to_dict
from diffussm.data.latent_index import INDEX_FILE, read_index
from diffussm.data.latent_shards import LatentsConfig, Shard

LOCK_FILE = ".lock"
"""Byte k of it, though it is empty, belongs to who makes shard k; the one after, to who indexes."""

OURS = re.compile(r"latents-\d+-of-\d+\.safetensors|index\.json|\.lock|\..*\.part")
OTHERS = {
    "autoencoder.identity": "another autoencoder",
    "source": "other images or labels",
    "class_names": "other classes",
}
"""What is too long to be shown."""


def check_folder(folder: Path, wanted: LatentsConfig) -> None:
    """ValueError for a folder that holds something else, or latents that were made otherwise."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder for the latents")
    names = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    foreign = [name for name in names if not OURS.fullmatch(name)]
    if foreign:
        raise ValueError(f"{folder} holds other things ({foreign[0]}); give a new folder")
    for name in names:
        found = None
        try:
            if name == INDEX_FILE:
                found = read_index(folder).latents
            elif name.endswith(".safetensors"):
                found = Shard(folder / name).note.latents
        except ValueError:  # damaged: will be made anew
            continue
        if found is not None:
            check_same(folder, found, wanted)


def check_same(folder: Path, found: LatentsConfig, wanted: LatentsConfig) -> None:
    """ValueError where the latents of a folder were made otherwise than is wanted."""
    changes = _differences(_flat(found), _flat(wanted))
    if changes:
        raise ValueError(
            f"{folder} holds latents that were made otherwise: {'; '.join(changes)}. Encode into "
            "another folder"
        )


@contextmanager
def held(folder: Path, shards: Iterable[int]) -> Iterator[BinaryIO]:
    """Keep other processes from making these shards; ValueError where one does already.

    The system lets go by itself where a process dies.
    """
    with (folder / LOCK_FILE).open("wb") as lock:
        for shard in shards:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, shard)
            except BlockingIOError:
                raise ValueError(
                    f"another process encodes into {folder}; wait for it, or give another folder "
                    "(processes that share the work each need a RANK of their own)"
                ) from None
        yield lock


@contextmanager
def alone(lock: BinaryIO, shards: int) -> Iterator[None]:
    """Wait until no other process of a folder with so many shards is in here."""
    fcntl.lockf(lock, fcntl.LOCK_EX, 1, shards)
    try:
        yield
    finally:
        fcntl.lockf(lock, fcntl.LOCK_UN, 1, shards)


def _flat(latents: LatentsConfig) -> dict[str, Any]:
    plain = to_dict(latents.made)
    inner = plain.pop("autoencoder")
    return plain | {f"autoencoder.{key}": value for key, value in inner.items()}


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [
        OTHERS.get(key, f"{key} was {old[key]!r}, now {new[key]!r}")
        for key in old
        if old[key] != new[key]
    ]
