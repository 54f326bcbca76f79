"""Handwritten digits, 8 x 8 grey pixels in ten classes, bundled with scikit-learn: no download.

1797 scans from the test part of the UCI "Optical Recognition of Handwritten Digits" set.
"""

import torch

from diffussm.data.dataset import ImageDataset


def digits() -> ImageDataset:
    """All 1797 digits as (1, 8, 8) images with values in [-1, 1]."""
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 8 - 1  # scans count 0..16
    return ImageDataset(
        images=images, labels=torch.from_numpy(classes).long(), class_names=tuple("0123456789")
    )
