"""The process that trains for the page: `python -m diffussm.demo.trainer FOLDER [SETTING ...]`.

It says where it stands on standard output, one JSON object a line with fields of
`diffussm.demo.training.Progress`. SIGTERM, Ctrl-C or the page's end save before it stops.
"""

import json
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from diffussm.training import Run, find_recipe, read_tables, recipe

RECIPE = "digits"
TELL_EVERY = 0.25
"""Seconds between two lines, at least."""


def main(folder: Path, settings: list[str]) -> None:
    """Train the digits recipe in `folder`, or go on with it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = Run(recipe(read_tables(find_recipe(RECIPE), settings)), folder, device)

    def stop(number, frame):
        run.trainer.stop_asked = True

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    total, told = run.recipe.training.images, time.monotonic()
    _tell(images=run.resumed_at, total=total)
    with suppress(BrokenPipeError):  # the page is gone
        for step in run.steps():
            if time.monotonic() - told >= TELL_EVERY:
                told = time.monotonic()
                _tell(images=step.images, total=total, loss=step.simple, speed=step.speed)
    if run.unsaved:
        run.save()
    run.wait()
    run.close()
    with suppress(BrokenPipeError):
        _tell(images=run.trainer.images, total=total)


def _tell(**values: int | float | str) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2:])
    except (ValueError, OSError, ArithmeticError) as error:
        _tell(error=str(error))
        sys.exit(2)
