"""A trained model that draws: seed i gives image i, whatever else is in the batch.

Every image has a generator of random numbers of its own, on the CPU, so that batch size, device
and the other seeds do not change it (beyond rounding in the network).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from diffussm.autoencoder import Autoencoder, load_autoencoder
from diffussm.checkpoint import Header, load_model
from diffussm.diffusion import (
    Denoiser,
    GaussianDiffusion,
    Guidance,
    Sample,
    Sampling,
    guided,
    sample,
)
from diffussm.shapes import Image
from diffussm.ssm.kernel_layer import reusing_kernels

Progress = Callable[[int, int], None]
"""Told after each call of the network: calls made, calls in all."""


class Generator:
    """A network with its diffusion process; `diffussm.load(path)` makes one."""

    def __init__(self, model: nn.Module, config: Header):
        self.model = model
        self.config = config
        self.diffusion = GaussianDiffusion(config.diffusion)

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """What makes images of latents; ValueError where it cannot be loaded."""
        device = next(self.model.parameters()).device
        return load_autoencoder(self.config.autoencoder, self.config.model.in_channels, device)

    def labels(self, count: int, classes: Sequence[int] | None = None) -> list[int] | None:
        """Labels of `count` images: `classes` (all, unless given) in turn; None if unconditional.

        Raises ValueError for classes out of range, or any for an unconditional model.
        """
        known = self.config.model.num_classes
        if not known:
            if classes:
                raise ValueError("this model is unconditional: it draws without classes")
            return None
        classes = range(known) if classes is None else classes
        for number in classes:
            if not 0 <= number < known:
                raise ValueError(f"class {number} does not exist; this model has 0 to {known - 1}")
        return [classes[i % len(classes)] for i in range(count)]

    def sample(
        self,
        *,
        seeds: Sequence[int],
        labels: Sequence[int] | None = None,
        sampling: Sampling | None = None,
        guidance: Guidance | None = None,
        size: tuple[int, int] | None = None,
        batch_size: int = 100,
        progress: Progress | None = None,
    ) -> Image:
        """Images (seeds, channels, height, width) in [-1, 1], one for each seed, decoded.

        labels      the class of each seed; all classes in turn, unless given
        sampling, guidance    the model's usual ones, unless given
        size        height and width in pixels; those of training, unless given
        Raises ValueError for labels, seeds or a size that the model cannot take, and where the
        autoencoder of its latents cannot be loaded.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        labels = self.labels(len(seeds)) if labels is None else labels
        self._check(seeds, labels)
        total = (sampling or self.config.sampling).total * -(-len(seeds) // batch_size)
        autoencoder = self.autoencoder
        denoiser = self._denoiser(guidance)  # one for all: its kernels are computed once
        images, calls = [], 0
        for start in range(0, len(seeds), batch_size):
            part = slice(start, start + batch_size)
            some = None if labels is None else labels[part]
            drawn = torch.empty(0)
            for state in self._states(denoiser, seeds[part], some, sampling, size):
                drawn, calls = state.x, calls + 1
                if progress:
                    progress(calls, total)
            images.append(autoencoder.decode(drawn))
        return torch.cat(images)

    def steps(
        self,
        seeds: Sequence[int],
        labels: Sequence[int] | None = None,
        sampling: Sampling | None = None,
        guidance: Guidance | None = None,
        size: tuple[int, int] | None = None,
    ) -> Iterator[Sample]:
        """The states on the way to one batch; the last one's `x` is the images or latents."""
        self._check(seeds, labels)
        return self._states(self._denoiser(guidance), seeds, labels, sampling, size)

    def _denoiser(self, guidance: Guidance | None) -> Denoiser:
        config, denoiser = self.config, reusing_kernels(self.model)
        if config.model.num_classes:
            guidance = guidance or config.guidance
            return guided(denoiser, guidance, config.model.num_classes, config.diffusion.steps)
        if guidance and guidance.scale != 1:
            raise ValueError("this model is unconditional: guidance must be 1")
        return denoiser

    def _states(
        self,
        denoiser: Denoiser,
        seeds: Sequence[int],
        labels: Sequence[int] | None,
        sampling: Sampling | None,
        size: tuple[int, int] | None,
    ) -> Iterator[Sample]:
        config, device = self.config, next(self.model.parameters()).device
        latent = self._latent_size(size) if size else config.model.size
        draw = _noise_by_seed(seeds, (config.model.in_channels, *latent))
        y = None if labels is None else torch.tensor(list(labels), device=device)
        return sample(
            denoiser,
            self.diffusion,
            draw().to(device),
            y,
            lambda: draw().to(device),
            sampling or config.sampling,
        )

    def _latent_size(self, size: tuple[int, int]) -> tuple[int, int]:
        factor = self.config.autoencoder.factor
        if any(side % factor for side in size):
            raise ValueError(
                f"{size[0]}x{size[1]} pixels have no latent: sides must be multiples of {factor}"
            )
        return size[0] // factor, size[1] // factor

    def _check(self, seeds: Sequence[int], labels: Sequence[int] | None) -> None:
        if not seeds:
            raise ValueError("there is nothing to draw: give at least one seed")
        for seed in seeds:
            if not 0 <= seed < 2**63:
                raise ValueError(f"seed {seed} must lie in [0, 2^63)")
        if labels is not None:
            self.labels(len(labels), labels)
            if len(labels) != len(seeds):
                raise ValueError(f"{len(seeds)} seeds need as many labels, not {len(labels)}")


def load(
    path: str | Path, device: str | torch.device = "cpu", autoencoder: str | None = None
) -> Generator:
    """The trained model of a run folder or model file; ValueError where it cannot be read.

    autoencoder    folder or Hub name of what decodes its latents; the one it names, unless given
    """
    network, header = load_model(path, device)
    if autoencoder is not None:
        if header.autoencoder.is_identity:
            raise ValueError(f"{path} draws pixels: it takes no autoencoder")
        chosen = replace(header.autoencoder, name=autoencoder, identity="")  # whatever it holds
        header = replace(header, autoencoder=chosen)
    return Generator(network, header)


def _noise_by_seed(seeds: Sequence[int], shape: tuple[int, ...]) -> Callable[[], Tensor]:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return lambda: torch.stack([torch.randn(shape, generator=each) for each in generators])
