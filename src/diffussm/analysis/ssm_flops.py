"""Multiply-adds of state space layers on one sequence, by formula; one function a layer.

    linears    matrix products over positions
    mixing     what carries information along the sequence: FFTs and spectra, or a scan
    kernels    making the kernel from the parameters: once a batch in training, once to sample

A function answers for all directions together, since two convolutions share the signal's FFT.
S4D is counted by FFTs, as the paper counts, unless `diffussm.ops.forms.use_form` asks for chunks.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from diffussm.ops.chunk_system import CHUNK
from diffussm.ops.chunked_conv import chunked_conv_flops
from diffussm.ops.forms import asked_form
from diffussm.ops.long_conv import long_conv_flops
from diffussm.ops.selective_scan import selective_scan_flops


class LayerCost(NamedTuple):
    """Multiply-adds of one layer, all its directions together."""

    linears: int
    mixing: int
    kernels: int


def s4d_cost(dim: int, length: int, directions: int, options: dict[str, Any]) -> LayerCost:
    """A product of state x length a channel makes the kernel.

    In chunks: the products of `diffussm.ops.chunked_conv`, whose matrices take a complex product
    for each mode and place of a chunk; the walk between chunks is not counted.
    """
    state = options["d_state"]
    if asked_form("diagonal_conv") in ("chunked", "triton"):
        mixing = chunked_conv_flops(1, length, dim, directions, state // 2) // 2
        return LayerCost(0, mixing, directions * dim * 2 * state * (CHUNK + 1))
    kernels = directions * dim * state * length
    return LayerCost(0, _convolution(dim, length, directions), kernels)


def s4_cost(dim: int, length: int, directions: int, options: dict[str, Any]) -> LayerCost:
    """1 + 2 rank + 2 rank^2 products like S4D's, and FFTs of twice the length."""
    rank = 2 if options.get("init") == "legt" else 1
    products = (1 + 2 * rank + 2 * rank**2) * options["d_state"] * length
    transform = round(1.25 * 2 * length * math.log2(2 * length))
    transforms = (rank**2 + 2 * rank + 1) * transform
    kernels = directions * dim * (products + transforms)
    return LayerCost(0, _convolution(dim, length, directions), kernels)


def lssl_cost(dim: int, length: int, directions: int, options: dict[str, Any]) -> LayerCost:
    """One step's matrices (a solve, or a matrix exponential), and Krylov products."""
    state = options["d_state"]
    step = EXPONENTIAL if options.get("discretization") == "zoh" else SOLVE
    made = round(step * state**3) + krylov_products(state, length)
    return LayerCost(0, _convolution(dim, length, directions), directions * dim * made)


SOLVE = 4 / 3
"""Factorising a matrix and solving for as many columns, in units of state^3."""
EXPONENTIAL = 15
"""About a dozen products: torch's degree and number of squarings depend on the matrix."""


def krylov_products(state: int, length: int) -> int:
    """Multiply-adds of `ops.krylov.krylov` for one channel."""
    doublings = math.ceil(math.log2(length) / 2)
    rows = math.ceil(length / 2**doublings)
    columns = sum(state**3 + 2**i * state**2 for i in range(doublings))
    steps = math.ceil(math.log2(rows))
    left = sum(2**i * state**2 for i in range(steps)) + max(steps - 1, 0) * state**3
    return columns + left + rows * 2**doublings * state


def mamba_cost(dim: int, length: int, directions: int, options: dict[str, Any]) -> LayerCost:
    """Four projections of each position, a short convolution, and the scan."""
    inner, state, rank = options["expand"] * dim, options["d_state"], math.ceil(dim / 16)
    linears = length * inner * (2 * dim + rank + 2 * state + rank + dim)
    mixing = length * inner * CONV_WIDTH + selective_scan_flops(1, length, inner, state) // 2
    return LayerCost(directions * linears, directions * mixing, 0)


CONV_WIDTH = 4

SSM_COSTS: dict[str, Callable[[int, int, int, dict[str, Any]], LayerCost]] = {
    "s4d": s4d_cost,
    "s4": s4_cost,
    "lssl": lssl_cost,
    "mamba": mamba_cost,
}


def _convolution(dim: int, length: int, directions: int) -> int:
    return long_conv_flops(1, length, dim, directions) // 2
