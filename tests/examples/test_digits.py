"""The demo's second half on a run of a few steps: it writes its picture and its verdict."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from diffussm.training import Run, find_recipe, read_tables, recipe

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = ["training.images=128", "training.preview_every=0", "model.depth=1", "sampling.steps=4"]


@pytest.fixture
def trained(tmp_path):
    run = Run(
        recipe(read_tables(find_recipe("digits"), TINY)), tmp_path / "run", torch.device("cpu")
    )
    list(run.steps())
    run.close()
    return run.folder


def test_digits_draws_and_scores(trained, monkeypatch, capsys):
    monkeypatch.syspath_prepend(EXAMPLES)
    import digits

    digits.main(trained)
    said = capsys.readouterr().out
    assert "100 digits" in said
    assert "recognised by a classifier" in said
    with Image.open(trained / "digits.png") as picture:
        assert picture.width > 10 * 64
        assert picture.height > 10 * 64


def test_examples_are_short():
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert {name: n for name, n in lengths.items() if n > 150} == {}
