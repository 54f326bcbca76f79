"""Training and measuring the members of a study, by as many processes as one likes.

Each process takes the next member with a seed that has no result and that no other process holds.
A lock is the system's (flock): it goes with the process that held it, however that ended. What was
begun goes on from its last checkpoint.
"""

import fcntl
import json
import math
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from diffussm.analysis.flops import cost
from diffussm.checkpoint import make_folder, write_safely
from diffussm.config import to_dict
from diffussm.data import hold_out
from diffussm.generation import load
from diffussm.studies.budget import BUDGETS, clock_of, share_out
from diffussm.studies.measures import METRICS, Subject
from diffussm.studies.result import Facts, Place, Result, read_result, write_result
from diffussm.studies.study import Study
from diffussm.training import Diverged, Recipe, Run, recipe
from diffussm.training.metrics import METRICS_FILE
from diffussm.training.recipe import differences

PRICES_FILE = "prices.json"

Stop = Callable[[], bool]
"""Asked after each training step: whether to save and leave."""


@dataclass(frozen=True)
class Task:
    """One member with one seed."""

    place: Place
    recipe: Recipe


def tasks_of(
    study: Study,
    folder: Path,
    device: torch.device,
    members: tuple[str, ...],
    seeds: tuple[int, ...],
) -> list[Task]:
    """What is to be trained, seed after seed, each with its share of the budget."""
    images = shares(study, folder, device)
    return [
        Task(Place(folder, member, seed), study.recipe(member, seed, images[member]))
        for seed in seeds
        for member in members
    ]


def shares(study: Study, folder: Path, device: torch.device) -> dict[str, int]:
    """Images for each member. Prices are found once, and kept with the study's results."""
    recipes = {member: study.recipe(member) for member in study.members}
    make_folder(folder)
    path = folder / PRICES_FILE
    with locked(folder / f"{PRICES_FILE}.lock", wait=True):
        found = json.loads(path.read_text()) if path.exists() else {}
        if found.get("budget") != study.budget:
            found = {"budget": study.budget, "prices": {}}
        missing = [member for member in recipes if member not in found["prices"]]
        for member in missing:
            made = recipes[member]
            price = BUDGETS[study.budget](made, study.loaded[made.data], device)
            found["prices"][member] = price
        if missing:
            text = json.dumps(found, indent=1) + "\n"
            write_safely(path, lambda temporary: temporary.write_text(text))
    return share_out(
        recipes[study.reference].training.images,
        study.reference,
        {member: found["prices"][member] for member in recipes},
        {member: made.training.batch_size for member, made in recipes.items()},
    )


def finished(study: Study, task: Task) -> Result | None:
    """The task's result, if it is what the study asks for now; ValueError for another recipe's."""
    result = read_result(task.place)
    if result is None:
        return None
    before = recipe(result.recipe, study.loaded[task.recipe.data]).as_dict()
    changes = differences(before, task.recipe.as_dict())
    if changes:
        raise ValueError(
            f"{task.place.result} came of another recipe: {'; '.join(changes)}. Give another "
            f"folder, or remove {task.place.run} and the files beside it"
        )
    if result.facts.diverged or result.measure == to_dict(study.measure):
        return result
    return None  # trained, but measured otherwise


def work(
    study: Study,
    tasks: list[Task],
    device: torch.device,
    stop: Stop,
    tell: Callable[[str], None],
) -> None:
    """Train and measure what has no result, until nothing is left that nobody holds."""
    others: list[Task] = []
    for task in tasks:
        if stop():
            return
        make_folder(task.place.lock.parent)
        with locked(task.place.lock) as ours:
            if not ours:
                others.append(task)
                continue
            if finished(study, task):
                continue
            named = f"{task.place.member}, seed {task.place.seed}"
            tell(f"{named}: training on {task.recipe.training.images:,} images")
            result = train_and_measure(study, task, device, stop)
            if result is None:
                tell(f"{named}: stopped and saved")
                return
            tell(f"{named}: {said(result)}")
    if len(others) < len(tasks):  # time has passed: they may have stopped and left something
        work(study, others, device, stop, tell)


def train_and_measure(study: Study, task: Task, device: torch.device, stop: Stop) -> Result | None:
    """One member with one seed to its end; None where it was asked to stop, and saved."""
    diverged, seconds = "", Clock(task.place.clock, clock_of(device))
    run = Run(task.recipe, task.place.run, device)
    try:
        seconds.begin(run.resumed_at)
        try:
            for _ in run.steps():
                if not run.unsaved:
                    seconds.note(run.trainer.images)
                if stop():
                    break
        except Diverged as error:
            diverged = str(error)
        if run.unsaved and not diverged:
            run.save()
        seconds.note(run.trainer.images)
        run.wait()
    finally:
        run.close()
    images, model = run.trainer.images, run.trainer.model
    if images < task.recipe.training.images and not diverged:
        return None
    spent = cost(task.recipe.model, *task.recipe.model.size)
    facts = Facts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=spent.total,
        kernels=spent.kernels,
        images=images,
        seconds=seconds.total,
        threads=torch.get_num_threads(),
        processor=processor(device),
        torch=torch.__version__,
        diverged=diverged,
    )
    result = Result(
        member=task.place.member,
        seed=task.place.seed,
        recipe=task.recipe.as_dict(),
        measure=to_dict(study.measure),
        facts=facts,
        metrics={},
        curve=curve(task.place.run),
    )
    if not diverged:
        result = replace(result, metrics=measured(study, task, device))
    write_result(task.place, result)
    return result


def measured(study: Study, task: Task, device: torch.device) -> dict[str, float | None]:
    """Each metric of the study, of the model in the task's run folder."""
    data = study.loaded[task.recipe.data]
    held_out = hold_out(data, task.recipe.data.hold_out)[1]
    assert held_out is not None
    subject = Subject(load(task.place.run, device), data, held_out, study.measure)
    values = {name: METRICS[name].measure(subject) for name in study.measure.metrics}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def curve(run: Path) -> tuple[tuple[int, float], ...]:
    """Images seen and the loss on images held out, as a run's metrics have them."""
    lines = [json.loads(line) for line in (run / METRICS_FILE).read_text().splitlines()]
    return tuple(
        (line["images"], line["validation"]) for line in lines if line.get("validation") is not None
    )


def said(result: Result) -> str:
    """A result in a few words."""
    if result.facts.diverged:
        return f"diverged: {result.facts.diverged}"
    shown = [f"{result.facts.seconds:,.0f} s"]
    for name, value in result.metrics.items():
        metric = METRICS[name]
        number = "none" if value is None else f"{metric.scale * value:.{metric.digits}f}"
        shown.append(f"{metric.heading} {number}")
    return ", ".join(shown)


def processor(device: torch.device) -> str:
    """The name of what computes."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class Clock:
    """Seconds of training over all processes that worked on one run, kept at each checkpoint."""

    def __init__(self, path: Path, now: Callable[[], float]):
        self.path, self.now = path, now
        self.notes: list[list[float]] = []
        self.total = self._began = 0.0

    def begin(self, images: int) -> None:
        """Go on after `images`, with the seconds that these took."""
        if self.path.exists():
            self.notes = [note for note in json.loads(self.path.read_text()) if note[0] <= images]
        self._began = self.now() - (self.notes[-1][1] if self.notes else 0.0)

    def note(self, images: int) -> None:
        """Keep the seconds up to `images`, once."""
        self.total = self.now() - self._began
        if self.notes and self.notes[-1][0] == images:
            self.total = self.notes[-1][1]
            return
        self.notes.append([images, self.total])
        text = json.dumps(self.notes)
        write_safely(self.path, lambda temporary: temporary.write_text(text))


def is_locked(path: Path) -> bool:
    """Whether a process holds this file."""
    if not path.exists():
        return False
    with locked(path) as ours:
        return not ours


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold a file against other processes; what it gives says whether it could be had."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
