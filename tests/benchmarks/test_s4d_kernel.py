"""The benchmark at tiny sizes: it times what agrees, refuses what does not, and leaves no trace."""

import sys
from pathlib import Path

import pytest
import torch

from diffussm.ops.vandermonde import vandermonde
from diffussm.ssm import s4d

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TINY = {"input_size": 8, "d_model": 16, "depth": 1, "num_classes": 10}


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import s4d_kernel

    return s4d_kernel


def both(benchmark):
    return [
        benchmark.compare_model("DiffuSSM-S", TINY, batch=2, repeats=2),
        benchmark.compare_kernel(dim=4, state=8, length=65, repeats=2),
    ]


def test_measures_both_sides_and_leaves_no_trace(benchmark):
    for row in both(benchmark):
        assert min(row.ours, row.other, row.ratio) > 0
    with benchmark.naive_kernels():
        assert s4d.vandermonde is benchmark.vandermonde_reference
    assert s4d.vandermonde is vandermonde


def test_what_disagrees_is_not_timed(benchmark, monkeypatch):
    def wrong(*arguments):
        return 1.001 * vandermonde(*arguments)

    monkeypatch.setattr(benchmark, "vandermonde_reference", wrong)
    with pytest.raises(SystemExit, match=r"kernel alone.* differ by .*not timed"):
        benchmark.compare_kernel(dim=4, state=8, length=65, repeats=1)
    with pytest.raises(SystemExit, match=r"DiffuSSM-S.* differ by .*not timed"):
        benchmark.compare_model("DiffuSSM-S", TINY, batch=2, repeats=1)


def test_prints_and_writes_a_dated_table(benchmark, monkeypatch, tmp_path, capsys):
    import timing

    row = timing.Row("something", ours=0.5, other=3.0, ratio=6.0)
    monkeypatch.setattr(benchmark, "compare_model", lambda *a, repeats, **k: row)
    monkeypatch.setattr(benchmark, "compare_kernel", lambda *a, repeats, **k: row)
    out, threads = tmp_path / "results" / "table.md", str(torch.get_num_threads())
    flags = ["--repeats", "3", "--threads", threads, "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["s4d_kernel.py", *flags])
    timing.run("A table", benchmark.report)
    report = out.read_text()
    assert capsys.readouterr().out == report
    assert f"{threads} threads, torch {torch.__version__}" in report
    assert "cores" in report
    assert "medians of 3" in report
    assert report.count("| something | 0.5000 | 3.0000 | 6.0 |") == 3
