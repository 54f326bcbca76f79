"""The training loop: what it draws, every choice it offers, and what it does with a bad loss."""

import math

import pytest
import torch
from tiny import CPU, metric_lines, tiny_recipe, train

from diffussm import load
from diffussm.data import digits, image_order, seeded
from diffussm.diffusion import PREDICTIONS, SCHEDULES, WEIGHTINGS
from diffussm.training import Diverged, Trainer, batches, loop
from diffussm.training.optimizer import LR_SCHEDULES
from diffussm.training.settings import PRECISIONS


def trainer(**tables):
    return Trainer(tiny_recipe(**tables), digits(), CPU)


def weights(*networks):
    return [p.detach().clone() for network in networks for p in network.parameters()]


def same(before, after):
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.fixture
def seen(monkeypatch):
    """What the loss is given, collected over all steps: images, time steps, labels, noise."""
    batches, true_loss = [], loop.diffusion_loss

    def loss(model, diffusion, x_0, t, y, noise, weighting):
        batches.append((x_0, t, y, noise))
        return true_loss(model, diffusion, x_0, t, y, noise, weighting)

    monkeypatch.setattr(loop, "diffusion_loss", loss)

    def collected():
        parts = [torch.cat(part) for part in zip(*batches, strict=True)]
        batches.clear()
        return parts

    return collected


@pytest.fixture
def spoil(monkeypatch):
    """Call it with step numbers, from 1: their loss becomes nan."""
    bad, calls, true_loss = set(), [], loop.diffusion_loss

    def loss(*args, **options):
        calls.append(1)
        found = true_loss(*args, **options)
        return found._replace(total=found.total * math.nan) if len(calls) in bad else found

    monkeypatch.setattr(loop, "diffusion_loss", loss)
    return bad.update


def test_draws_do_not_depend_on_the_batch_size(seen):
    for size in (60, 7, 1):
        list(trainer(training={"batch_size": size}).steps())
        drawn = seen()
        if size == 60:
            expected = drawn
        assert same(expected, drawn)


def test_draws_depend_on_the_seed_and_the_image(seen):
    list(trainer(training={"images": 3000, "batch_size": 1500}).steps())
    _, t, y, noise = seen()
    list(trainer(training={"images": 3000, "batch_size": 1500, "seed": 1}).steps())
    _, other_t, _, other_noise = seen()
    # uniform on 0..999: deviation of the mean 289 / sqrt(3000) = 5.3
    assert abs(t.float().mean() - 499.5) < 25
    assert (t.min() < 10, t.max() > 989) == (True, True)
    assert abs((y == 10).float().mean() - 0.1) < 0.03
    assert noise.mean().abs() < 0.01
    assert abs(noise.var() - 1) < 0.02
    assert (t == other_t).float().mean() < 0.01
    assert abs((noise * other_noise).mean()) < 0.01
    again = (noise[:1500] * noise[1500:]).mean()  # images of different numbers
    assert abs(again) < 0.01


def test_images_come_shuffled_with_their_own_labels(seen):
    list(trainer(training={"images": 40, "label_dropout": 0.0}).steps())
    x_0, _, y, _ = seen()
    data = digits()
    pictures = {tuple(image.flatten().tolist()): n for n, image in enumerate(data.images)}
    index = torch.tensor([pictures[tuple(image.flatten().tolist())] for image in x_0])
    assert torch.equal(y, data.labels[index])
    assert not torch.equal(index, torch.arange(40))
    order_seed = seeded(0, batches.ORDER).initial_seed()
    assert torch.equal(index, image_order(len(data), order_seed, 0, 40))


def test_training_leaves_the_callers_random_numbers_alone():
    before = torch.get_rng_state()
    one = list(trainer().steps())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    two = list(trainer().steps())
    assert [step.loss for step in one] == [step.loss for step in two]


def test_progress_counts_images_and_the_last_batch_is_the_rest():
    steps = list(trainer(training={"images": 25}).steps())
    assert [step.images for step in steps] == [10, 20, 25]


def test_training_learns():
    settings = {"images": 3200, "batch_size": 32, "gradient_clip": 10.0}
    losses = [step.simple for step in trainer(training=settings).steps()]
    assert losses[0] == pytest.approx(1, abs=0.1)  # a newborn answers 0, and noise has variance 1
    assert sum(losses[-10:]) / 10 < 0.6


CHOICES = [
    *({"training": {"lr_schedule": name}} for name in LR_SCHEDULES),
    *({"training": {"weighting": name}} for name in WEIGHTINGS),
    *({"training": {"precision": name}} for name in PRECISIONS),
    *({"diffusion": {"schedule": name}} for name in SCHEDULES),
    *({"diffusion": {"prediction": name}} for name in PREDICTIONS),
    {"model": {"learned_variance": False}},
    {"model": {"bidirectional": False}},
    {"training": {"weight_decay": 0.1, "warmup_images": 15}},
]


@pytest.mark.parametrize("tables", CHOICES, ids=str)
def test_every_choice_trains(tables):
    training = {"images": 20} | tables.get("training", {})
    trained = trainer(**(tables | {"training": training}))
    before = weights(trained.model)
    for step in trained.steps():
        assert not step.skipped
        assert math.isfinite(step.loss)
        assert math.isfinite(step.grad_norm)
    assert not same(before, weights(trained.model))
    assert all(p.isfinite().all() for p in trained.ema.model.parameters())


def test_bfloat16_is_really_used():
    exact, rough = (
        list(trainer(training={"precision": name}).steps()) for name in ("float32", "bfloat16")
    )
    assert exact[-1].loss != rough[-1].loss
    assert exact[-1].loss == pytest.approx(rough[-1].loss, rel=0.05)


def test_an_unconditional_model_trains(seen):
    trained = trainer(model={"num_classes": 0})
    labels = []
    trained.model.register_forward_pre_hook(lambda module, inputs: labels.append(inputs[2]))
    assert len(list(trained.steps())) == 6
    assert labels == [None] * 6


def test_large_gradients_are_shortened_and_keep_their_direction():
    norms, directions = [], []
    for clip in (1e3, 1e-3):
        trained = trainer(training={"gradient_clip": clip})

        def record(optimizer, *_):
            gradient = torch.cat(
                [g.grad.flatten() for p in optimizer.param_groups for g in p["params"]]
            )
            norms.append(gradient.norm().item())
            directions.append(gradient / gradient.norm())

        trained.optimizer.register_step_pre_hook(record)
        step = next(trained.steps())
        assert step.grad_norm == pytest.approx(norms[0])
    assert norms[0] > 1e-2
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)
    torch.testing.assert_close(*directions)


def test_a_bad_loss_changes_nothing_and_is_reported(spoil):
    spoil([3])
    trained = trainer()
    steps = trained.steps()
    first = [next(steps), next(steps)]
    before = weights(trained.model, trained.ema.model)
    moments = [s["exp_avg"].clone() for s in trained.optimizer.state.values()]
    bad = next(steps)
    assert same(before, weights(trained.model, trained.ema.model))
    assert same(moments, [s["exp_avg"] for s in trained.optimizer.state.values()])
    rest = list(steps)
    assert not same(before, weights(trained.model, trained.ema.model))
    assert [step.skipped for step in (*first, bad, *rest)] == [False] * 2 + [True] + [False] * 3
    assert bad.images == 30  # its images are over; the next step has others


def test_a_bad_gradient_is_a_bad_step():
    trained = trainer()
    before = weights(trained.model)
    trained.model.embed.weight.register_hook(lambda gradient: gradient * math.inf)
    step = next(trained.steps())
    assert step.skipped
    assert math.isfinite(step.loss)
    assert same(before, weights(trained.model))


def test_three_bad_losses_in_a_row_stop_the_run(spoil):
    spoil([1, 2, 4, 5, 6])  # two in a row are forgiven
    with pytest.raises(Diverged, match="3 times in a row, last at 60 images"):
        list(trainer(training={"images": 100}).steps())


def test_a_diverged_run_keeps_its_last_good_model_and_goes_on(tmp_path, spoil):
    wanted = tiny_recipe(training={"images": 100, "save_every": 20})
    spoil([4, 5, 6])
    with pytest.raises(Diverged):
        train(wanted, tmp_path / "run")
    reference = train(tiny_recipe(training={"images": 100}), tmp_path / "good", until=30)
    expected = weights(reference.trainer.ema.model)
    assert same(expected, weights(load(tmp_path / "run").model))
    assert [line["skipped"] for line in metric_lines(tmp_path / "run")][3:] == [True] * 3
    assert train(wanted, tmp_path / "run").trainer.images == 100


def test_a_resumed_run_remembers_how_often_it_failed(tmp_path, spoil):
    wanted = tiny_recipe(training={"images": 200, "save_every": 10})
    spoil(range(2, 100))
    for at in (40, 50):  # the third bad step, and one more after resuming
        with pytest.raises(Diverged, match=f"last at {at} images"):
            train(wanted, tmp_path)
