"""The loss on held-out images, and the lines of metrics that are due for it."""

import pytest
import torch
from tiny import CPU, awake, metric_lines, tiny_recipe, train

from diffussm.data import digits, hold_out, seeded
from diffussm.training import Trainer
from diffussm.training.batches import VALIDATION
from diffussm.training.validation import validate


def trainer_and_images(**tables):
    wanted = tiny_recipe(**tables)
    data, held_out = hold_out(digits(), 23)
    trainer = Trainer(wanted, data, CPU)
    torch.manual_seed(1)
    awake(trainer.ema.model)
    return trainer, held_out


def test_it_is_the_error_of_the_average_on_each_image_once():
    trainer, held_out = trainer_and_images()
    errors = []
    for number, (image, label) in enumerate(
        zip(*held_out.batch(torch.arange(23), range(23))[:2], strict=True)
    ):
        draw = seeded(0, VALIDATION, number)
        t, _ = torch.randint(1000, (), generator=draw), torch.rand((), generator=draw)
        noise = torch.randn(image.shape, generator=draw)
        alpha = trainer.diffusion.schedule.signal_scale[t].float()
        x_t = alpha * image + (1 - alpha**2).sqrt() * noise
        answer = trainer.ema.model(x_t[None], t[None], label[None])
        errors.append((answer[0, :1] - noise).square().mean())
    assert validate(trainer, held_out) == pytest.approx(torch.stack(errors).mean().item(), rel=1e-4)


@pytest.mark.parametrize("training", [{"batch_size": 7}, {"batch_size": 23}, {"accumulate": 4}])
def test_it_does_not_depend_on_how_it_is_cut(training):
    expected = validate(*trainer_and_images())
    assert validate(*trainer_and_images(training=training)) == pytest.approx(expected, rel=1e-5)


def test_it_changes_nothing_in_training(tmp_path):
    held = {"data": {"hold_out": 0.1}}
    train(tiny_recipe(**held, training={"validate_every": 20}), tmp_path / "with")
    train(tiny_recipe(**held, training={"validate_every": 0}), tmp_path / "without")
    lines, plain = (metric_lines(tmp_path / name) for name in ("with", "without"))
    validated = [line.pop("validation", None) for line in lines]
    assert [value is not None for value in validated] == [False, True] * 3
    assert lines == plain


def test_lines_are_thinned_to_means(tmp_path):
    settings = {"images": 100, "save_every": 50}
    train(tiny_recipe(training=settings), tmp_path / "all")
    train(tiny_recipe(training=settings | {"log_every": 30}), tmp_path / "few")
    steps, lines = (metric_lines(tmp_path / name) for name in ("all", "few"))
    assert [line["images"] for line in lines] == [30, 50, 60, 90, 100]
    assert lines[0]["loss"] == pytest.approx(sum(step["loss"] for step in steps[:3]) / 3)
    assert lines[2] == steps[5]
    assert all("ema_distance" in line for line in lines if line["images"] != 50)


def test_a_thinned_run_resumes_as_if_undisturbed(tmp_path):
    wanted = tiny_recipe(training={"images": 100, "save_every": 50, "log_every": 30})
    train(wanted, tmp_path / "once")
    train(wanted, tmp_path / "killed", until=80, save=False)
    train(wanted, tmp_path / "killed")
    assert metric_lines(tmp_path / "killed") == metric_lines(tmp_path / "once")
