"""The Gaussian diffusion process: noise added to an image, and taken away one step at a time.

    q(x_t | x_0)         = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I)
    p(x_{t-1} | x_t)     = N(mean of q(x_{t-1} | x_t, x_0 = the network's estimate), variance)
    log variance         = v' log beta_t + (1 - v') log beta_tilde_t,    v' = (v + 1) / 2

Ho et al., "Denoising Diffusion Probabilistic Models", 2020, equations 4 to 7.
Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, equation 15.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from diffussm.config import choose
from diffussm.diffusion.prediction import PREDICTIONS, Scale
from diffussm.diffusion.schedules import SCHEDULES, NoiseSchedule, at, full_precision, respace
from diffussm.shapes import Image, Labels, Predicted, TimeStep

Denoiser = Callable[[Image, TimeStep, Labels | None], Predicted]
"""Anything that maps (x_t, t, y) to a prediction; `t` counts steps of the original process."""


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """Which process a network is trained on."""

    schedule: str = "linear"
    """how noise grows, a name in SCHEDULES"""
    steps: int = 1000
    """length of the process, at least 1"""
    prediction: str = "eps"
    """what the network predicts, a name in PREDICTIONS"""
    learned_variance: bool = True
    """the network also predicts v, between the bounds of the reverse variance; without it the
    variance is beta_tilde, the lower bound"""
    clip_x0: bool = False
    """data lie in [-1, 1], so a predicted x_0 is clamped; for pixels, not latents"""

    def __post_init__(self) -> None:
        choose("noise schedule", self.schedule, SCHEDULES)
        choose("prediction type", self.prediction, PREDICTIONS)
        if self.steps < 1:
            raise ValueError(f"a diffusion process has at least 1 step, not {self.steps}")


class Denoised(NamedTuple):
    """p(x_{t-1} | x_t) as a network sees it, and the estimates it came from."""

    mean: Image
    log_variance: Image
    x_0: Image
    eps: Image


class GaussianDiffusion:
    """A diffusion process; `index` counts the steps of its schedule, 0 being the least noise.

    Arithmetic is done in float32 or finer, whatever the images' type. A `schedule` of one's own
    stands in for the one that `config` names.
    """

    def __init__(self, config: DiffusionConfig, schedule: NoiseSchedule | None = None) -> None:
        if schedule is None:
            betas = SCHEDULES[config.schedule](config.steps)
            schedule = NoiseSchedule(betas, torch.arange(config.steps))
        self.config = config
        self.schedule = schedule
        self.prediction = PREDICTIONS[config.prediction]

    def respaced(self, spacing: str) -> "GaussianDiffusion":
        """The same process on fewer steps; `spacing` and errors as in `kept_timesteps`."""
        return GaussianDiffusion(self.config, respace(self.schedule, spacing))

    def timesteps(self, index: TimeStep) -> TimeStep:
        """The steps of the original process, as the network is told them."""
        return self.schedule.timesteps.to(index.device)[index]

    def scales(self, x: Image, index: TimeStep) -> tuple[Scale, Scale]:
        """(alpha, sigma) of x_t = alpha x_0 + sigma noise, shaped to multiply `x`."""
        schedule = self.schedule
        return at(schedule.signal_scale, index, x), at(schedule.noise_scale, index, x)

    def add_noise(self, x_0: Image, index: TimeStep, noise: Image) -> Image:
        """x_t, a draw of q(x_t | x_0) made from standard `noise`; Ho et al., equation 4."""
        alpha, sigma = self.scales(x_0, index)
        return alpha * x_0 + sigma * noise

    def posterior(self, x_0: Image, x_t: Image, index: TimeStep) -> tuple[Image, Image]:
        """Mean and log variance of q(x_{t-1} | x_t, x_0); Ho et al., equations 6 and 7.

        At index 0 the variance is 0; its logarithm is replaced by that of index 1.
        """
        schedule = self.schedule
        mean = at(schedule.posterior_x_0, index, x_t) * x_0
        mean = mean + at(schedule.posterior_x_t, index, x_t) * x_t
        return mean, at(schedule.posterior_log_variance, index, x_t).expand_as(mean)

    def split(self, output: Predicted, channels: int) -> tuple[Image, Image | None]:
        """A network's answer as (prediction, v); v is None where the variance is fixed.

        Raises ValueError where the number of channels is not the one that the process needs.
        """
        learned = self.config.learned_variance
        expected = 2 * channels if learned else channels
        if output.shape[1] != expected:
            raise ValueError(
                f"the network answered with {output.shape[1]} channels; images of {channels} "
                f"channels with learned_variance={learned} need {expected}"
            )
        output = full_precision(output)
        return output[:, :channels], output[:, channels:] if learned else None

    def denoised(self, output: Predicted, x_t: Image, index: TimeStep) -> Denoised:
        """p(x_{t-1} | x_t) from the network's answer to x_t; Nichol & Dhariwal, equation 15."""
        prediction, v = self.split(output, x_t.shape[1])
        alpha, sigma = self.scales(x_t, index)
        x_0 = self.prediction.x_0(prediction, x_t, alpha, sigma)
        eps = self.prediction.eps(prediction, x_t, alpha, sigma)
        if self.config.clip_x0:
            x_0 = x_0.clamp(-1, 1)
            eps = PREDICTIONS["x0"].eps(x_0, x_t, alpha, sigma)
        mean, log_variance = self.posterior(x_0, x_t, index)
        if v is not None:
            upper = at(self.schedule.betas.log(), index, x_t)
            log_variance = log_variance + (v + 1) / 2 * (upper - log_variance)
        return Denoised(mean, log_variance, x_0, eps)
