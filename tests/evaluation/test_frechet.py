"""The Frechet distance against closed forms and scipy's matrix root."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from diffussm.evaluation.frechet import frechet_distance
from diffussm.evaluation.moments import Moments, moments


def gaussian(mean, covariance):
    mean, covariance = (torch.as_tensor(x, dtype=torch.float64) for x in (mean, covariance))
    return Moments(count=None, mean=mean, covariance=covariance)


def rotation(dim):
    return torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64)).Q


def by_scipy(first, second):
    root = scipy.linalg.sqrtm(first.covariance.numpy() @ second.covariance.numpy())
    apart = np.square(first.mean.numpy() - second.mean.numpy()).sum()
    traces = np.trace(first.covariance.numpy()) + np.trace(second.covariance.numpy())
    return apart + traces - 2 * np.trace(root).real


def correlated(dim, count, scale=1.0):
    spectrum = torch.logspace(0, -2, dim)
    return moments(scale * torch.randn(count, dim) * spectrum @ rotation(dim).float())


def test_one_dimension():
    # N(0, 3^2) and N(2, 5^2): 2^2 + (5 - 3)^2
    assert frechet_distance(gaussian([0.0], [[9.0]]), gaussian([2.0], [[25.0]])) == 8


def test_gaussians_with_common_axes():
    # S_1 and S_2 commute: |m|^2 + the sum of (s_1 - s_2)^2
    turn, one, two = rotation(40), torch.rand(40).double(), 3 * torch.rand(40).double()
    mean = torch.randn(40).double()
    first = gaussian(torch.zeros(40), turn @ one.square().diag() @ turn.T)
    second = gaussian(mean, turn @ two.square().diag() @ turn.T)
    expected = (mean.square().sum() + (one - two).square().sum()).item()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)


def test_features_of_gaussians_reach_the_closed_form_with_exact_moments():
    # features with these moments to the last bit of float32: +-1 signs, scaled and shifted
    signs = torch.tensor(scipy.linalg.hadamard(64)[:, 1:9], dtype=torch.float32)
    scale, other = torch.arange(1.0, 9.0), torch.arange(8.0, 0.0, -1.0)
    first, second = moments(signs * scale), moments(signs * other + 0.5)
    expected = 8 * 0.25 + (scale - other).square().sum().item() * 64 / 63
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)


def test_scipys_matrix_root():
    first, second = correlated(128, 1000), correlated(128, 700, scale=1.3)
    assert frechet_distance(first, second) == pytest.approx(by_scipy(first, second), rel=1e-8)


@pytest.mark.slow
def test_scipys_matrix_root_at_2048_dimensions():
    first, second = correlated(2048, 5000), correlated(2048, 4000, scale=1.1)
    assert frechet_distance(first, second) == pytest.approx(by_scipy(first, second), rel=1e-6)


def test_both_ways_are_the_same():
    first, second = correlated(60, 100), correlated(60, 30)
    there, back = frechet_distance(first, second), frechet_distance(second, first)
    assert there == pytest.approx(back, rel=1e-10)


@pytest.mark.parametrize("count", [2, 30, 300])
def test_the_same_features_are_at_no_distance(count):
    features = torch.randn(count, 64) * torch.logspace(0, -6, 64)
    features[:, ::5] = 0  # units that never fire
    same = moments(features[torch.randperm(count)])
    assert frechet_distance(moments(features), same) < 1e-7


def test_singular_covariances():
    # a plane in common directions, of which one Gaussian has two and the other one
    turn = rotation(50)
    flat = turn[:, :2] @ torch.tensor([[4.0, 0], [0, 9.0]]).double() @ turn[:, :2].T
    line = turn[:, 1:2] @ turn[:, 1:2].T * 25
    zero = torch.zeros(50)
    expected = 4 + (5 - 3) ** 2
    assert frechet_distance(gaussian(zero, flat), gaussian(zero, line)) == pytest.approx(expected)
    assert frechet_distance(gaussian(zero, line), gaussian(zero, flat)) == pytest.approx(expected)
    # and with nothing in common all spread counts
    apart = gaussian(zero, turn[:, 5:9] @ turn[:, 5:9].T)
    assert frechet_distance(gaussian(zero, flat), apart) == pytest.approx(4 + 9 + 4)


def test_identical_images_keep_their_mean():
    dark, bright = moments(torch.zeros(5, 3)), moments(torch.full((4, 3), 2.0))
    assert frechet_distance(dark, bright) == pytest.approx(12)
    assert frechet_distance(dark, dark) == 0


def test_rotating_both_changes_nothing():
    first, second, turn = correlated(40, 200), correlated(40, 300), rotation(40)
    turned = [
        gaussian(turn @ side.mean, turn @ side.covariance @ turn.T) for side in (first, second)
    ]
    expected = frechet_distance(first, second)
    assert frechet_distance(*turned) == pytest.approx(expected, rel=1e-10)


def test_too_few_images_look_far_away():
    # the bias that `Moments.warning` speaks of
    few, many = (moments(torch.randn(count, 64)) for count in (64, 6400))
    truth = gaussian(torch.zeros(64), torch.eye(64))
    assert few.warning
    assert not many.warning
    assert frechet_distance(few, truth) > 20 * frechet_distance(many, truth)


def test_unlike_dimensions():
    with pytest.raises(ValueError, match="of 3 and of 4 dimensions"):
        frechet_distance(gaussian(torch.zeros(3), torch.eye(3)), correlated(4, 9))


def test_not_finite():
    broken = gaussian(torch.tensor([0, math.nan]), torch.eye(2))
    with pytest.raises(ValueError, match="NaN"):
        frechet_distance(broken, broken)
