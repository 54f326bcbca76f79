"""Mean and covariance against NumPy's, and what they take."""

import re

import numpy as np
import pytest
import torch

from diffussm.evaluation.moments import BLOCK, Moments, moments


def test_numpys_mean_and_covariance():
    features = torch.randn(2 * BLOCK + 17, 12) @ torch.randn(12, 12) + 5
    found = moments(features)
    assert (found.count, found.dim) == (2 * BLOCK + 17, 12)
    plain = features.numpy().astype(np.float64)
    np.testing.assert_allclose(found.mean, plain.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(plain.T), rtol=1e-11, atol=1e-13)
    assert torch.equal(found.covariance, found.covariance.T)


def test_the_order_of_images_does_not_matter():
    features = torch.randn(BLOCK + 500, 8)
    one, other = moments(features), moments(features[torch.randperm(len(features))])
    torch.testing.assert_close(one.mean, other.mean, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(one.covariance, other.covariance, rtol=1e-13, atol=1e-15)


def test_a_far_mean_does_not_cancel():
    # (n mean^2) is 1e10 times the variance: the two-sum formula would keep few of its digits
    features = (torch.randn(BLOCK, 2) + 2**17).round(decimals=2)
    plain = np.cov(features.numpy().astype(np.float64).T)
    np.testing.assert_allclose(moments(features).covariance, plain, rtol=1e-10)


def test_identical_images_have_no_spread():
    assert moments(torch.full((7, 3), 0.1)).covariance.abs().max() < 1e-30


def test_too_few_images_are_warned_of():
    features = torch.randn(9, 8)
    assert moments(features).warning is None
    assert re.search("8 images .* rank 7 .* 8 dimensions.* not meaningful", found(features[:8]))
    unknown = Moments(count=None, mean=torch.zeros(8).double(), covariance=torch.eye(8).double())
    assert unknown.warning is None


def found(features):
    return moments(features).warning


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_for_a_covariance(count):
    with pytest.raises(ValueError, match=f"two images or more, not {count}"):
        moments(torch.randn(count, 3))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_not_finite(bad):
    features = torch.randn(9, 3)
    features[4, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        moments(features)
