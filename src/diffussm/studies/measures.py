"""What a study measures of a trained model: its metrics by name, columns of its table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffussm.config import choose
from diffussm.data import Dataset, seeded
from diffussm.diffusion import Guidance, Sampling, diffusion_loss
from diffussm.evaluation.digits import score_digits
from diffussm.evaluation.digits_features import digits_features
from diffussm.evaluation.features import extract
from diffussm.evaluation.frechet import frechet_distance
from diffussm.evaluation.moments import moments
from diffussm.generation import Generator, to_uint8
from diffussm.shapes import Image

STUDY = 0x73747564
"""Tells the draws of a study from all others."""
BATCH = 100


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What is measured of each trained model, and how finely."""

    metrics: tuple[str, ...] = ("loss",)
    """Columns of the table, of METRICS."""
    draws: int = 8
    """Noise and time steps drawn for each held-out image, at least 1."""
    samples: int = 500
    """Images drawn where a metric needs some, at least 2."""
    steps: int = 25
    """Calls of the network for each of them, by DDIM."""
    guidance: float = 1.5
    """Scale of the metrics that say guided."""

    def __post_init__(self):
        for name in self.metrics:
            choose("metric", name, METRICS)
        for name, least in (("draws", 1), ("samples", 2), ("steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"measure.{name} must be at least {least}, not {getattr(self, name)}"
                )


@dataclass(frozen=True)
class Subject:
    """A trained model and what it is measured with; what several metrics need is made once."""

    generator: Generator
    data: Dataset
    """All images of its data set."""
    held_out: Dataset
    """Those of them that it never saw."""
    measuring: Measuring

    @cached_property
    def asked(self) -> list[int] | None:
        """The class of each image to draw."""
        return self.generator.labels(self.measuring.samples)

    @cached_property
    def drawn(self) -> Image:
        """Images without guidance."""
        return self._draw(1.0)

    @cached_property
    def drawn_guided(self) -> Image:
        """Images with guidance."""
        return self._draw(self.measuring.guidance)

    def _draw(self, scale: float) -> Tensor:
        return self.generator.sample(
            seeds=range(self.measuring.samples),
            labels=self.asked,
            sampling=Sampling(sampler="ddim", steps=self.measuring.steps),
            guidance=Guidance(scale=scale),
            batch_size=BATCH,
        ).cpu()


@torch.no_grad()
def held_out_loss(subject: Subject) -> float:
    """Squared error of the prediction on images never seen, `draws` time steps for each.

    Time steps lie evenly over the process, in an order drawn once for all models, as the noise is.
    """
    network, diffusion = subject.generator.model, subject.generator.diffusion
    device, held_out = next(network.parameters()).device, subject.held_out
    count = len(held_out) * subject.measuring.draws
    order = torch.randperm(count, generator=seeded(STUDY))
    times = order * len(diffusion.schedule) // count
    total = 0.0
    for numbers in torch.arange(count).split(BATCH):
        batch = held_out.batch(numbers % len(held_out), _no_mirror(numbers))
        noises = [
            torch.randn(batch.images.shape[1:], generator=seeded(STUDY, number))
            for number in numbers.tolist()
        ]
        labels = batch.labels.to(device) if subject.generator.config.model.num_classes else None
        losses = diffusion_loss(
            network,
            diffusion,
            batch.images.to(device),
            times[numbers].to(device),
            labels,
            torch.stack(noises).to(device),
        )
        total += losses.simple.sum().item()
    return total / count


def recognised(subject: Subject) -> float:
    """Share of digits drawn without guidance that show the class that was asked for."""
    return _recognised(subject, subject.drawn)


def recognised_guided(subject: Subject) -> float:
    """The same with guidance."""
    return _recognised(subject, subject.drawn_guided)


def fd_digits(subject: Subject) -> float:
    """Frechet distance of digits drawn without guidance from all real ones, in digits features."""
    return _fd_digits(subject, subject.drawn)


def fd_digits_guided(subject: Subject) -> float:
    """The same with guidance."""
    return _fd_digits(subject, subject.drawn_guided)


@dataclass(frozen=True)
class Metric:
    """One column of a study's table."""

    heading: str
    measure: Callable[[Subject], float]
    digits: int
    """After the point."""
    scale: float = 1.0
    """What a value is multiplied with where it is shown."""
    only: str = ""
    """The data set that it is for; "" for any."""


METRICS: dict[str, Metric] = {
    "loss": Metric("held-out loss", held_out_loss, 4),
    "fd-digits": Metric("FD-digits", fd_digits, 2, only="digits"),
    "fd-digits-guided": Metric("FD-digits, guided", fd_digits_guided, 2, only="digits"),
    "recognised": Metric("recognised, %", recognised, 1, 100.0, "digits"),
    "recognised-guided": Metric("guided, %", recognised_guided, 1, 100.0, "digits"),
}


def _recognised(subject: Subject, images: Tensor) -> float:
    assert subject.asked is not None
    return score_digits(images, subject.asked).recognised


def _fd_digits(subject: Subject, images: Tensor) -> float:
    network = digits_features()
    everything = torch.arange(len(subject.data))
    real = subject.data.batch(everything, _no_mirror(everything)).images
    ours, theirs = (moments(extract(network, [_bytes(each)])["pool"]) for each in (images, real))
    return frechet_distance(ours, theirs)


def _bytes(images: Tensor) -> Tensor:
    return torch.from_numpy(to_uint8(images)).permute(0, 3, 1, 2).contiguous()


def _no_mirror(numbers: Tensor) -> Sequence[int]:
    """Seeds for images of which nothing is left to chance, or the same for every model."""
    return numbers.tolist()
