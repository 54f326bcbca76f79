"""The folder of a run: whether it may be used, that only one run does, and what stands in it."""

import fcntl
import os
from pathlib import Path

from diffussm.checkpoint import MODEL_FILE, load_header, make_folder, write_safely
from diffussm.data import Dataset
from diffussm.data.latents import check_latents
from diffussm.training.preview import PREVIEWS
from diffussm.training.recipe import Recipe, differences, read_tables, recipe, to_toml
from diffussm.training.state import STATE

RECIPE_FILE = "recipe.toml"
FORMER_STATE = Path(STATE) / "training.pt"


def check_folder(folder: Path, wanted: Recipe, accept_changes: bool) -> None:
    """ValueError where `folder` holds something else or, not accepted, another recipe's run."""
    path = folder / RECIPE_FILE
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder for the run")
    if path.exists():
        before = recipe(read_tables(path)).as_dict()
        changes = differences(before, wanted.as_dict())
        if changes and not accept_changes:
            raise ValueError(
                f"the recipe differs from the one that {folder} was begun with: "
                f"{'; '.join(changes)}. Train in another folder, or say --accept-changes to go on "
                "with the new one"
            )
    elif folder.is_dir() and any(entry.suffix != ".part" for entry in folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no run; give a new folder")
    if (folder / FORMER_STATE).exists():
        raise ValueError(
            f"{folder / FORMER_STATE} is the state of diffussm 0.1.0, which alone can go on from "
            "it; the model beside it can be used as ever, train on in a new folder"
        )


def check_images(folder: Path, wanted: Recipe, data: Dataset) -> None:
    """ValueError where `data` are not of the kind that the run's model has seen so far."""
    channels, (height, width) = wanted.model.in_channels, wanted.model.size
    seen = data.autoencoder
    if (folder / MODEL_FILE).exists():
        seen = load_header(folder).autoencoder
    check_latents(data, (channels, height, width), seen)


def hold(folder: Path) -> int:
    """Keep other processes from training in `folder` until what this gives is closed.

    The system lets go by itself where a process dies. Raises ValueError where another one holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(
            f"another process trains in {folder}; wait for it, or give another folder"
        ) from None
    return descriptor


def fill_folder(folder: Path, recipe: Recipe) -> None:
    """Write the recipe, and make the folders that stand beside it."""
    text = to_toml(recipe.as_dict())
    write_safely(
        folder / RECIPE_FILE, lambda temporary: temporary.write_text(text, encoding="utf-8")
    )
    for part in (STATE, PREVIEWS):
        make_folder(folder / part)
