"""What HiPPO promises: a state of a few numbers from which the past can be drawn again.

    remember    f(0), f(1), ... one value after another  ->  the state h after each of them
    recall      h  ->  sum_n h_n g_n(x), the past at x from 0, its oldest end, to 1

The signal is constant over each sample, and for such a signal every step is exact: all systems
remember the constant 1 as e_0 = (1, 0, 0, ...), since A e_0 + B = 0, so that during a sample f the
state moves towards f e_0 by the system without input:

    h <- f e_0 + E (h - f e_0)

    legs    h' = (A h + B f) / t       E = exp(A log((t + 1) / t))   the whole past, t samples long
    legt    h' = (A h + B f) 2 / w     E = exp(2 A / w)              a window of the last w samples
    fourier    the same, with another A and B

The basis g_n is sqrt(2n+1) P_n(2x - 1), for fourier waves of whole periods. LegS holds the exact
projection of the whole past. The others must guess the value that leaves their window from their
own state, so their window is an approximation, the better the larger the state; and a sum of waves
cannot but end where it began.

Gu et al., "HiPPO: Recurrent Memory with Optimal Polynomial Projections", 2020: theorem 1 (LegT),
theorem 2 and equation 3 (LegS), proposition 3 (no timescale in LegS); Gu et al., "How to Train Your
HiPPO", 2022, theorem 6 (Fourier).
"""

from collections.abc import Callable, Iterator
from itertools import count, repeat
from math import pi, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from diffussm.config import choose
from diffussm.ssm.hippo import System, fourier, legs, legt

TOGETHER = 16
"""Exponentials taken at once: torch's of one matrix alone errs by 1e-10 (pytorch issue 196592)."""


def remember(
    signal: Float[Tensor, " length *channels"],
    memory: str = "legs",
    state: int = 64,
    window: int | None = None,
) -> Float[Tensor, " length *channels state"]:
    """The state after each sample of `signal`, in float64, starting from nothing (zeros).

    `memory` is one of MEMORIES; `window`, in samples, is for all but legs. Raises ValueError for an
    empty signal, a value that is not finite, and a memory, state or window that does not exist.
    """
    if len(signal) == 0:
        raise ValueError("the signal is empty; there is nothing to remember")
    finite = signal.isfinite().flatten(1).all(1) if signal.ndim > 1 else signal.isfinite()
    if not finite.all():
        raise ValueError(f"the signal is not finite at sample {int(finite.long().argmin())}")
    steps = choose("memory", memory, MEMORIES)(state, window)

    signal = signal.double()
    h = torch.zeros(*signal.shape[1:], state, dtype=torch.float64, device=signal.device)
    states = []
    for value, step in zip(signal, steps, strict=False):  # the steps never end
        constant = torch.nn.functional.pad(value[..., None], (0, state - 1))
        h = constant + (h - constant) @ step.to(signal.device).T
        states.append(h)
    return torch.stack(states)


def recall(
    coefficients: Float[Tensor, "*remembered state"],
    points: Float[Tensor, " points"],
    memory: str = "legs",
) -> Float[Tensor, "*remembered points"]:
    """What `memory` remembers of the past at `points`, from 0 (the oldest moment) to 1 (now).

    Sample j of a past of k samples is the stretch from j / k to (j + 1) / k, its middle being
    (j + 1/2) / k; k is the window where there is one. Raises ValueError for a point outside the
    past, and an unknown memory.
    """
    if not ((points >= 0) & (points <= 1)).all():
        outside = points[~((points >= 0) & (points <= 1))][0].item()
        raise ValueError(f"points lie between 0 (oldest) and 1 (now), not at {outside}")
    basis = choose("memory", memory, BASES)
    return coefficients @ basis(coefficients.shape[-1], points.to(coefficients)).T


def legendre(state: int, points: Float[Tensor, " points"]) -> Float[Tensor, "points state"]:
    """sqrt(2n+1) P_n(2x - 1) for n < state: orthonormal on [0, 1]; by Bonnet's recursion."""
    x = 2 * points - 1
    polynomials = [torch.ones_like(x), x]
    for n in range(1, state - 1):
        last, latest = polynomials[-2:]
        polynomials.append(((2 * n + 1) * x * latest - n * last) / (n + 1))
    norms = torch.sqrt(2 * torch.arange(state, dtype=x.dtype, device=x.device) + 1)
    return torch.stack(polynomials[:state], dim=-1) * norms


def waves(state: int, points: Float[Tensor, " points"]) -> Float[Tensor, "points state"]:
    """1, 0, then sqrt(2) cos and sin of 2 pi j (1 - x) for j < state / 2: orthonormal on [0, 1]."""
    angles = 2 * pi * torch.outer(1 - points, torch.arange(state // 2).to(points))
    pairs = sqrt(2) * torch.stack([torch.cos(angles), torch.sin(angles)], dim=-1)
    pairs[:, 0] = torch.tensor([1.0, 0.0]).to(points)
    return pairs.flatten(1)


def whole_past(state: int, window: int | None) -> Iterator[Tensor]:
    """E of each step of LegS; in the first nothing has been remembered, log(1 / 0) is infinite."""
    if window is not None:
        raise ValueError(f"legs remembers the whole past; leave out the window of {window}")
    a, _ = legs(state)
    yield torch.zeros_like(a)
    for first in count(1, TOGETHER):
        t = torch.arange(first, first + TOGETHER, dtype=torch.float64)
        yield from torch.matrix_exp(a * torch.log1p(1 / t)[:, None, None])


def sliding_window(state: int, window: int | None) -> Iterator[Tensor]:
    """E of each step of LegT."""
    return _same_step("legt", legt, state, window)


def sliding_waves(state: int, window: int | None) -> Iterator[Tensor]:
    """E of each step of Fourier."""
    return _same_step("fourier", fourier, state, window)


def _same_step(
    name: str, system: Callable[[int], System], state: int, window: int | None
) -> Iterator[Tensor]:
    """E, always the same, of a system whose A and B are those of a window of length 2."""
    if window is None or window < 1:
        raise ValueError(f"{name} needs a window of at least 1 sample, not {window}")
    a, _ = system(state)
    return repeat(torch.matrix_exp(a * 2 / window))


MEMORIES: dict[str, Callable[[int, int | None], Iterator[Tensor]]] = {
    "legs": whole_past,
    "legt": sliding_window,
    "fourier": sliding_waves,
}

BASES: dict[str, Callable[[int, Tensor], Tensor]] = {
    "legs": legendre,
    "legt": legendre,
    "fourier": waves,
}
"""What the numbers of each memory's state are coefficients of."""
