"""What the split kernel of `diffussm.ops.vandermonde` saves against the kernel as written.

    python benchmarks/s4d_kernel.py [--threads 2] [--repeats 5] [--out benchmarks/results/FILE.md]

Two comparisons, each with ours and the naive kernel in turn, so that a busy machine slows both:
DiffuSSM-S at 32 x 32 latents, batch 4, forward and backward; and the kernel of one layer alone.
Nothing is timed before both agree, in values and in every gradient.
"""

import argparse
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from diffussm.models import create_model
from diffussm.ops.vandermonde import vandermonde, vandermonde_reference
from diffussm.ssm import s4d

TOLERANCE = 1e-4
"""Largest difference, as a fraction of the largest value: float32 over long sums."""


@dataclass(frozen=True)
class Row:
    """Medians in seconds, and the median of the ratios of neighbouring runs."""

    what: str
    ours: float
    naive: float
    ratio: float


@contextmanager
def naive_kernels() -> Iterator[None]:
    """Inside, every S4D makes its kernel by the sum over modes as written."""
    s4d.vandermonde = vandermonde_reference
    try:
        yield
    finally:
        s4d.vandermonde = vandermonde


def compare_model(name: str, options: dict[str, int], batch: int, repeats: int) -> Row:
    """A training step without the optimiser: forward, backward."""
    torch.manual_seed(0)
    model = create_model(name, **options)
    size = options["input_size"]
    for part, parameter in model.named_parameters():
        if "modulation" in part or "decode" in part:  # zero at birth: they would hide the rest
            nn.init.normal_(parameter, std=0.02)
    image = torch.randn(batch, 4, size, size)
    t, y = torch.arange(batch) * 100, torch.arange(batch)

    def ours() -> list[Tensor]:
        answer = model(image, t, y)
        return [answer, *torch.autograd.grad(answer.square().mean(), list(model.parameters()))]

    def naive() -> list[Tensor]:
        with naive_kernels():
            return ours()

    return compare(f"{name}, {size} x {size}, batch {batch}, both ways", ours, naive, repeats)


def compare_kernel(dim: int, state: int, length: int, repeats: int) -> Row:
    """Kernel generation alone, forward."""
    torch.manual_seed(0)
    layer = s4d.S4D(dim, d_state=state)

    @torch.no_grad()
    def ours() -> list[Tensor]:
        return [layer.kernel(length)]

    def naive() -> list[Tensor]:
        with naive_kernels():
            return ours()

    return compare(f"kernel alone, D = {dim}, N = {state}, L = {length}", ours, naive, repeats)


def compare(
    what: str, ours: Callable[[], list[Tensor]], naive: Callable[[], list[Tensor]], repeats: int
) -> Row:
    """Times of both, once they agree; these first calls are the warm-up too."""
    for actual, expected in zip(ours(), naive(), strict=True):
        difference = (actual - expected).abs().max().item()
        if not difference <= TOLERANCE * expected.abs().max().item():
            raise SystemExit(f"{what}: results differ by {difference:.2g}; not timed")
    pairs = [(seconds(ours), seconds(naive)) for _ in range(repeats)]
    mine, theirs = zip(*pairs, strict=True)
    return Row(what, median(mine), median(theirs), median(b / a for a, b in pairs))


def seconds(function: Callable[[], object]) -> float:
    start = perf_counter()
    function()
    return perf_counter() - start


def table(rows: list[Row], repeats: int) -> str:
    lines = [
        f"{date.today()}, {processor()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, float32; medians of {repeats} alternating runs",
        "",
        "| | ours, s | naive, s | naive / ours |",
        "|---|---|---|---|",
    ]
    lines += [f"| {r.what} | {r.ours:.4f} | {r.naive:.4f} | {r.ratio:.1f} |" for r in rows]
    return "\n".join(lines) + "\n"


def processor() -> str:
    """Model and number of cores of this machine's processor."""
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = names[0].split(":")[1].strip() if names else name
    return f"{name}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the table there too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    repeats = arguments.repeats
    rows = [
        compare_model("DiffuSSM-S", {"input_size": 32}, batch=4, repeats=repeats),
        compare_kernel(dim=384, state=64, length=1024, repeats=repeats),
        compare_kernel(dim=384, state=64, length=16384, repeats=repeats),
    ]
    report = table(rows, repeats)
    print(report, end="")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(report)


if __name__ == "__main__":
    main()
