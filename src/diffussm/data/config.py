"""Data sets by name: what a recipe says about its images, and the images it means."""

from collections.abc import Callable
from dataclasses import dataclass

from diffussm.config import choose
from diffussm.data.dataset import Dataset
from diffussm.data.digits import digits


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and how they are read."""

    name: str = "digits"
    """One of `diffussm.data.DATASETS`: digits (bundled), images (yours), latents (encoded ones),
    textures (crops of scikit-image's photographs)."""
    path: str = ""
    """Folder or archive of images or latents; a relative one is looked for from the working
    directory."""
    size: int = 256
    """Height and width that images are scaled and cropped to, pixels; latents have their own."""
    channels: int = 3
    """3 for colour, 1 for grey; latents have their own."""
    flip: bool = True
    """Whether each image is mirrored, left for right, every other time by chance; never digits."""
    labels: str = "folders"
    """Where labels come from: folders (the first one), none, the name of a CSV file with the
    columns name and label, or that of a column of the data. Latents have their own."""
    workers: int = 0
    """Processes that read ahead, on each device; 0: images are read where they are used."""
    max_corrupt: float = 0.001
    """Largest share of the images, in [0, 1], that may be unreadable before the run stops."""
    hold_out: int | float = 0
    """Images kept for validation: a number of them or, in (0, 1), a share."""

    def __post_init__(self):
        choose("data set", self.name, DATASETS)
        if self.name in ("images", "latents") and not self.path:
            raise ValueError(f"data.name is {self.name}: set data.path to where they lie")
        if self.size < 1:
            raise ValueError(f"data.size must be at least 1 pixel, not {self.size}")
        if self.channels not in (1, 3):
            raise ValueError(f"data.channels must be 3 (colour) or 1 (grey), not {self.channels}")
        if self.workers < 0:
            raise ValueError(f"data.workers must be at least 0, not {self.workers}")
        if not 0 <= self.max_corrupt <= 1:
            raise ValueError(f"data.max_corrupt is a share in [0, 1], not {self.max_corrupt}")
        if self.hold_out < 0 or (isinstance(self.hold_out, float) and self.hold_out >= 1):
            raise ValueError(
                f"data.hold_out is a whole number of images or a share below 1, not {self.hold_out}"
            )


def load_data(config: DataConfig) -> Dataset:
    """All images that a recipe's table [data] means, those to hold out too (`hold_out` parts them).

    Raises ValueError where they are not there or cannot be understood.
    """
    return choose("data set", config.name, DATASETS)(config)


def _images(config: DataConfig) -> Dataset:
    from diffussm.data.images import StoredImages

    return StoredImages(config)


def _latents(config: DataConfig) -> Dataset:
    from diffussm.data.latents import load_latents

    return load_latents(config)


def _textures(config: DataConfig) -> Dataset:
    from diffussm.data.textures import Textures

    return Textures(config)


DATASETS: dict[str, Callable[[DataConfig], Dataset]] = {
    "digits": lambda config: digits(),
    "images": _images,
    "latents": _latents,
    "textures": _textures,
}
