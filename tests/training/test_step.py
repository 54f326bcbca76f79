"""Records of steps: what adds up over parts of a batch, and several steps as one."""

import math

import pytest
import torch

from diffussm.diffusion import Loss
from diffussm.training.step import QUARTERS, Step, merge, quarter_means, tally


def step(**values):
    defaults = {"images": 10, "loss": 1.0, "simple": 1.0, "bound": 0.0, "grad_norm": 1.0}
    defaults |= {"quarters": (1.0, None, None, None), "lr": 0.1, "ema_distance": None}
    defaults |= {"seconds": 2.0, "waited": 0.5, "speed": 5.0, "memory": 7, "skipped": False}
    return Step(**(defaults | values))


def losses(simple):
    return Loss(2 * simple, simple, simple)


def test_parts_add_up_to_the_whole():
    simple, t = torch.rand(10), torch.tensor([0, 249, 250, 499, 500, 749, 750, 999, 0, 999])
    whole = tally(losses(simple), t, 1000, 1.0)
    parts = [(slice(0, 3), 0.3), (slice(3, 10), 0.7)]
    added = sum(tally(losses(simple[part]), t[part], 1000, share) for part, share in parts)
    added = added + tally(losses(simple[:1]), t[:1], 1000, 0.0)  # counts for nothing
    torch.testing.assert_close(added, whole)
    mean = simple.mean().item()
    assert whole[:3].tolist() == pytest.approx([2 * mean, mean, mean])
    means = quarter_means(whole[3 : 3 + QUARTERS].tolist(), whole[3 + QUARTERS :].tolist())
    expected = [simple[[0, 1, 8]], simple[[2, 3]], simple[[4, 5]], simple[[6, 7, 9]]]
    assert means == pytest.approx([part.mean().item() for part in expected])


def test_an_empty_quarter_has_no_mean():
    assert quarter_means([0.0, 3.0], [0.0, 2.0]) == (None, 1.5)


def test_one_step_is_itself():
    assert merge([step()]) == step()


def test_several_are_a_mean_and_the_last_one():
    first = step(loss=1.0, quarters=(1.0, None, None, 4.0))
    bad = step(images=20, loss=math.nan, skipped=True)
    last = step(images=30, loss=3.0, seconds=4.0, quarters=(3.0, None, 2.0, None), validation=0.5)
    merged = merge([first, bad, last])
    assert (merged.images, merged.loss, merged.skipped) == (30, 2.0, True)
    assert merged.quarters == (2.0, None, 2.0, 4.0)
    assert (merged.seconds, merged.waited, merged.validation) == (8.0, 1.5, 0.5)
    assert merged.speed == pytest.approx((2 * 5 + 2 * 5 + 4 * 5) / 8)


def test_only_bad_steps_stay_bad():
    assert math.isnan(merge([step(loss=math.nan, skipped=True)] * 2).loss)
