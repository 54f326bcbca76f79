"""Where the images that are evaluated come from: drawn by a model, stored in a file, or data.

Each source gives its images by number, as bytes and in the blocks of
`diffussm.evaluation.features`, so that several ranks can share them.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from diffussm.checkpoint import model_file
from diffussm.data import Dataset
from diffussm.diffusion import Guidance, Sampling
from diffussm.evaluation.adm_reference import AdmFile
from diffussm.evaluation.features import BLOCK, Pixels
from diffussm.generation import Generator, to_uint8
from diffussm.shapes import Image

Progress = Callable[[int], None]
"""Told how much of the work is done, in a source's own units (`Pictures.work`)."""

QUANTISATION = "uint8, round(127.5 x + 127.5)"
SLACK = 1e-3
"""How far a value may lie outside of [-1, 1]: what sums round."""


@runtime_checkable
class Pictures(Protocol):
    """Images by number."""

    @property
    def count(self) -> int:
        """How many."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each."""
        ...

    def work(self, numbers: Sequence[range]) -> int:
        """What is to be done for these, in the units that `blocks` reports."""
        ...

    def blocks(self, numbers: Sequence[range], progress: Progress) -> Iterator[Pixels]:
        """The images of each range of numbers, which are whole blocks; ValueError for bad ones."""
        ...


@dataclass(frozen=True)
class DataPictures:
    """The images of a data set, each as it is, without the chance of training."""

    data: Dataset

    @property
    def count(self) -> int:
        """All of them."""
        return len(self.data)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.data.shape

    def work(self, numbers: Sequence[range]) -> int:
        """Images."""
        return sum(map(len, numbers))

    def blocks(self, numbers: Sequence[range], progress: Progress) -> Iterator[Pixels]:
        """The images; ValueError for one that cannot be read, or holds no pixels in [-1, 1]."""
        done = 0
        for block in numbers:
            images, _, corrupt = self.data.batch(torch.tensor(block), block)
            if corrupt:
                raise ValueError(
                    f"an image of the reference cannot be read: {corrupt[0]}; mend or remove it, "
                    "since numbers are comparable only where all images are the same"
                )
            yield as_bytes(images, "of the reference", block)
            done += len(block)
            progress(done)


@dataclass(frozen=True)
class FilePictures:
    """The images of a file as ADM's evaluator reads."""

    file: AdmFile

    @property
    def count(self) -> int:
        """All of them; none in a file of moments alone."""
        return self.file.count or 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width; 0 where the file has no images."""
        return self.file.image_shape or (0, 0, 0)

    def work(self, numbers: Sequence[range]) -> int:
        """Images."""
        return sum(map(len, numbers))

    def blocks(self, numbers: Sequence[range], progress: Progress) -> Iterator[Pixels]:
        """The images, all read and those of other ranks passed over."""
        wanted = {block.start for block in numbers}
        done = 0
        for number, block in enumerate(self.file.images(BLOCK)):
            if number * BLOCK in wanted:
                yield block
                done += len(block)
                progress(done)

    def protocol(self) -> dict[str, Any]:
        """How they were drawn: nobody said."""
        unknown = ("model", "images_seen", "weights", "seeds", "labels", "sampler", "steps", "eta")
        unknown += ("guidance_scale", "guidance_interval", "guidance_channels", "dtype")
        unknown += ("autoencoder", "quantisation", "batch_size")
        size = " x ".join(map(str, self.shape))
        known = {"samples_file": self.file.identity, "count": self.count, "image": size}
        return known | dict.fromkeys(unknown)


@dataclass(frozen=True, kw_only=True)
class DrawnPictures:
    """What a model draws from seeds; raises ValueError where it cannot draw so."""

    generator: Generator
    seeds: Sequence[int]
    sampling: Sampling
    guidance: Guidance
    batch_size: int = BLOCK
    """Images at a time, at most a block; it changes them by rounding at most."""

    def __post_init__(self):
        if not self.seeds:
            raise ValueError("there is nothing to draw: give at least one seed")
        if not 1 <= self.batch_size <= BLOCK:
            raise ValueError(f"batch_size must lie in 1 to {BLOCK}, not {self.batch_size}")

    @property
    def count(self) -> int:
        """One for each seed."""
        return len(self.seeds)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what is drawn, decoded."""
        model, factor = self.generator.config.model, self.generator.config.autoencoder.factor
        height, width = model.size
        colours = self.generator.autoencoder.colours or model.in_channels
        return colours, height * factor, width * factor

    def work(self, numbers: Sequence[range]) -> int:
        """Calls of the network."""
        return self.sampling.total * sum(-(-len(block) // self.batch_size) for block in numbers)

    def blocks(self, numbers: Sequence[range], progress: Progress) -> Iterator[Pixels]:
        """Draw the images; ValueError where one holds NaN."""
        labels, done = self.generator.labels(self.count), 0
        for block in numbers:
            part = slice(block.start, block.stop)
            images = self.generator.sample(
                seeds=self.seeds[part],
                labels=None if labels is None else labels[part],
                sampling=self.sampling,
                guidance=self.guidance,
                batch_size=self.batch_size,
                progress=lambda calls, _, before=done: progress(before + calls),
            )
            done += self.work([block])
            yield as_bytes(images, "drawn", [self.seeds[number] for number in block])

    def protocol(self) -> dict[str, Any]:
        """How they are drawn, but for which file the model came from."""
        config, guidance = self.generator.config, self.guidance
        classes, coder = config.model.num_classes, config.autoencoder
        guides = guidance.scale != 1
        return {
            "samples_file": None,
            "images_seen": config.images,
            "weights": "ema",
            "count": self.count,
            "seeds": shown_seeds(self.seeds),
            "labels": f"0 to {classes - 1} in turn" if classes else "none",
            "sampler": self.sampling.sampler,
            "steps": self.sampling.total,
            "eta": self.sampling.eta,
            "guidance_scale": guidance.scale,
            "guidance_interval": list(guidance.interval) if guides else None,
            "guidance_channels": guidance.channels if guides else None,
            "dtype": "float32",
            "autoencoder": coder.identity or coder.name,
            "image": " x ".join(map(str, self.shape)),
            "quantisation": QUANTISATION,
            "batch_size": self.batch_size,
        }


def as_bytes(images: Image, whose: str, numbers: Sequence[int]) -> Pixels:
    """Images in [-1, 1] as bytes; ValueError for NaN or values outside, naming the image."""
    bad = ~((images.abs() <= 1 + SLACK).flatten(1).all(1))  # NaN compares false
    if bad.any():
        place = int(bad.nonzero()[0])
        image = images[place]
        found = f"values from {image.min():.3g} to {image.max():.3g}" if _finite(image) else "NaN"
        raise ValueError(
            f"image {numbers[place]} {whose} holds {found}, not values in [-1, 1]; "
            "there is nothing to measure in it"
        )
    return torch.from_numpy(to_uint8(images)).permute(0, 3, 1, 2).contiguous()


def shown_seeds(seeds: Sequence[int]) -> str:
    """Seeds as they are written on the command line: 0-9999, or 1,5,9."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def model_identity(path: Path) -> str:
    """SHA-256 of the model file of a checkpoint."""
    with model_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _finite(image: Tensor) -> bool:
    return bool(image.isfinite().all())
