"""Files of images and of reference moments, as ADM's evaluator exchanges them: NumPy's npz.

    arr_0            images, uint8, (count, height, width, channels)
    arr_1            labels, whole numbers, (count,)
    mu, sigma        moments of Inception's pool features, from which FID is computed
    mu_s, sigma_s    those of its spatial features, from which sFID is

Any of them may be missing. Images are read in order, a batch at a time. Nothing is unpickled.

Dhariwal & Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, appendix; the names are
those of the files published with it.
"""

import hashlib
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from numpy.lib import format as npy
from torch import Tensor

from diffussm.checkpoint import one_line
from diffussm.evaluation.features import Pixels
from diffussm.evaluation.moments import Moments

MOMENTS = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
"""Names of mean and covariance of each space of features."""
IMAGES, LABELS = "arr_0", "arr_1"
BATCH = 100


class Kind(NamedTuple):
    """What an array must be."""

    words: str
    dtype: type[np.generic]
    """Or of a narrower type of this sort."""
    axes: int


KINDS = {
    IMAGES: Kind("uint8 images (count, height, width, channels)", np.uint8, 4),
    LABELS: Kind("whole numbers (count,)", np.integer, 1),
    "mu": Kind("floating-point numbers (2048,)", np.floating, 1),
    "sigma": Kind("floating-point numbers (2048, 2048)", np.floating, 2),
    "mu_s": Kind("floating-point numbers (2023,)", np.floating, 1),
    "sigma_s": Kind("floating-point numbers (2023, 2023)", np.floating, 2),
}
"""Arrays by name; others are passed over."""

UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError)
UNREADABLE += (tokenize.TokenError,)
"""What Python raises for files that are no npz, or not whole."""


class AdmFile:
    """An npz of samples or of a reference.

    Raises ValueError for a file that is missing, truncated or no npz, that holds none of the arrays
    above, or whose arrays are of another kind or shape than these.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"there is no file {path}; give the path of an npz")
        self._headers: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = set(archive.namelist())
                for name in KINDS:
                    if f"{name}.npy" in members:
                        with archive.open(f"{name}.npy") as file:
                            self._headers[name] = _header(file)
                            start, end = file.tell(), archive.getinfo(file.name).file_size
                        _check_length(name, *self._headers[name], end - start)
        except UNREADABLE as error:
            raise self._damaged(error) from None
        self._check()

    @property
    def count(self) -> int | None:
        """Images in the file; None where it has moments alone."""
        return self._headers[IMAGES][0][0] if IMAGES in self._headers else None

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of its images; None where it has moments alone."""
        if IMAGES not in self._headers:
            return None
        _, height, width, channels = self._headers[IMAGES][0]
        return channels, height, width

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def labels(self) -> Int64[Tensor, " count"] | None:
        """Label of each image, where the file has them."""
        return torch.from_numpy(self._read(LABELS)).long() if LABELS in self._headers else None

    def images(self, batch: int = BATCH) -> Iterator[Pixels]:
        """Its images in order, channels first, `batch` at a time.

        Raises ValueError where there are none, or where the file is damaged.
        """
        if IMAGES not in self._headers:
            raise ValueError(f"{self.path} has no images ({IMAGES}); give a file that has")
        (count, *shape), _ = self._headers[IMAGES]
        size = int(np.prod(shape))
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{IMAGES}.npy") as file:
                _header(file)
                for start in range(0, count, batch):
                    length = min(batch, count - start)
                    content = file.read(length * size)
                    if len(content) < length * size:
                        raise EOFError(f"it ends after image {start + len(content) // size}")
                    pixels = torch.frombuffer(bytearray(content), dtype=torch.uint8)
                    yield pixels.view(length, *shape).permute(0, 3, 1, 2).contiguous()
        except UNREADABLE as error:
            raise self._damaged(error) from None

    def moments(self, space: str) -> Moments | None:
        """Stored moments of the features `space` ("pool", "spatial"), where the file has them.

        Of how many images is not stored. Raises ValueError where the file is damaged.
        """
        names = MOMENTS[space]
        if not all(name in self._headers for name in names):
            return None
        mean, covariance = (torch.from_numpy(self._read(name)).double() for name in names)
        if not (mean.isfinite().all() and covariance.isfinite().all()):
            raise ValueError(f"{names[0]} or {names[1]} of {self.path} holds NaN; get it anew")
        return Moments(count=None, mean=mean, covariance=covariance)

    def check_size(self, image_shape: tuple[int, int, int]) -> None:
        """ValueError unless its images have these channels, height and width, where it has any."""
        if self.image_shape not in (None, image_shape):
            raise ValueError(
                f"{self.path} has images of {_size(self.image_shape)}, and the samples are of "
                f"{_size(image_shape)}; give a reference of that size"
            )

    def _check(self) -> None:
        if not self._headers:
            raise ValueError(
                f"{self.path} holds neither images nor moments; it needs one of {', '.join(KINDS)}"
            )
        for name, (shape, dtype) in self._headers.items():
            kind = KINDS[name]
            if dtype.hasobject:
                raise ValueError(
                    f"{name} of {self.path} holds pickled Python objects, which can run code and "
                    "are refused; write it anew as a plain array"
                )
            if not np.issubdtype(dtype, kind.dtype) or len(shape) != kind.axes:
                raise ValueError(
                    f"{name} of {self.path} is {dtype} of shape {shape}; it must be {kind.words}"
                )
        shapes = {name: shape for name, (shape, _) in self._headers.items()}
        if IMAGES in shapes and (0 in shapes[IMAGES] or shapes[IMAGES][3] not in (1, 3)):
            raise ValueError(
                f"{IMAGES} of {self.path} has shape {shapes[IMAGES]}; it must hold images, at "
                "least one, with 1 or 3 channels last"
            )
        if LABELS in shapes and IMAGES in shapes and shapes[LABELS][0] != shapes[IMAGES][0]:
            raise ValueError(
                f"{self.path} has {shapes[LABELS][0]} labels for {shapes[IMAGES][0]} images"
            )
        for mean, covariance in MOMENTS.values():
            dims = {*shapes.get(mean, ()), *shapes.get(covariance, ())}
            if len(dims) > 1:
                raise ValueError(
                    f"{mean} and {covariance} of {self.path} have shapes {shapes.get(mean)} and "
                    f"{shapes.get(covariance)}; they do not belong together"
                )

    def _read(self, name: str) -> np.ndarray:
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                return arrays[name]
        except UNREADABLE as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(
            f"{self.path} is no npz, or not all of one ({one_line(error)}); get or write it anew"
        )


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array that follows in a file."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in readers:
        raise ValueError(f"arrays of npy version {version} are not known")
    shape, by_columns, dtype = readers[version](file)
    if by_columns and len(shape) == 4:
        raise ValueError("its images lie column by column; write them with numpy.ascontiguousarray")
    return shape, dtype


def _check_length(name: str, shape: tuple[int, ...], dtype: np.dtype, length: int) -> None:
    """ValueError unless an array of this shape and type is `length` bytes long."""
    if dtype.hasobject:
        return  # refused elsewhere, with its reason
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != length:
        raise ValueError(f"{name} says its shape is {shape}, but it is {length} bytes long")


def _size(image_shape: tuple[int, int, int]) -> str:
    channels, height, width = image_shape
    return f"{height}x{width} pixels and {channels} channels"
