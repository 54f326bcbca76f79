"""How the command's process uses the machine: set once, before torch is loaded.

Measured on two cores with the digits recipe; see docs/architecture.md, "Numbers".
"""

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of glibc's `mallopt` settings."""


def prepare() -> None:
    """Let idle threads sleep, and freed memory be used again; the environment's own words win."""
    # OpenMP's threads wait for each other asleep, not spinning: where another program holds one of
    # two cores, a training step else takes several times as long.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # glibc returns each large array to the system, whose fresh pages then cost more than the work
    # done in them.
    allocator = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if allocator and not any(name.startswith("MALLOC_") for name in os.environ):
        allocator(TRIM_THRESHOLD, 2**31 - 1)
        allocator(MMAP_THRESHOLD, 2**30)
