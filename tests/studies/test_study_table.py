"""The arithmetic of the table by hand, and what figures show of it."""

import pytest

from diffussm.studies import find_study, read_study
from diffussm.studies.budget import BUDGETS, EQUAL
from diffussm.studies.figure import curves_figure, results_figure
from diffussm.studies.result import Facts, Place, Result, read_result, write_result
from diffussm.studies.table import Spread, groups, study_table

FACTS = {"parameters": 1234, "multiply_adds": 2_500_000, "kernels": 7, "images": 64}
FACTS |= {"threads": 1, "processor": "a machine", "torch": "2"}


def result(member, seed, loss, seconds=60.0, curve=((32, 0.5), (64, 0.25)), **facts):
    return Result(
        member=member,
        seed=seed,
        recipe={"training": {"seed": seed}},
        measure={"metrics": ["loss"]},
        facts=Facts(**FACTS, seconds=seconds, **facts),
        metrics={"loss": loss},
        curve=curve,
    )


@pytest.fixture
def results():
    return {
        "plain": [result("plain", 0, 0.25, 60.0), result("plain", 1, 0.75, 120.0)],
        "coarse": [result("coarse", 0, 1.0, 30.0)],
    }


def rows(text):
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in lines}


def test_mean_and_spread_by_hand(declare, results):
    found = rows(study_table(declare(), results))
    # mean of 1/4 and 3/4; both lie 1/4 away: the root of 2 (1/4)^2 / (2 - 1)
    assert found["plain"] == ["1,234", "2.5", "64", "2", "0.5000 ± 0.3536", "90"]
    assert found["coarse"] == ["1,234", "2.5", "64", "1", "1.0000", "30"]


def test_deviation_of_three_by_hand():
    spread = Spread.of([1.0, 2.0, 6.0])  # around 3: 4 + 1 + 9 = 14, halved
    assert (spread.mean, spread.deviation) == (3.0, pytest.approx(7**0.5))
    assert spread.shown(1, 100.0) == "300.0 ± 264.6"
    assert Spread.of([]).shown(3) == "-"


def test_a_value_that_is_not_there_is_left_out(declare, results):
    results["plain"][1] = result("plain", 1, None)
    assert rows(study_table(declare(), results))["plain"][4] == "0.2500"
    results["plain"] = []
    assert rows(study_table(declare(), results))["plain"] == ["-"] * 6


def test_one_that_diverged_counts_in_no_mean(declare, results):
    gone = result("plain", 1, None, 1.0, curve=(), diverged="the loss was not finite")
    results["plain"][1] = gone
    text = study_table(declare(), results)
    assert rows(text)["plain"] == ["1,234", "2.5", "64", "2 (1 diverged)", "0.2500", "60"]
    assert "1 diverged and count in no mean" in text


def test_the_preface_says_how_long_and_what_is_equal(declare, results):
    for seconds, said in ((5.0, "25 seconds"), (60.0, "5 minutes"), (3600.0, "5.0 hours")):
        several = [result("plain", seed, 1.0, seconds) for seed in range(5)]
        assert f"{said} of training" in study_table(declare(), {"plain": several})
    text = study_table(declare(), results)
    assert "; each member sees as many images as plain.\n" in text
    assert EQUAL.keys() == BUDGETS.keys()


def test_the_command_is_what_was_given(declare, tmp_path, results):
    study = declare()
    assert f"`diffussm study {tmp_path / 'tiny.toml'}`: 3 of 4 results" in study_table(
        study, results
    )
    changed = read_study(tmp_path / "tiny.toml", ["training.lr=0.5"])
    assert changed.command.endswith("tiny.toml --set training.lr=0.5")
    built_in = read_study(find_study("claims-digits"))
    assert built_in.command == "diffussm study claims-digits"


def test_a_table_for_each_claim_and_one_for_the_rest(declare, results):
    study = declare(('["plain", "coarse"]', '["plain"]'))
    assert [(group.says, group.members) for group in groups(study)] == [
        ("Every pixel counts", ("plain",)),
        ("Other members", ("coarse",)),
    ]
    text = study_table(study, results)
    first, second = text.split("## ")[1:]
    assert ("plain" in rows(first), "plain" in rows(second)) == (True, False)
    assert "3 of 4 results" in text


def test_a_result_is_written_and_read_as_it_is(tmp_path):
    place, ours = Place(tmp_path, "plain", 3), result("plain", 3, 0.5, diverged="because")
    place.run.parent.mkdir()
    assert read_result(place) is None
    write_result(place, ours)
    found = read_result(place)
    assert found == ours
    assert list(tmp_path.rglob("*.part")) == []


def test_figures_show_every_seed_its_mean_and_its_curve(declare, results):
    study = declare()
    (axes,) = results_figure(study, results).axes
    dots = [line for line in axes.lines if len(line.get_xdata()) == 2]
    assert list(dots[0].get_xdata()) == [0.25, 0.75]
    (bar, *_) = axes.containers
    assert bar.lines[0].get_xdata()[0] == 0.5
    assert [label.get_text() for label in axes.get_yticklabels()] == ["plain", "coarse"]
    results["plain"][1] = result("plain", 1, 0.5, curve=((32, 0.7), (64, 0.35)))
    (axes,) = curves_figure(study, results).axes
    assert list(axes.lines[0].get_ydata()) == pytest.approx([0.6, 0.3])
    assert [line.get_label() for line in axes.lines] == ["plain", "coarse"]


def test_figures_of_nothing(declare):
    study = declare()
    assert len(results_figure(study, {}).axes) == len(curves_figure(study, {}).axes) == 1
