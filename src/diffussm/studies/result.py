"""What came of one member with one seed: a JSON file that says all, written once it is finished.

MEMBER/seed-0/              an ordinary run folder
MEMBER/seed-0.json          the result
MEMBER/seed-0.clock.json    seconds of training so far, at each checkpoint
MEMBER/seed-0.lock          held by the process that trains it
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffussm.checkpoint import write_safely
from diffussm.config import from_dict, to_dict


@dataclass(frozen=True)
class Place:
    """Where one member with one seed lies in a study's folder."""

    folder: Path
    member: str
    seed: int

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / self.member / f"seed-{self.seed}"

    @property
    def result(self) -> Path:
        """What came of it."""
        return self.run.with_name(f"{self.run.name}.json")

    @property
    def clock(self) -> Path:
        """Seconds so far."""
        return self.run.with_name(f"{self.run.name}.clock.json")

    @property
    def lock(self) -> Path:
        """What the process at work holds."""
        return self.run.with_name(f"{self.run.name}.lock")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a trained model beside its metrics; an empty text for what is not so."""

    parameters: int
    multiply_adds: int
    """Of one forward pass for one image, by formula."""
    kernels: int
    """Multiply-adds that make the kernels, once a batch in training."""
    images: int
    """Seen in training."""
    seconds: float
    """Of training, its validations and checkpoints included: processor time of one process, or
    on a GPU what a clock shows."""
    threads: int
    processor: str
    torch: str
    diverged: str = ""
    """Why training stopped before its end."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One member trained and measured with one seed."""

    member: str
    seed: int
    recipe: Mapping[str, Any]
    """The resolved tables."""
    measure: Mapping[str, Any]
    """The study's table of that name."""
    facts: Facts
    metrics: Mapping[str, float | None]
    """By name; None for one that is not a finite number."""
    curve: tuple[tuple[int, float], ...]
    """Images seen and the loss of the averaged weights on images held out."""


def write_result(place: Place, result: Result) -> None:
    """Write a result whole or not at all."""
    values = {
        "member": result.member,
        "seed": result.seed,
        "facts": to_dict(result.facts),
        "metrics": dict(result.metrics),
        "measure": dict(result.measure),
        "recipe": result.recipe,
        "curve": result.curve,
    }
    text = json.dumps(values, indent=1) + "\n"
    write_safely(place.result, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_result(place: Place) -> Result | None:
    """The result at a place, None where there is none yet; ValueError where it is damaged."""
    if not place.result.exists():
        return None
    try:
        values = json.loads(place.result.read_text(encoding="utf-8"))
        return Result(
            member=values["member"],
            seed=values["seed"],
            recipe=values["recipe"],
            measure=values["measure"],
            facts=from_dict(Facts, values["facts"]),
            metrics=values["metrics"],
            curve=tuple((int(images), float(loss)) for images, loss in values["curve"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{place.result} is no result of a study ({type(error).__name__}: {error}); remove it, "
            "and it is measured again"
        ) from None
