"""Gaussian diffusion: schedules, predictions, losses, guidance and samplers.

It knows nothing of networks: a denoiser is any callable (x_t, t, y) -> prediction.
"""

from diffussm.diffusion.gaussian import Denoised, Denoiser, DiffusionConfig, GaussianDiffusion
from diffussm.diffusion.guidance import DIT_CHANNELS, Guidance, guided
from diffussm.diffusion.losses import WEIGHTINGS, Loss, diffusion_loss
from diffussm.diffusion.prediction import PREDICTIONS, Prediction
from diffussm.diffusion.samplers import DEFAULT_STEPS, SAMPLERS, Sample, Sampling, sample
from diffussm.diffusion.schedules import SCHEDULES, NoiseSchedule, kept_timesteps, respace

__all__ = [
    "DEFAULT_STEPS",
    "DIT_CHANNELS",
    "PREDICTIONS",
    "SAMPLERS",
    "SCHEDULES",
    "WEIGHTINGS",
    "Denoised",
    "Denoiser",
    "DiffusionConfig",
    "GaussianDiffusion",
    "Guidance",
    "Loss",
    "NoiseSchedule",
    "Prediction",
    "Sample",
    "Sampling",
    "diffusion_loss",
    "guided",
    "kept_timesteps",
    "respace",
    "sample",
]
