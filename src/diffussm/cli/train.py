"""`diffussm train`: from a recipe to a run folder."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from diffussm.cli.devices import choose_device
from diffussm.cli.display import console, progress_bar, say

if TYPE_CHECKING:
    from diffussm.training import Run


def train(
    recipe: str = typer.Argument(help="A built-in recipe's name (digits), or a TOML file."),
    out: Path = typer.Option(help="Folder of the run; the same command resumes it."),
    settings: list[str] = typer.Option(
        [], "--set", help="Change a key: training.batch_size=64. May be given several times."
    ),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:1, mps."),
    accept_changes: bool = typer.Option(
        False, "--accept-changes", help="Resume although the recipe differs from the run's."
    ),
    tensorboard: bool = typer.Option(False, "--tensorboard", help="Also write TensorBoard files."),
) -> None:
    """Train a model: diffussm train digits --out runs/digits

    The same command on the same folder goes on where it stopped, to the bit. Ctrl-C saves first.
    """
    if not str(out).strip("."):
        raise ValueError("--out needs the name of a folder, for instance runs/digits")
    from diffussm import training

    wanted = training.recipe(training.read_tables(training.find_recipe(recipe), settings))
    run = training.Run(
        wanted,
        out,
        choose_device(device),
        accept_changes=accept_changes,
        tensorboard=tensorboard,
    )
    parameters = sum(p.numel() for p in run.trainer.model.parameters())
    say(
        f"{wanted.model_name}, {parameters / 1e6:.1f} M parameters, on {run.trainer.device}: "
        f"{wanted.training.images:,} images of {wanted.data.name} in {out}"
    )
    if run.resumed_at:
        say(f"resuming after {run.resumed_at:,} images")
    try:
        _follow(run)
    finally:
        run.close()


def _follow(run: "Run") -> None:
    """Train to the end, or until Ctrl-C or SIGTERM, which save before they stop."""
    total = run.recipe.training.images
    stop = _StopSignal()
    with progress_bar("training", total, run.resumed_at) as show, stop:
        speed = loss = None
        seen = run.resumed_at
        for step in run.steps():
            # averages over about fifty steps, so that a person can read them
            rate, seen = (step.images - seen) / step.seconds, step.images
            if step.skipped:
                console.print(f"the loss at {seen:,} images was not finite: step skipped")
            else:
                speed = rate if speed is None else speed + 0.02 * (rate - speed)
                loss = step.simple if loss is None else loss + 0.02 * (step.simple - loss)
                show(seen, f"loss {loss:.4f}  {speed:,.0f} images/s")
            if stop.asked:
                break
    if run.unsaved:
        run.save()
    if stop.asked and run.trainer.images < total:
        say(f"stopped and saved after {run.trainer.images:,} images; the same command goes on")
        raise typer.Exit(130)
    say(f"done: {run.folder} holds the model; try: diffussm sample {run.folder} --out grid.png")


class _StopSignal:
    """Notes the first Ctrl-C or SIGTERM and lets the second one kill."""

    def __init__(self):
        self.asked = False
        self._previous = {}

    def __enter__(self):
        for name in (signal.SIGINT, signal.SIGTERM):
            self._previous[name] = signal.signal(name, self._note)

    def __exit__(self, *error):
        for name, handler in self._previous.items():
            signal.signal(name, handler)

    def _note(self, number, frame):
        self.asked = True
        for name, handler in self._previous.items():
            signal.signal(name, handler)
