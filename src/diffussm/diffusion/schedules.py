"""Noise schedules: how much noise each step adds, and which steps a sampler keeps.

    q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)
    alpha_bar_t      = (1 - beta_0) ... (1 - beta_t)

Ho et al., "Denoising Diffusion Probabilistic Models", 2020, equations 2 to 7.
Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021: the cosine schedule
(equation 17) and respacing (section 4).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from diffussm.shapes import Image, TimeStep

Table = Float64[Tensor, " steps"]


def linear_betas(steps: int) -> Table:
    """Evenly rising betas, 1e-4 to 2e-2 at 1000 steps; fewer steps take proportionally larger ones.

    Ho et al. 2020, section 4; the proportion as in Nichol & Dhariwal's implementation.
    """
    scale = 1000 / steps
    return torch.linspace(scale * 1e-4, scale * 2e-2, steps, dtype=torch.float64)


def cosine_betas(steps: int) -> Table:
    """Betas whose alpha_bar is a squared cosine, at most 0.999; Nichol & Dhariwal 2021, eq. 17."""
    time = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    alphas_cumprod = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clamp(max=0.999)


SCHEDULES: dict[str, Callable[[int], Table]] = {"linear": linear_betas, "cosine": cosine_betas}


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The float64 tables of a diffusion process, one entry a step, least noise first.

    Raises ValueError for a beta outside the open interval (0, 1).
    """

    betas: Table
    """variance that each step adds"""
    timesteps: Int64[Tensor, " steps"]
    """what the network is told at each step: the step's number in the original process"""

    def __post_init__(self) -> None:
        outside = self.betas[(self.betas <= 0) | (self.betas >= 1)]
        if len(outside):
            raise ValueError(
                f"betas must lie strictly between 0 and 1, not {outside[0].item():g}; "
                f"{len(self)} steps may be too few for this schedule"
            )

    def __len__(self) -> int:
        return len(self.betas)

    @cached_property
    def alphas_cumprod(self) -> Table:
        """alpha_bar_t, the part of the variance of x_t that is still the image's."""
        return torch.cumprod(1 - self.betas, dim=0)

    @cached_property
    def alphas_cumprod_previous(self) -> Table:
        """alpha_bar_{t-1}, which is 1 before the first step."""
        return torch.cat([self.betas.new_ones(1), self.alphas_cumprod[:-1]])

    @cached_property
    def signal_scale(self) -> Table:
        """alpha_t = sqrt(alpha_bar_t) of x_t = alpha_t x_0 + sigma_t noise."""
        return self.alphas_cumprod.sqrt()

    @cached_property
    def noise_scale(self) -> Table:
        """sigma_t = sqrt(1 - alpha_bar_t) of x_t = alpha_t x_0 + sigma_t noise."""
        return (1 - self.alphas_cumprod).sqrt()

    @cached_property
    def posterior_variance(self) -> Table:
        """beta_tilde_t, the variance of q(x_{t-1} | x_t, x_0); Ho et al., equation 7."""
        return self.betas * (1 - self.alphas_cumprod_previous) / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_log_variance(self) -> Table:
        """log beta_tilde_t; the first, log 0, takes the value of the second."""
        # A process of a single step has no second; its own beta keeps the table finite.
        first = self.posterior_variance[1] if len(self) > 1 else self.betas[0]
        return torch.cat([first[None], self.posterior_variance[1:]]).log()

    @cached_property
    def posterior_x_0(self) -> Table:
        """Coefficient of x_0 in the mean of q(x_{t-1} | x_t, x_0); Ho et al., equation 7."""
        return self.betas * self.alphas_cumprod_previous.sqrt() / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_x_t(self) -> Table:
        """Coefficient of x_t in the mean of q(x_{t-1} | x_t, x_0); Ho et al., equation 7."""
        remaining = (1 - self.alphas_cumprod_previous) / (1 - self.alphas_cumprod)
        return (1 - self.betas).sqrt() * remaining


def respace(schedule: NoiseSchedule, spacing: str) -> NoiseSchedule:
    """The process that visits only the steps kept by `spacing`, with the same alpha_bar at each.

    Nichol & Dhariwal 2021, equation 19. Raises ValueError as `kept_timesteps` does.
    """
    kept = torch.tensor(kept_timesteps(spacing, len(schedule)))
    alphas_cumprod = schedule.alphas_cumprod[kept]
    previous = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
    return NoiseSchedule(1 - alphas_cumprod / previous, schedule.timesteps[kept])


def kept_timesteps(spacing: str, steps: int) -> list[int]:
    """The steps, of a process of `steps`, that `spacing` keeps, in rising order.

    "250": evenly spread from the first to the last ("1" alone is the last step, pure noise).
    "10,15,20": the process cut into equal sections with so many steps in each.
    "ddim50": every k-th step from 0, for the integer k that gives 50.

    Raises ValueError for other text, and for counts that `steps` cannot give.
    """
    if spacing.startswith("ddim"):
        return _every(_count(spacing.removeprefix("ddim"), spacing), steps)
    counts = [_count(word, spacing) for word in spacing.split(",")]
    if counts == [1]:
        return [steps - 1]
    kept, start = [], 0
    for section, count in enumerate(counts):
        size = steps // len(counts) + (section < steps % len(counts))
        kept += [start + position for position in _spread(count, size, spacing)]
        start += size
    return kept


def _count(word: str, spacing: str) -> int:
    if not word.strip().isdecimal() or int(word) == 0:
        raise ValueError(
            f"respacing {spacing!r} has no positive count at {word!r}; write a number of steps "
            "like '250', counts of equal sections like '10,15,20', or an even stride like 'ddim50'"
        )
    return int(word)


def _every(count: int, steps: int) -> list[int]:
    for stride in range(1, steps):
        if len(range(0, steps, stride)) == count:
            return list(range(0, steps, stride))
    raise ValueError(
        f"no integer stride gives 'ddim{count}', {count} of {steps} steps; "
        f"write '{count}' for evenly spread steps"
    )


def _spread(count: int, size: int, spacing: str) -> list[int]:
    if count > size:
        raise ValueError(
            f"respacing {spacing!r} asks for {count} steps out of {size}; ask for fewer"
        )
    stride = (size - 1) / (count - 1) if count > 1 else 1.0
    # The published grids round an accumulated float half to even, so this does the same.
    position, kept = 0.0, []
    for _ in range(count):
        kept.append(round(position))
        position += stride
    return kept


def at(table: Table, index: TimeStep, x: Image) -> Float[Tensor, "batch 1 1 1"]:
    """`table[index]`, shaped to multiply `x`, on its device, in float32 or finer."""
    return table.to(full_precision(x).dtype).to(x.device)[index].reshape(-1, 1, 1, 1)


def full_precision(x: Tensor) -> Tensor:
    """`x` in float32, or as it is where that is finer."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
