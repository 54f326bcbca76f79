"""The prediction types: round trips, closed forms and mutual consistency."""

import itertools

import pytest
import torch

from diffussm.diffusion.prediction import PREDICTIONS


@pytest.fixture
def example():
    generator = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(2, 5, 3, 4, 4, generator=generator, dtype=torch.float64)
    angle = torch.linspace(0.05, 1.5, 5, dtype=torch.float64).reshape(-1, 1, 1, 1)
    alpha, sigma = angle.cos(), angle.sin()
    return x_0, noise, alpha, sigma, alpha * x_0 + sigma * noise


def test_targets_are_the_written_ones(example):
    x_0, noise, alpha, sigma, _ = example
    expected = {"eps": noise, "x0": x_0, "v": alpha * noise - sigma * x_0}
    assert expected.keys() == PREDICTIONS.keys()
    for name, prediction in PREDICTIONS.items():
        torch.testing.assert_close(prediction.target(x_0, noise, alpha, sigma), expected[name])


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_perfect_prediction_gives_back_image_and_noise(name, example):
    x_0, noise, alpha, sigma, x_t = example
    prediction = PREDICTIONS[name]
    target = prediction.target(x_0, noise, alpha, sigma)
    torch.testing.assert_close(prediction.x_0(target, x_t, alpha, sigma), x_0)
    torch.testing.assert_close(prediction.eps(target, x_t, alpha, sigma), noise)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_any_prediction_stands_for_an_image_and_a_noise_that_make_x_t(name, example):
    answer, _, alpha, sigma, x_t = example
    prediction = PREDICTIONS[name]
    x_0 = prediction.x_0(answer, x_t, alpha, sigma)
    eps = prediction.eps(answer, x_t, alpha, sigma)
    torch.testing.assert_close(alpha * x_0 + sigma * eps, x_t)
    torch.testing.assert_close(prediction.target(x_0, eps, alpha, sigma), answer)


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(PREDICTIONS, 2)))
def test_one_type_rewritten_as_another_means_the_same(one, other, example):
    answer, _, alpha, sigma, x_t = example
    one, other = PREDICTIONS[one], PREDICTIONS[other]
    x_0 = one.x_0(answer, x_t, alpha, sigma)
    eps = one.eps(answer, x_t, alpha, sigma)
    rewritten = other.target(x_0, eps, alpha, sigma)
    torch.testing.assert_close(other.x_0(rewritten, x_t, alpha, sigma), x_0)
    torch.testing.assert_close(other.eps(rewritten, x_t, alpha, sigma), eps)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_error_ratio_is_the_ratio_of_errors(name, example):
    wrong, _, alpha, sigma, x_t = example
    prediction = PREDICTIONS[name]
    answer = prediction.target(*reversed(example[:2]), alpha, sigma)
    error = (answer - wrong) ** 2
    x_0_error = (
        prediction.x_0(answer, x_t, alpha, sigma) - prediction.x_0(wrong, x_t, alpha, sigma)
    ) ** 2
    ratio = prediction.error_ratio(alpha, sigma)
    torch.testing.assert_close(error, ratio * x_0_error)
