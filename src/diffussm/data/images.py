"""Images of any storage as a data set: found by number, decoded, cropped, mirrored by chance."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from torch import Tensor, tensor

from diffussm.autoencoder import PIXELS, AutoencoderConfig
from diffussm.data.config import DataConfig
from diffussm.data.dataset import Batch
from diffussm.data.index import open_index
from diffussm.data.sources import find_source, shown
from diffussm.data.transform import Unreadable, is_mirrored, read_pixels, to_tensor

MAX_UNREADABLE = 100
"""So many images in a row that cannot be read are not damaged files but a lost disk."""


class StoredImages:
    """The images that a recipe's table [data] describes, a `diffussm.data.Dataset`.

    Raises ValueError where they cannot be found or labelled, OSError where no list of them can be
    kept.
    """

    def __init__(self, config: DataConfig):
        self.config = config
        self.source = find_source(Path(config.path))
        self.index = open_index(self.source, config.labels)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels 0, 1, ...; empty where labels are none."""
        return self.index.class_names

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        return self.config.channels, self.config.size, self.config.size

    @property
    def autoencoder(self) -> AutoencoderConfig:
        """None: these are pixels."""
        return PIXELS

    def batch(self, index: Int[Tensor, " batch"], seeds: Sequence[int]) -> Batch:
        """The images numbered `index`, each mirrored if its seed says so.

        In place of an unreadable one stands the next that can be read, with its own label.
        """
        size, channels = self.config.size, self.config.channels
        pixels = np.empty((len(index), size, size, channels), np.uint8)
        labels, corrupt = [], []
        for place, (number, seed) in enumerate(zip(index.tolist(), seeds, strict=True)):
            found, image, trouble = self._readable(number)
            mirrored = self.config.flip and is_mirrored(seed)
            pixels[place] = image[:, ::-1] if mirrored else image
            labels.append(self.index.label(found))
            if trouble:
                corrupt.append(trouble)
        return Batch(to_tensor(pixels), tensor(labels), tuple(corrupt))

    def _readable(self, number: int) -> tuple[int, UInt8[np.ndarray, "height width channels"], str]:
        """The first readable image from `number` on, and what is wrong with `number` itself."""
        step, trouble = 0, ""
        for step in range(min(MAX_UNREADABLE, len(self))):
            found = (number + step) % len(self)
            place = self.index.place(found)
            try:
                data = self.source.read(place)
                image = read_pixels(data, self.config.size, self.config.channels)
                return found, image, trouble
            except (OSError, Unreadable) as error:
                trouble = trouble or f"{shown(place.name)} ({error})"
        raise ValueError(
            f"{self.source.path}: {step + 1} images in a row cannot be read, beginning with "
            f"{trouble}; is the disk still there?"
        )
