"""What one optimiser step did: measured by each rank on its own images, then added up."""

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from diffussm.diffusion import Loss
from diffussm.shapes import TimeStep

QUARTERS = 4


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one optimiser step did, or several on average."""

    images: int
    """Images seen so far, this step's included."""
    loss: float
    """What was minimised, mean over the batch."""
    simple: float
    """Squared error of the prediction, unweighted."""
    bound: float
    """Variational bound of the learned variance, bits per element."""
    quarters: tuple[float | None, ...]
    """`simple` of the images whose time step lies in each quarter of the process, least noise
    first; None where there were none."""
    grad_norm: float
    """Before clipping."""
    lr: float
    """Highest learning rate of all groups."""
    ema_distance: float | None
    """|average - weights| / |weights|, where a line of metrics is due."""
    seconds: float
    """Duration of the step."""
    waited: float
    """Seconds of it spent waiting for images, mean over the ranks."""
    speed: float
    """Images a second, all ranks together."""
    memory: int
    """Most bytes held so far, by the GPU or else by the process."""
    skipped: bool
    """The loss or its gradient was not finite, so no weight was changed."""
    validation: float | None = None
    """`simple` of the averaged weights on the images held out, where it was measured."""
    evaluation: dict[str, float] | None = None
    """What samples of the averaged weights are worth, by metric, where it was measured."""


def tally(losses: Loss, t: TimeStep, steps: int, share: float) -> Tensor:
    """Numbers of a part of a batch that add up: its `share` of the means, then the quarters'."""
    with torch.no_grad():
        means = torch.stack([part.mean() for part in losses]) * share
        quarter = F.one_hot(t * QUARTERS // steps, QUARTERS).to(losses.simple) * (share > 0)
        return torch.cat([means, losses.simple @ quarter, quarter.sum(0)])


def quarter_means(sums: Sequence[float], counts: Sequence[float]) -> tuple[float | None, ...]:
    """The mean of each quarter, None of an empty one."""
    return tuple(
        total / count if count else None for total, count in zip(sums, counts, strict=True)
    )


def merge(steps: Sequence[Step]) -> Step:
    """Several steps as one: the last one, with means over those that were not skipped."""
    last = steps[-1]
    if len(steps) == 1:
        return last
    good = [step for step in steps if not step.skipped] or [last]
    seconds = sum(step.seconds for step in steps)
    return replace(
        last,
        loss=_mean([step.loss for step in good]),
        simple=_mean([step.simple for step in good]),
        bound=_mean([step.bound for step in good]),
        quarters=tuple(_mean(values) for values in zip(*(s.quarters for s in good), strict=True)),
        grad_norm=_mean([step.grad_norm for step in good]),
        seconds=seconds,
        waited=sum(step.waited for step in steps),
        speed=sum(step.speed * step.seconds for step in steps) / seconds,
        skipped=any(step.skipped for step in steps),
    )


def peak_memory(device: torch.device) -> int:
    """Most bytes that a GPU's tensors, or on a CPU the process, have held so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _mean(values: Sequence[float | None]):
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
