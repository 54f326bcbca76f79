"""Data sets by name, and the order in which training sees their images."""

from collections.abc import Callable

from diffussm.data.dataset import ImageDataset
from diffussm.data.digits import digits
from diffussm.data.loading import image_order, seeded

DATASETS: dict[str, Callable[[], ImageDataset]] = {"digits": digits}

__all__ = ["DATASETS", "ImageDataset", "digits", "image_order", "seeded"]
