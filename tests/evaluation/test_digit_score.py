"""The judge of drawn digits on pictures whose verdict is known."""

import pytest
import torch

from diffussm.data import digits
from diffussm.evaluation.digits import score_digits

DATA = digits()
LABELS = DATA.labels.tolist()


def test_real_digits_are_recognised_and_are_copies():
    score = score_digits(DATA.images, LABELS)
    assert score.recognised > 0.99
    assert 0.95 < score.judge_accuracy < 1
    assert score.distance < 1e-3
    assert score.copies == len(DATA)


def test_wrong_labels_are_not_recognised():
    score = score_digits(DATA.images, [(label + 1) % 10 for label in LABELS])
    assert score.recognised < 0.01
    assert score.copies == 0  # no digit lies that near to one of another class


def test_noise_is_recognised_by_chance_only():
    score = score_digits(torch.rand(500, 1, 8, 8) * 2 - 1, [i % 10 for i in range(500)])
    assert score.recognised < 0.25
    assert score.copies == 0
    assert score.distance > 1.5 * score.real_distance


def test_a_distance_is_the_size_of_the_change():
    # brightening one pixel by 0.25 moves a digit by just that, well below the nearest other's
    images = DATA.images[:50].clone()
    images[:, 0, 0, 0] += 0.25
    score = score_digits(images, LABELS[:50])
    assert score.distance == pytest.approx(0.25, abs=1e-3)
    assert score.copies == 50


def test_real_distances_are_those_between_real_digits():
    threes = DATA.images[DATA.labels == 3].flatten(1).double()
    difference = (threes[:, None] - threes[None]).square().sum(-1).sqrt()
    nearest = difference.fill_diagonal_(torch.inf).min(dim=1).values
    score = score_digits(torch.zeros(4, 1, 8, 8), [3, 3, 3, 3])
    assert score.real_distance == pytest.approx(nearest.median().item(), rel=1e-3)
    expected = threes.square().sum(-1).sqrt().min().item()
    assert score.distance == pytest.approx(expected, rel=1e-4)
