"""What HiPPO's memories keep of a signal that they read once, value by value, as the state grows.

Gu et al., "HiPPO: Recurrent Memory with Optimal Polynomial Projections", 2020.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from diffussm.analysis.figures.style import (
    GREY,
    decimal_log,
    line_look,
    look,
    new_figure,
    plain,
)
from diffussm.ssm.reconstruction import recall, remember

TITLES = {
    "legs": "LegS: all that was read",
    "legt": "LegT: a window, in polynomials",
    "fourier": "Fourier: a window, in waves",
}
DRAWN = 3
"""Of the states, the first, the middle and the last are drawn; all have their error."""


LONGEST, LARGEST, SEEDS = 100_000, 1024, 2**63
"""Most samples of a signal, largest state, and how many signals there are."""


@dataclass(frozen=True)
class Recalled:
    """The past as one memory draws it at the end of the signal."""

    past: Float[Tensor, " points"]
    """What was."""
    by_state: dict[int, Float[Tensor, " points"]]
    """What is recalled of it, by state size."""

    def errors(self) -> dict[int, float]:
        """Root of the mean squared difference, by state size."""
        return {
            state: float((found - self.past).square().mean().sqrt())
            for state, found in self.by_state.items()
        }


def band_limited(length: int, periods: int = 12, seed: int = 0) -> Float[Tensor, " length"]:
    """Noise in waves of 1 to `periods` periods, of mean square 1, in float64.

    Raises ValueError for a length that cannot hold that many periods or is above LONGEST, and for
    a seed that is not one of SEEDS.
    """
    if length > LONGEST:
        raise ValueError(f"a signal has at most {LONGEST:,} samples, not {length:,}; ask for fewer")
    if not 0 <= seed < SEEDS:
        raise ValueError(f"a seed lies between 0 and 2^63 - 1, and {seed} does not")
    if not 1 <= periods < length // 2:
        raise ValueError(
            f"{length} samples hold 1 to {max(length // 2 - 1, 0)} periods, not {periods}"
        )
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(periods, 2, generator=generator, dtype=torch.float64)
    spectrum = torch.zeros(length // 2 + 1, 2, dtype=torch.float64)
    spectrum[1 : periods + 1] = noise
    signal = torch.fft.irfft(torch.view_as_complex(spectrum), length)
    return signal / signal.square().mean().sqrt()


def recalled(
    signal: Float[Tensor, " length"], memory: str, states: Sequence[int], window: int | None = None
) -> Recalled:
    """The past of the signal's end.

    Raises ValueError for a state above LARGEST, and as `diffussm.ssm.reconstruction.remember`.
    """
    if states and max(states) > LARGEST:
        raise ValueError(
            f"a state has at most {LARGEST:,} numbers, not {max(states):,}; ask for a smaller one"
        )
    past = signal.double() if window is None else signal[-window:].double()
    points = (torch.arange(len(past), dtype=torch.float64) + 0.5) / len(past)
    found = {
        state: recall(remember(signal, memory, state, window)[-1], points, memory)
        for state in states
    }
    return Recalled(past, found)


def hippo_figure(signal: Float[Tensor, " length"], memories: Mapping[str, Recalled]) -> Figure:
    """A panel for each memory, its past at the signal's end, and the errors over the state size."""
    figure = new_figure(11, 1.2 + 1.9 * len(memories))
    layout: Any = [[memory, "error"] for memory in memories]
    panels = figure.subplot_mosaic(layout, width_ratios=(5, 2))
    for number, (memory, found) in enumerate(memories.items()):
        axes, first = plain(panels[memory]), len(signal) - len(found.past)
        axes.plot(signal, color=GREY, linewidth=6, label="signal")
        where = torch.arange(first, len(signal))
        states = list(found.by_state)
        drawn = dict.fromkeys(states[i * (len(states) - 1) // (DRAWN - 1)] for i in range(DRAWN))
        for place, state in enumerate(drawn):
            axes.plot(where, found.by_state[state], label=f"N = {state}", **line_look(place))
        margin = 1.25 * float(signal.abs().max())
        axes.set(xlim=(0, len(signal)), ylim=(-margin, margin), ylabel="value")
        axes.set_title(TITLES[memory], loc="left", fontsize=10)
        axes.legend(
            frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=9, handlelength=3
        )
        errors = found.errors()
        panels["error"].plot(
            list(errors),
            list(errors.values()),
            label=TITLES[memory].split(":")[0],
            **look(number + DRAWN),  # colours that no state size has
        )
    last = panels[list(memories)[-1]]
    last.set_xlabel("sample")
    error = plain(panels["error"])
    error.set(yscale="log", xlabel="state size N", ylabel="rms error, of the signal's rms")
    decimal_log(error.yaxis)
    error.legend(frameon=False, handlelength=3)
    return figure
