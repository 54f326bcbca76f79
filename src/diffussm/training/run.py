"""A training run in a folder: the same recipe on the same folder goes on where it stopped.

    model.safetensors      EMA weights, usable on their own
    state/training.pt      everything needed to go on exactly
    recipe.toml            the resolved recipe
    metrics.jsonl          one line a step
    previews/              grids of samples

The model is written before the state. A kill in between leaves a model that is ahead of the state;
going on from the state reaches the same model again.
"""

import fcntl
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import torch

from diffussm.checkpoint import (
    MODEL_FILE,
    Header,
    make_folder,
    one_line,
    save_model,
    write_safely,
)
from diffussm.data import DATASETS
from diffussm.generation import Generator, picture_grid, to_uint8, write_png
from diffussm.training.loop import Step, Trainer
from diffussm.training.metrics import Metrics
from diffussm.training.recipe import Recipe, differences, read_tables, recipe, to_toml

STATE_FILE = Path("state") / "training.pt"
RECIPE_FILE = "recipe.toml"
PREVIEWS = "previews"
PREVIEW_ROWS, PREVIEW_CLASSES = 4, 10


class Run:
    """One run folder, opened to begin or to go on.

    Raises ValueError where the folder holds something else, another recipe (unless
    `accept_changes`) or a damaged state or is trained in by another process, and OSError where
    it cannot be written.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        device: torch.device,
        *,
        accept_changes: bool = False,
        tensorboard: bool = False,
    ):
        _check_folder(folder, recipe, accept_changes)
        self.recipe, self.folder = recipe, folder
        self.data = DATASETS[recipe.data.name]()
        self.trainer = Trainer(recipe, self.data, device)
        make_folder(folder)  # only now: a mistake found above leaves no trace
        self._held = _hold(folder)
        try:
            if (folder / STATE_FILE).exists():
                _restore(self.trainer, folder / STATE_FILE)
            _fill_folder(folder, recipe)
            self.resumed_at = self.trainer.images
            self._metrics = Metrics(folder, self.resumed_at, tensorboard)
        except BaseException:
            os.close(self._held)
            raise
        self._saved_at = self.resumed_at

    def steps(self) -> Iterator[Step]:
        """Train to the end of the recipe, saving and previewing on the way and at the end."""
        settings = self.recipe.training
        before = self.resumed_at
        for step in self.trainer.steps():
            self._metrics.write(step)
            done = step.images == settings.images
            if done or _crosses(settings.save_every, before, step.images):
                self.save()
            if settings.preview_every and (
                done or _crosses(settings.preview_every, before, step.images)
            ):
                self._preview()
            before = step.images
            yield step
        if not (self.folder / MODEL_FILE).exists():  # deleted after the end: the state has it too
            self.save()

    def save(self) -> None:
        """Write model and state; a failure leaves the earlier ones."""
        self._metrics.flush()
        save_model(self.folder / MODEL_FILE, self.trainer.ema.model, self._header())
        state = self.trainer.state()
        write_safely(self.folder / STATE_FILE, lambda temporary: torch.save(state, temporary))
        self._saved_at = self.trainer.images

    @property
    def unsaved(self) -> int:
        """Images seen since the last checkpoint."""
        return self.trainer.images - self._saved_at

    def close(self) -> None:
        """Close the records; the run can be opened again."""
        self._metrics.close()
        os.close(self._held)

    def _header(self) -> Header:
        recipe = self.recipe
        return Header(
            model=recipe.model,
            diffusion=recipe.diffusion,
            class_names=self.data.class_names if recipe.model.num_classes else (),
            sampling=recipe.sampling,
            guidance=recipe.guidance,
            images=self.trainer.images,
        )

    def _preview(self) -> None:
        columns = min(self.recipe.model.num_classes or PREVIEW_CLASSES, PREVIEW_CLASSES)
        seeds = range(PREVIEW_ROWS * columns)
        header = self._header()
        generator = Generator(self.trainer.ema.model, header)
        labels = generator.labels(len(seeds), range(columns)) if header.class_names else None
        pixels = to_uint8(generator.sample(seeds=seeds, labels=labels))
        names = [
            str(seed) if labels is None else header.class_names[labels[seed]] for seed in seeds
        ]
        path = self.folder / PREVIEWS / f"{self.trainer.images:012d}.png"
        write_png(path, picture_grid(pixels, names, columns))


def _crosses(interval: int, before: int, after: int) -> bool:
    return before // interval < after // interval


def _check_folder(folder: Path, wanted: Recipe, accept_changes: bool) -> None:
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


def _hold(folder: Path) -> int:
    """Keep other processes from training in `folder` until what this gives is closed.

    The system lets go by itself where a process dies.
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


def _fill_folder(folder: Path, recipe: Recipe) -> None:
    text = to_toml(recipe.as_dict())
    write_safely(
        folder / RECIPE_FILE, lambda temporary: temporary.write_text(text, encoding="utf-8")
    )
    for part in (STATE_FILE.parent, Path(PREVIEWS)):
        make_folder(folder / part)


def _restore(trainer: Trainer, path: Path) -> None:
    try:
        state = torch.load(path, map_location=trainer.device, weights_only=True)
    except (RuntimeError, OSError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged ({one_line(error)}); the model beside it may still be good to "
            "sample from, but training has to begin again in a new folder"
        ) from None
    try:
        trainer.restore(state)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not fit the recipe's model: {one_line(error)}") from None
