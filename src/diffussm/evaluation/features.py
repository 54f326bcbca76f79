"""Images to features: what every metric here looks at in place of pixels.

A feature network sees blocks of `BLOCK` images, counted by the images' numbers and not by the
batches in which they come, so that the features are the same to the bit for any batch size and any
number of ranks: in a network's sums the size of a batch can change the last bits.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

Pixels = UInt8[Tensor, "batch channels height width"]
Features = Float32[Tensor, "images dim"]
Real = Float32[Tensor, "real dim"]
Drawn = Float32[Tensor, "drawn dim"]
"""Features of real images, and of drawn ones, from one network."""
Spaces = Mapping[str, Float32[Tensor, "_ _"]]
"""Features of the same images by the name of their space, each of its own width."""

BLOCK = 50
"""Images that a feature network sees at once."""


@runtime_checkable
class FeatureNetwork(Protocol):
    """What makes features of images, without chance and each image by itself."""

    name: str
    """For people, and for the name of a distance between such features."""
    identity: str
    """SHA-256 of its weights."""
    spaces: Mapping[str, int]
    """What it gives of an image, by name, and of how many numbers: {"pool": 2048, ...}."""

    def __call__(self, images: Pixels, /) -> Spaces:
        """Features of images of bytes from any device; ValueError for channels it does not take."""
        ...


def extract(network: FeatureNetwork, images: Iterable[Pixels]) -> Spaces:
    """Features of a stream of images, in its order, on the CPU; one tensor for each space.

    images    batches of any sizes, channels first, bytes from 0 to 255
    Raises ValueError for a stream without images, for images that are not bytes or not of one size,
    and for features that are not finite.
    """
    made: dict[str, list[Tensor]] = {space: [] for space in network.spaces}
    count = 0
    for block in blocks(images):
        with torch.no_grad():
            given = network(block)
        for space, dim in network.spaces.items():
            features = given[space].float().cpu()
            if features.shape != (len(block), dim):
                raise ValueError(
                    f"{network.name} gave {tuple(features.shape)} numbers as {space!r} of "
                    f"{len(block)} images, not {(len(block), dim)}; it is not what it says it is"
                )
            _check_finite(network.name, space, features, count)
            made[space].append(features)
        count += len(block)
    if not count:
        raise ValueError("there are no images to make features of; give at least one")
    # one space after the other, so that only one lies in memory twice
    return {space: torch.cat(made.pop(space)) for space in network.spaces}


def blocks(images: Iterable[Pixels]) -> Iterator[Pixels]:
    """The same images in blocks of `BLOCK`, fewer in the last; errors as in `extract`."""
    held: Tensor | None = None
    for batch in images:
        _check_pixels(batch, held)
        held = batch if held is None or not len(held) else torch.cat([held, batch])
        while len(held) >= BLOCK:
            yield held[:BLOCK].clone(memory_format=torch.contiguous_format)
            held = held[BLOCK:]
    if held is not None and len(held):
        yield held.clone(memory_format=torch.contiguous_format)


def numbers_of(rank: int, ranks: int, count: int) -> list[range]:
    """Numbers of the images, out of `count`, of the blocks that rank `rank` of `ranks` makes.

    In this order they are the stream that it gives to `extract`; none where it has no block.
    """
    starts = range(rank * BLOCK, count, ranks * BLOCK)
    return [range(start, min(start + BLOCK, count)) for start in starts]


def merge(parts: Sequence[Spaces], count: int) -> Spaces:
    """What `extract` gave on each rank, in the order of ranks, as the features of all images.

    A rank without a block has the part {}.
    """
    merged: dict[str, Tensor] = {}
    for rank, part in enumerate(parts):
        numbers = [number for block in numbers_of(rank, len(parts), count) for number in block]
        for space, features in part.items():
            whole = merged.setdefault(space, torch.full((count, features.shape[1]), torch.nan))
            whole[numbers] = features
    return merged


def _check_pixels(batch: Any, held: Tensor | None) -> None:
    if not isinstance(batch, Tensor) or batch.dtype != torch.uint8:
        found = getattr(batch, "dtype", type(batch).__name__)
        raise ValueError(
            f"images must be tensors of bytes (torch.uint8, 0 to 255), not {found}; "
            "round them first, as diffussm.generation.to_uint8 does"
        )
    if batch.ndim != 4:
        raise ValueError(
            f"images must be (batch, channels, height, width), not {tuple(batch.shape)}"
        )
    if held is not None and batch.shape[1:] != held.shape[1:]:
        raise ValueError(
            f"images of {tuple(batch.shape[1:])} follow images of {tuple(held.shape[1:])} "
            "(channels, height, width); all must be of one size"
        )


def _check_finite(name: str, space: str, features: Tensor, before: int) -> None:
    bad = ~torch.isfinite(features).all(1)
    if bad.any():
        number = before + int(bad.nonzero()[0])
        raise ValueError(
            f"{name} gave NaN or infinite numbers as {space!r} of image {number}; "
            "its weights are damaged, or this is no network for such images"
        )
