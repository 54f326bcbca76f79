"""The study of the digits recipe runs each of its rows."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import digits_recipe


@pytest.mark.parametrize("row", digits_recipe.ROWS)
def test_each_row_can_be_measured(row, monkeypatch):
    monkeypatch.setattr(digits_recipe, "DRAWN", 10)
    short = ["training.images=32", "model.depth=1", "model.d_model=32"]
    figures = digits_recipe.measure("digits", digits_recipe.ROWS[row] + short, seed=0)
    assert 0 < figures.loss < 3
    assert 0 <= min(figures.recognised, figures.guided) <= 1
