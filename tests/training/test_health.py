"""The health line: each trouble is named, and what is well is called so."""

import math
import random

import pytest
from test_step import step

from diffussm.training.health import FINE, RECENT, Health


def verdict(*, before=300, recent=RECENT, usual=None, now=None):
    """After steps as usual, with the noise of real ones, then some as they are now."""
    health, draw = Health(), random.Random(0)
    for number in range(before + recent):
        noisy = {"simple": draw.uniform(0.5, 1.5), "grad_norm": draw.uniform(0.2, 3.0)}
        health.add(step(**(noisy | (usual or {}) | ((now or {}) if number >= before else {}))))
    return health.verdict


def test_noise_is_fine():
    assert verdict(usual={"waited": 0.1}) == FINE


def test_falling_losses_are_fine():
    health = Health()
    for number in range(500):
        health.add(step(simple=1 / (1 + number), grad_norm=1 / (1 + number), waited=0.0))
        assert health.verdict == FINE


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        ({"simple": 3.5}, "diverging: the loss is 3."),
        ({"grad_norm": 100.0}, "diverging: gradients are"),
        ({"skipped": True, "simple": math.nan}, f"diverging: {RECENT} of the last {RECENT} steps"),
        ({"waited": 1.0}, "data-bound: 50% of the time"),
    ],
)
def test_troubles_are_named(now, sentence):
    assert verdict(usual={"waited": 0.1}, now=now).startswith(sentence)


def test_the_first_steps_say_nothing():
    assert verdict(before=5, recent=5, now={"simple": 100.0}) == FINE


def test_one_bad_step_is_forgiven():
    health = Health()
    for number in range(100):
        health.add(step(waited=0.0, skipped=number == 95))
    assert health.verdict == FINE
