"""Classifier-free guidance: a denoiser made from a denoiser.

    prediction = null + scale (conditional - null)

Ho & Salimans, "Classifier-Free Diffusion Guidance", 2022, equation 6, with scale = 1 + w.
Kynkäänniemi et al., "Applying Guidance in a Limited Interval", 2024: guidance only at some steps.
"""

import math
from dataclasses import dataclass

import torch

from diffussm.diffusion.gaussian import Denoiser
from diffussm.diffusion.schedules import full_precision
from diffussm.shapes import Image, Labels, Predicted, TimeStep

DIT_CHANNELS = 3
"""DiT's published samples guide the first 3 of 4 latent channels: its code began with RGB images,
and the constant stayed when images became latents. Numbers to compare with DiT's need it."""


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How strongly, when and on which channels a denoiser is guided."""

    scale: float = 1.0
    """0 is the unconditional prediction, 1 the conditional one, above 1 beyond it"""
    interval: tuple[float, float] = (0.0, 1.0)
    """guidance acts where t / steps lies in it, ends included; within [0, 1], 0 is no noise"""
    channels: int | None = None
    """guide only the first so many channels; None = all; DIT_CHANNELS to compare with DiT"""

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= self.scale < math.inf:
            raise ValueError(f"guidance scale must be finite and at least 0, not {self.scale}")
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"guidance interval must be (low, high) with 0 <= low <= high <= 1, "
                f"not {self.interval}"
            )
        if self.channels is not None and self.channels < 1:
            raise ValueError(f"guidance acts on at least 1 channel, not {self.channels}")


def guided(denoiser: Denoiser, guidance: Guidance, null_label: int, steps: int) -> Denoiser:
    """`denoiser` with guidance; `null_label` means "no label", `steps` is the process's length.

    Where guidance acts the network runs once, on a doubled batch; elsewhere once, as it is. A
    second half of predicted channels (the variance) comes from the conditional branch.
    The new denoiser raises ValueError without labels, and for images with too few channels.
    """

    def guided_denoiser(x_t: Image, t: TimeStep, y: Labels | None) -> Predicted:
        low, high = guidance.interval
        inside = (low <= t / steps) & (t / steps <= high)
        if guidance.scale == 1 or not inside.any():
            return denoiser(x_t, t, y)
        if y is None:
            raise ValueError(
                f"guidance scale {guidance.scale} needs labels; set it to 1 for images without"
            )
        channels = _guided_channels(guidance, x_t.shape[1])
        labels = torch.cat([y, torch.full_like(y, null_label)])
        output = denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), labels)
        conditional, null = full_precision(output).chunk(2)
        first, rest = conditional[:, :channels], conditional[:, channels:]
        null = null[:, :channels]
        pushed = null + guidance.scale * (first - null)
        pushed = torch.where(inside.reshape(-1, 1, 1, 1), pushed, first)
        return torch.cat([pushed, rest], dim=1)

    return guided_denoiser


def _guided_channels(guidance: Guidance, available: int) -> int:
    channels = available if guidance.channels is None else guidance.channels
    if channels > available:
        raise ValueError(
            f"guidance on {channels} channels of an image with {available}; take fewer"
        )
    return channels
