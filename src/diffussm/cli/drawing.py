"""How a model is to draw: its usual way, with what the command line says over it."""

from dataclasses import replace
from typing import TYPE_CHECKING

from diffussm.cli.arguments import pair

if TYPE_CHECKING:
    from diffussm.diffusion import Guidance, Sampling


def chosen_sampling(
    usual: "Sampling", sampler: str | None, steps: int | None, eta: float | None
) -> "Sampling":
    """The usual sampler, or another one with its own usual steps; ValueError for wrong ones."""
    if sampler is not None and sampler != usual.sampler:
        usual = replace(usual, sampler=sampler, steps=None, eta=0.0)
    return _changed(usual, steps=steps, eta=eta)


def chosen_guidance(
    usual: "Guidance", scale: float | None, interval: str | None, channels: int | None
) -> "Guidance":
    """The usual guidance with what was given in its place; ValueError for wrong numbers."""
    limits = None if interval is None else pair("--interval", interval, ",", float)
    return _changed(usual, scale=scale, interval=limits, channels=channels)


def _changed(config, **changes):
    return replace(config, **{name: value for name, value in changes.items() if value is not None})
