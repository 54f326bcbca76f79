"""Ctrl-C and SIGTERM: the first one asks, so that work is saved, and the second one kills."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def on_stop(ask: Callable[[], object], signals: tuple[int, ...] = SIGNALS) -> Iterator[None]:
    """Meanwhile let the first of `signals` call `ask`, and the second one do what it did before."""
    previous = {}

    def restore():
        for name, handler in previous.items():
            signal.signal(name, handler)

    def note(number, frame):
        restore()
        ask()

    for name in signals:
        previous[name] = signal.signal(name, note)
    try:
        yield
    finally:
        restore()
