"""What a person asks of the page, checked: each field a value, each mistake a sentence."""

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from diffussm.config import choose
from diffussm.demo.shelf import Shelf
from diffussm.diffusion import SAMPLERS, Guidance, Sampling

MAX_MODELS, MAX_IMAGES, MAX_STEPS = 4, 64, 250
"""Most of each that one request may ask for; the command line has no such bounds."""

MISTAKES = (ValueError, OSError, ArithmeticError)
"""What a person is told in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One drawing: the same seeds from each of some models."""

    checkpoints: tuple[str, ...]
    """Paths of the models, as `diffussm sample` takes them."""
    classes: tuple[int, ...]
    """In turn over the seeds; all of them, if empty."""
    seeds: range
    """Each an image."""
    sampler: str
    steps: int
    guidance: float
    interval: tuple[float, float]
    """Guide only between these shares of the process."""

    def sampling(self, usual: Sampling) -> Sampling:
        """The asked sampler; what the page does not ask for stays as the model has it."""
        same = usual if usual.sampler == self.sampler else Sampling(sampler=self.sampler)
        return replace(same, steps=self.steps)

    def guided(self, usual: Guidance) -> Guidance:
        """The asked guidance, on the channels that the model is usually guided on."""
        return replace(usual, scale=self.guidance, interval=self.interval)

    def command(self, checkpoint: str) -> str:
        """The line that makes the same files again: `NAME.png` and `NAME.npz`."""
        name = file_name(checkpoint)
        words = ["diffussm", "sample", checkpoint, "--out", f"{name}.png", "--npz", f"{name}.npz"]
        words += ["--seeds", f"{self.seeds[0]}-{self.seeds[-1]}"]
        if self.classes:
            words += ["--classes", ",".join(map(str, self.classes))]
        words += ["--sampler", self.sampler, "--steps", str(self.steps)]
        words += ["--guidance", f"{self.guidance:g}"]
        words += ["--interval", ",".join(f"{share:g}" for share in self.interval)]
        return shlex.join(words)


def read_request(
    checkpoints: Sequence[str],
    classes: Sequence[int],
    seed: object,
    number: object,
    sampler: str,
    steps: object,
    guidance: int | float,
    low: int | float,
    high: int | float,
) -> Request:
    """What the fields of the page say; ValueError, one sentence, for what cannot be drawn."""
    if not checkpoints:
        raise ValueError("no model is chosen; choose at least one")
    if len(checkpoints) > MAX_MODELS:
        raise ValueError(f"{len(checkpoints)} models are too many; choose at most {MAX_MODELS}")
    choose("sampler", sampler, SAMPLERS)
    images = whole("number of images", number, 1, MAX_IMAGES)
    first = whole("first seed", seed, 0, 2**63 - images)
    if low > high:
        raise ValueError(f"Guide from, {low:g}, must not be above Guide to, {high:g}")
    return Request(
        checkpoints=tuple(checkpoints),
        classes=tuple(classes),
        seeds=range(first, first + images),
        sampler=sampler,
        steps=whole("steps", steps, 1, MAX_STEPS),
        guidance=round(float(guidance), 2),  # as many digits as the command line repeats
        interval=(round(float(low), 2), round(float(high), 2)),
    )


def usual_request(
    shelf: Shelf, paths: Sequence[str]
) -> tuple[list[tuple[str, int]], Sampling, Guidance]:
    """Classes by name, sampler and guidance of the first of some models."""
    with suppress(*MISTAKES):  # whoever then draws is told
        if paths:
            config = shelf.take(paths[0]).config
            names = config.class_names or map(str, range(config.model.num_classes))
            offered = [(name, label) for label, name in enumerate(names)]
            return offered, config.sampling, config.guidance
    return [], Sampling(sampler="ddim"), Guidance()


def nearest(what: str, value: object, low: int, high: int) -> int:
    """The whole number of a slider's field, or the bound it is beyond; ValueError for no number.

    The field itself moves to that bound, silently, when the person leaves it.
    """
    return min(max(_number(what, value, low, high), low), high)


def whole(what: str, value: object, low: int, high: int) -> int:
    """The whole number that a field holds; ValueError for anything else or out of bounds."""
    number = _number(what, value, low, high)
    if not low <= number <= high:
        raise ValueError(f"{what} must be {_bounds(low, high)}, not {number:,}")
    return number


def file_name(checkpoint: str) -> str:
    """A name for what a model has drawn: runs/digits gives runs-digits."""
    return re.sub(r"[^\w.]+", "-", checkpoint).strip("-.") or "model"


def _number(what: str, value: object, low: int, high: int) -> int:
    text = "" if value is None else str(value).strip()
    if not re.fullmatch(r"-?\d{1,30}", text):
        found = repr(text[:30]) if text else "nothing"
        raise ValueError(f"{what} must be {_bounds(low, high)}, not {found}")
    return int(text)


def _bounds(low: int, high: int) -> str:
    return f"a whole number from {low:,} to {high:,}"
