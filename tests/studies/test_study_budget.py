"""Who may train on how many images: shares by hand, and prices against what they stand for."""

import pytest
from tiny import CPU

from diffussm.analysis.flops import cost
from diffussm.studies import budget
from diffussm.studies.budget import BUDGETS, share_out
from diffussm.studies.running import shares


def test_equal_amounts_by_hand():
    sizes = {"a": 10, "b": 10, "c": 64}
    # b costs twice as much: half the images; c half as much: 2000, in whole batches of 64
    assert share_out(1000, "a", {"a": 3.0, "b": 6.0, "c": 1.5}, sizes) == {
        "a": 1000,
        "b": 500,
        "c": 31 * 64,
    }
    assert share_out(1000, "a", {"a": 1.0, "b": 1e9, "c": 1.0}, sizes)["b"] == 10  # one batch
    assert share_out(1005, "a", {"a": 1.0, "b": 1.0, "c": 1.0}, sizes)["a"] == 1005


@pytest.mark.parametrize("name", BUDGETS)
def test_every_budget_gives_the_reference_its_own(declare, tmp_path, monkeypatch, name):
    monkeypatch.setattr(budget, "WARM_UP", 1)
    monkeypatch.setattr(budget, "TIMED", 1)
    study = declare(("seeds", f'budget = "{name}"\nreference = "coarse"\nseeds'))
    found = shares(study, tmp_path / "it", CPU)
    assert found["coarse"] == 64
    assert found["plain"] % 32 == 0
    if name == "images":
        assert found["plain"] == 64


def test_prices_are_found_once(declare, tmp_path, monkeypatch):
    prices = iter([4.0, 1.0])
    monkeypatch.setitem(BUDGETS, "seconds", lambda *_: next(prices))
    study = declare(("seeds", 'budget = "seconds"\nseeds'))
    first = shares(study, tmp_path, CPU)
    assert first == {"plain": 64, "coarse": 256} == shares(study, tmp_path, CPU)


def test_multiply_adds_count_the_kernels_once_a_batch(declare):
    study = declare()
    made = study.recipe("plain")
    passed = cost(made.model, 8, 8)
    price = BUDGETS["multiply-adds"](made, study.loaded[made.data], CPU)
    assert price * 32 == pytest.approx(passed.total * 32 + passed.kernels)


@pytest.mark.slow  # and at the mercy of other programs
def test_seconds_of_a_wider_network_are_more(declare, monkeypatch):
    monkeypatch.setattr(budget, "WARM_UP", 1)
    monkeypatch.setattr(budget, "TIMED", 3)
    study = declare(("model.patch_size = 2", "model.d_model = 192"))
    narrow, wide = (
        BUDGETS["seconds"](made, study.loaded[made.data], CPU)
        for made in (study.recipe("plain"), study.recipe("coarse"))
    )
    assert 0 < 2 * narrow < wide
