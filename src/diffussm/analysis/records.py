"""What a run wrote about itself, as curves over the images it has seen.

metrics.jsonl    a line holds the mean loss since the line before; some hold `validation`, the loss
                 on held-out images, or `evaluation`, numbers by name
evaluations/     results of `diffussm evaluate`: numbers by name, and their protocol

Numbers of different protocols cannot be compared, so each protocol has a curve of its own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"
EVALUATIONS = "evaluations"
RECIPES = ""

Curve = dict[int, float]
"""A number by images seen."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The curves of one run."""

    loss: Curve
    """Squared error of the prediction in training."""
    validation: Curve = field(default_factory=dict)
    """The same for held-out images and averaged weights."""
    evaluations: dict[str, dict[str, Curve]] = field(default_factory=dict)
    """Of samples of the averaged weights, by name of the metric and hash of the protocol; "" stands
    for the one that the recipe names."""
    protocols: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """By hash, for all but the recipe's."""


def read_record(run: Path) -> Record:
    """The record of a run folder; ValueError where it has none or a line is damaged."""
    path = run / METRICS_FILE
    if not path.is_file():
        raise ValueError(f"{run} has no {METRICS_FILE}; give the folder of a run that has begun")
    loss, validation, evaluations, protocols = {}, {}, {}, {}
    for number, text in enumerate(path.read_text().split("\n")[:-1], start=1):
        # a kill may have cut the last line short: it has no end
        try:
            line = json.loads(text)
            images = line["images"]
            if not line["skipped"]:
                loss[images] = float(line["simple"])
            if "validation" in line:
                validation[images] = float(line["validation"])
            _note(evaluations, RECIPES, images, line.get("evaluation", {}))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"line {number} of {path} is damaged; remove it") from None
    if not loss:
        raise ValueError(f"{path} is empty: the run has not done a step yet")
    for file in sorted((run / EVALUATIONS).glob("*.json")):
        try:
            found = json.loads(file.read_text())
            images = int(found["protocol"]["images_seen"])
            protocols[str(found["hash"])] = dict(found["protocol"])
            _note(evaluations, str(found["hash"]), images, found["metrics"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{file} is damaged; remove it") from None
    return Record(loss=loss, validation=validation, evaluations=evaluations, protocols=protocols)


def _note(
    evaluations: dict[str, dict[str, Curve]], protocol: str, images: int, metrics: Any
) -> None:
    for name, value in metrics.items():
        curve = evaluations.setdefault(name, {}).setdefault(protocol, {})
        curve[images] = float(value)
