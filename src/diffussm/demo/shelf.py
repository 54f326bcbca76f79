"""The models of the page: each in memory once, until its file changes."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import torch

from diffussm.analysis.flops import cost
from diffussm.checkpoint import MODEL_FILE, model_file
from diffussm.config import choose
from diffussm.generation import Generator, load


class Facts(NamedTuple):
    """What a model is and costs."""

    family: str
    parameters: int
    multiply_adds: int
    """Of one call of the network for one image, as `diffussm info` counts them."""
    images: int
    """Seen in training."""


@dataclass(frozen=True)
class _Held:
    changed: int
    """When the file was written, in nanoseconds."""
    model: Generator


class Shelf:
    """Trained models by path; nothing else on the disk can be asked for.

    `work` is held by whoever computes: two people's pictures share the machine step by step, and
    the kernels that a network keeps while it samples are never those of two callers at once.
    """

    def __init__(self, paths: Iterable[str] = (), device: torch.device | None = None):
        self.device = device or torch.device("cpu")
        self.work = Lock()
        self._loading = Lock()
        self._held: dict[str, _Held | None] = {str(path): None for path in paths}

    @property
    def paths(self) -> list[str]:
        """All that can be asked for, in the order they came."""
        return list(self._held)

    def add(self, path: str) -> None:
        """Put one more model on the shelf."""
        self._held.setdefault(path, None)

    def take(self, path: str) -> Generator:
        """The model of a path, read anew if its file has changed.

        Raises ValueError for a path that is not here or whose file cannot be read.
        """
        with self._loading:
            held = choose("model", path, self._held)
            changed = model_file(path).stat().st_mtime_ns
            if held is None or held.changed != changed:
                self._held[path] = None  # never two at once in memory
                held = _Held(changed, load(path, self.device))
                self._held[path] = held
            return held.model

    def facts(self, path: str) -> Facts:
        """Size and cost of a model; errors as in `take`."""
        model = self.take(path)
        height, width = model.config.model.size
        return Facts(
            family=type(model.model).__name__,
            parameters=sum(parameter.numel() for parameter in model.model.parameters()),
            multiply_adds=cost(model.config.model, height, width).total,
            images=model.config.images,
        )


def newest_run(folder: Path) -> str | None:
    """The run inside `folder` whose model was written last, if there is any."""
    found = sorted(folder.glob(f"*/{MODEL_FILE}"), key=lambda file: file.stat().st_mtime_ns)
    return str(found[-1].parent) if found else None
