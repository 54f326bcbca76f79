"""A disk that fills up, a clock that goes backwards: nothing that was good is lost."""

import os
import resource
import subprocess
import sys
import time

import pytest
from tiny import SETTINGS, metric_lines, newest_state, tiny_recipe, train

from diffussm import load
from diffussm.training import find_recipe, read_tables, recipe
from diffussm.training.state import complete

LONG = [*SETTINGS, "training.images=300", "training.save_every=50"]


def command(folder):
    words = [word for setting in LONG for word in ("--set", setting)]
    return [sys.executable, "-m", "diffussm", "train", "digits", "--out", str(folder), *words]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of 100 of the 300 images."""
    folder = tmp_path_factory.mktemp("full") / "run"
    train(recipe(read_tables(find_recipe("digits"), LONG)), folder, until=100)
    return folder


def test_a_full_disk_is_a_sentence_and_loses_nothing(begun):
    (state,) = newest_state(begun)
    full = state.stat().st_size // 2
    before = {path: path.read_bytes() for path in (state, begun / "model.safetensors")}
    assert full > len((begun / "metrics.jsonl").read_bytes())

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, full))

    done = subprocess.run(command(begun), capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert f"could not write {begun}" in done.stderr
    assert "Any earlier file is untouched" in done.stderr
    assert state.read_bytes() == before[state]
    assert complete(begun)[0] == state.parent
    load(begun)
    assert not list(begun.rglob("*.part"))

    train(recipe(read_tables(find_recipe("digits"), LONG)), begun)  # there is space again
    assert load(begun).config.images == 300
    assert [line["images"] for line in metric_lines(begun)] == list(range(10, 310, 10))


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path, monkeypatch):
    wanted = tiny_recipe(training={"save_every": 10})
    train(wanted, tmp_path / "undisturbed")
    clock = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: next(clock))
    train(wanted, tmp_path / "run", until=40)
    for age, path in enumerate(sorted((tmp_path / "run").rglob("*"), reverse=True)):
        os.utime(path, (10**9 - age, 10**9 - 1000 * age))
    newest = sorted((tmp_path / "run" / "state").iterdir())[-1]
    os.utime(newest, (0, 0))
    assert train(wanted, tmp_path / "run").resumed_at == 40
    ours, theirs = (tmp_path / name / "model.safetensors" for name in ("run", "undisturbed"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert metric_lines(tmp_path / "run") == metric_lines(tmp_path / "undisturbed")
