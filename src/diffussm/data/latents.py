"""Latents encoded before: training then needs no autoencoder.

    latent = scale * (mean + std * noise)    `diffussm.autoencoder.Posterior.latents`

Each time an image is seen, its seed decides whether it or its mirror image is taken, and the noise:
epochs differ as if images were encoded anew. `diffussm encode` makes such folders.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from diffussm.autoencoder import AutoencoderConfig, Posterior
from diffussm.data.config import DataConfig
from diffussm.data.dataset import Batch, Dataset
from diffussm.data.latent_index import INDEX_FILE, read_index
from diffussm.data.latent_shards import MEND, Shard
from diffussm.data.order import seeded


class Latents:
    """A folder of latents, a `Dataset`: read by number, a few kilobytes at a time.

    flip    whether half of the images are mirrored, by chance
    Raises ValueError where the folder is not complete; so does `batch` for damaged shards.
    """

    def __init__(self, folder: str | Path, flip: bool = True):
        self.folder, self.flip = Path(folder), flip
        self.index = read_index(self.folder)
        for entry in self.index.shards:
            path = self.folder / entry.file
            if not path.is_file() or path.stat().st_size != entry.bytes:
                raise ValueError(f"{path} is missing, or damaged (its size); {MEND}")
        self._ends = np.cumsum([entry.images for entry in self.index.shards])
        self._shards: dict[int, Shard] = {}

    def __len__(self) -> int:
        return self.index.images

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels 0, 1, ...; empty where the images had none."""
        return self.index.latents.class_names

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a latent."""
        return self.index.latents.shape

    @property
    def autoencoder(self) -> AutoencoderConfig:
        """What made them."""
        return self.index.latents.autoencoder

    def batch(self, index: Int[Tensor, " batch"], seeds: Sequence[int]) -> Batch:
        """Latents numbered `index`; `seeds` decide flips and noise."""
        means, stds, noises, labels = [], [], [], []
        for number, seed in zip(index.tolist(), seeds, strict=True):
            draw = seeded(seed)
            mirrored = bool(torch.rand((), generator=draw) < 0.5) and self.flip
            shard, image = self._find(number)
            stored = shard.posterior(image, mirrored)
            means.append(stored.mean)
            stds.append(stored.std)
            labels.append(shard.labels[image])
            noises.append(torch.randn(self.shape, generator=draw))
        mean, std = (torch.from_numpy(np.stack(each)).float() for each in (means, stds))
        latents = Posterior(mean, std).latents(torch.stack(noises), self.autoencoder.scale)
        return Batch(latents, torch.from_numpy(np.stack(labels)))

    def _find(self, number: int) -> tuple[Shard, int]:
        """The shard of an image, and the image's number there."""
        assert 0 <= number < len(self)
        found = int(np.searchsorted(self._ends, number, side="right"))
        if found not in self._shards:
            entry = self.index.shards[found]
            shard = Shard(self.folder / entry.file)
            if (len(shard), shard.note.latents.made) != (entry.images, self.index.latents.made):
                raise ValueError(f"{shard.path} is not the one that {INDEX_FILE} means; {MEND}")
            self._shards[found] = shard
        shard = self._shards[found]
        return shard, number - int(self._ends[found]) + len(shard)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_shards": {}}  # open files stay in the process that opened them


def load_latents(config: DataConfig) -> Latents:
    """The latents that a recipe's table [data] means."""
    return Latents(config.path, config.flip)


def check_latents(
    data: Dataset, shape: tuple[int, int, int], autoencoder: AutoencoderConfig
) -> None:
    """ValueError where `data` are not what a model has seen, or will see, as its images.

    shape          channels, height and width that the model takes
    autoencoder    what made the latents that it was trained on before
    """
    if data.shape != shape:
        raise ValueError(f"the model takes {_sizes(shape)}, the data are {_sizes(data.shape)}")
    found = data.autoencoder
    if found.is_identity != autoencoder.is_identity:
        kinds = ("latents", "pixels")
        raise ValueError(
            f"the model was trained on {kinds[autoencoder.is_identity]}, the data are "
            f"{kinds[found.is_identity]}"
        )
    known = found.identity and autoencoder.identity
    if found.identity != autoencoder.identity if known else found.name != autoencoder.name:
        raise ValueError(
            f"the data are latents of another autoencoder ({found.name}) than those that the model "
            f"was trained on ({autoencoder.name}); encode the images with that one"
        )
    if found.scale != autoencoder.scale:
        raise ValueError(
            f"the data are latents times {found.scale}, the model was trained on latents times "
            f"{autoencoder.scale}; encode the images with --scale {autoencoder.scale}"
        )


def _sizes(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))
