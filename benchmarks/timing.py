"""How the benchmarks measure: all sides in turn, so that a busy machine slows each; as a table."""

import argparse
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from diffussm.cli.process import prepare

TOLERANCE = 1e-4
"""Largest difference, as a fraction of the largest value: float32 over long sums."""

Side = Callable[[], list[Tensor]]


@dataclass(frozen=True)
class Row:
    """Medians in seconds, and the median of the ratios of neighbouring runs."""

    what: str
    ours: float
    other: float
    ratio: float


def agree(
    what: str, results: list[Tensor], expected: list[Tensor], tolerance: float = TOLERANCE
) -> None:
    """Stop the benchmark unless both sides compute the same."""
    for actual, true in zip(results, expected, strict=True):
        difference = (actual - true).abs().max().item()
        if not difference <= tolerance * true.abs().max().item():
            raise SystemExit(f"{what}: results differ by {difference:.2g}; not timed")


def compare(what: str, ours: Side, other: Side, repeats: int) -> Row:
    """Times of both, once they agree; these first calls are the warm-up too."""
    agree(what, ours(), other())
    return alternate(what, ours, other, repeats)


def alternate(what: str, ours: Side, other: Side, repeats: int) -> Row:
    """Times of two sides that need not compute the same."""
    ours(), other()
    pairs = [(seconds(ours), seconds(other)) for _ in range(repeats)]
    mine, theirs = zip(*pairs, strict=True)
    return Row(what, median(mine), median(theirs), median(b / a for a, b in pairs))


def in_turn(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median seconds of each of several sides, after one call each to warm up."""
    for side in sides.values():
        side()
    rounds = [{name: seconds(side) for name, side in sides.items()} for _ in range(repeats)]
    return {name: median(times[name] for times in rounds) for name in sides}


def seconds(function: Callable[[], object]) -> float:
    """How long a call takes, a GPU's work included."""
    _wait()
    start = perf_counter()
    function()
    _wait()
    return perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def both_ways(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The value, and the gradients of its mean square."""
    value = function(*inputs)
    return [value.detach(), *torch.autograd.grad(value.square().mean(), inputs)]


def table(rows: list[Row], other: str) -> str:
    lines = [f"| | ours, s | {other}, s | {other} / ours |", "|---|---|---|---|"]
    lines += [f"| {r.what} | {r.ours:.4f} | {r.other:.4f} | {r.ratio:.1f} |" for r in rows]
    return "\n".join(lines) + "\n"


def columns(names: list[str], rows: list[list[str]]) -> str:
    """A table of any columns."""
    lines = ["| " + " | ".join(line) + " |" for line in [names, *rows]]
    return "\n".join([lines[0], "|---" * len(names) + "|", *lines[1:]]) + "\n"


def conditions(repeats: int) -> str:
    """Date, machine and versions, for the head of a table."""
    return (
        f"{date.today()}, {processor()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, float32; medians of {repeats} alternating runs\n"
    )


def device_conditions(device: str, dtype: torch.dtype, repeats: int) -> str:
    """`conditions` on a device and in a precision."""
    words = conditions(repeats).replace("float32", str(dtype).removeprefix("torch."))
    return f"{torch.cuda.get_device_name()}; {words}" if device == "cuda" else words


def processor() -> str:
    """Model and number of cores of this machine's processor."""
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = names[0].split(":")[1].strip() if names else name
    return f"{name}, {os.cpu_count()} cores"


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    words = argparse.ArgumentParser(description=description)
    words.add_argument("--threads", type=int, default=torch.get_num_threads())
    words.add_argument("--repeats", type=int, default=5)
    words.add_argument("--out", type=Path, help="write the table there too")
    return words


def device_parser(description: str) -> argparse.ArgumentParser:
    """`parser`, with the device and what it computes in."""
    words = parser(description)
    words.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    words.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    return words


def put(text: str, out: Path | None) -> None:
    """Print a table, and write it."""
    print(text, end="")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)


def run(description: str, report: Callable[[int], str]) -> None:
    """Parse the command line, take memory and threads as the command does, report, and write it."""
    prepare()
    arguments = parser(description).parse_args()
    torch.set_num_threads(arguments.threads)
    text = conditions(arguments.repeats) + "\n" + report(arguments.repeats)
    put(text, arguments.out)
