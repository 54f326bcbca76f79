"""Training: from a recipe to a model, resuming to the bit."""

from diffussm.training.loop import Diverged, Step, Trainer
from diffussm.training.recipe import Recipe, find_recipe, read_tables, recipe
from diffussm.training.run import Run

__all__ = [
    "Diverged",
    "Recipe",
    "Run",
    "Step",
    "Trainer",
    "find_recipe",
    "read_tables",
    "recipe",
]
