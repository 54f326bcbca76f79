"""Samplers: from noise to an image, a few steps at a time.

Each is a generator of its intermediate states, takes standard noise `x` to begin with, and calls
`draw` for each fresh noise of the same shape; what is random is thus the caller's to fix.
No noise is added at the last step.

ddpm    Ho et al., "Denoising Diffusion Probabilistic Models", 2020, algorithm 2
ddim    Song et al., "Denoising Diffusion Implicit Models", 2020, equations 12 and 16
dpm++   Lu et al., "DPM-Solver++", 2022, algorithm 2 (2M: second order, multistep, data prediction)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from diffussm.config import choose
from diffussm.diffusion.gaussian import Denoised, Denoiser, GaussianDiffusion
from diffussm.shapes import Image, Labels

Draw = Callable[[], Image]
"""Fresh standard noise of the shape of the images."""

DEFAULT_STEPS = {"ddpm": 250, "ddim": 50, "dpm++": 20}
"""Calls of the network that a sampler makes unless told otherwise."""


class Sample(NamedTuple):
    """Where a sampler stands after one step."""

    step: int
    """number of this step, from 0"""
    total: int
    """number of all steps"""
    x: Image
    """current state; after the last step, the image"""
    x_0: Image
    """current estimate of the image"""


def ddpm(
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    x: Image,
    y: Labels | None,
    draw: Draw,
    steps: int = DEFAULT_STEPS["ddpm"],
) -> Iterator[Sample]:
    """Ancestral sampling, x_{t-1} ~ p(x_{t-1} | x_t), on evenly spread steps."""
    diffusion = diffusion.respaced(str(steps))
    for step, index in enumerate(reversed(range(steps))):
        denoised = _denoise(denoiser, diffusion, x, index, y)
        x = denoised.mean
        if index > 0:
            x = x + torch.exp(0.5 * denoised.log_variance) * draw()
        yield Sample(step, steps, x, denoised.x_0)


def ddim(
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    x: Image,
    y: Labels | None,
    draw: Draw,
    steps: int = DEFAULT_STEPS["ddim"],
    eta: float = 0.0,
) -> Iterator[Sample]:
    """Implicit sampling: `eta` 0 is an ordinary differential equation, 1 as noisy as ancestral.

    The steps are those of "ddimN" where `steps` divides the process, as published; evenly spread
    otherwise. The variance half of a prediction is not used.
    """
    strided = steps > 1 and len(diffusion.schedule) % steps == 0
    diffusion = diffusion.respaced(f"ddim{steps}" if strided else str(steps))
    schedule = diffusion.schedule
    for step, index in enumerate(reversed(range(steps))):
        denoised = _denoise(denoiser, diffusion, x, index, y)
        previous = schedule.alphas_cumprod_previous[index].item()
        deviation = eta * schedule.posterior_variance[index].sqrt().item()
        direction = (1 - previous - deviation**2) ** 0.5
        x = previous**0.5 * denoised.x_0 + direction * denoised.eps
        if deviation > 0:
            x = x + deviation * draw()
        yield Sample(step, steps, x, denoised.x_0)


def dpm_solver_pp_2m(
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    x: Image,
    y: Labels | None,
    draw: Draw,
    steps: int = DEFAULT_STEPS["dpm++"],
) -> Iterator[Sample]:
    """DPM-Solver++(2M) on evenly spread steps; never calls `draw`, does not use the variance half.

    The last step ends in the estimate of x_0 itself, and the step before it is of first order: in
    log(alpha / sigma) it is several times wider than its forerunner, too wide to extrapolate over
    (20 steps on Gaussian data of variance 0.50 gave 0.69 with extrapolation, 0.49 without).
    """
    diffusion = diffusion.respaced(str(steps))
    alpha, sigma = diffusion.schedule.signal_scale, diffusion.schedule.noise_scale
    half_log_snr = (alpha / sigma).log()
    earlier = None
    for step, index in enumerate(reversed(range(steps))):
        x_0 = _denoise(denoiser, diffusion, x, index, y).x_0
        if index == 0:
            x = x_0
        else:
            width = half_log_snr[index - 1] - half_log_snr[index]
            data = x_0
            if earlier is not None and index > 1:
                last_width = half_log_snr[index] - half_log_snr[index + 1]
                data = x_0 + (width / (2 * last_width)).item() * (x_0 - earlier)
            shrink = (sigma[index - 1] / sigma[index]).item()
            x = shrink * x - (alpha[index - 1] * torch.expm1(-width)).item() * data
        earlier = x_0
        yield Sample(step, steps, x, x_0)


SAMPLERS: dict[str, Callable[..., Iterator[Sample]]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpm++": dpm_solver_pp_2m,
}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which sampler runs, and for how long."""

    sampler: str = "ddpm"
    """a name in SAMPLERS"""
    steps: int | None = None
    """calls of the network, from 1 to the length of the process; None = the sampler's usual"""
    eta: float = 0.0
    """fresh noise of ddim, from 0 (none) to 1 (as much as ddpm); 0 for other samplers"""

    def __post_init__(self) -> None:
        choose("sampler", self.sampler, SAMPLERS)
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"a sampler takes at least 1 step, not {self.steps}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], not {self.eta}")
        if self.eta and self.sampler != "ddim":
            raise ValueError(f"eta {self.eta} is for 'ddim'; leave it at 0 for {self.sampler!r}")

    @property
    def total(self) -> int:
        """Calls of the network, the sampler's usual number where none was given."""
        return DEFAULT_STEPS[self.sampler] if self.steps is None else self.steps


def sample(
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    x: Image,
    y: Labels | None,
    draw: Draw,
    sampling: Sampling,
) -> Iterator[Sample]:
    """Run the sampler that `sampling` names from standard noise `x`; the last state is the image.

    Raises ValueError for more steps than the process has.
    """
    options = {"eta": sampling.eta} if sampling.sampler == "ddim" else {}
    run = SAMPLERS[sampling.sampler]
    return run(denoiser, diffusion, x, y, draw, steps=sampling.total, **options)


@torch.no_grad()
def _denoise(
    denoiser: Denoiser, diffusion: GaussianDiffusion, x: Image, index: int, y: Labels | None
) -> Denoised:
    indices = torch.full((len(x),), index, device=x.device)
    return diffusion.denoised(denoiser(x, diffusion.timesteps(indices), y), x, indices)
