"""Denoisers: networks (x_t, t, y) -> prediction, and their sizes by name."""

from diffussm.models.diffussm import DiffuSSM, DiffuSSMConfig
from diffussm.models.presets import MODELS, PRESETS, build, create_model, model_config

__all__ = [
    "MODELS",
    "PRESETS",
    "DiffuSSM",
    "DiffuSSMConfig",
    "build",
    "create_model",
    "model_config",
]
