"""The list of a folder's shards, `index.json`: written last, so that where it is all is there."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffussm.config import from_dict, to_dict
from diffussm.data.latent_shards import FORMAT, MEND, LatentsConfig, Shard

INDEX_FILE = "index.json"


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """What the index says of one shard."""

    file: str
    images: int
    corrupt: tuple[str, ...]
    """Names of the images left out because they cannot be read."""
    bytes: int
    sha256: str
    """Of the file, as sha256sum prints it."""


@dataclass(frozen=True, kw_only=True)
class LatentIndex:
    """A finished folder of latents."""

    latents: LatentsConfig
    shards: tuple[ShardEntry, ...]

    @property
    def images(self) -> int:
        """How many there are, without those left out."""
        return sum(shard.images for shard in self.shards)

    @property
    def corrupt(self) -> list[str]:
        """Names of the images left out because they cannot be read."""
        return [name for shard in self.shards for name in shard.corrupt]

    def as_text(self) -> str:
        """The file's content, JSON."""
        described = {
            "format": FORMAT,
            "images": self.images,
            "left_out": len(self.corrupt),
            "latents": to_dict(self.latents),
            "shards": [to_dict(shard) for shard in self.shards],
        }
        return json.dumps(described | {"checksum": _checksum(described)}, indent=1)


def shard_entry(shard: Shard) -> ShardEntry:
    """What the index says of a shard, once it is found whole; ValueError otherwise."""
    return ShardEntry(
        file=shard.path.name,
        images=len(shard),
        corrupt=shard.note.corrupt,
        bytes=shard.path.stat().st_size,
        sha256=shard.check(),
    )


def read_index(folder: Path) -> LatentIndex:
    """The index of a folder of latents; ValueError where it is missing or damaged, or newer."""
    path = folder / INDEX_FILE
    if not path.is_file():
        raise ValueError(
            f"{folder} has no {INDEX_FILE}: it holds no latents, or `diffussm encode` is not done"
        )
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        checksum = described.pop("checksum")
        if described["format"] <= FORMAT and checksum == _checksum(described):
            shards = tuple(from_dict(ShardEntry, entry) for entry in described["shards"])
            return LatentIndex(
                latents=from_dict(LatentsConfig, described["latents"]), shards=shards
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}); {MEND}") from None
    if described["format"] > FORMAT:
        raise ValueError(f"{path} has format {described['format']}: install a newer diffussm")
    raise ValueError(f"{path} is damaged (its checksum); {MEND}")


def fault(folder: Path, entry: ShardEntry) -> str:
    """What is wrong with a shard, a sentence; "" where every byte is as the index says."""
    path = folder / entry.file
    try:
        found = shard_entry(Shard(path))
    except ValueError as error:
        return str(error)
    return "" if found == entry else f"{path} is not the one that {INDEX_FILE} means; {MEND}"


def _checksum(described: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
