"""The state space layers against their slow truths, and against each other.

    python benchmarks/ssm.py [--threads 2] [--repeats 5] [--out benchmarks/results/FILE.md]

Kernels, scans and whole layers, forward and backward, float32. What is compared with a reference is
timed only if values and every gradient agree. A last table has the scan's peak memory.
"""

from functools import partial

import torch
from memory import PeakMemory
from timing import Row, agree, alternate, both_ways, compare, run, table
from torch import Tensor, nn

from diffussm.ops.cauchy import low_rank_kernel, low_rank_kernel_reference
from diffussm.ops.selective_scan import _selective_scan as forward
from diffussm.ops.selective_scan import _selective_scan_backward as backward
from diffussm.ops.selective_scan import selective_scan, selective_scan_reference
from diffussm.ops.vandermonde import vandermonde, vandermonde_reference
from diffussm.ssm.bidirectional import Bidirectional
from diffussm.ssm.choices import SSMS
from diffussm.ssm.s4 import S4
from diffussm.ssm.s4d import S4D

SCANS = [(1, 384, 16), (1, 768, 16), (4, 768, 16), (1, 768, 64)]
"""Batch, dim and state of the selective scans."""


def modes(dim: int, state: int, length: int) -> list[Tensor]:
    """What S4D's kernel is made of, at birth."""
    layer = S4D(dim, d_state=state)
    dt = layer.dt[:, None].detach()
    decay, angle = -dt * layer.log_decay.exp().detach(), dt * layer.frequency.detach()
    coefficients = torch.randn(2, dim, state // 2)
    return [x.requires_grad_() for x in (decay, angle, *coefficients)]


def s4d_against_naive(dim: int, state: int, length: int, repeats: int) -> Row:
    inputs = modes(dim, state, length)
    sides = [
        partial(both_ways, lambda *x, f=function: f(*x, length), inputs)
        for function in (vandermonde, vandermonde_reference)
    ]
    return compare(f"D = {dim}, N = {state}, L = {length}", *sides, repeats)


def s4_against_s4d(
    dim: int, state: int, length: int, repeats: int, *, backward: bool, checked: int = 8
) -> Row:
    """How much longer S4's kernel takes; S4's is checked on a few channels of itself first."""
    s4, s4d = S4(dim, d_state=state), S4D(dim, d_state=state)
    poles = [x[:checked].detach().double() for x in s4.poles()]
    expected = low_rank_kernel_reference(*poles, length)
    agree("S4's kernel", [low_rank_kernel(*poles, length)], [expected])

    def kernel(layer: nn.Module) -> list[Tensor]:
        if not backward:
            with torch.no_grad():
                return [layer.kernel(length)]
        parameters = [p for name, p in layer.named_parameters() if name != "D"]
        return list(torch.autograd.grad(layer.kernel(length).square().mean(), parameters))

    ways = "both ways" if backward else "forward"
    what = f"D = {dim}, N = {state}, L = {length}, {ways}"
    return alternate(what, partial(kernel, s4d), partial(kernel, s4), repeats)


def scan_inputs(batch: int, length: int, dim: int, state: int) -> list[Tensor]:
    """u, dt, A, B and C as Mamba has them at birth."""
    dt = torch.exp(torch.empty(batch, length, dim).uniform_(-7, -2.3))
    a = -torch.arange(1.0, state + 1).repeat(dim, 1)
    b, c = torch.randn(2, batch, length, state)
    return [x.requires_grad_() for x in (torch.randn(batch, length, dim), dt, a, b, c)]


def parallel_against_sequential(batch: int, dim: int, state: int, length: int, repeats: int) -> Row:
    inputs = scan_inputs(batch, length, dim, state)
    what = f"batch {batch}, D = {dim}, N = {state}, L = {length}"
    sides = [partial(both_ways, f, inputs) for f in (selective_scan, selective_scan_reference)]
    return compare(what, *sides, repeats)


def scan_memory(batch: int, dim: int, state: int, length: int) -> str:
    """A line: what the scan and its backward pass hold beyond, against their inputs and outputs."""
    inputs = scan_inputs(batch, length, dim, state)
    needed = sum(x.nbytes for x in inputs)
    inputs = [x.detach() for x in inputs]
    with PeakMemory(
        *inputs
    ) as memory:  # the operators' own functions: a mode does not see into them
        y, begins = forward._init_fn(*inputs)
        gradients = backward._init_fn(*inputs, begins, torch.ones_like(y))
    needed += 2 * y.nbytes + sum(x.nbytes for x in gradients)
    held = memory.peak
    return (
        f"| batch {batch}, D = {dim}, N = {state}, L = {length} | {needed / 2**20:.1f} "
        f"| {held / 2**20:.1f} | {held / needed:.2f} |"
    )


def layer_against_s4d(name: str, batch: int, dim: int, length: int, repeats: int) -> Row:
    """A layer in both directions, with its usual state, against S4D; not the same answer."""
    u = torch.randn(batch, length, dim, requires_grad=True)

    def side(name: str) -> list[Tensor]:
        inputs = [u, *layers[name].parameters()]
        return list(torch.autograd.grad(layers[name](u).square().mean(), inputs))

    layers = {
        name: Bidirectional(*(SSMS[name].layer(dim, **SSMS[name].fixed) for _ in range(2)))
        for name in dict.fromkeys(["s4d", name])
    }
    what = f"{name}, N = {SSMS[name].d_state}, batch {batch}, D = {dim}, L = {length}"
    return alternate(what, partial(side, "s4d"), partial(side, name), repeats)


def columns_against_rows(batch: int, dim: int, side: int, repeats: int) -> Row:
    """What reading an image by columns costs beside reading it by rows."""
    layer = Bidirectional(S4D(dim), S4D(dim))
    u = torch.randn(batch, side * side, dim, requires_grad=True)

    def read(rows: int) -> list[Tensor]:
        return list(torch.autograd.grad(layer(u, rows).square().mean(), [u]))

    what = f"S4D both ways, batch {batch}, D = {dim}, {side} x {side}"
    return alternate(what, partial(read, 1), partial(read, side), repeats)


def report(repeats: int) -> str:
    torch.manual_seed(0)
    size = {"dim": 384, "state": 64, "length": 1024}
    parts = [
        "S4D's kernel against the Vandermonde product as written, forward and backward\n",
        table([s4d_against_naive(**size, repeats=repeats)], "naive"),
        "S4's kernel against S4D's\n",
        table(
            [s4_against_s4d(**size, repeats=repeats, backward=b) for b in (False, True)], "S4"
        ).replace("ours", "S4D"),
        "The parallel selective scan against the sequential one, forward and backward\n",
        table(
            [parallel_against_sequential(*scan, length=1024, repeats=repeats) for scan in SCANS],
            "sequential",
        ),
        "Peak memory of the selective scan, forward and backward, inputs included, MiB\n",
        "| | inputs and outputs | peak | ratio |\n|---|---|---|---|\n"
        + "\n".join(scan_memory(*scan, length=1024) for scan in SCANS)
        + "\n",
        "Layers in both directions, forward and backward, against S4D\n",
        table(
            [layer_against_s4d(name, 4, 384, 1024, repeats) for name in SSMS if name != "s4d"],
            "layer",
        ).replace("ours", "S4D"),
        "An image read by columns against by rows\n",
        table([columns_against_rows(4, 384, 32, repeats)], "columns").replace("ours", "rows"),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    run(__doc__.splitlines()[0], report)
