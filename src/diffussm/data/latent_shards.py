"""One file of latents: a shard, in safetensors.

    mean, std    (images, 2, channels, height, width): the posterior of each image and of its
                 mirror image, not scaled
    labels       (images,)
    crc32        (images, 2): of one mean, one std and the label
    metadata     "diffussm" = one JSON object: the `ShardNote`, and a SHA-256 of it and of crc32

Whatever is read is checked: a crc32 tells whether one image is whole without a look at the others.
"""

import hashlib
import json
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from diffussm.autoencoder import AutoencoderConfig
from diffussm.config import choose, from_dict, to_dict

FORMAT = 1
METADATA_KEY = "diffussm"
MEND = "the same `diffussm encode` again makes anew what is damaged, and only that"

PRECISIONS = {"float16": np.dtype(np.float16), "float32": np.dtype(np.float32)}
"""How latents may be stored."""


@dataclass(frozen=True, kw_only=True)
class LatentsConfig:
    """What the latents of a folder are made of, and how: equal in all its shards."""

    autoencoder: AutoencoderConfig
    """With its identity."""
    shape: tuple[int, int, int]
    """Channels, height and width of a latent."""
    image_shape: tuple[int, int, int]
    """Channels, height and width of an image."""
    class_names: tuple[str, ...]
    """Of the labels 0, 1, ...; empty without classes."""
    source: str
    """Fingerprint of the data set: which images and labels it has."""
    images: int
    """In the data set, at least 1, those included that cannot be read."""
    shard_images: int
    """Of them in one shard, at least 1; fewer in the last."""
    precision: str = "float16"
    """One of `PRECISIONS`."""

    def __post_init__(self):
        choose("precision", self.precision, PRECISIONS)
        if self.images < 1:
            raise ValueError("the data set has no images; there is nothing to encode")
        if self.shard_images < 1:
            raise ValueError(f"a shard must hold at least 1 image, not {self.shard_images}")

    @property
    def shards(self) -> int:
        """How many files there are."""
        return -(-self.images // self.shard_images)

    @property
    def made(self) -> "LatentsConfig":
        """What must agree between shards: where the autoencoder lay does not matter."""
        return replace(self, autoencoder=replace(self.autoencoder, name=""))

    def file(self, shard: int) -> str:
        """Name of the file of shard number `shard`."""
        return f"latents-{shard:05d}-of-{self.shards:05d}.safetensors"

    def numbers(self, shard: int) -> range:
        """Numbers, in the data set, of the images that shard number `shard` is made of."""
        first = shard * self.shard_images
        return range(first, min(first + self.shard_images, self.images))


@dataclass(frozen=True, kw_only=True)
class ShardNote:
    """What a shard says of itself."""

    latents: LatentsConfig
    shard: int
    """Its number."""
    first_image: int
    """Number, in the data set, of the first image it is made of."""
    corrupt: tuple[str, ...]
    """Names of those left out because they cannot be read."""


class StoredPosterior(NamedTuple):
    """Mean and std of one image's latent, (channels, height, width) each, as stored."""

    mean: np.ndarray
    std: np.ndarray

    def crc32(self, label: Any) -> int:
        """Checksum of both and of the image's label."""
        found = zlib.crc32(self.std.tobytes(), zlib.crc32(self.mean.tobytes()))
        return zlib.crc32(label.tobytes(), found)


class Shard:
    """A finished shard, opened: its note and labels, and its images one at a time.

    Raises ValueError where the file is missing, truncated, damaged or of a newer format.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise ValueError(f"{path} is missing; {MEND}")
        self.path = path
        try:
            file = safe_open(path, framework="np")
            described = json.loads(file.metadata()[METADATA_KEY])
            self.labels, self._crc32 = file.get_tensor("labels"), file.get_tensor("crc32")
            newer = described["format"] > FORMAT
            whole = described["checksum"] == _checksum(described, self._crc32)
            if whole and not newer:
                self.note = from_dict(ShardNote, described["note"])
                self._moments = file.get_slice("mean"), file.get_slice("std")
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(type(error).__name__) from None
        if newer:
            raise ValueError(f"{path} has format {described['format']}: install a newer diffussm")
        if not whole:
            raise self._damaged("its note")
        if self.note.latents.file(self.note.shard) != path.name:
            raise self._damaged(f"it is shard {self.note.shard}, not the one of its name")

    def __len__(self) -> int:
        return len(self.labels)

    def posterior(self, image: int, mirrored: bool) -> StoredPosterior:
        """Of image number `image` of this shard, or of its mirror image."""
        side = int(mirrored)
        posterior = StoredPosterior(*(moment[image, side] for moment in self._moments))
        if posterior.crc32(self.labels[image]) != self._crc32[image, side]:
            raise self._damaged(f"image {image}")
        return posterior

    def check(self) -> str:
        """SHA-256 of the file, once every image in it is found whole."""
        for image in range(len(self)):
            for mirrored in (False, True):
                self.posterior(image, mirrored)
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _damaged(self, what: str) -> ValueError:
        return ValueError(f"{self.path} is damaged ({what}); {MEND}")


def write_shard(
    path: Path, note: ShardNote, mean: np.ndarray, std: np.ndarray, labels: np.ndarray
) -> None:
    """Write a shard; its checksums are filled in."""
    crc32 = np.empty(mean.shape[:2], np.uint32)
    for image, side in np.ndindex(*crc32.shape):
        stored = StoredPosterior(mean[image, side], std[image, side])
        crc32[image, side] = stored.crc32(labels[image])
    described: dict[str, Any] = {"format": FORMAT, "note": to_dict(note)}
    described["checksum"] = _checksum(described, crc32)
    arrays = {"mean": mean, "std": std, "labels": labels, "crc32": crc32}
    save_file(arrays, path, metadata={METADATA_KEY: json.dumps(described)})
    path.chmod(0o644)  # safetensors lets only its owner read a file


def _checksum(described: dict[str, Any], crc32: np.ndarray) -> str:
    """SHA-256 of a note and of all crc32."""
    note = json.dumps([described["format"], described["note"]], sort_keys=True)
    return hashlib.sha256(note.encode() + crc32.tobytes()).hexdigest()
