"""The kernel distance against loops in NumPy, and what its estimator promises."""

import numpy as np
import pytest
import torch

from diffussm.evaluation import kid as module
from diffussm.evaluation.kid import kid, squared_mmd


def by_loops(real, drawn):
    def kernel(x, y):
        return (float(x @ y) / len(x) + 1) ** 3

    real, drawn = (x.numpy().astype(np.float64) for x in (real, drawn))
    own = [
        np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
        for x in (real, drawn)
    ]
    return sum(own) - 2 * np.mean([kernel(a, b) for a in real for b in drawn])


@pytest.mark.parametrize(("n", "m", "dim"), [(2, 2, 1), (13, 7, 5), (8, 31, 3)])
def test_all_pairs(monkeypatch, n, m, dim):
    monkeypatch.setattr(module, "BLOCK", 5)  # several blocks, the last one short
    real, drawn = torch.randn(n, dim), torch.randn(m, dim) + 0.3
    assert squared_mmd(real, drawn) == pytest.approx(by_loops(real, drawn), rel=1e-10)


def test_no_order_matters_to_all_pairs():
    real, drawn = torch.randn(50, 4), torch.randn(40, 4)
    shuffled = squared_mmd(real[torch.randperm(50)], drawn[torch.randperm(40)])
    assert squared_mmd(real, drawn) == pytest.approx(shuffled, rel=1e-10)


def test_unbiased():
    # mean over many small samples of one distribution: 0, where the biased one is far above
    found = torch.tensor([squared_mmd(torch.randn(6, 3), torch.randn(6, 3)) for _ in range(400)])
    assert abs(found.mean()) < 4 * found.std() / 20
    assert found.min() < 0 < found.max()


def test_points_have_a_closed_form():
    # at a and b: (a^2 + 1)^3 + (b^2 + 1)^3 - 2 (a b + 1)^3 in one dimension
    real, drawn = torch.full((5, 1), 1.0), torch.full((3, 1), 2.0)
    assert squared_mmd(real, drawn) == pytest.approx(8 + 125 - 2 * 27)


def test_subsets_as_large_as_the_sets_are_all_pairs():
    real, drawn = torch.randn(30, 4), torch.randn(30, 4) + 1
    found = kid(real, drawn, subsets=3, subset=30)
    assert found.mean == pytest.approx(squared_mmd(real, drawn), rel=1e-10)
    assert found.std < 1e-12


def test_subsets_estimate_all_pairs():
    real, drawn = torch.randn(200, 4), torch.randn(300, 4) + 0.5
    found = kid(real, drawn, subsets=100, subset=50)
    # subsets overlap, so their mean is surer than this
    error = found.std / 100**0.5
    assert abs(found.mean - squared_mmd(real, drawn)) < 4 * error
    assert found.std > 0


def test_chance_is_the_seeds():
    real, drawn = torch.randn(40, 3), torch.randn(50, 3)
    before = torch.get_rng_state()
    found = [kid(real, drawn, 5, 10, seed) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    assert torch.equal(torch.get_rng_state(), before)
    shifted = kid(real, drawn, 3, 10, 1)  # the first subsets do not depend on how many follow
    assert shifted != found[0]


@pytest.mark.parametrize(
    ("n", "m", "subsets", "subset", "message"),
    [
        (9, 20, 5, 10, "subsets of 10 cannot be drawn from 9 real and 20 drawn"),
        (20, 9, 5, 10, "take smaller subsets"),
        (20, 20, 0, 10, "at least 1, not 0"),
        (20, 20, 5, 1, "two images or more on each side, not 1 and 1"),
    ],
)
def test_sets_that_are_too_small(n, m, subsets, subset, message):
    with pytest.raises(ValueError, match=message):
        kid(torch.randn(n, 2), torch.randn(m, 2), subsets, subset)


@pytest.mark.usefixtures("unchecked_shapes")
def test_unlike_dimensions():
    with pytest.raises(ValueError, match="3 and of 4 dimensions"):
        squared_mmd(torch.randn(5, 3), torch.randn(5, 4))
