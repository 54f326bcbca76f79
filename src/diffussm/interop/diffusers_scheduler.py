"""diffusers' schedulers, set so that they are our samplers.

    ddpm     DDPMScheduler: the grid from the first step to the last, both halves of the prediction
             (a process of a single step gets noise in diffusers, and none from us)
    ddim     DDIMScheduler: every k-th step from 0; our grid where the number of steps divides the
             process's (others are evenly spread by us, and cut short by diffusers)
    dpm++    DPMSolverMultistepScheduler of order 2, whose thresholding up to 1 is plain clamping;
             the pipeline hands it our grid and has its last step but one taken at first order

They compute in float32 what we compute in float64: pictures agree to about 1e-4 in [-1, 1].
"""

# pyright: reportPrivateImportUsage=false
from typing import Any

from diffussm.diffusion import DiffusionConfig, Sampling

try:
    import diffusers
except ImportError:
    raise ValueError("this needs diffusers: pip install 'diffussm[latent]'") from None

PREDICTION_TYPES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
BETA_SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


def to_scheduler(diffusion: DiffusionConfig, sampling: Sampling) -> Any:
    """The scheduler of diffusers that does what `sampling` asks for, on the same process."""
    scale = 1000 / diffusion.steps
    process = {
        "num_train_timesteps": diffusion.steps,
        "beta_schedule": BETA_SCHEDULES[diffusion.schedule],
        "beta_start": scale * 1e-4,
        "beta_end": scale * 2e-2,
        "prediction_type": PREDICTION_TYPES[diffusion.prediction],
    }
    return SCHEDULERS[sampling.sampler](diffusion, process)


def _ddpm(diffusion: DiffusionConfig, process: dict[str, Any]) -> Any:
    return diffusers.DDPMScheduler(
        **process,
        variance_type="learned_range" if diffusion.learned_variance else "fixed_small_log",
        clip_sample=diffusion.clip_x0,
        timestep_spacing="linspace",
    )


def _ddim(diffusion: DiffusionConfig, process: dict[str, Any]) -> Any:
    return diffusers.DDIMScheduler(
        **process, clip_sample=diffusion.clip_x0, timestep_spacing="leading"
    )


def _dpm_solver(diffusion: DiffusionConfig, process: dict[str, Any]) -> Any:
    return diffusers.DPMSolverMultistepScheduler(
        **process,
        thresholding=diffusion.clip_x0,
        sample_max_value=1.0,
        algorithm_type="dpmsolver++",
        solver_order=2,
        lower_order_final=False,
        final_sigmas_type="zero",
        timestep_spacing="linspace",
    )


SCHEDULERS = {"ddpm": _ddpm, "ddim": _ddim, "dpm++": _dpm_solver}
