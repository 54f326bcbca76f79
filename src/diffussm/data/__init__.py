"""Data sets by name, and the order in which training sees their images."""

from diffussm.data.config import DATASETS, DataConfig, load_data
from diffussm.data.corrupt import CorruptCount
from diffussm.data.dataset import Batch, Dataset, ImageDataset, Subset, hold_out
from diffussm.data.digits import digits
from diffussm.data.loading import read_ahead
from diffussm.data.order import image_order, image_seeds, seeded

__all__ = [
    "DATASETS",
    "Batch",
    "CorruptCount",
    "DataConfig",
    "Dataset",
    "ImageDataset",
    "Subset",
    "digits",
    "hold_out",
    "image_order",
    "image_seeds",
    "load_data",
    "read_ahead",
    "seeded",
]
