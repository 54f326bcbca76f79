"""Attention-free image diffusion: DiffuSSM, its state space layers and its diffusion process.

diffussm.create_model("DiffuSSM-XL", input_size=32, num_classes=1000)
diffussm.load("runs/digits").sample(seeds=range(10))
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffussm.generation import load
    from diffussm.models import create_model

__version__ = "0.1.0"
__all__ = ["__version__", "create_model", "load"]

_HOMES = {"create_model": "diffussm.models", "load": "diffussm.generation"}


def __getattr__(name: str):
    """Import a public name on first use: the command line's help should not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'diffussm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
