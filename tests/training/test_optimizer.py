"""Learning rates: their schedules' values, and the parameters that wish for their own."""

import math

import pytest
import torch
from tiny import CPU, tiny_recipe
from torch import nn

from diffussm.data import digits
from diffussm.training import Trainer
from diffussm.training.optimizer import LR_SCHEDULES, lr_scale, make_optimizer


@pytest.mark.parametrize("name", LR_SCHEDULES)
def test_schedules_begin_in_full(name):
    assert lr_scale(name, 0, 100, 0) == 1
    values = [lr_scale(name, seen, 100, 0) for seen in range(101)]
    assert values == sorted(values, reverse=True)


def test_cosine_values():
    scales = [lr_scale("cosine", seen, 12, 0) for seen in (0, 3, 4, 6, 12)]
    assert scales == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.75, 0.5, 0])


def test_warm_up_is_linear_and_multiplies():
    assert [lr_scale("constant", seen, 100, 8) for seen in (0, 2, 8, 50)] == [0, 0.25, 1, 1]
    assert lr_scale("cosine", 25, 100, 50) == pytest.approx(0.5 * (1 + math.sqrt(0.5)) / 2)


def test_steps_follow_the_schedule():
    settings = {"lr_schedule": "cosine", "warmup_images": 20, "lr": 0.01}
    steps = Trainer(tiny_recipe(training=settings), digits(), CPU).steps()
    expected = [
        0.01 * min(1, seen / 20) * (1 + math.cos(math.pi * seen / 60)) / 2
        for seen in range(0, 60, 10)
    ]
    assert [step.lr for step in steps] == pytest.approx(expected)


def test_the_first_step_moves_each_weight_by_its_learning_rate():
    # Adam's first step is lr * gradient / |gradient|
    trainer = Trainer(tiny_recipe(training={"lr": 0.02, "gradient_clip": 1e9}), digits(), CPU)
    for parameter in trainer.model.parameters():
        nn.init.normal_(parameter, std=0.5)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    next(trainer.steps())
    moved = {
        name: (p.detach() - before[name]).abs().max().item()
        for name, p in trainer.model.named_parameters()
    }
    own = ("log_dt", "log_decay", "frequency", "B")
    for name, distance in moved.items():
        expected = 1e-3 if name.split(".")[-1] in own else 0.02
        assert distance == pytest.approx(expected, rel=0.02), name


def test_tags_come_before_the_settings():
    model = nn.Linear(3, 2)
    model.bias.optimizer_tags = {"weight_decay": 0.0, "max_lr": 1e-3}
    for lr, bias_lr in ((1e-2, 1e-3), (1e-4, 1e-4)):
        optimizer = make_optimizer(model, lr, weight_decay=0.5)
        found = {
            id(p): (group["lr"], group["weight_decay"])
            for group in optimizer.param_groups
            for p in group["params"]
        }
        assert found == {id(model.weight): (lr, 0.5), id(model.bias): (bias_lr, 0.0)}


def test_decay_alone_shrinks_untagged_weights():
    model = nn.Linear(3, 2)
    nn.init.ones_(model.bias)
    model.bias.optimizer_tags = {"weight_decay": 0.0}
    before = model.weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make_optimizer(model, 0.1, weight_decay=0.5).step()
    torch.testing.assert_close(model.weight.detach(), before * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias.detach(), torch.ones(2))
