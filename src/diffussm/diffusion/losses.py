"""The training loss: squared error of the prediction, and the variational bound for the variance.

    total = weight * mean (prediction - target)^2 + bound
    bound = KL( q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t) ) at t > 0,   - log p(x_0 | x_1) at t = 0

The bound trains only v: its mean is detached. It is in bits per element and not rescaled by the
number of steps.

Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, equations 14 to 16.
Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023, section 3.4.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from diffussm.config import choose
from diffussm.diffusion.gaussian import Denoiser, GaussianDiffusion
from diffussm.diffusion.prediction import Prediction, Scale
from diffussm.shapes import Image, Labels, Predicted, TimeStep

MIN_SNR_GAMMA = 5.0
"""Hang et al.'s bound on the weight."""

PerImage = Float[Tensor, " batch"]


class Loss(NamedTuple):
    """The loss of each image, (batch,)."""

    total: PerImage
    """what training minimises: weight * simple + bound"""
    simple: PerImage
    """squared error of the prediction, mean over elements"""
    bound: PerImage
    """variational bound, bits per element; 0 without a learned variance"""


def unweighted(prediction: Prediction, alpha: Scale, sigma: Scale) -> Scale:
    """1 for every step: the "simple" loss of Ho et al. 2020, equation 14."""
    return torch.ones_like(alpha)


def min_snr(prediction: Prediction, alpha: Scale, sigma: Scale) -> Scale:
    """The loss of x_0 weighted by min(SNR, gamma), SNR = (alpha / sigma)^2; Hang et al., eq. 8."""
    snr = (alpha / sigma) ** 2
    return snr.clamp(max=MIN_SNR_GAMMA) / prediction.error_ratio(alpha, sigma)


WEIGHTINGS: dict[str, Callable[[Prediction, Scale, Scale], Scale]] = {
    "none": unweighted,
    "min-snr": min_snr,
}


def diffusion_loss(
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    x_0: Image,
    t: TimeStep,
    y: Labels | None,
    noise: Image,
    weighting: str = "none",
) -> Loss:
    """The loss of `denoiser` on images `x_0` at steps `t` of `diffusion` with standard `noise`.

    Raises ValueError for an unknown `weighting` and for a wrong number of predicted channels.
    """
    weigh = choose("loss weighting", weighting, WEIGHTINGS)
    alpha, sigma = diffusion.scales(x_0, t)
    x_t = diffusion.add_noise(x_0, t, noise)
    prediction, v = diffusion.split(denoiser(x_t, diffusion.timesteps(t), y), x_0.shape[1])
    target = diffusion.prediction.target(x_0, noise, alpha, sigma)
    simple = (prediction - target).square().mean(dim=(1, 2, 3))
    if v is None:
        bound = torch.zeros_like(simple)
    else:
        mean_detached = torch.cat([prediction.detach(), v], dim=1)
        bound = variational_bound(diffusion, mean_detached, x_0, x_t, t)
    weight = weigh(diffusion.prediction, alpha, sigma).flatten()
    return Loss(weight * simple + bound, simple, bound)


def variational_bound(
    diffusion: GaussianDiffusion, output: Predicted, x_0: Image, x_t: Image, t: TimeStep
) -> PerImage:
    """One step's term of the variational bound, in bits per element; Ho et al. 2020, equation 5."""
    mean, log_variance = diffusion.posterior(x_0, x_t, t)
    denoised = diffusion.denoised(output, x_t, t)
    divergence = gaussian_kl(mean, log_variance, denoised.mean, denoised.log_variance)
    surprise = -pixel_log_likelihood(x_0, denoised.mean, denoised.log_variance)
    nats = torch.where((t == 0).reshape(-1, 1, 1, 1), surprise, divergence)
    return nats.mean(dim=(1, 2, 3)) / math.log(2)


def gaussian_kl(mean: Image, log_variance: Image, mean_p: Image, log_variance_p: Image) -> Image:
    """KL( N(mean, variance) || N(mean_p, variance_p) ) of each element, in nats."""
    log_ratio = log_variance - log_variance_p
    distance = (mean - mean_p).square() * torch.exp(-log_variance_p)
    return 0.5 * (log_ratio.exp() - 1 - log_ratio + distance)


def pixel_log_likelihood(x: Image, mean: Image, log_variance: Image) -> Image:
    """Log probability, in nats, that a Gaussian falls in the 8-bit bin around `x` in [-1, 1].

    The outermost bins reach to infinity. Ho et al. 2020, equation 13.
    """
    deviation = torch.exp(0.5 * log_variance)
    centre, half_bin = x - mean, 1 / 255
    # The bin mirrored to the lower tail, where the difference of two CDFs keeps its digits.
    mirrored = -centre.abs()
    upper = torch.special.ndtr((mirrored + half_bin) / deviation)
    inside = upper - torch.special.ndtr((mirrored - half_bin) / deviation)
    lowest = torch.special.ndtr((half_bin + centre) / deviation)
    highest = torch.special.ndtr((half_bin - centre) / deviation)
    probability = torch.where(x < -0.999, lowest, torch.where(x > 0.999, highest, inside))
    # Far outside the Gaussian the probability underflows; the logarithm stays finite.
    return probability.clamp(min=1e-12).log()
