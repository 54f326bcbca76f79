"""What a run writes about itself: lines of JSON, and what watches it by name.

A line is due every `training.log_every` images and holds the mean of the steps since the last one;
a checkpoint, a validation, an evaluation or the end bring it forward. Steps after the last
checkpoint are trained again when a run resumes, so their lines are dropped.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffussm.checkpoint import write_safely
from diffussm.training.step import Step, merge
from diffussm.training.watchers import open_watcher

METRICS_FILE = "metrics.jsonl"


class Metrics:
    """The open records of one run, going on after `images`.

    watch     names of `diffussm.training.watchers.WATCHERS` that are told too
    recipe    the tables that they show
    Raises ValueError for an unknown watcher or one that is not installed.
    """

    def __init__(
        self,
        folder: Path,
        images: int,
        watch: Sequence[str] = (),
        recipe: dict[str, dict[str, Any]] | None = None,
    ):
        self.path = folder / METRICS_FILE
        _drop_after(self.path, images)
        self._watchers = [open_watcher(name, folder, images, recipe or {}) for name in watch]
        self._file = open(self.path, "a")  # noqa: SIM115 (open as long as the run is)
        self._steps: list[Step] = []

    def add(self, step: Step, due: bool) -> None:
        """Note one step, and write a line if one is due."""
        self._steps.append(step)
        if due:
            values = asdict(merge(self._steps))
            values = {name: value for name, value in values.items() if value is not None}
            self._steps = []
            self._file.write(json.dumps(values) + "\n")
            for watcher in self._watchers:
                watcher.write(values)

    def flush(self) -> None:
        """Hand everything written so far to the operating system."""
        self._file.flush()
        for watcher in self._watchers:
            watcher.flush()

    def close(self) -> None:
        """Write what is left and close the files."""
        self._file.close()
        for watcher in self._watchers:
            watcher.close()


def _drop_after(path: Path, images: int) -> None:
    """Keep the lines of steps up to `images`; a kill may have cut the last one short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            seen = json.loads(line)["images"]
        except (json.JSONDecodeError, KeyError, TypeError):
            break
        if seen > images:
            break
        kept.append(line + "\n")
    write_safely(path, lambda temporary: temporary.write_text("".join(kept)))
