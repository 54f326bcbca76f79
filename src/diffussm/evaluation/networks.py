"""Feature networks by name, and how their metrics are called.

Published names (FID, sFID, IS, precision, recall, KID) are those of Inception-v3 with its published
weights, and of nothing else: whatever another network sees bears its name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from diffussm.config import unknown
from diffussm.evaluation.digits_features import digits_features
from diffussm.evaluation.features import FeatureNetwork, Features, Pixels
from diffussm.evaluation.inception import load_inception
from diffussm.evaluation.onnx_features import OnnxFeatures


@dataclass(frozen=True, kw_only=True)
class Seer:
    """A feature network, and what people call what it measures."""

    network: FeatureNetwork
    called: Callable[[str], str]
    """The name of a metric, from its plain one: FD becomes FID."""
    resize: str
    """What happens to images before it sees them."""
    published: bool = False
    """Whether it is the one that stored moments of references were made with."""


@dataclass(frozen=True, kw_only=True)
class SeerOptions:
    """What the command line says about feature networks; each takes what concerns it."""

    weights: Path | None = None
    """File of Inception's weights; the usual places are searched unless given."""
    adm: bool = False
    """Whether logits are made as in ADM's evaluator."""
    device: torch.device


def load_seer(name: str, options: SeerOptions) -> Seer:
    """The feature network `name`: one of `SEERS`, or an .onnx file.

    Raises ValueError where there is none, or its weights are missing or damaged.
    """
    if name in SEERS:
        return SEERS[name](options)
    if name.endswith(".onnx"):
        network = OnnxFeatures(Path(name))
        return Seer(
            network=network,
            called=lambda plain: f"{LONG.get(plain, plain)} ({network.name})",
            resize="as its graph does",
        )
    allowed = unknown("feature network", name, SEERS)
    raise ValueError(f"{allowed}, or the path of an .onnx file")


def _inception(options: SeerOptions) -> Seer:
    network = load_inception(options.weights, biased=not options.adm, device=options.device)
    return Seer(
        network=network,
        called=lambda plain: PUBLISHED.get(plain, plain),
        resize="299 x 299, bilinear as TensorFlow 1",
        published=True,
    )


def _digits(options: SeerOptions) -> Seer:
    network = digits_features().to(options.device)
    return Seer(network=network, called=lambda plain: f"{plain}-digits", resize="none")


SEERS: dict[str, Callable[[SeerOptions], Seer]] = {"inception": _inception, "digits": _digits}
PUBLISHED = {"FD": "FID", "sFD": "sFID"}
LONG = {"FD": "Frechet distance"}


class Narrowed:
    """A feature network of which only some spaces are wanted, so that no others fill the memory."""

    def __init__(self, network: FeatureNetwork, spaces: set[str]):
        self.name, self.identity = network.name, network.identity
        self.spaces: Mapping[str, int] = {
            space: dim for space, dim in network.spaces.items() if space in spaces
        }
        self._network = network

    def __call__(self, images: Pixels) -> Mapping[str, Features]:
        """As the network; `spaces` says which of its features count."""
        return self._network(images)
