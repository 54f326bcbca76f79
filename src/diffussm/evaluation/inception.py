"""Inception-v3 as FID knows it: TensorFlow's graph of 2015-12-05, with 1008 classes.

It differs from the later Inception-v3 of torchvision, whose names its weights bear:

- images are resized to 299 x 299 as TensorFlow 1 did (`resize`), and are (x - 128) / 128;
- average pooling inside blocks does not count the zeros around an image;
- the pooling branch of the last block takes the largest value, not the mean.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016; Heusel et al.,
"GANs Trained by a Two Time-Scale Update Rule", 2017 (FID); Nash et al., "Generating Images with
Sparse Representations", 2021 (sFID).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor, nn

from diffussm.evaluation.features import Pixels, Spaces
from diffussm.evaluation.inception_blocks import (
    Conv,
    Mixed,
    halving_pool,
    large,
    large_to_middle,
    max_pool,
    mean_pool,
    middle,
    middle_to_small,
    small,
)
from diffussm.evaluation.inception_weights import check_weights, find_weights, read_weights

SIDE = 299
"""Pixels along one side of what the network sees."""
CLASSES = 1008
SPATIAL_CHANNELS = 7
"""Of the 17 x 17 positions of Mixed_6d, for sFID."""


class Inception(nn.Module):
    """A feature network (`diffussm.evaluation.features.FeatureNetwork`).

    pool       2048 means over the last 8 x 8 positions: FID, precision and recall, KID
    spatial    2023 numbers, the first 7 channels of Mixed_6d at 17 x 17 positions, channels last:
               sFID; they come from its branch of 1 x 1 convolutions
    logits     1008, for the Inception score; without their bias where `biased` is False, as in
               ADM's evaluator

    identity   SHA-256 of the file of weights
    """

    def __init__(self, identity: str, *, biased: bool = True):
        super().__init__()
        self.name = "Inception-v3 (FID)"
        self.identity = identity
        self.biased = biased
        self.spaces: Mapping[str, int] = {
            "pool": 2048,
            "spatial": SPATIAL_CHANNELS * 17 * 17,
            "logits": CLASSES,
        }
        self.Conv2d_1a_3x3 = Conv(3, 32, (3, 3), stride=2, padded=False)
        self.Conv2d_2a_3x3 = Conv(32, 32, (3, 3), padded=False)
        self.Conv2d_2b_3x3 = Conv(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = Conv(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = Conv(80, 192, (3, 3), padded=False)
        self.Mixed_5b = Mixed(192, large(pooled=32))
        self.Mixed_5c = Mixed(256, large(pooled=64))
        self.Mixed_5d = Mixed(288, large(pooled=64))
        self.Mixed_6a = Mixed(288, large_to_middle())
        self.Mixed_6b = Mixed(768, middle(inner=128))
        self.Mixed_6c = Mixed(768, middle(inner=160))
        self.Mixed_6d = Mixed(768, middle(inner=160))
        self.Mixed_6e = Mixed(768, middle(inner=192))
        self.Mixed_7a = Mixed(768, middle_to_small())
        self.Mixed_7b = Mixed(1280, small(mean_pool))
        self.Mixed_7c = Mixed(2048, small(max_pool))
        self.fc = nn.Linear(2048, CLASSES)

    def forward(self, images: Pixels) -> Spaces:
        """Features of images of any size, of 3 channels or of 1 (grey, which is repeated).

        Raises ValueError for other channels.
        """
        channels = images.shape[1]
        if channels not in (1, 3):
            raise ValueError(
                f"Inception sees images of 3 channels, or of 1 (grey), not of {channels}; decode "
                "latents first, or take other features"
            )
        device = self.fc.weight.device
        x = images.to(device).float().expand(-1, 3, -1, -1)
        exact = torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False)
        with torch.autocast(device.type, enabled=False), exact:
            return self._features((resize(x, SIDE) - 128) / 128)

    def _features(self, x: Float32[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(halving_pool(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(halving_pool(x))))
        half_way = self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(self.Mixed_6e(half_way))))
        pool = x.mean((2, 3))
        return {
            "pool": pool,
            "spatial": half_way[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1),
            "logits": F.linear(pool, self.fc.weight, self.fc.bias if self.biased else None),
        }


def load_inception(
    path: Path | None = None,
    *,
    biased: bool = True,
    download: bool = False,
    device: torch.device | str = "cpu",
) -> Inception:
    """The network with its published weights, found as `find_weights` does.

    Raises ValueError where they are missing, truncated or others.
    """
    path = find_weights(path, download=download)
    identity = check_weights(path)
    weights = read_weights(path)
    with torch.random.fork_rng(devices=[]):  # fresh weights must not use up the caller's numbers
        network = Inception(identity, biased=biased)
    state = network.state_dict()
    wrong = [name for name in state if _shape(weights.get(name)) != tuple(state[name].shape)]
    wrong = [name for name in wrong if not name.endswith("num_batches_tracked")]
    if wrong:
        raise ValueError(f"{path} has no fitting {wrong[0]}; it is not Inception as FID knows it")
    network.load_state_dict(weights, strict=False)
    return network.to(device).eval().requires_grad_(False)


def resize(
    images: Float[Tensor, "batch channels height width"], side: int
) -> Float[Tensor, "batch channels side side"]:
    """Images of `side` x `side` pixels, as TensorFlow 1 made them.

        pixel i of n lies at p = i * before / n;  value = v[floor p] + (p - floor p) * difference

    Bilinear, from the upper left corner: no centres of pixels, and no wider filter to shrink.
    """
    for axis in (3, 2):  # along rows, then along columns
        before = images.shape[axis]
        place = torch.arange(side, device=images.device) * torch.tensor(before / side)
        lower = place.long().clamp(max=before - 1)
        share = (place - lower).unsqueeze(-1) if axis == 2 else place - lower
        left = images.index_select(axis, lower)
        right = images.index_select(axis, (lower + 1).clamp(max=before - 1))
        images = left + (right - left) * share
    return images


def _shape(weight: Any) -> tuple[int, ...] | None:
    return tuple(weight.shape) if isinstance(weight, Tensor) else None
