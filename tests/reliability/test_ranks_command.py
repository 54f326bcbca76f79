"""`torchrun -m diffussm train`: a rank that dies, a second run in the folder, Ctrl-C for all."""

import os
import signal
import subprocess
import time

import pytest
from ranks import torchrun
from tiny import CPU, SETTINGS, metric_lines, train

from diffussm import load
from diffussm.training import Run, find_recipe, read_tables, recipe

LONG = [*SETTINGS, "training.images=700", "training.save_every=50"]


def command(folder, settings=LONG, options=()):
    words = [word for setting in settings for word in ("--set", setting)]
    train_words = ("-m", "diffussm", "train", "digits", "--out", folder, *words)
    return torchrun(2, *train_words, options=options)


def start(folder, **options):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(folder, **options), **pipes)


def wait_for(condition, process):
    """Until it holds; the process must live as long."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def ranks_of(process):
    """The process ids of the ranks, which torchrun began one after the other."""
    path = f"/proc/{process.pid}/task/{process.pid}/children"
    with open(path) as children:
        return [int(word) for word in children.read().split()]


def images(folder):
    return load(folder).config.images if (folder / "model.safetensors").exists() else 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    train(recipe(read_tables(find_recipe("digits"), LONG)), folder)
    return metric_lines(folder)


@pytest.mark.slow
def test_a_rank_that_dies_is_replaced_and_the_run_goes_on(tmp_path, undisturbed):
    process = start(tmp_path, options=("--max-restarts", "3"))
    wait_for(lambda: images(tmp_path) >= 100, process)
    victim = ranks_of(process)[-1]
    os.kill(victim, signal.SIGKILL)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "resuming after" in out
    assert out.count("done: ") == 1
    lines = metric_lines(tmp_path)
    assert [line["images"] for line in lines] == [line["images"] for line in undisturbed]
    losses, expected = ([line["loss"] for line in each] for each in (lines, undisturbed))
    assert losses == pytest.approx(expected, rel=1e-2)
    assert losses[:20] == pytest.approx(expected[:20], rel=1e-4)


@pytest.mark.slow
def test_a_folder_in_use_is_refused_once_for_all_ranks(tmp_path):
    held = Run(recipe(read_tables(find_recipe("digits"), LONG)), tmp_path, CPU)
    done = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=120)
    held.close()
    assert done.returncode != 0
    assert done.stderr.count("diffussm: another process trains in") == 1
    assert done.stdout == ""


@pytest.mark.slow
def test_one_mistake_is_one_sentence_for_all_ranks(tmp_path):
    settings = [*LONG, "training.batchsize=3"]
    done = subprocess.run(command(tmp_path / "run", settings), capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.count("did you mean 'training.batch_size'") == 1
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=lambda stop: stop.name)
def test_asked_to_stop_all_save_first(tmp_path, stop):
    process = start(tmp_path)
    wait_for(lambda: images(tmp_path) >= 50, process)
    process.send_signal(stop)
    out, err = process.communicate(timeout=120)
    stopped = images(tmp_path)
    assert f"stopped and saved after {stopped:,} images" in out, err
    assert metric_lines(tmp_path)[-1]["images"] == stopped < 700
    again = start(tmp_path)
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert f"resuming after {stopped:,} images" in out
    assert images(tmp_path) == 700
