"""What the split kernel of `diffussm.ops.vandermonde` saves against the kernel as written.

    python benchmarks/s4d_kernel.py [--threads 2] [--repeats 5] [--out benchmarks/results/FILE.md]

Two comparisons, each with ours and the naive kernel in turn, so that a busy machine slows both:
DiffuSSM-S at 32 x 32 latents, batch 4, forward and backward; and the kernel of one layer alone.
Nothing is timed before both agree, in values and in every gradient.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timing import Row, compare, run, table
from torch import Tensor, nn

from diffussm.models import create_model
from diffussm.ops.vandermonde import vandermonde, vandermonde_reference
from diffussm.ssm import s4d


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


def report(repeats: int) -> str:
    rows = [
        compare_model("DiffuSSM-S", {"input_size": 32}, batch=4, repeats=repeats),
        compare_kernel(dim=384, state=64, length=1024, repeats=repeats),
        compare_kernel(dim=384, state=64, length=16384, repeats=repeats),
    ]
    return table(rows, "naive")


if __name__ == "__main__":
    run(__doc__.splitlines()[0], report)
