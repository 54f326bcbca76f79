"""What samples are compared with: a data set, a folder or archive of images, or ADM's npz."""

from dataclasses import dataclass, replace
from pathlib import Path

from diffussm.checkpoint import MODEL_FILE
from diffussm.data import DATASETS, DataConfig, load_data
from diffussm.evaluation.adm_reference import AdmFile
from diffussm.evaluation.moments import Moments
from diffussm.evaluation.pictures import DataPictures, FilePictures, Pictures

Shape = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Real images, or what is known of them."""

    name: str
    """For people."""
    pictures: Pictures
    """None at all where a file has moments alone."""
    file: AdmFile | None = None
    """The npz that they come from, if they do."""

    def stored(self, space: str) -> Moments | None:
        """Moments of Inception's features that come with them."""
        return self.file.moments(space) if self.file else None


def open_reference(name: str, shape: Shape) -> Reference:
    """The reference `name`: an .npz file, a data set's name, or a folder or archive of images.

    shape    channels, height and width of the samples; images of a folder are scaled and cropped
             to it
    Raises ValueError where it is not there, is empty or is of another size.
    """
    if name.endswith(".npz"):
        file = AdmFile(name)
        file.check_size(shape)
        return Reference(name=name, pictures=FilePictures(file), file=file)
    channels, height, width = shape
    if name in DATASETS and name not in ("images", "latents"):
        return data_reference(DataConfig(name=name, size=height, channels=channels), shape)
    if not Path(name).exists():
        raise ValueError(
            f"there is no reference {name!r}: give a folder or archive of images, an .npz file, or "
            "digits"
        )
    if (Path(name) / MODEL_FILE).exists():
        raise ValueError(f"{name} is a run, not a reference; give the images it was trained on")
    if height != width:
        raise ValueError(
            f"samples of {height}x{width} pixels cannot be compared with {name}, whose images are "
            "cropped to squares; give an .npz file of that size"
        )
    config = DataConfig(name="images", path=name, size=height, channels=channels, labels="none")
    return data_reference(config, shape)


def data_reference(config: DataConfig, shape: Shape) -> Reference:
    """All images of a data set, as they are without the chance of training.

    Raises ValueError where they are latents, or of another size than the samples.
    """
    name = config.path if config.name in ("images", "latents") else config.name
    if config.name == "latents":
        raise ValueError(
            f"{name} holds latents, not images; give the images that they were made of, "
            "or an .npz file, as --reference (evaluation.reference in a recipe)"
        )
    data = load_data(replace(config, flip=False))
    if data.shape != shape:
        raise ValueError(
            f"the images of {name} are {_sizes(data.shape)}, and the samples {_sizes(shape)}; "
            "give a reference of that size"
        )
    return Reference(name=name, pictures=DataPictures(data))


def _sizes(shape: Shape) -> str:
    return " x ".join(map(str, shape))
