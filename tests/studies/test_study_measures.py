"""The metrics of a study on models whose answers are known."""

import pytest
import torch
from tiny import tiny_generator
from torch import nn

from diffussm.data import digits, hold_out
from diffussm.diffusion import DiffusionConfig, GaussianDiffusion
from diffussm.studies.measures import METRICS, Measuring, Subject, held_out_loss


class Answers(nn.Module):
    """A network of one number: what it answers to the image seen as the n-th, and a diary."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.seen = answer, 0
        self.weight = nn.Parameter(torch.zeros(1))
        self.times = []
        self.labels = []

    def forward(self, x_t, t, y):
        numbers = torch.arange(self.seen, self.seen + len(t))
        self.seen += len(t)
        self.times += t.tolist()
        self.labels += y.tolist()
        value = self.answer(numbers).float()[:, None, None, None]
        return torch.cat([value.expand_as(x_t), torch.zeros_like(x_t)], dim=1)


def subject_of(network=None, draws=3, samples=30):
    generator = tiny_generator(num_classes=10)
    if network:
        generator.model = network
    data = digits()
    measuring = Measuring(metrics=tuple(METRICS), draws=draws, samples=samples, steps=2)
    return Subject(generator, data, hold_out(data, 40)[1], measuring)


def eps(subject):
    """The subject with a process that predicts the noise."""
    subject.generator.diffusion = GaussianDiffusion(DiffusionConfig())
    return subject


def test_the_loss_is_a_mean_over_images_and_not_over_batches():
    # 120 draws in batches of 100 and 20; unit noise missed by nothing, and by 10
    network = Answers(lambda numbers: 10.0 * (numbers >= 100))
    loss = held_out_loss(eps(subject_of(network)))
    assert loss == pytest.approx((100 * 1 + 20 * 101) / 120, rel=0.03)


def test_time_steps_lie_evenly_and_every_image_is_drawn_as_often():
    network = Answers(torch.zeros_like)
    subject = eps(subject_of(network))
    held_out_loss(subject)
    gaps = torch.tensor(sorted(network.times)).diff()
    assert (min(network.times), max(network.times)) == (0, 991)
    assert set(gaps.tolist()) == {8, 9}  # 1000 / 120 is 8 1/3
    held = subject.held_out.batch(torch.arange(40), range(40)).labels.tolist()
    assert network.labels == held * 3
    assert network.times[:40] != sorted(network.times[:40])  # no image has only early ones


def test_the_loss_of_one_model_is_the_same_twice():
    subject = subject_of()
    assert held_out_loss(subject) == held_out_loss(subject)


def test_real_digits_are_recognised_and_have_no_distance():
    subject, data = subject_of(), digits()
    vars(subject)["drawn"] = data.images
    vars(subject)["asked"] = data.labels.tolist()
    assert METRICS["fd-digits"].measure(subject) == pytest.approx(0, abs=1e-6)
    assert METRICS["recognised"].measure(subject) > 0.99
    vars(subject)["drawn_guided"] = data.images[:900]  # half of them: some distance, a little
    assert 0 < METRICS["fd-digits-guided"].measure(subject) < 1


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_measures(name):
    metric, subject = METRICS[name], subject_of()
    value = metric.measure(subject)
    assert value >= 0
    assert metric.scale * value <= (100 if metric.scale == 100 else float("inf"))


def test_what_is_drawn_is_guided_where_it_says_so():
    subject = subject_of()
    assert subject.drawn.shape == subject.drawn_guided.shape == (30, 1, 8, 8)
    assert subject.asked == [n % 10 for n in range(30)]
    assert not torch.equal(subject.drawn, subject.drawn_guided)
