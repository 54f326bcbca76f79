"""Training: from a recipe to a model, by one process or many, resuming to the bit."""

from diffussm.training.distributed import joined
from diffussm.training.health import FINE, Health
from diffussm.training.loop import Diverged, Trainer
from diffussm.training.recipe import Recipe, find_recipe, read_tables, recipe, stand_in
from diffussm.training.run import Run
from diffussm.training.step import Step

__all__ = [
    "FINE",
    "Diverged",
    "Health",
    "Recipe",
    "Run",
    "Step",
    "Trainer",
    "find_recipe",
    "joined",
    "read_tables",
    "recipe",
    "stand_in",
]
