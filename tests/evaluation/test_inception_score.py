"""The Inception score in cases whose answer is known, and as the sum over classes it is."""

import math

import numpy as np
import pytest
import torch

from diffussm.evaluation.inception_score import SPLIT, inception_score


def test_sure_and_varied_answers_reach_the_number_of_classes():
    logits = 1000 * torch.eye(8).repeat(5, 1)
    assert inception_score(logits) == pytest.approx((8, 0))


@pytest.mark.parametrize("answer", [torch.zeros(8), torch.arange(8.0), 1e4 * torch.eye(8)[3]])
def test_the_same_answer_to_all_scores_one(answer):
    assert inception_score(answer.repeat(20, 1)) == pytest.approx((1, 0))


def test_a_half_sure_classifier():
    # p = (q, 1 - q) or the reverse, p(y) = 1/2: exp(log 2 - entropy)
    q = 0.9
    logits = torch.tensor([[q, 1 - q], [1 - q, q]]).log().repeat(10, 1)
    expected = 2 * q**q * (1 - q) ** (1 - q)
    assert inception_score(logits).mean == pytest.approx(expected, rel=1e-6)


def test_splits_in_order_the_last_one_short():
    logits = 3 * torch.randn(23, 5)
    p = np.exp(logits.numpy().astype(np.float64))
    p /= p.sum(1, keepdims=True)
    scores = []
    for start in range(0, 23, 10):
        part = p[start : start + 10]
        entropies = -(part * np.log(part)).sum(1)
        marginal = part.mean(0)
        # mutual information: entropy of the mean less the mean entropy
        scores.append(math.exp(-(marginal * np.log(marginal)).sum() - entropies.mean()))
    found = inception_score(logits, split=10)
    assert found == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-10)


def test_order_matters_across_splits_and_not_within():
    classes = torch.eye(4)[torch.arange(4).repeat_interleave(5)] * 1000
    assert inception_score(classes, split=5).mean == pytest.approx(1)
    assert inception_score(classes, split=20).mean == pytest.approx(4)
    mixed = classes[torch.randperm(20)]
    assert inception_score(mixed, split=20) == pytest.approx(inception_score(classes, split=20))


def test_a_split_is_5000_images():
    logits = torch.zeros(2 * SPLIT, 2)
    logits[:SPLIT, 0] = logits[SPLIT:, 1] = 1000
    assert SPLIT == 5000
    assert inception_score(logits) == pytest.approx((1, 0))


def test_what_cannot_be_scored():
    with pytest.raises(ValueError, match="there are none"):
        inception_score(torch.zeros(0, 5))
    with pytest.raises(ValueError, match="1 image or more, not 0"):
        inception_score(torch.zeros(3, 5), split=0)
