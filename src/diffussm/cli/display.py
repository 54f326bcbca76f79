"""What commands show while they work."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """One line for the person, on standard output as it is."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def progress_bar(what: str, total: int, done: int = 0) -> Iterator[Callable[[int, str], None]]:
    """A bar with time left on standard error; call what it gives with (amount done, details).

    It appears with the first call: a mistake found before leaves its sentence alone.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[details]}"),
    )
    progress = Progress(*columns, console=console)
    task = progress.add_task(what, total=total, completed=done, details="")

    def show(amount: int, details: str = "") -> None:
        progress.start()
        progress.update(task, completed=amount, details=details)

    try:
        yield show
    finally:
        if progress.live.is_started:
            progress.stop()
