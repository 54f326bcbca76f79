"""UViSSM: DiffuSSM's blocks, and long skips between its halves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import awake
from torch import nn

from diffussm.models.diffussm import DiffuSSM, DiffuSSMConfig
from diffussm.models.uvissm import UViSSM, UViSSMConfig

TINY = {"input_size": 8, "in_channels": 2, "num_classes": 5, "d_model": 8, "d_state": 4, "depth": 5}
T, Y = torch.tensor([0, 999]), torch.tensor([3, 5])


def take(linear, stream, kept):
    """Make a long skip `stream` times the stream plus `kept` times what was kept."""
    one = torch.eye(8)
    linear.weight.data = torch.cat([stream * one, kept * one], dim=1)
    nn.init.zeros_(linear.bias)


@pytest.mark.parametrize("scan", ["raster", "alternating"])
def test_skips_that_take_the_stream_alone_leave_a_diffussm(scan):
    model = awake(UViSSM(UViSSMConfig(**TINY, scan=scan)))
    straight = DiffuSSM(DiffuSSMConfig(**TINY, scan=scan))
    straight.load_state_dict(model.state_dict(), strict=False)
    image = torch.randn(2, 2, 8, 12)
    assert not torch.allclose(model(image, T, Y), straight(image, T, Y), rtol=0.01)
    for linear in model.skips:
        take(linear, 1.0, 0.0)
    torch.testing.assert_close(model(image, T, Y), straight(image, T, Y))


def test_the_last_block_reads_what_the_first_one_made():
    model = awake(UViSSM(UViSSMConfig(**TINY)))
    take(model.skips[-1], 0.0, 1.0)
    short = DiffuSSM(DiffuSSMConfig(**(TINY | {"depth": 2})))
    weights = {name: w for name, w in model.state_dict().items() if not name.startswith("skips")}
    ends = {"0": "0", "4": "1"}  # of five blocks, the first and the last
    short.load_state_dict(
        {
            ".".join(["blocks", ends[name.split(".")[1]], *name.split(".")[2:]])
            if name.startswith("blocks.")
            else name: weight
            for name, weight in weights.items()
            if not name.startswith("blocks.") or name.split(".")[1] in ends
        }
    )
    image = torch.randn(2, 2, 8, 8)
    torch.testing.assert_close(model(image, T, Y), short(image, T, Y))


COMPILED = """
import torch
from test_uvissm import TINY, T, UViSSM, UViSSMConfig, Y, awake

torch.manual_seed(0)
model, image = awake(UViSSM(UViSSMConfig(**TINY | {"depth": 3}))), torch.randn(2, 2, 4, 12)
compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
torch.testing.assert_close(compiled(image, T, Y), model(image, T, Y))
"""


@pytest.mark.slow
def test_compiles_whole():
    # in an interpreter of its own: compilers cannot look through the checks of shapes
    here = Path(__file__).parent
    paths = {"PYTHONPATH": str(here.parent)}  # of `tiny`
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        capture_output=True,
        text=True,
        cwd=here,
        env=os.environ | paths,
    )
    assert done.returncode == 0, done.stderr


def test_images_do_not_mix():
    model, image = awake(UViSSM(UViSSMConfig(**TINY))), torch.randn(2, 2, 8, 8)
    torch.testing.assert_close(model(image[:1], T[:1], Y[:1]), model(image, T, Y)[:1])


def test_a_new_model_answers_0():
    assert not UViSSM(UViSSMConfig(**TINY))(torch.randn(2, 2, 8, 8), T, Y).any()


@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": False, "scan": "alternating"}, {"num_classes": 0}], ids=str
)
def test_every_weight_learns(options):
    model = awake(UViSSM(UViSSMConfig(**(TINY | options))))
    labels = Y if model.config.num_classes else None
    model(torch.randn(2, 2, 8, 8), T, labels).square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_depth_without_a_middle_is_refused():
    with pytest.raises(ValueError, match="depth must be odd, a middle block and two halves, not 4"):
        UViSSMConfig(depth=4)
