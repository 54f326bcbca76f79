"""The training that the page may start: in a process of its own, so that the page stays quick."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock, Thread

LOOK_EVERY = 0.25
"""Seconds between two looks at how far it is."""

TRAINER = ["-m", "diffussm.demo.trainer"]

KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_MMAP_THRESHOLD_": str(2**30)}
"""Let glibc use freed memory again, as the command's own process does (diffussm.cli.process)."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is."""

    images: int = 0
    total: int = 0
    """0 before it is known."""
    loss: float | None = None
    speed: float | None = None
    """Images a second."""
    error: str = ""
    """Why it could not go on."""
    running: bool = True

    @property
    def left(self) -> float | None:
        """Seconds to the end, once the speed is known."""
        return (self.total - self.images) / self.speed if self.speed else None

    @property
    def done(self) -> bool:
        """Whether it has come to its end."""
        return not self.running and not self.error and 0 < self.total == self.images


class Training:
    """A run in `folder` that people watch; it stops, saving, when the last of them leaves."""

    def __init__(self, folder: Path, settings: Sequence[str] = ()):
        self.folder, self.settings = folder, list(settings)
        self.progress = Progress(running=False)
        self._process: subprocess.Popen[str] | None = None
        self._listener: Thread | None = None
        self._watchers = 0
        self._lock = Lock()

    def watch(self) -> Iterator[Progress]:
        """Begin, or go on, unless it runs already; where it stands, until it has ended."""
        with self._lock:
            self._watchers += 1
            if not self.progress.running:
                self._start()
        try:
            while True:
                progress = self.progress
                yield progress
                if not progress.running:
                    return
                time.sleep(LOOK_EVERY)
        finally:
            with self._lock:
                self._watchers -= 1
                if not self._watchers:
                    self.stop()

    def stop(self) -> None:
        """Ask it to save and end; this does not wait."""
        if self._process and self._process.poll() is None:
            self._process.terminate()

    def wait(self) -> None:
        """Until its process has ended."""
        if self._listener:
            self._listener.join()

    def newest_preview(self) -> Path | None:
        """The last grid of samples that it has drawn."""
        drawn = sorted((self.folder / "previews").glob("[0-9]*.png"))
        return drawn[-1] if drawn else None

    def _start(self) -> None:
        self.progress = Progress()
        command = [sys.executable, *TRAINER, str(self.folder), *self.settings]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=KEEP_MEMORY | os.environ
        )
        self._listener = Thread(target=self._listen, args=[self._process], daemon=True)
        self._listener.start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self.progress = replace(self.progress, **json.loads(line))
        code, error = process.wait(), self.progress.error
        if code and not error:
            error = f"the training process ended with code {code}; the same button goes on from "
            error += "the last checkpoint"
        self.progress = replace(self.progress, error=error, running=False)
