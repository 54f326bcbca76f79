"""The benchmark of reading at a tiny size: every row is there, and what is wrong is not timed."""

import os
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import data as benchmark

    out = tmp_path / "results" / "table.md"
    flags = ["--entries", "2000", "--step", "0.001", "--workers", "0,1"]
    monkeypatch.setattr(
        sys, "argv", ["data.py", *flags, "--folder", str(tmp_path), "--out", str(out)]
    )
    photographs = benchmark.make_photographs
    monkeypatch.setattr(benchmark, "make_photographs", lambda folder: photographs(folder, 3))
    monkeypatch.setattr(benchmark, "BATCH", 2)
    return benchmark, out


def test_prints_and_writes_a_table(run, capsys, tmp_path):
    benchmark, out = run
    benchmark.main()
    text = out.read_text()
    assert capsys.readouterr().out == text
    values = [line.split("|")[2] for line in text.splitlines()[4:]]
    assert len(values) == 5
    assert all(float(value) > 0 for value in values)
    assert os.listdir(tmp_path) == ["results"]


def test_a_wrong_list_is_not_timed(run, monkeypatch):
    benchmark, out = run
    made = benchmark.make_tar
    monkeypatch.setattr(benchmark, "make_tar", lambda path, entries: made(path, entries - 1000))
    with pytest.raises(SystemExit, match="the list is wrong; not timed"):
        benchmark.main()
    assert not out.exists()
