"""Every sampler recovers data whose best denoiser is known, at the order its source promises."""

import itertools
import math

import pytest
import torch
from oracle import GaussianData, MixtureData, correlated, denoiser

from diffussm.diffusion.gaussian import DiffusionConfig, GaussianDiffusion
from diffussm.diffusion.prediction import PREDICTIONS
from diffussm.diffusion.samplers import DEFAULT_STEPS, SAMPLERS, Sampling, sample
from diffussm.diffusion.schedules import SCHEDULES, NoiseSchedule


def run(network, diffusion, sampling, shape=(2, 2, 1, 1), seed=0, y=None):
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return list(sample(network, diffusion, draw(), y, draw, sampling))


def sample_data(data, diffusion, sampling, count=20_000):
    shape = (count, 2, 1, 1)
    return run(denoiser(data, diffusion), diffusion, sampling, shape)[-1].x[:, :, 0, 0]


# as many steps as each needs for its own error to fall below the tolerance
ACCURATE = [
    Sampling(sampler="ddpm"),
    Sampling(sampler="ddim", steps=200),
    Sampling(sampler="ddim", steps=200, eta=0.5),
    Sampling(sampler="ddim", steps=500, eta=1.0),
    Sampling(sampler="dpm++", steps=50),
]


@pytest.mark.parametrize("sampling", ACCURATE, ids=str)
def test_samplers_recover_mean_and_covariance(sampling):
    data, diffusion = correlated(), GaussianDiffusion(DiffusionConfig())
    x = sample_data(data, diffusion, sampling)
    torch.testing.assert_close(x.mean(dim=0), data.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(x.T.cov(), data.covariance, rtol=0, atol=0.02)


def test_few_steps_of_dpm_solver_beat_many_of_ddim():
    data, diffusion, errors = correlated(), GaussianDiffusion(DiffusionConfig()), []
    for sampling in (Sampling(sampler="dpm++"), Sampling(sampler="ddim")):
        x = sample_data(data, diffusion, sampling)
        errors.append((x.T.cov() - data.covariance).abs().max())
    assert errors[0] < errors[1] < 0.05


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_do_not_depend_on_the_prediction_type(name):
    data, finals = correlated(), []
    for prediction in PREDICTIONS:
        diffusion = GaussianDiffusion(DiffusionConfig(prediction=prediction))
        finals.append(sample_data(data, diffusion, Sampling(sampler=name, steps=20), count=10))
    for other in finals[1:]:
        torch.testing.assert_close(other, finals[0])


@pytest.mark.parametrize("sampling", ACCURATE, ids=str)
def test_samplers_recover_both_parts_of_a_mixture(sampling):
    narrow = torch.diag(torch.tensor([0.09, 0.04], dtype=torch.float64))
    left = GaussianData(torch.tensor([-1.0, 0.5], dtype=torch.float64), narrow)
    right = GaussianData(torch.tensor([1.5, -0.5], dtype=torch.float64), narrow)
    diffusion = GaussianDiffusion(DiffusionConfig(learned_variance=False))
    x = sample_data(MixtureData(0.3, left, right), diffusion, sampling, count=10_000)
    is_left = x[:, 0] < 0.25
    assert is_left.double().mean().item() == pytest.approx(0.3, abs=0.02)
    for part, data in [(x[is_left], left), (x[~is_left], right)]:
        torch.testing.assert_close(part.mean(dim=0), data.mean, rtol=0, atol=0.02)
        torch.testing.assert_close(part.std(dim=0), data.covariance.diag().sqrt(), rtol=0.1, atol=0)


def even_schedule(steps):
    """log(alpha / sigma) falling in even steps from 4 to -4."""
    half_log_snr = torch.linspace(4, -4, steps, dtype=torch.float64)
    alphas_cumprod = torch.sigmoid(2 * half_log_snr)
    previous = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1]])
    return NoiseSchedule(1 - alphas_cumprod / previous, torch.arange(steps))


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm++", 2)])
def test_deterministic_samplers_converge_at_their_order(name, order):
    # Along the ODE of Gaussian data, (x_t - alpha_t mean) / deviation of x_t is constant.
    # 641 steps are prime, so that 21, 41, 81 and 161 kept steps all lie on one even grid.
    data = GaussianData(torch.tensor([0.7, 0.7]).double(), 0.25 * torch.eye(2).double())
    diffusion = GaussianDiffusion(DiffusionConfig(prediction="x0"), even_schedule(641))
    alpha, sigma = diffusion.schedule.signal_scale, diffusion.schedule.noise_scale
    start = torch.tensor([[1.3, -0.4]], dtype=torch.float64)[:, :, None, None]
    deviation = (0.25 * alpha**2 + sigma**2).sqrt()
    exact = alpha[0] * 0.7 + deviation[0] * (start - alpha[-1] * 0.7) / deviation[-1]

    errors = []
    for steps in (21, 41, 81, 161):
        states = list(
            sample(
                denoiser(data, diffusion), diffusion, start, None, pytest.fail,
                Sampling(sampler=name, steps=steps),
            )
        )  # fmt: skip
        errors.append((states[-2].x - exact).abs().max().item())
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)


def curved(learned_variance):
    """A network without meaning whose answer is bounded and depends on all it is given."""

    def network(x_t, t, y):
        halves = 2 if learned_variance else 1
        answer = torch.tanh(x_t.flip(1).repeat(1, halves, 1, 1) * 1.5)
        return answer * torch.cos(t.reshape(-1, 1, 1, 1) / 300)

    return network


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_step_is_reported(name):
    diffusion = GaussianDiffusion(DiffusionConfig())
    states = run(curved(True), diffusion, Sampling(sampler=name, steps=7))
    assert [state.step for state in states] == list(range(7))
    assert {state.total for state in states} == {7}
    torch.testing.assert_close(states[-1].x, states[-1].x_0)  # the last step adds no noise
    assert not torch.allclose(states[-2].x, states[-2].x_0)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [None, 1, 3, 1000])
def test_the_network_is_called_once_a_step_with_original_steps(name, steps):
    diffusion = GaussianDiffusion(DiffusionConfig())
    told = []

    def network(x_t, t, y):
        told.append(t.tolist())
        assert y.tolist() == [4, 9]
        return curved(True)(x_t, t, y)

    sampling = Sampling(sampler=name, steps=steps)
    run(network, diffusion, sampling, y=torch.tensor([4, 9]))
    assert len(told) == sampling.total == (steps or DEFAULT_STEPS[name])
    assert all(first == second for first, second in told)
    visited = [first for first, _ in told]
    assert visited == sorted(set(visited), reverse=True)
    # ddim's 50 published steps, the only default that divides 1000 into strides from 0
    assert visited[0] == {("ddim", None): 980}.get((name, steps), 999)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_runs_on_every_schedule(name, sampler):
    diffusion = GaussianDiffusion(DiffusionConfig(schedule=name, clip_x0=True))
    final = run(curved(True), diffusion, Sampling(sampler=sampler, steps=9))[-1].x
    assert final.isfinite().all()
    assert final.abs().max() <= 1


@pytest.mark.parametrize(
    ("sampling", "draws"),
    [
        (Sampling(sampler="ddpm", steps=8), 7),
        (Sampling(sampler="ddim", steps=8), 0),
        (Sampling(sampler="ddim", steps=8, eta=0.3), 7),
        (Sampling(sampler="dpm++", steps=8), 0),
    ],
    ids=str,
)
def test_noise_is_drawn_only_where_it_is_used(sampling, draws):
    drawn = []
    x = torch.ones(1, 2, 1, 1)

    def draw():
        drawn.append(1)
        return x

    diffusion = GaussianDiffusion(DiffusionConfig())
    for _ in sample(curved(True), diffusion, x, None, draw, sampling):
        pass
    assert len(drawn) == draws


def test_sampling_keeps_no_gradients():
    diffusion = GaussianDiffusion(DiffusionConfig(learned_variance=False))
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    states = run(lambda x_t, t, y: weight * x_t, diffusion, Sampling(steps=3))
    assert not states[-1].x.requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "dpm+"}, r"unknown sampler 'dpm\+'; did you mean 'dpm\+\+'"),
        ({"steps": 0}, "at least 1 step, not 0"),
        ({"sampler": "ddim", "eta": 1.5}, r"in \[0, 1\], not 1.5"),
        ({"sampler": "ddim", "eta": -0.1}, r"in \[0, 1\], not -0.1"),
        ({"sampler": "ddpm", "eta": 0.5}, "eta 0.5 is for 'ddim'"),
        ({"sampler": "dpm++", "eta": 0.5}, "eta 0.5 is for 'ddim'"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)


@pytest.mark.parametrize("name", SAMPLERS)
def test_more_steps_than_the_process_has_are_refused(name):
    diffusion = GaussianDiffusion(DiffusionConfig())
    with pytest.raises(ValueError, match="asks for 1001 steps out of 1000"):
        run(curved(True), diffusion, Sampling(sampler=name, steps=1001))
