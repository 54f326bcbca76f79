"""Crops of photographs that scikit-image and scikit-learn bring along: no download, no classes.

Each photograph is scaled until its shorter side is FIELD crops long, so that a crop shows the same
piece of the world whatever its size. Crop number n is a pure function of n. Crops of the
photographs named in UNSEEN come last, and are what `data.hold_out` holds out.
"""

from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec

import torch
from jaxtyping import Int
from PIL import Image as pillow
from torch import Tensor

from diffussm.autoencoder import PIXELS, AutoencoderConfig
from diffussm.data.config import DataConfig
from diffussm.data.dataset import Batch, Dataset, Subset
from diffussm.data.order import seeded
from diffussm.data.transform import MODES, is_mirrored, to_tensor

SKIMAGE, SKLEARN = "skimage.data", "sklearn.datasets.images"
SEEN = {
    "astronaut.png": SKIMAGE,
    "brick.png": SKIMAGE,
    "camera.png": SKIMAGE,
    "chelsea.png": SKIMAGE,
    "china.jpg": SKLEARN,
    "grass.png": SKIMAGE,
    "hubble_deep_field.jpg": SKIMAGE,
    "ihc.png": SKIMAGE,
    "moon.png": SKIMAGE,
    "motorcycle_left.png": SKIMAGE,
    "retina.jpg": SKIMAGE,
    "rocket.jpg": SKIMAGE,
}
UNSEEN = {
    "coffee.png": SKIMAGE,
    "coins.png": SKIMAGE,
    "flower.jpg": SKLEARN,
    "gravel.png": SKIMAGE,
}
"""By file: the package whose folder it lies in."""

CROPS = 512
"""Of each photograph."""
FIELD = 4
"""Crops along a photograph's shorter side."""
LARGEST = 64
"""Side of a crop: the smallest photograph is 300 pixels high."""
TEXTURES = 0x74657874
"""Tells the draws of crops from all others."""


class Textures:
    """All crops, a `diffussm.data.Dataset`.

    Raises ValueError for crops that the photographs are too small for, and without scikit-image.
    """

    class_names = ()

    def __init__(self, config: DataConfig):
        if config.size > LARGEST:
            raise ValueError(
                f"data.size is {config.size}; textures are crops of at most {LARGEST} pixels, as 32"
            )
        self.config = config
        self.photographs = [_photograph(*each, config) for each in (SEEN | UNSEEN).items()]

    def __len__(self) -> int:
        return CROPS * len(self.photographs)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each crop."""
        return self.config.channels, self.config.size, self.config.size

    @property
    def autoencoder(self) -> AutoencoderConfig:
        """None: these are pixels."""
        return PIXELS

    def batch(self, index: Int[Tensor, " batch"], seeds: Sequence[int]) -> Batch:
        """The crops numbered `index`, each mirrored if its seed says so."""
        crops = []
        for number, seed in zip(index.tolist(), seeds, strict=True):
            crop = self._crop(number)
            crops.append(crop.flip(-1) if self.config.flip and is_mirrored(seed) else crop)
        return Batch(torch.stack(crops), torch.zeros(len(crops)).long())

    def divide(self, kept: int) -> tuple[Dataset, Dataset]:
        """All crops of SEEN, and `kept` ones of UNSEEN; ValueError where there are not so many."""
        seen = CROPS * len(SEEN)
        if kept > len(self) - seen:
            raise ValueError(
                f"data.hold_out keeps {kept} crops, but only {len(self) - seen} are of photographs "
                "that training never sees; hold out fewer"
            )
        return Subset(self, torch.arange(seen)), Subset(self, torch.arange(seen, seen + kept))

    def _crop(self, number: int) -> Tensor:
        seen = CROPS * len(SEEN)
        if number < seen:
            photograph = self.photographs[number % len(SEEN)]
        else:
            photograph = self.photographs[len(SEEN) + (number - seen) % len(UNSEEN)]
        size, chance = self.config.size, seeded(TEXTURES, number)
        top, left = (
            int(torch.randint(side - size + 1, (), generator=chance))
            for side in photograph.shape[1:]
        )
        return photograph[:, top : top + size, left : left + size]


def _photograph(name: str, package: str, config: DataConfig) -> Tensor:
    """(channels, height, width) in [-1, 1], the shorter side FIELD crops long."""
    if find_spec(package.split(".")[0]) is None:
        raise ValueError("the data set textures is made of scikit-image: pip install scikit-image")
    root, *folders = package.split(".")
    with files(root).joinpath(*folders, name).open("rb") as file, pillow.open(file) as picture:
        whole = picture.convert(MODES[config.channels])
    scale = FIELD * config.size / min(whole.size)
    width, height = (round(side * scale) for side in whole.size)
    scaled = whole.resize((width, height), pillow.Resampling.LANCZOS)
    pixels = torch.frombuffer(bytearray(scaled.tobytes()), dtype=torch.uint8)
    return to_tensor(pixels.reshape(1, height, width, config.channels).numpy())[0]
