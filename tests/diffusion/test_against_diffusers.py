"""The samplers against the schedulers of diffusers, an independent implementation."""

import itertools

import pytest
import torch

from diffussm.diffusion.gaussian import DiffusionConfig, GaussianDiffusion
from diffussm.diffusion.samplers import Sampling, sample
from diffussm.diffusion.schedules import kept_timesteps

# diffusers' own use of numpy; what is tested is its arithmetic
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")

SHAPE = (3, 2, 4, 4)
THEIR_NAME = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


@pytest.fixture(scope="module")
def schedulers():
    return pytest.importorskip("diffusers.schedulers")


def network(x_t, t, y):
    t = torch.as_tensor(t).reshape(-1, 1, 1, 1)
    return torch.tanh(x_t.flip(1).repeat(1, 2, 1, 1) * 1.5) * torch.cos(t / 300)


def only_mean(x_t, t, y):
    return network(x_t, t, y)[:, : x_t.shape[1]]


def start():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SHAPE, generator=generator), generator


def compare(scheduler, denoiser, config, sampling, steps=None, **options):
    """Both start from the same noise, draw the same noise, and must reach the same states."""
    x, generator = start()

    def draw():
        return torch.randn(SHAPE, generator=generator)

    ours = sample(denoiser, GaussianDiffusion(config), x, None, draw, sampling)
    theirs, their_generator = start()
    for state, t in itertools.islice(zip(ours, scheduler.timesteps, strict=True), steps):
        answer = denoiser(theirs, t, None)
        theirs = scheduler.step(answer, t, theirs, generator=their_generator, **options).prev_sample
        torch.testing.assert_close(state.x, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prediction", THEIR_NAME)
@pytest.mark.parametrize("learned", [True, False])
def test_ddpm_is_theirs(schedulers, prediction, learned):
    scheduler = schedulers.DDPMScheduler(
        variance_type="learned_range" if learned else "fixed_small_log",
        prediction_type=THEIR_NAME[prediction],
        timestep_spacing="linspace",
        clip_sample=False,
    )
    scheduler.set_timesteps(250)
    assert scheduler.timesteps.tolist()[::-1] == kept_timesteps("250", 1000)
    config = DiffusionConfig(prediction=prediction, learned_variance=learned)
    denoiser = network if learned else only_mean
    compare(scheduler, denoiser, config, Sampling(sampler="ddpm", steps=250))


@pytest.mark.parametrize("prediction", THEIR_NAME)
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_is_theirs(schedulers, prediction, eta):
    scheduler = schedulers.DDIMScheduler(
        prediction_type=THEIR_NAME[prediction], timestep_spacing="leading", clip_sample=False
    )
    scheduler.set_timesteps(50)
    config = DiffusionConfig(prediction=prediction, learned_variance=False)
    sampling = Sampling(sampler="ddim", steps=50, eta=eta)
    compare(scheduler, only_mean, config, sampling, eta=eta)


@pytest.mark.parametrize("prediction", THEIR_NAME)
@pytest.mark.parametrize("steps", [5, 20])
def test_dpm_solver_is_theirs(schedulers, prediction, steps):
    scheduler = schedulers.DPMSolverMultistepScheduler(
        prediction_type=THEIR_NAME[prediction],
        algorithm_type="dpmsolver++",
        solver_order=2,
        lower_order_final=False,
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(timesteps=kept_timesteps(str(steps), 1000)[::-1])
    config = DiffusionConfig(prediction=prediction, learned_variance=False)
    sampling = Sampling(sampler="dpm++", steps=steps)
    # ours takes the last two steps at first order, theirs the last one only
    compare(scheduler, only_mean, config, sampling, steps=steps - 2)
