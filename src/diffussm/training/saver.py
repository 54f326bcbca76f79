"""Writing while training goes on: one thread, one save at a time.

What is written was copied before, so that training may change its own. A failure is raised by the
next call, and the files of earlier saves are whole whatever happens.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Saver:
    """Does what it is given, in order, on a thread of its own."""

    def __init__(self):
        self._thread = ThreadPoolExecutor(1, "saving")
        self._running: Future[None] | None = None

    def start(self, write: Callable[[], None]) -> None:
        """Begin to `write`, once the one before is done; raises what that one raised."""
        self.wait()
        self._running = self._thread.submit(write)

    def check(self) -> None:
        """Raise what the last one raised, without waiting for it."""
        if self._running and self._running.done():
            self.wait()

    def wait(self) -> None:
        """Until all is written; raises what the last one raised."""
        running, self._running = self._running, None
        if running:
            running.result()

    def close(self) -> None:
        """Until all is written, whatever came of it; nothing can be written after."""
        self._thread.shutdown()
