"""Blocks of every model: all named, all trained, and the same when computed again or compiled."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import CPU, awake, tiny_recipe
from torch import nn

from diffussm.data import digits
from diffussm.models import MODELS
from diffussm.models.presets import PRESETS
from diffussm.training import Trainer, recipe
from diffussm.training.parallel import PARALLELS, local, whole

SMALL = {
    "DiffuSSM": {"d_model": 8, "depth": 2, "d_state": 4},
    "UViSSM": {"d_model": 8, "depth": 3, "d_state": 4},
    "DiT": {"d_model": 8, "depth": 2, "num_heads": 2},
    "U-ViT": {"d_model": 8, "depth": 3, "num_heads": 2, "learned_variance": True},
    "U-Net": {"base_channels": 8, "multipliers": [1, 2], "blocks": 1, "norm_groups": 2}
    | {"attention_levels": [1], "head_width": 8},
}


def trained(family, **training):
    model = SMALL[family] | {"name": family}
    training = {"images": 20, "batch_size": 10, "lr": 1e-2} | training
    return Trainer(recipe({"model": model, "training": training}), digits(), CPU)


def test_every_family_is_here():
    assert SMALL.keys() == MODELS.keys() <= PRESETS.keys()


@pytest.mark.parametrize("family", SMALL)
def test_blocks_hold_most_of_a_model(family):
    model = trained(family).model
    assert all(isinstance(block, nn.Module) for block in model.blocks)
    inside = {id(p) for block in model.blocks for p in block.parameters()}
    assert inside <= {id(p) for p in model.parameters()}
    assert sum(p.numel() for block in model.blocks for p in block.parameters()) > 0.3 * sum(
        p.numel() for p in model.parameters()
    )


@pytest.mark.parametrize("family", SMALL)
def test_every_parameter_gets_a_gradient(family):
    """DDP waits for each of them."""
    trainer = trained(family)
    awake(trainer.model)
    next(trainer.steps())
    without = [name for name, p in trainer.model.named_parameters() if p.grad is None]
    assert without == []


@pytest.mark.parametrize("family", SMALL)
def test_computed_again_is_the_same_to_the_bit(family):
    plain, again = (trained(family, checkpoint_blocks=value) for value in (False, True))
    assert [s.loss for s in plain.steps()] == [s.loss for s in again.steps()]
    for name, value in plain.tensors().items():
        assert torch.equal(value, again.tensors()[name]), name


def test_memory_is_really_saved():
    """Between the passes, autograd keeps the blocks' inputs alone."""
    kept = {}
    for value in (False, True):
        trainer = trained("DiffuSSM", checkpoint_blocks=value)
        bytes_kept = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, kept=bytes_kept: (kept.append(tensor.nbytes), tensor)[1], lambda t: t
        ):
            trainer.model(torch.randn(4, 1, 8, 8), torch.arange(4), torch.arange(4))
        kept[value] = sum(bytes_kept)
    assert kept[True] < 0.5 * kept[False]


COMPILED = """
from test_parallel import trained
plain, compiled = (trained("DiffuSSM", compile=value) for value in (False, True))
for expected, step in zip(plain.steps(), compiled.steps(), strict=True):
    assert abs(step.loss / expected.loss - 1) < 1e-4, (step, expected)
    assert abs(step.grad_norm / expected.grad_norm - 1) < 1e-3, (step, expected)
import torch
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # for all blocks
"""


@pytest.mark.slow
def test_compiled_is_the_same_to_rounding():
    # in an interpreter of its own: compilers cannot look through the checks of shapes
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": str(here.parent)}
    command = [sys.executable, "-c", COMPILED]
    done = subprocess.run(command, capture_output=True, text=True, cwd=here, env=environment)
    assert done.returncode == 0, done.stderr


def test_one_process_lays_nothing_out():
    for name in PARALLELS:
        trainer = Trainer(tiny_recipe(training={"parallel": name}), digits(), CPU)
        assert trainer._network is trainer.model


def test_what_is_not_sliced_is_whole():
    tensor = torch.randn(3)
    assert local(tensor) is tensor
    assert whole(tensor) is tensor
