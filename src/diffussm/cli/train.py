"""`diffussm train`: from a recipe to a run folder."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from diffussm.cli.devices import own_device
from diffussm.cli.display import console, progress_bar, say
from diffussm.cli.plan import dry_run as planned
from diffussm.cli.scoring import scorer
from diffussm.cli.stopping import on_stop

if TYPE_CHECKING:
    from diffussm.training import Run


def train(
    recipe: str = typer.Argument(help="A built-in recipe's name (digits), or a TOML file."),
    out: Path | None = typer.Option(
        None, help="Folder of the run, required; the same command resumes it."
    ),
    settings: list[str] = typer.Option(
        [], "--set", help="Change a key: training.batch_size=64. May be given several times."
    ),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:1, mps."),
    accept_changes: bool = typer.Option(
        False, "--accept-changes", help="Resume although the recipe differs from the run's."
    ),
    watch: list[str] = typer.Option(
        [], help="tensorboard or wandb: show the metrics there too. May be given several times."
    ),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Only print the plan: sizes, memory, work, time."
    ),
    ranks: int = typer.Option(1, help="Of a plan: how many GPUs share the work."),
    rate: float | None = typer.Option(
        None, help="Of a plan: images a second; else what the run in --out reached."
    ),
) -> None:
    """Train a model: diffussm train digits --out runs/digits

    The same command on the same folder goes on where it stopped, to the bit. Ctrl-C saves first.
    Several GPUs: torchrun --nproc-per-node 8 -m diffussm train RECIPE --out DIR
    """
    if dry_run:
        if ranks < 1 or (rate is not None and not rate > 0):
            raise ValueError(f"--ranks and --rate must be above 0, not {ranks} and {rate}")
        say(planned(recipe, settings, out, ranks, rate))
        return
    if out is None or not str(out).strip("."):
        raise ValueError("--out needs the name of a folder, for instance runs/digits")
    from diffussm import training

    with training.joined() as world:
        wanted = world.agree(
            lambda: training.recipe(training.read_tables(training.find_recipe(recipe), settings))
        )
        chosen = world.agree(lambda: own_device(device, world))
        run = training.Run(
            wanted,
            out,
            chosen,
            world=world,
            accept_changes=accept_changes,
            watch=watch,
            evaluate=world.agree(lambda: scorer(wanted, chosen, world)),
        )
        try:
            _follow(run)
        finally:
            run.close()
    if run.trainer.images < wanted.training.images:
        raise typer.Exit(130)


def _follow(run: "Run") -> None:
    """Train to the end, or until Ctrl-C or SIGTERM, which save before they stop."""
    total, leads = run.recipe.training.images, run.world.leads
    if leads:
        _introduce(run)
    with on_stop(lambda: setattr(run.trainer, "stop_asked", True)):
        if leads:
            with progress_bar("training", total, run.resumed_at) as show:
                _show_steps(run, show)
        else:
            for _ in run.steps():
                pass
        if run.unsaved:
            run.save()
        run.wait()
    if not leads:
        return
    if corrupt := run.trainer.corrupt.summary():
        say(corrupt)
    if run.trainer.images < total:
        say(f"stopped and saved after {run.trainer.images:,} images; the same command goes on")
    else:
        say(f"done: {run.folder} holds the model; try: diffussm sample {run.folder} --out grid.png")


def _introduce(run: "Run") -> None:
    recipe, trainer = run.recipe, run.trainer
    parameters = sum(p.numel() for p in trainer.model.parameters())
    ranks = f" and {run.world.size - 1} more" if run.world.size > 1 else ""
    say(
        f"{recipe.model_name}, {parameters / 1e6:.1f} M parameters, on {trainer.device}{ranks}: "
        f"{recipe.training.images:,} images of {recipe.data.name} in {run.folder}"
    )
    if run.notice:
        say(run.notice)
    if run.resumed_at:
        say(f"resuming after {run.resumed_at:,} images")


def _show_steps(run: "Run", show: Callable[[int, str], None]) -> None:
    """Train on, and let a person see speed, loss and what is wrong."""
    from diffussm.training import FINE, Health

    health, told = Health(), FINE
    speed = loss = None
    scored = ""
    for step in run.steps():
        health.add(step)
        verdict = health.verdict
        kind = verdict.partition(":")[0]
        if kind != told:  # the numbers in the sentence change all the time
            console.print(f"at {step.images:,} images: {verdict}")
            told = kind
        if step.skipped:
            console.print(f"the loss at {step.images:,} images was not finite: step skipped")
        else:
            # averages over about fifty steps, so that a person can read them
            speed = step.speed if speed is None else speed + 0.02 * (step.speed - speed)
            loss = step.simple if loss is None else loss + 0.02 * (step.simple - loss)
            if step.evaluation:
                name, value = next(iter(step.evaluation.items()))
                scored = f"  {name} {value:.4g}"
            show(step.images, f"loss {loss:.4f}  {speed:,.0f} images/s  {kind}{scored}")
