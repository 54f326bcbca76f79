"""What a number stands on, and when two numbers may be compared.

A result is one JSON object: metrics, warnings, the protocol and its hash. The protocol is a flat
table of plain values. Its hash covers all that has to agree for numbers to be comparable, which is
everything but what a comparison is about (SUBJECT) and what changes numbers by rounding at most
(CIRCUMSTANCES).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffussm.checkpoint import make_folder, one_line, write_safely

FORMAT = 1
"""Part of every protocol: it goes up when a metric is computed in another way."""

SUBJECT = ("model", "images_seen", "samples_file")
CIRCUMSTANCES = ("reference", "batch_size", "ranks", "device", "diffussm", "torch")

EVALUATIONS = "evaluations"
"""Folder of a run that keeps its results."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Numbers, and what they stand on."""

    metrics: dict[str, float]
    """By name; the name says what saw the images, unless it was Inception-v3."""
    protocol: dict[str, Any]
    """Plain values: numbers, text, truth values, None, lists."""
    warnings: tuple[str, ...] = ()
    """What a reader has to know before believing them."""

    @property
    def hash(self) -> str:
        """SHA-256 of what must agree, 16 digits of it."""
        return protocol_hash(self.protocol)

    def as_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "metrics": self.metrics,
            "warnings": list(self.warnings),
            "hash": self.hash,
            "protocol": self.protocol,
        }


def protocol_hash(protocol: Mapping[str, Any]) -> str:
    """SHA-256 of what must agree, 16 digits of it."""
    text = json.dumps(_compared(protocol), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_comparable(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: Path) -> None:
    """ValueError naming every field in which our protocol differs from that of the file `path`."""
    ours, theirs = _compared(ours), _compared(theirs)
    differing = [
        f"{field} is {_shown(ours.get(field))} here and {_shown(theirs.get(field))} there"
        for field in sorted(ours.keys() | theirs.keys())
        if ours.get(field) != theirs.get(field)
    ]
    if differing:
        raise ValueError(
            f"this cannot be compared with {path}: {'; '.join(differing)}. Evaluate both alike"
        )


def metric_differences(ours: Result, theirs: Result, path: Path) -> dict[str, float]:
    """Ours minus theirs, for the metrics that both have.

    Raises ValueError where the protocols differ, or no metric is common to both.
    """
    check_comparable(ours.protocol, theirs.protocol, path)
    common = [name for name in ours.metrics if name in theirs.metrics]
    if not common:
        raise ValueError(
            f"{path} has {', '.join(theirs.metrics) or 'no metrics'}, and none of "
            f"{', '.join(ours.metrics)}; measure one of these"
        )
    return {name: ours.metrics[name] - theirs.metrics[name] for name in common}


def write_result(path: Path, result: Result) -> None:
    """Write a result whole or not at all; OSError where that cannot be."""
    text = json.dumps(result.as_dict(), indent=2) + "\n"
    make_folder(path.parent)
    write_safely(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def store(run: Path, result: Result) -> Path:
    """Keep a result in its run's folder, named by images seen and hash; where it is."""
    path = run / EVALUATIONS / f"{result.protocol['images_seen']:012d}-{result.hash}.json"
    write_result(path, result)
    return path


def read_result(path: Path) -> Result:
    """The result in a file; ValueError where it holds none, or one that was changed."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        metrics = {str(name): float(value) for name, value in found["metrics"].items()}
        result = Result(
            metrics=metrics, protocol=dict(found["protocol"]), warnings=tuple(found["warnings"])
        )
        said = found["hash"]
    except FileNotFoundError:
        raise ValueError(f"there is no result {path}; `evaluate --out` writes one") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a result of `evaluate` ({type(error).__name__}: {one_line(error)})"
        ) from None
    if said != result.hash:
        raise ValueError(
            f"{path} was changed, or written by another version: its protocol has the hash "
            f"{result.hash}, not {said}; evaluate again"
        )
    return result


def _compared(protocol: Mapping[str, Any]) -> dict[str, Any]:
    apart = (*SUBJECT, *CIRCUMSTANCES)
    return {field: value for field, value in protocol.items() if field not in apart}


def _shown(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text[:12] + "..." if len(text) == 64 and text.isalnum() else text
