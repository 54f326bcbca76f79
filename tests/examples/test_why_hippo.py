"""The comparison runs every matrix on both tasks, and LegS remembers what a random one cannot."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image

from diffussm.ssm import lssl

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import why_hippo

    return why_hippo


def test_it_writes_a_figure_and_a_table_of_all(example, tmp_path, monkeypatch):
    monkeypatch.setattr(example, "BATCH", 4)
    monkeypatch.setattr(example, "STATE", 4)
    example.main(seeds=2, steps=1, out=tmp_path / "new")
    plt.close("all")
    table = (tmp_path / "new" / "why_hippo.md").read_text()
    for task in ("delay", "digits"):
        for init in lssl.INITS:
            assert f"| {task} | {init} |" in table
    with Image.open(tmp_path / "new" / "why_hippo.png") as picture:
        assert picture.width > 1000


def test_legs_remembers_what_a_random_matrix_forgets(example):
    errors = {
        init: example.measure(example.Delay(), init, train_A=False, seed=0, steps=80)
        for init in ("legs", "random")
    }
    assert errors["legs"] < 0.4 < 0.8 < errors["random"]


def test_a_blind_guess_has_error_one(example):
    blind = torch.nn.Sequential(torch.nn.Linear(1, 1))
    torch.nn.init.zeros_(blind[0].weight)
    torch.nn.init.zeros_(blind[0].bias)
    with torch.no_grad():
        assert example.Delay().error(blind) == pytest.approx(1, abs=0.05)
