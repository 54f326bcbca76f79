"""A run that is stopped at any instant goes on, and ends with the bytes of an undisturbed one."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import SETTINGS, metric_lines, tiny_recipe, train

from diffussm import load
from diffussm.training import find_recipe, read_tables, recipe

LONG = [*SETTINGS, "training.images=1500", "training.batch_size=5", "training.save_every=50"]
MODEL = "model.safetensors"


def command(folder, settings):
    words = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-m", "diffussm", "train", "digits", "--out", str(folder), *words]


def start(folder, settings=LONG):
    """The command, begun; its output is kept for the end."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(folder, settings), **pipes)


def wait_for_progress(process, folder):
    """Until the running command has saved once more, or has ended."""
    path = folder / "model.safetensors"
    before = path.stat().st_mtime_ns if path.exists() else None
    while process.poll() is None:
        if path.exists() and path.stat().st_mtime_ns != before:
            return
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    train(recipe(read_tables(find_recipe("digits"), LONG)), folder)
    return folder


def assert_same_run(folder, reference):
    assert (folder / MODEL).read_bytes() == (reference / MODEL).read_bytes()
    assert metric_lines(folder) == metric_lines(reference)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=lambda stop: stop.name)
def test_asked_to_stop_it_saves_first(tmp_path, undisturbed, stop):
    process = start(tmp_path)
    wait_for_progress(process, tmp_path)
    process.send_signal(stop)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    stopped = load(tmp_path).config.images
    assert f"stopped and saved after {stopped:,} images; the same command goes on" in out
    assert metric_lines(tmp_path)[-1]["images"] == stopped < 1500
    again = start(tmp_path)
    out, err = again.communicate()
    assert (again.returncode, f"resuming after {stopped:,} images" in out) == (0, True), err
    assert_same_run(tmp_path, undisturbed)


def kill_until_done(folder, settings, kills, longest):
    """Kill the command at random moments `kills` times, then let it end; how often it was hit."""
    hit = 0
    for number in range(kills):
        process = start(folder, settings)
        if number % 3 < 2:  # every third one dies while it starts, or soon after
            wait_for_progress(process, folder)
        time.sleep(random.Random(number).uniform(0, longest))
        process.kill()
        process.communicate()
        hit += process.returncode == -signal.SIGKILL
        if (folder / MODEL).exists():
            load(folder)  # always whole
    last = start(folder, settings)
    _, err = last.communicate()
    assert last.returncode == 0, err
    return hit


def test_killed_at_random_moments(tmp_path, undisturbed):
    assert kill_until_done(tmp_path, LONG, kills=2, longest=0.3) >= 1
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.slow
def test_killed_at_many_random_moments(tmp_path):
    settings = [*LONG, "training.images=20_000", "training.preview_every=400"]
    train(recipe(read_tables(find_recipe("digits"), settings)), tmp_path / "undisturbed")
    assert kill_until_done(tmp_path / "killed", settings, kills=25, longest=1.5) >= 10
    assert_same_run(tmp_path / "killed", tmp_path / "undisturbed")


KILLER = """
import os, sys
from pathlib import Path
from tiny import tiny_recipe, train
wanted = tiny_recipe(training={"save_every": 30})
replace = os.replace
for number in range(int(sys.argv[2])):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    calls = []
    def replace_or_die(source, target):
        if len(calls) == number:
            os._exit(0)
        calls.append(target)
        replace(source, target)
    os.replace = replace_or_die
    train(wanted, Path(sys.argv[1]) / str(number))
    os._exit(1)
"""
WRITES = ["recipe", "model", "state", "model", "state"]  # those of 30 images, then of 60

KILLED_WHILE_SAVING = """
import os, random, signal, sys, threading, time
from pathlib import Path
from tiny import tiny_recipe, train
from diffussm.training.saver import Saver
wanted = tiny_recipe(training={"save_every": 10})
start = Saver.start
for number in range(int(sys.argv[2])):
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        print("killed" if os.WIFSIGNALED(status) else "lived")
        continue
    draw, saves = random.Random(number), []
    victim, delay = draw.randrange(1, 6), draw.uniform(0, 0.012)
    def kill_later():
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)
    def start_and_die(saver, write):
        saves.append(1)
        if len(saves) == victim:
            threading.Thread(target=kill_later).start()
        start(saver, write)
    Saver.start = start_and_die
    train(wanted, Path(sys.argv[1]) / str(number))
    os._exit(0)
"""


def test_killed_before_any_write(tmp_path, monkeypatch):
    wanted = tiny_recipe(training={"save_every": 30})
    train(wanted, tmp_path / "undisturbed")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    arguments = [sys.executable, "-c", KILLER, str(tmp_path), str(len(WRITES))]
    subprocess.run(arguments, check=True, capture_output=True)
    seen = []
    for number in range(len(WRITES)):
        folder = tmp_path / str(number)
        seen.append(load(folder).config.images if (folder / MODEL).exists() else None)
        assert list(folder.rglob("*.part"))
        train(wanted, folder)
        assert_same_run(folder, tmp_path / "undisturbed")
        assert not list(folder.rglob("*.part"))
    assert seen == [None, None, 30, 30, 60]


@pytest.mark.parametrize("times", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_while_saving(tmp_path, monkeypatch, times):
    wanted = tiny_recipe(training={"save_every": 10})
    train(wanted, tmp_path / "undisturbed")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    arguments = [sys.executable, "-c", KILLED_WHILE_SAVING, str(tmp_path), str(times)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert done.stdout.split().count("killed") >= times - 1
    for number in range(times):
        folder = tmp_path / str(number)
        if (folder / MODEL).exists():
            load(folder)  # always whole
        run = train(wanted, folder)
        assert run.notice == ""
        assert_same_run(folder, tmp_path / "undisturbed")
        assert not list(folder.rglob("*.part"))
        assert len(list((folder / "state").iterdir())) == 2
