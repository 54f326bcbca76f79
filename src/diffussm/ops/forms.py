"""Which form of an operator runs: the one that its rule takes from the shapes, or one asked for.

    with use_form("diagonal_conv", "fft"):
        ...

An operator with several forms calls `asked_form` and follows its rule where nothing is asked.
The rules and the measurements behind them are in docs/performance.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from diffussm.config import choose

FORMS = {
    "diagonal_conv": ("fft", "chunked", "triton"),
    "selective_scan": ("torch", "triton"),
}
"""Operators that have several forms, and these."""

# A plain dict, not a ContextVar: compilers follow only the former.
_asked: dict[str, str] = {}


@contextmanager
def use_form(operator: str, form: str) -> Iterator[None]:
    """Run `operator` in the form `form` wherever this process calls it inside the block.

    Raises ValueError for an unknown operator or form.
    """
    choose(f"form of {operator}", form, dict.fromkeys(choose("operator", operator, FORMS)))
    before = _asked.get(operator)
    _asked[operator] = form
    try:
        yield
    finally:
        if before is None:
            del _asked[operator]
        else:
            _asked[operator] = before


def asked_form(operator: str) -> str | None:
    """The form that `use_form` asks of `operator`, if any."""
    return _asked.get(operator)
