"""The table of the baselines: each recipe once, and an interrupted one goes on where it stopped."""

import sys
from pathlib import Path

import pytest

from diffussm.training.recipe import recipes_folder

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def baselines(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import baselines

    return baselines


def test_no_sibling_is_forgotten(baselines):
    assert sorted(baselines.RECIPES) == sorted(p.stem for p in recipes_folder().glob("digits*"))


def test_an_interrupted_table_goes_on(baselines, monkeypatch, tmp_path, capsys):
    measured = []

    def measure(name, settings, seed):
        measured.append((name, seed))
        if len(measured) == 3:
            raise KeyboardInterrupt
        return baselines.Figures(1000, 0.5 + seed, 0.25, 0.75, 60.0)

    monkeypatch.setattr(baselines, "measure", measure)
    out = tmp_path / "results" / "table.md"
    words = ["baselines.py", "--recipes", "digits,digits-dit", "--seeds", "0,1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(KeyboardInterrupt):
        baselines.main()
    baselines.main()
    first, again = [("digits", 0), ("digits-dit", 0), ("digits", 1)], [("digits", 1)]
    assert measured == [*first, *again, ("digits-dit", 1)]
    lines = out.read_text().splitlines()
    assert "| digits | 1,000 | 19.0 | 2 | 1.0000 ± 0.7071 | 25.0 ± 0.0 | 75.0 ± 0.0 | 60 |" in lines
    assert sum(line.startswith("| digits") for line in lines) == 2
