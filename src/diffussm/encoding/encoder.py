"""Encoding a data set into a folder of shards, alone or as one of several processes.

The bytes of a shard follow from its number, whoever makes it. So several processes share the work
without a word: number r of n makes shards r, r + n, ..., and whoever finds the last one there
writes the index. A kill leaves whole shards only, and the same command makes the others.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from diffussm.autoencoder import Autoencoder
from diffussm.checkpoint import make_folder, write_safely
from diffussm.data import Batch, Dataset
from diffussm.data.latent_index import (
    INDEX_FILE,
    LatentIndex,
    ShardEntry,
    read_index,
    shard_entry,
)
from diffussm.data.latent_shards import (
    PRECISIONS,
    LatentsConfig,
    Shard,
    ShardNote,
    write_shard,
)
from diffussm.encoding.folder import LOCK_FILE, alone, check_folder, check_same, held
from diffussm.encoding.reading import UNREADABLE, in_order
from diffussm.shapes import Image

Progress = Callable[[int, str], None]
"""Told how many images are done, and what is being done."""


def latents_config(
    data: Dataset,
    autoencoder: Autoencoder,
    *,
    source: str = "",
    shard_images: int = 4096,
    precision: str = "float16",
) -> LatentsConfig:
    """What the latents of `data` will be.

    source    fingerprint of its images and labels, by which a folder knows them again
    Raises ValueError for data that are empty or do not fit the autoencoder.
    """
    return LatentsConfig(
        autoencoder=autoencoder.config,
        shape=autoencoder.latent_shape(*data.shape),
        image_shape=data.shape,
        class_names=data.class_names,
        source=source,
        images=len(data),
        shard_images=shard_images,
        precision=precision,
    )


class Encoder:
    """What one process does: number `rank` of `ranks`.

    Raises ValueError for a folder that holds something else, or latents that were made otherwise.
    """

    def __init__(self, config: LatentsConfig, folder: Path, rank: int = 0, ranks: int = 1):
        if not 0 <= rank < ranks:
            raise ValueError(f"there is no process {rank} of {ranks}; count from 0")
        check_folder(folder, config)
        self.config, self.folder = config, folder
        self.shards = range(rank, config.shards, ranks)
        self.images = sum(len(config.numbers(shard)) for shard in self.shards)
        self._found: dict[int, ShardEntry] = {}

    def run(
        self,
        data: Dataset,
        autoencoder: Autoencoder,
        *,
        batch_size: int = 16,
        workers: int = 0,
        progress: Progress = lambda images, what: None,
    ) -> LatentIndex | None:
        """Make what is missing; the index, or None where other processes still have to do theirs.

        Raises ValueError where another process makes the same shards, an image's latent is not
        finite or no image can be read, and OSError where the folder cannot be written.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        make_folder(self.folder)
        with held(self.folder, self.shards) as lock:
            missing = [shard for shard in self.shards if not self._keep(shard, progress)]
            if missing:
                (self.folder / INDEX_FILE).unlink(missing_ok=True)  # it speaks of all shards
            batches = in_order(data, self._batches(missing, batch_size), workers)
            with closing(batches):
                for shard in missing:
                    self._make(shard, batches, autoencoder, progress)
            return self._index(lock)

    def _keep(self, shard: int, progress: Progress) -> bool:
        """Whether a shard is there and whole."""
        path = self.folder / self.config.file(shard)
        try:
            self._found[shard] = shard_entry(Shard(path))
        except ValueError:
            return False
        progress(self._done, f"{path.name} is there")
        return True

    @property
    def _done(self) -> int:
        return sum(len(self.config.numbers(shard)) for shard in self._found)

    def _batches(self, shards: list[int], size: int) -> Iterator[range]:
        """Numbers of the images of each batch: every shard begins with a new one."""
        for shard in shards:
            numbers = self.config.numbers(shard)
            for start in range(0, len(numbers), size):
                yield numbers[start : start + size]

    def _make(
        self, shard: int, batches: Iterator[Batch], autoencoder: Autoencoder, progress: Progress
    ) -> None:
        numbers, path = self.config.numbers(shard), self.folder / self.config.file(shard)
        kind = PRECISIONS[self.config.precision]
        mean, std = np.empty((2, len(numbers), 2, *self.config.shape), kind)
        labels, corrupt, seen, kept = np.empty(len(numbers), np.int64), [], 0, 0
        while seen < len(numbers):
            batch = next(batches)
            good = batch.labels != UNREADABLE
            place = slice(kept, kept + int(good.sum()))
            if good.any():
                mean[place], std[place] = _posteriors(autoencoder, batch.images[good], kind)
            labels[place] = batch.labels[good].numpy()
            corrupt += batch.corrupt
            seen, kept = seen + len(good), place.stop
            progress(self._done + seen, path.name)
        if not (np.isfinite(mean[:kept]).all() and np.isfinite(std[:kept]).all()):
            raise ValueError(
                f"the latents of images {numbers.start} to {numbers.stop - 1} are not all finite "
                f"in {self.config.precision}; take float32, or another autoencoder"
            )
        note = ShardNote(
            latents=self.config, shard=shard, first_image=numbers.start, corrupt=tuple(corrupt)
        )
        arrays = mean[:kept], std[:kept], labels[:kept]
        write_safely(path, lambda part: write_shard(part, note, *arrays))
        self._found[shard] = shard_entry(Shard(path))  # as it can be read again

    def _index(self, lock: BinaryIO) -> LatentIndex | None:
        """Write the index if all shards are there, unless another process has."""
        files = [self.folder / self.config.file(shard) for shard in range(self.config.shards)]
        if not all(file.is_file() for file in files):
            return None
        with alone(lock, self.config.shards):
            index = self._written_index()
            if index is None and self._find_all(files):
                entries = tuple(self._found[shard] for shard in range(self.config.shards))
                index = LatentIndex(latents=self.config, shards=entries)
                if not index.images:
                    raise ValueError(f"no image could be read; the first: {index.corrupt[0]}")
                text = index.as_text()
                write_safely(self.folder / INDEX_FILE, lambda part: part.write_text(text))
            if index is not None:
                (self.folder / LOCK_FILE).unlink(missing_ok=True)
            return index

    def _written_index(self) -> LatentIndex | None:
        """The index that is there, where it says of our shards what they are."""
        try:
            index = read_index(self.folder)
        except ValueError:  # none yet, or a damaged one
            return None
        ours = all(index.shards[shard] == entry for shard, entry in self._found.items())
        return index if ours else None

    def _find_all(self, files: list[Path]) -> bool:
        """Read the shards of others; False where one is damaged, which its process makes anew."""
        for shard, file in enumerate(files):
            if shard in self._found:
                continue
            try:
                opened = Shard(file)
                self._found[shard] = shard_entry(opened)
            except ValueError:
                return False
            check_same(self.folder, opened.note.latents, self.config)
        return True


def _posteriors(
    autoencoder: Autoencoder, images: Image, kind: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and std (images, 2, channels, height, width) of images and their mirror images."""
    images = images.to(autoencoder.device)
    sides = [autoencoder.encode(images), autoencoder.encode(images.flip(-1))]
    moments = (torch.stack(both, dim=1).cpu().numpy() for both in zip(*sides, strict=True))
    with np.errstate(over="ignore"):  # seen as not finite
        mean, std = (moment.astype(kind) for moment in moments)
    return mean, std
