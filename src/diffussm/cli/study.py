"""`diffussm study`: train, measure and compare the models that a study declares."""

import multiprocessing
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from diffussm.cli.arguments import numbers
from diffussm.cli.devices import choose_device
from diffussm.cli.display import console, say
from diffussm.cli.process import prepare
from diffussm.cli.stopping import SIGNALS, on_stop

if TYPE_CHECKING:
    from diffussm.studies import Study

STOPPED, FAILED = 130, 2


def study(
    name: str = typer.Argument(help="A built-in study (claims-digits), or a TOML file."),
    out: Path | None = typer.Option(None, help="Folder of the results; else studies/NAME."),
    only: str | None = typer.Option(None, help="These members alone: published,dit-patch-2."),
    seeds: str | None = typer.Option(None, help="These seeds alone: 0 or 0-2."),
    settings: list[str] = typer.Option(
        [], "--set", help="Change a key of every member's recipe: data.size=64. Several times."
    ),
    processes: int = typer.Option(1, help="Processes that share the work, one thread each."),
    table: bool = typer.Option(False, "--table", help="Train nothing: table and figures only."),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:1, mps."),
) -> None:
    """Run a study: diffussm study claims-digits --out studies/claims-digits --processes 2

    The same command goes on where it stopped, also beside another that is at work in the same
    folder. There it leaves table.md, results.png and curves.png (and .svg).
    """
    if processes < 1:
        raise ValueError(f"--processes must be at least 1, not {processes}")
    from diffussm.studies import find_study, read_study

    declared = read_study(find_study(name), settings)
    work = Work(
        study=name,
        settings=tuple(settings),
        folder=Path("studies") / declared.name if out is None else out,
        members=_members(declared, only),
        seeds=_seeds(declared, seeds),
        device=device,
    )
    code = 0
    if not table:
        code = _share(work, processes) if processes > 1 else _work(declared, work)
    _report(declared, work.folder)
    if code:
        raise typer.Exit(code)


@dataclass(frozen=True)
class Work:
    """What the processes of one command share."""

    study: str
    settings: tuple[str, ...]
    folder: Path
    members: tuple[str, ...]
    seeds: tuple[int, ...]
    device: str


def _work(declared: "Study", work: Work, signals: tuple[int, ...] = SIGNALS) -> int:
    """Train and measure in this process; the exit code."""
    from diffussm.studies import tasks_of
    from diffussm.studies import work as train_and_measure

    device, asked = choose_device(work.device), []
    with on_stop(lambda: asked.append(True), signals):
        tasks = tasks_of(declared, work.folder, device, work.members, work.seeds)
        train_and_measure(declared, tasks, device, lambda: bool(asked), _tell)
    return STOPPED if asked else 0


def _share(work: Work, processes: int) -> int:
    """Let several processes work, each on one thread, until all have ended; the exit code."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_worker, args=(work,)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    try:
        with on_stop(lambda: [worker.terminate() for worker in workers]):
            for worker in workers:
                worker.join()
    except BaseException:
        for worker in workers:
            worker.kill()
        raise
    codes = [worker.exitcode or 0 for worker in workers]
    if any(code not in (0, STOPPED, FAILED) for code in codes):
        say("a process ended before its time; the same command goes on where it stopped")
        return FAILED
    return max(codes)


def _worker(work: Work) -> None:
    """One of several processes; SIGTERM, which their parent sends, asks it to save and leave."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare()
    import torch

    from diffussm.studies import find_study, read_study

    torch.set_num_threads(1)
    try:
        declared = read_study(find_study(work.study), work.settings)
        sys.exit(_work(declared, work, (signal.SIGTERM,)))
    except (ValueError, OSError, ArithmeticError) as error:
        typer.echo(f"diffussm: {error}", err=True)
        sys.exit(FAILED)


def _tell(text: str) -> None:
    console.print(text, soft_wrap=True)


def _members(declared: "Study", only: str | None) -> tuple[str, ...]:
    from diffussm.config import choose

    if only is None:
        return tuple(declared.members)
    wanted = [member.strip() for member in only.split(",")]
    for member in wanted:
        choose("member", member, declared.members)
    return tuple(wanted)


def _seeds(declared: "Study", text: str | None) -> tuple[int, ...]:
    wanted = declared.seeds if text is None else tuple(numbers("--seeds", text))
    for seed in wanted:
        if seed not in declared.seeds:
            declares = ", ".join(map(str, declared.seeds))
            raise ValueError(f"--seeds {seed} is not one of the study's, which are {declares}")
    return wanted


def _report(declared: "Study", folder: Path) -> None:
    """Print the table of what is finished, and write it and the figures beside the results."""
    from diffussm.studies.report import held_elsewhere, write_report

    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder} with results of {declared.name}")
    text, done, wanted = write_report(declared, folder)
    say(text)
    left, held = wanted - done, held_elsewhere(declared, folder)
    if left:
        say(f"{left} of {wanted} are still to do: {_who_goes_on(left, held)}")


def _who_goes_on(left: int, held: int) -> str:
    if held >= left:
        return f"another process holds {'it' if left == 1 else 'them'} and goes on"
    others = f"another process holds {held}, with the others " if held else ""
    return f"{others}the same command goes on"
