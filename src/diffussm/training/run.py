"""A training run in a folder: the same recipe on the same folder goes on where it stopped.

    model.safetensors      EMA weights, usable on their own
    state/                 everything needed to go on exactly, see `diffussm.training.state`
    recipe.toml            the resolved recipe
    metrics.jsonl          what the steps did
    previews/              grids of samples

The model is written before the state. A kill in between leaves a model that is ahead of the state;
going on from the state reaches the same model again. On several ranks, rank 0 keeps the folder and
the others write their part of the state into it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from diffussm.autoencoder import load_autoencoder
from diffussm.checkpoint import MODEL_FILE, Header, make_folder, save_weights
from diffussm.data import Dataset, hold_out, load_data
from diffussm.generation import Generator
from diffussm.models import build
from diffussm.training.distributed import ALONE, World
from diffussm.training.folder import check_folder, check_images, fill_folder, hold
from diffussm.training.loop import Trainer
from diffussm.training.metrics import Metrics
from diffussm.training.parallel import is_sliced, whole
from diffussm.training.preview import draw_preview
from diffussm.training.recipe import Recipe
from diffussm.training.resume import average_of, restore
from diffussm.training.saver import Saver
from diffussm.training.settings import crosses
from diffussm.training.state import forget, prune, snapshot, write_state
from diffussm.training.step import Step
from diffussm.training.validation import validate

Evaluate = Callable[[Generator], dict[str, float]]
"""Scores what a model draws, by metric; all ranks call it together."""


class Run:
    """One run folder, opened to begin or to go on, by each rank of a `world`.

    evaluate    what training.evaluate_every asks for

    Raises ValueError where the folder holds something else, another recipe (unless
    `accept_changes`), a run on other images or only damaged states, or is trained in by another
    process, and OSError where it cannot be written.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        device: torch.device,
        *,
        world: World = ALONE,
        accept_changes: bool = False,
        watch: Sequence[str] = (),
        evaluate: Evaluate | None = None,
    ):
        if recipe.training.evaluate_every and evaluate is None:
            raise ValueError(
                "training.evaluate_every is set, but this run was given nothing that evaluates; "
                "pass `evaluate`, or set it to 0"
            )
        self._evaluate = evaluate
        self.recipe, self.folder, self.world = recipe, folder, world
        self._saver = Saver()
        with ExitStack() as opened:
            self.data, self._held_out = world.agree(lambda: self._look(accept_changes))
            self.trainer = world.agree(lambda: Trainer(recipe, self.data, device, world))
            world.agree(lambda: self._take(opened))
            self.notice = world.agree(lambda: restore(self.trainer, folder))
            """What was lost, one sentence, where something was."""
            self._metrics = world.agree(lambda: self._begin(watch, opened))
            self._opened = opened.pop_all()
        self.resumed_at = self._saved_at = self.trainer.images

    def steps(self) -> Iterator[Step]:
        """Train to the end of the recipe, saving and previewing on the way and at the end."""
        settings = self.recipe.training
        before = self.resumed_at
        for step in self.trainer.steps():
            self._saver.check()
            passed = (before, step.images)
            if self._held_out and self._due(settings.validate_every, *passed):
                step = replace(step, validation=validate(self.trainer, self._held_out))
            if self._evaluate and self._due(settings.evaluate_every, *passed):
                generator = Generator(self._average(everywhere=True), self._header())
                step = replace(step, evaluation=self._evaluate(generator))
            saves = self._due(settings.save_every, *passed)
            if self._metrics:
                measured = step.validation is not None or step.evaluation is not None
                due = saves or measured or self._due(settings.log_every, *passed)
                self._metrics.add(step, due)
            if saves:
                self.save()
            if self._due(settings.preview_every, *passed):
                self._preview()
            before = step.images
            yield step
        finished = self.trainer.images == settings.images
        if finished and not self.world.gather((self.folder / MODEL_FILE).exists())[0]:
            self.save()  # deleted after the end: the state has it too

    def save(self) -> None:
        """Copy model and state, and write them while training goes on; see `wait`.

        Raises OSError where the save before could not be written; earlier files are untouched.
        """
        self._saver.wait()  # first, so that two copies never lie in memory
        if self._metrics:
            self._metrics.flush()
        folder, world, trainer = self.folder, self.world, self.trainer
        for names in world.gather(trainer.corrupt.names):
            trainer.corrupt.names |= names
        average = self._gathered_average()
        tensors, places = snapshot(trainer.tensors(), world)
        counts, header = trainer.counts, self._header()

        def write() -> None:
            if world.leads:
                save_weights(folder / MODEL_FILE, average or average_of(tensors), header)
            write_state(folder, tensors, places, counts, world)
            if world.leads:
                prune(folder)

        self._saver.start(write)
        self._saved_at = trainer.images

    def wait(self) -> None:
        """Until all ranks have written what they saved; OSError where one could not."""
        self.world.agree(self._saver.wait)
        if self.world.leads:
            prune(self.folder)

    @property
    def unsaved(self) -> int:
        """Images seen since the last checkpoint."""
        return self.trainer.images - self._saved_at

    def close(self) -> None:
        """Finish writing and close the records; the run can be opened again."""
        with self._opened:
            self._saver.wait()

    def _due(self, interval: int, before: int, now: int) -> bool:
        """Whether what comes every `interval` images (0: never), and at the end, comes now."""
        done = now == self.recipe.training.images
        return interval > 0 and (done or crosses(interval, before, now))

    def _look(self, accept_changes: bool) -> tuple[Dataset, Dataset | None]:
        """The images to train on and those held out; nothing is made yet."""
        recipe, folder = self.recipe, self.folder
        if self.world.leads:
            check_folder(folder, recipe, accept_changes)
        data, held_out = hold_out(load_data(recipe.data), recipe.data.hold_out)
        check_images(folder, recipe, data)
        draws = recipe.training.preview_every or recipe.training.evaluate_every
        if self.world.leads and draws:
            load_autoencoder(data.autoencoder, recipe.model.in_channels)  # it is there
        return data, held_out if recipe.training.validate_every else None

    def _take(self, opened: ExitStack) -> None:
        """Make and hold the folder; only now, so that a mistake found before leaves no trace."""
        opened.callback(self._saver.close)
        if self.world.leads:
            make_folder(self.folder)
            opened.callback(os.close, hold(self.folder))

    def _begin(self, watch: Sequence[str], opened: ExitStack) -> Metrics | None:
        """Clear what will be written anew, and open the records."""
        if not self.world.leads:
            return None
        images = self.trainer.images
        fill_folder(self.folder, self.recipe)
        forget(self.folder, newer_than=images)
        metrics = Metrics(self.folder, images, watch, self.recipe.as_dict())
        opened.callback(metrics.close)
        return metrics

    def _header(self) -> Header:
        recipe = self.recipe
        return Header(
            model=recipe.model,
            diffusion=recipe.diffusion,
            class_names=self.data.class_names if recipe.model.num_classes else (),
            sampling=recipe.sampling,
            guidance=recipe.guidance,
            images=self.trainer.images,
            autoencoder=self.data.autoencoder,
        )

    def _gathered_average(self, everywhere: bool = False) -> dict[str, Tensor]:
        """The averaged weights, on rank 0 or on every rank; none where it has them anyway."""
        network, gathered = self.trainer.ema.model, {}
        if is_sliced(next(network.parameters())):
            for name, value in network.state_dict().items():
                value = whole(value)
                if self.world.leads or everywhere:
                    gathered[name] = value.cpu()
        return gathered

    def _average(self, everywhere: bool = False) -> nn.Module:
        """The averaged network, whole on rank 0 or on every rank; all of them must ask."""
        average, network = self._gathered_average(everywhere), self.trainer.ema.model
        if average:
            with torch.random.fork_rng(devices=[]):
                network = build(self.recipe.model).eval().requires_grad_(False)
            network.load_state_dict(average)
            network.to(self.trainer.device)
        return network

    def _preview(self) -> None:
        network = self._average()
        if self.world.leads:
            draw_preview(self.folder, network, self._header())
