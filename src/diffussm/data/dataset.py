"""What training needs of a data set: images by number, their labels, and the classes' names."""

from dataclasses import dataclass

from torch import Tensor

from diffussm.shapes import Image, Labels


@dataclass(frozen=True, kw_only=True)
class ImageDataset:
    """Images in memory, values in [-1, 1], each with the number of its class."""

    images: Image
    labels: Labels
    class_names: tuple[str, ...]
    """empty for a data set without classes"""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def batch(self, index: Tensor) -> tuple[Image, Labels]:
        """The images numbered `index`, (batch,), and their labels."""
        return self.images[index], self.labels[index]
