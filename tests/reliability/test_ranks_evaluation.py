"""Evaluation by 1, 2 and 4 ranks: the same numbers, samples and identities."""

import json
import os
import subprocess

import numpy as np
import pytest
from ranks import torchrun
from tiny import SETTINGS, metric_lines

pytestmark = pytest.mark.slow


def do(ranks, *words):
    """What the command says, when so many ranks do it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        torchrun(ranks, *words), capture_output=True, text=True, timeout=240, env=environment
    )


def train(folder, ranks, *settings):
    words = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
    done = do(ranks, "-m", "diffussm", "train", "digits", "--out", folder, *words)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(folder, 1)
    return folder


@pytest.fixture(scope="module")
def scored(run, tmp_path_factory):
    """The result and the samples, by number of ranks; 130 samples are three blocks."""
    folder, found = tmp_path_factory.mktemp("scored"), {}
    for ranks in (1, 2, 4):
        npz = folder / f"{ranks}.npz"
        done = do(ranks, "-m", "diffussm", "evaluate", run, "--samples", 130, "--npz", npz)
        assert done.returncode == 0, done.stderr
        with np.load(npz) as arrays:
            found[ranks] = json.loads(done.stdout), arrays["arr_0"], arrays["arr_1"]
    return found


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_give_what_one_gives(scored, ranks):
    (alone, images, labels), (result, their_images, their_labels) = scored[1], scored[ranks]
    assert result["protocol"].pop("ranks") == ranks
    assert alone["metrics"] == result["metrics"]
    assert alone["hash"] == result["hash"]
    assert alone["protocol"]["reference_identity"] == result["protocol"]["reference_identity"]
    np.testing.assert_array_equal(images, their_images)
    np.testing.assert_array_equal(labels, their_labels)


def test_one_mistake_is_one_sentence_of_all_ranks(run):
    done = do(2, "-m", "diffussm", "evaluate", run, "--samples", 130, "--metrics", "fid")
    assert done.returncode != 0
    assert done.stderr.count("unknown metric 'fid'; did you mean 'fd'") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_ranks_that_train_score_together(tmp_path, parallel):
    settings = ["training.evaluate_every=30", "evaluation.samples=70"]
    train(tmp_path / "alone", 1, *settings)
    train(tmp_path / "two", 2, *settings, f"training.parallel={parallel}")
    alone, two = (metric_lines(tmp_path / name) for name in ("alone", "two"))
    for ours, theirs in zip(alone, two, strict=True):
        assert ours.keys() == theirs.keys()
        if "evaluation" in ours:
            assert theirs["evaluation"] == pytest.approx(ours["evaluation"], rel=0.02)
    assert sum("evaluation" in line for line in two) == 2
