"""The benchmark of the layers at tiny sizes: it times what agrees and refuses what does not."""

from pathlib import Path

import pytest
import torch

from diffussm.ops.selective_scan import selective_scan
from diffussm.ops.vandermonde import vandermonde
from diffussm.ssm.choices import SSMS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import ssm

    return ssm


def test_every_comparison_runs(benchmark):
    small = {"dim": 4, "state": 8, "length": 33, "repeats": 2}
    rows = [
        benchmark.s4d_against_naive(**small),
        benchmark.s4_against_s4d(**small, backward=False, checked=2),
        benchmark.s4_against_s4d(**small, backward=True, checked=2),
        benchmark.parallel_against_sequential(2, 4, 8, length=33, repeats=2),
        benchmark.columns_against_rows(1, 4, 4, repeats=2),
        *(benchmark.layer_against_s4d(name, 1, 8, 9, repeats=2) for name in SSMS),
    ]
    for row in rows:
        assert min(row.ours, row.other, row.ratio) > 0


def test_the_scan_s_memory_holds_its_inputs_and_outputs(benchmark):
    line = benchmark.scan_memory(2, 96, 16, length=512)
    ratio = float(line.strip("| ").split("|")[-1])
    assert 1 < ratio < 3


def test_what_disagrees_is_not_timed(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "vandermonde", lambda *x: 1.001 * vandermonde(*x))
    with pytest.raises(SystemExit, match=r"D = 4.* differ by .*not timed"):
        benchmark.s4d_against_naive(4, 8, 33, repeats=1)
    monkeypatch.setattr(benchmark, "selective_scan", lambda *x: 1.001 * selective_scan(*x))
    with pytest.raises(SystemExit, match=r"batch 1.* differ by .*not timed"):
        benchmark.parallel_against_sequential(1, 4, 8, length=33, repeats=1)
    monkeypatch.setattr(benchmark, "low_rank_kernel", lambda *x: torch.zeros(2, 33).double())
    with pytest.raises(SystemExit, match=r"S4's kernel.* differ by .*not timed"):
        benchmark.s4_against_s4d(4, 8, 33, repeats=1, backward=False, checked=2)
