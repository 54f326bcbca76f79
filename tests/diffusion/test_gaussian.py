"""The diffusion process against Gaussian arithmetic done another way."""

import pytest
import torch

from diffussm.diffusion.gaussian import DiffusionConfig, GaussianDiffusion
from diffussm.diffusion.prediction import PREDICTIONS
from diffussm.diffusion.schedules import NoiseSchedule

INDEX = torch.tensor([0, 1, 57, 500, 999])


def images(seed=0, channels=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, channels, 3, 3, generator=generator, dtype=dtype)


def test_noise_added_step_by_step_is_noise_added_at_once():
    diffusion = GaussianDiffusion(DiffusionConfig())
    betas = diffusion.schedule.betas.tolist()
    mean, variance = 1.0, 0.0
    ones, zeros = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1)
    for step, beta in enumerate(betas):
        mean, variance = (1 - beta) ** 0.5 * mean, (1 - beta) * variance + beta
        if step in INDEX:
            index = torch.tensor([step])
            assert diffusion.add_noise(ones, index, zeros).item() == pytest.approx(mean)
            deviation = diffusion.add_noise(zeros.double(), index, ones).item()
            assert deviation**2 == pytest.approx(variance)


def test_the_least_noise_keeps_its_digits_in_float32():
    # 1 - 0.9999 taken in float32 would be wrong in the fourth digit
    diffusion = GaussianDiffusion(DiffusionConfig())
    x_t = diffusion.add_noise(torch.zeros(1, 1, 1, 1), INDEX[:1], torch.ones(1, 1, 1, 1))
    assert x_t.item() == pytest.approx(0.01, rel=1e-6)


def test_half_precision_images_are_computed_in_float32():
    diffusion = GaussianDiffusion(DiffusionConfig())
    x_t = images(dtype=torch.float32).bfloat16()
    assert diffusion.add_noise(x_t, INDEX, x_t).dtype == torch.float32
    output = torch.cat([x_t, x_t], dim=1)
    for value in diffusion.denoised(output, x_t, INDEX):
        assert value.dtype == torch.float32


@pytest.mark.parametrize("spacing", ["1000", "50"])
def test_posterior_is_bayes_rule(spacing):
    # q(x_{t-1} | x_t, x_0) ~ q(x_t | x_{t-1}) q(x_{t-1} | x_0): precisions of Gaussians add up
    diffusion = GaussianDiffusion(DiffusionConfig()).respaced(spacing)
    last = len(diffusion.schedule) - 1
    index = torch.tensor([1, 2, last // 2, last])
    x_0, x_t = images(0)[1:], images(1)[1:]
    mean, log_variance = diffusion.posterior(x_0, x_t, index)
    for row, i in enumerate(index.tolist()):
        beta = diffusion.schedule.betas[i]
        before = torch.prod(1 - diffusion.schedule.betas[:i])
        precision = (1 - beta) / beta + 1 / (1 - before)
        pull = (1 - beta).sqrt() / beta * x_t[row] + before.sqrt() / (1 - before) * x_0[row]
        torch.testing.assert_close(mean[row], pull / precision)
        torch.testing.assert_close(log_variance[row].exp(), (1 / precision).expand(2, 3, 3))


def test_posterior_of_the_first_step_is_the_image():
    diffusion = GaussianDiffusion(DiffusionConfig())
    x_0, x_t = images(0), images(1)
    mean, _ = diffusion.posterior(x_0, x_t, torch.zeros(5, dtype=torch.int64))
    torch.testing.assert_close(mean, x_0)


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("learned", [True, False])
def test_a_perfect_network_finds_the_posterior(name, learned):
    config = DiffusionConfig(prediction=name, learned_variance=learned)
    diffusion = GaussianDiffusion(config)
    x_0, noise = images(0), images(1)
    x_t = diffusion.add_noise(x_0, INDEX, noise)
    output = diffusion.prediction.target(x_0, noise, *diffusion.scales(x_0, INDEX))
    if learned:
        output = torch.cat([output, -torch.ones_like(output)], dim=1)  # v = -1: beta_tilde
    denoised = diffusion.denoised(output, x_t, INDEX)
    mean, log_variance = diffusion.posterior(x_0, x_t, INDEX)
    for actual, expected in zip(denoised, (mean, log_variance, x_0, noise), strict=True):
        torch.testing.assert_close(actual, expected)


def test_learned_variance_lies_between_its_bounds():
    diffusion = GaussianDiffusion(DiffusionConfig())
    x_t, schedule = images(), diffusion.schedule
    lower = schedule.posterior_variance[INDEX.clamp(min=1)]
    upper = schedule.betas[INDEX]
    for v, expected in [(-1.0, lower), (1.0, upper), (0.0, (lower * upper).sqrt())]:
        output = torch.cat([x_t, torch.full_like(x_t, v)], dim=1)
        log_variance = diffusion.denoised(output, x_t, INDEX).log_variance
        expected = expected.reshape(-1, 1, 1, 1).expand_as(x_t)
        torch.testing.assert_close(log_variance.exp(), expected)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_clamped_estimate_still_makes_x_t(name):
    config = DiffusionConfig(prediction=name, clip_x0=True, learned_variance=False)
    diffusion = GaussianDiffusion(config)
    x_t = images(1)
    free = GaussianDiffusion(DiffusionConfig(prediction=name, learned_variance=False))
    denoised = diffusion.denoised(3 * images(2), x_t, INDEX)
    expected = free.denoised(3 * images(2), x_t, INDEX).x_0
    assert expected.abs().max() > 1
    torch.testing.assert_close(denoised.x_0, expected.clamp(-1, 1))
    torch.testing.assert_close(diffusion.add_noise(denoised.x_0, INDEX, denoised.eps), x_t)
    torch.testing.assert_close(denoised.mean, diffusion.posterior(denoised.x_0, x_t, INDEX)[0])


def test_a_schedule_of_ones_own():
    betas = torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64)
    schedule = NoiseSchedule(betas, torch.tensor([5, 6, 9]))
    diffusion = GaussianDiffusion(DiffusionConfig(), schedule)
    assert diffusion.timesteps(torch.tensor([2, 0])).tolist() == [9, 5]
    assert diffusion.respaced("2").timesteps(torch.tensor([0, 1])).tolist() == [5, 9]
    alpha, _ = diffusion.scales(images()[:1], torch.tensor([1]))
    assert alpha.item() == pytest.approx((0.9 * 0.8) ** 0.5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": "lineal"}, "did you mean 'linear'"),
        ({"prediction": "epsilon"}, "unknown prediction type 'epsilon'"),
        ({"steps": 0}, "at least 1 step, not 0"),
    ],
)
def test_settings_that_cannot_be(values, message):
    with pytest.raises(ValueError, match=message):
        DiffusionConfig(**values)


@pytest.mark.parametrize("learned", [True, False])
def test_a_network_with_the_wrong_channels_is_refused(learned):
    diffusion = GaussianDiffusion(DiffusionConfig(learned_variance=learned))
    wrong = images(channels=2 if learned else 4)
    message = f"answered with {wrong.shape[1]} channels.*need {6 - wrong.shape[1]}"
    with pytest.raises(ValueError, match=message):
        diffusion.split(wrong, 2)
