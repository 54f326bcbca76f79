"""The hybrid loss against torch.distributions, and its minimum on data that are understood."""

import math

import pytest
import torch
from oracle import GaussianData, denoiser
from torch.distributions import Normal, kl_divergence

from diffussm.diffusion.gaussian import DiffusionConfig, GaussianDiffusion
from diffussm.diffusion.losses import WEIGHTINGS, diffusion_loss, pixel_log_likelihood
from diffussm.diffusion.prediction import PREDICTIONS

T = torch.tensor([1, 60, 500, 999])


def draws(count=4, channels=2):
    generator = torch.Generator().manual_seed(0)
    shape = (4, count, channels, 3, 3)
    return torch.randn(shape, generator=generator, dtype=torch.float64).unbind()


def written_bound(diffusion, prediction, v, x_0, x_t, t):
    """q and p as distributions, from betas alone."""
    betas = diffusion.schedule.betas
    after, before = torch.prod(1 - betas[: t + 1]), torch.prod(1 - betas[:t])
    tilde = betas[t] * (1 - before) / (1 - after)
    estimate = (x_t - (1 - after).sqrt() * prediction) / after.sqrt()

    def mean(image):
        kept = (1 - betas[t]).sqrt() * (1 - before) / (1 - after) * x_t
        return kept + before.sqrt() * betas[t] / (1 - after) * image

    share = (v + 1) / 2
    deviation = torch.exp(0.5 * (share * betas[t].log() + (1 - share) * tilde.log()))
    divergence = kl_divergence(Normal(mean(x_0), tilde.sqrt()), Normal(mean(estimate), deviation))
    return divergence.mean() / math.log(2)


def test_bound_is_the_divergence_in_bits():
    diffusion = GaussianDiffusion(DiffusionConfig())
    x_0, noise, prediction, v = draws()
    loss = diffusion_loss(
        lambda x_t, t, y: torch.cat([prediction, v], dim=1), diffusion, x_0, T, None, noise
    )
    x_t = diffusion.add_noise(x_0, T, noise)
    for row, t in enumerate(T.tolist()):
        expected = written_bound(diffusion, prediction[row], v[row], x_0[row], x_t[row], t)
        torch.testing.assert_close(loss.bound[row], expected)
    torch.testing.assert_close(loss.simple, (prediction - noise).square().mean(dim=(1, 2, 3)))
    torch.testing.assert_close(loss.total, loss.simple + loss.bound)


def test_bound_of_the_least_noise_is_the_likelihood_of_pixels():
    diffusion = GaussianDiffusion(DiffusionConfig())
    levels = torch.tensor([0, 1, 100, 254, 255], dtype=torch.float64)
    x_0 = (levels * 2 / 255 - 1).reshape(5, 1, 1, 1)
    t = torch.zeros(5, dtype=torch.int64)
    zeros = torch.zeros_like(x_0)
    # at t = 0 the estimate is x_t / alpha where eps = 0 is predicted, and v = -1 gives beta_tilde
    noise = torch.full_like(x_0, 0.3)
    loss = diffusion_loss(
        lambda x_t, t, y: torch.cat([zeros, zeros - 1], dim=1), diffusion, x_0, t, None, noise
    )
    alpha_bar = 1 - diffusion.schedule.betas[0]
    mean = x_0 + ((1 - alpha_bar) / alpha_bar).sqrt() * noise
    normal = Normal(mean, diffusion.schedule.posterior_variance[1].sqrt())
    lower, upper = normal.cdf(x_0 - 1 / 255), normal.cdf(x_0 + 1 / 255)
    lower[0], upper[-1] = 0, 1
    torch.testing.assert_close(loss.bound, -(upper - lower).log2().flatten())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("mean", "deviation"), [(0.0, 0.3), (0.97, 0.05), (-1.4, 0.5), (0.1, 1e-3)]
)
def test_the_256_pixel_values_share_all_probability(mean, deviation, dtype):
    x = torch.linspace(-1, 1, 256, dtype=torch.float64).to(dtype).reshape(256, 1, 1, 1)
    log_variance = torch.full_like(x, 2 * math.log(deviation))
    likelihood = pixel_log_likelihood(x, torch.full_like(x, mean), log_variance)
    assert likelihood.exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_each_half_of_the_output_learns_from_its_own_loss():
    diffusion = GaussianDiffusion(DiffusionConfig())
    x_0, noise, prediction, v = draws()
    prediction.requires_grad_()
    v.requires_grad_()
    loss = diffusion_loss(
        lambda x_t, t, y: torch.cat([prediction, v], dim=1),
        diffusion, x_0, torch.tensor([0, 1, 500, 999]), None, noise,
    )  # fmt: skip
    from_bound = torch.autograd.grad(
        loss.bound.sum(), (prediction, v), retain_graph=True, allow_unused=True
    )
    from_simple = torch.autograd.grad(loss.simple.sum(), (prediction, v), allow_unused=True)
    assert from_bound[0] is None or not from_bound[0].any()
    assert from_simple[1] is None or not from_simple[1].any()
    assert from_bound[1].flatten(1).any(dim=1).all()
    assert from_simple[0].flatten(1).any(dim=1).all()


def test_without_learned_variance_the_bound_is_zero():
    diffusion = GaussianDiffusion(DiffusionConfig(learned_variance=False))
    x_0, noise, prediction, _ = draws()
    loss = diffusion_loss(lambda x_t, t, y: prediction, diffusion, x_0, T, None, noise)
    assert not loss.bound.any()
    torch.testing.assert_close(loss.total, loss.simple)


def test_the_network_is_told_original_steps_and_labels():
    diffusion = GaussianDiffusion(DiffusionConfig(learned_variance=False)).respaced("ddim50")
    x_0, noise, _, _ = draws()
    told = []

    def network(x_t, t, y):
        told.extend([t.tolist(), y.tolist()])
        return x_t

    t, y = torch.tensor([0, 1, 2, 49]), torch.tensor([4, 5, 6, 7])
    diffusion_loss(network, diffusion, x_0, t, y, noise)
    assert told == [[0, 20, 40, 980], [4, 5, 6, 7]]


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("t", [10, 300, 900])
def test_the_best_denoiser_reaches_the_known_minimum(name, t):
    # x_0 given x_t has variance s^2 sigma^2 / (alpha^2 s^2 + sigma^2); no network does better
    variance = 0.36
    one = torch.ones(1, dtype=torch.float64)
    data = GaussianData(0.5 * one, variance * one[:, None])
    diffusion = GaussianDiffusion(DiffusionConfig(prediction=name, learned_variance=False))
    generator = torch.Generator().manual_seed(t)
    x_0 = data.draw(40_000, generator)
    noise = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
    steps = torch.full((len(x_0),), t)
    loss = diffusion_loss(denoiser(data, diffusion), diffusion, x_0, steps, None, noise)
    alpha_bar = torch.prod(1 - diffusion.schedule.betas[: t + 1]).item()
    left = variance * (1 - alpha_bar) / (alpha_bar * variance + 1 - alpha_bar)
    snr = alpha_bar / (1 - alpha_bar)
    minimum = {"x0": left, "eps": snr * left, "v": (snr + 1) * left}[name]
    assert loss.simple.mean().item() == pytest.approx(minimum, rel=0.03)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_min_snr_weights_one_estimate_alike_in_every_type(name):
    config = DiffusionConfig(prediction=name, learned_variance=False)
    diffusion = GaussianDiffusion(config)
    x_0, noise, estimate, _ = draws()
    x_t = diffusion.add_noise(x_0, T, noise)
    alpha, sigma = diffusion.scales(x_0, T)
    eps = (x_t - alpha * estimate) / sigma
    answer = diffusion.prediction.target(estimate, eps, alpha, sigma)
    loss = diffusion_loss(lambda x_t, t, y: answer, diffusion, x_0, T, None, noise, "min-snr")
    snr = (diffusion.schedule.alphas_cumprod / (1 - diffusion.schedule.alphas_cumprod))[T]
    assert (snr > 5).any()
    assert (snr < 5).any()
    expected = snr.clamp(max=5) * (estimate - x_0).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(loss.total, expected)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("name", PREDICTIONS)
def test_every_weighting_gives_a_loss(weighting, name):
    diffusion = GaussianDiffusion(DiffusionConfig(prediction=name))
    x_0, noise, prediction, v = draws()
    loss = diffusion_loss(
        lambda x_t, t, y: torch.cat([prediction, v], dim=1),
        diffusion,
        x_0,
        T,
        None,
        noise,
        weighting,
    )
    assert all(part.shape == (4,) and (part > 0).all() for part in loss)


def test_an_unknown_weighting_is_refused():
    x_0, noise, prediction, _ = draws()
    diffusion = GaussianDiffusion(DiffusionConfig(learned_variance=False))
    with pytest.raises(
        ValueError, match="unknown loss weighting 'min_snr'; did you mean 'min-snr'"
    ):
        diffusion_loss(lambda x_t, t, y: prediction, diffusion, x_0, T, None, noise, "min_snr")
