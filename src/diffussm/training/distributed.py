"""Ranks: the processes that train one model together, started by torchrun or by anything like it.

What starts them tells each by its environment which one it is: RANK of WORLD_SIZE, LOCAL_RANK on
this machine, and where they meet, MASTER_ADDR and MASTER_PORT. Nothing else is read, and one
process needs none of it. Rank 0 alone writes what is common to all and speaks to people.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from diffussm.checkpoint import one_line

T = TypeVar("T")

TIMEOUT = timedelta(minutes=20)
"""How long ranks wait for one of them; drawing previews on rank 0 takes less."""
RELEASE = 0.3
"""Seconds that gloo's threads take to let go of what they sent; Python aborts, now and then, where
it ends before (torch 2.13: 3 of 40 processes, none of 40 with this)."""
PATIENCE = 5.0
"""Seconds that ranks with nothing to say leave to the one that has."""


@dataclass(frozen=True, kw_only=True)
class World:
    """All ranks, as one of them sees them."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Its number among those on this machine."""

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def sum(self, numbers: Tensor) -> Tensor:
        """`numbers` added up over all ranks, on all of them."""
        if self.size > 1:
            dist.all_reduce(numbers)
        return numbers

    def gather(self, thing: Any) -> list[Any]:
        """The `thing` of every rank, in order, on all of them."""
        if self.size == 1:
            return [thing]
        things = [None] * self.size
        dist.all_gather_object(things, thing)
        return things

    def agree(self, act: Callable[[], T]) -> T:
        """What `act` gives, where it succeeds on every rank.

        Otherwise the first rank that failed raises its ValueError or OSError, and the others leave
        with the same exit code and nothing said: one mistake, one sentence.
        """
        result, error = None, None
        try:
            result = act()
        except (ValueError, OSError) as raised:
            error = raised
        failed = self.gather(error is not None)
        if not any(failed):
            return result  # pyright: ignore[reportReturnType]
        if error is not None and failed.index(True) == self.rank:
            raise error
        time.sleep(PATIENCE)  # what started them ends them all as soon as the first one leaves
        raise SystemExit(2)


ALONE = World()


@contextmanager
def joined() -> Iterator[World]:
    """The ranks that the environment names, connected; one process alone where it names none.

    Raises ValueError for an environment that cannot be, OSError where the others are not found.
    """
    world = named_world()
    if world.size == 1:
        yield world
        return
    # what lies on the CPU goes by gloo also where gradients go by nccl
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise OSError(f"rank {world.rank} did not find the others ({one_line(error)})") from None
    try:
        yield world
    finally:
        dist.destroy_process_group()
        time.sleep(RELEASE)


def named_world() -> World:
    """The ranks that the environment names, not connected; ValueError where it names none."""
    words = {name: os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    if words["WORLD_SIZE"] in ("", "1"):
        return ALONE
    try:
        size, rank, local_rank = (int(word) for word in words.values())
        if not 0 <= local_rank <= rank < size:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"the environment names no rank: {words}; start with torchrun, or unset WORLD_SIZE"
        ) from None
    return World(rank=rank, size=size, local_rank=local_rank)
