"""Processes that share an evaluation: which images each makes follows from the images' numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Ranks(Protocol):
    """All processes, as one of them sees them; `diffussm.training.distributed.World` is one."""

    @property
    def rank(self) -> int:
        """Its own number; 0 makes the numbers of what all have seen."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def gather(self, thing: Any) -> list[Any]:
        """The `thing` of every rank, in order, on all of them."""
        ...

    def agree(self, act: Callable[[], T]) -> T:
        """What `act` gives, where it succeeds on every rank; else all of them end."""
        ...


@dataclass(frozen=True)
class Alone:
    """One process."""

    rank: int = 0
    size: int = 1

    def gather(self, thing: Any) -> list[Any]:
        """Its own."""
        return [thing]

    def agree(self, act: Callable[[], T]) -> T:
        """With itself."""
        return act()
