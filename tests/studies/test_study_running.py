"""Members are trained once each, whoever does it and however often it is killed."""

import shutil
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from tiny import CPU
from tiny_study import TINY

from diffussm.studies import read_study, running, tasks_of, work
from diffussm.studies.report import held_elsewhere, read_results, write_report
from diffussm.studies.result import Place, read_result
from diffussm.studies.running import locked
from diffussm.studies.table import study_table
from diffussm.training import Diverged, Trainer


def never():
    return False


def quiet(text):
    pass


def timeless(study, folder):
    """The table without what differs from one run to the next."""
    results = read_results(study, folder)
    return [line.rsplit("|", 2)[0] for line in study_table(study, results).splitlines()[4:]]


def all_tasks(study, folder):
    return tasks_of(study, folder, CPU, tuple(study.members), study.seeds)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study done at a stretch, and its folder: to be read only."""
    path = tmp_path_factory.mktemp("study") / "tiny.toml"
    path.write_text(TINY)
    study = read_study(path)
    work(study, all_tasks(study, path.with_name("whole")), CPU, never, quiet)
    return study, path.with_name("whole")


@pytest.fixture
def undisturbed(finished, tmp_path):
    """The same, to be written in."""
    study, folder = finished
    return study, Path(shutil.copytree(folder, tmp_path / "whole"))


def test_a_study_is_done_to_its_end(undisturbed):
    study, folder = undisturbed
    text, done, wanted = write_report(study, folder)
    assert (done, wanted) == (4, 4)
    assert (folder / "table.md").read_text() == text
    assert "4 of 4 results" in text
    for member in study.members:
        for seed in study.seeds:
            place = Place(folder, member, seed)
            assert (place.run / "model.safetensors").exists()  # an ordinary run folder
            result = read_result(place)
            assert result.facts.images == 64
            assert result.facts.seconds > 0
            assert [images for images, _ in result.curve] == [32, 64]
            assert result.recipe["training"]["seed"] == seed
            assert 0.5 < result.metrics["loss"] < 1.5  # hardly trained: it answers 0
    for name in ("results.png", "results.svg", "curves.png", "curves.svg"):
        assert (folder / name).stat().st_size > 1000


def test_a_study_stopped_anywhere_ends_in_the_same_table(undisturbed, tmp_path, monkeypatch):
    study, whole = undisturbed
    folder = tmp_path / "broken"
    tasks, steps, killed_at = all_tasks(study, folder), [0], {1, 4, 5, 7}

    def stop_at(numbers):
        def stop():
            steps[0] += 1
            return steps[0] in numbers

        return stop

    work(study, tasks, CPU, stop_at({2}), quiet)  # after the first step of the first member
    assert (tasks[0].place.run / "state").is_dir()
    assert not tasks[0].place.result.exists()
    step = Trainer._step

    def killed(trainer, batch, started):
        steps[0] += 1
        if steps[0] in killed_at:
            raise KeyboardInterrupt
        return step(trainer, batch, started)

    steps[0] = 0
    monkeypatch.setattr(Trainer, "_step", killed)
    for _ in killed_at:
        with pytest.raises(KeyboardInterrupt):
            work(study, tasks, CPU, never, quiet)
    work(study, tasks, CPU, never, quiet)
    assert timeless(study, folder) == timeless(study, whole)
    for ours, theirs in zip(tasks, all_tasks(study, whole), strict=True):
        assert read_result(ours.place).curve == read_result(theirs.place).curve


def test_what_is_done_is_left_alone(undisturbed, monkeypatch):
    study, folder = undisturbed
    monkeypatch.setattr(running, "train_and_measure", None)
    work(study, all_tasks(study, folder), CPU, never, quiet)


def test_other_metrics_are_measured_without_training_again(undisturbed, declare):
    _, folder = undisturbed
    before = read_result(Place(folder, "plain", 0))
    finer = declare(("draws = 2", "draws = 4"))
    work(finer, all_tasks(finer, folder)[:1], CPU, never, quiet)
    after = read_result(Place(folder, "plain", 0))
    assert after.metrics["loss"] != before.metrics["loss"]
    assert after.facts == before.facts  # the seconds too: they are kept at the checkpoints


def test_a_changed_recipe_is_refused(undisturbed, declare):
    _, folder = undisturbed
    study = declare(("training.images = 64", "training.images = 96"))
    with pytest.raises(ValueError, match=r"training.images was 64, now 96.*Give another folder"):
        work(study, all_tasks(study, folder), CPU, never, quiet)


def test_a_damaged_result_is_named(undisturbed):
    study, folder = undisturbed
    Place(folder, "plain", 1).result.write_text('{"member": "plain"')
    with pytest.raises(ValueError, match=r"seed-1\.json is no result .*remove it"):
        read_results(study, folder)


def test_a_member_that_diverges_is_reported_and_the_others_go_on(declare, tmp_path, monkeypatch):
    study = declare()
    step = Trainer._step

    def diverges(trainer, batch, started):
        if trainer.recipe.model.patch_size == 2 and trainer.recipe.training.seed == 1:
            raise Diverged("the loss was not finite")
        return step(trainer, batch, started)

    monkeypatch.setattr(Trainer, "_step", diverges)
    said, tasks = [], all_tasks(study, tmp_path / "it")
    work(study, tasks, CPU, never, said.append)
    assert said[-1] == "coarse, seed 1: diverged: the loss was not finite"
    text = study_table(study, read_results(study, tmp_path / "it"))
    assert "4 of 4 results" in text
    assert "1 diverged and count in no mean" in text
    assert "| 2 (1 diverged) |" in text
    monkeypatch.setattr(running, "train_and_measure", None)  # and it is not tried again
    work(study, tasks, CPU, never, quiet)


def test_what_another_process_holds_is_left_to_it(declare, tmp_path):
    study, said = declare(), []
    tasks = all_tasks(study, tmp_path / "it")
    tasks[0].place.lock.parent.mkdir()
    with locked(tasks[0].place.lock) as ours:
        assert ours
        work(study, tasks[:2], CPU, never, said.append)
    assert not any(text.startswith("plain") for text in said)
    assert tasks[1].place.result.exists()
    assert not tasks[0].place.result.exists()


def test_what_another_leaves_is_taken_up(declare, tmp_path):
    study = declare()
    tasks = all_tasks(study, tmp_path / "it")[:2]
    tasks[0].place.lock.parent.mkdir()
    with ExitStack() as other:
        other.enter_context(locked(tasks[0].place.lock))
        assert held_elsewhere(study, tmp_path / "it") == 1
        # it ends while we are at the second
        work(study, tasks, CPU, never, lambda text: other.close())
    assert held_elsewhere(study, tmp_path / "it") == 0
    assert tasks[0].place.result.exists()


def test_two_at_once_share_the_members(declare, tmp_path, monkeypatch):
    study, trained = declare(), []
    tasks, both = all_tasks(study, tmp_path / "it"), threading.Barrier(2)

    def note(study, task, device, stop):
        trained.append((task.place.member, task.place.seed))
        if len(trained) <= 2:
            both.wait(10)  # two at work at the same time, or this breaks
        task.place.result.write_text("")
        return result

    work(study, all_tasks(study, tmp_path / "one")[:1], CPU, never, quiet)
    result = read_result(Place(tmp_path / "one", "plain", 0))
    monkeypatch.setattr(running, "train_and_measure", note)
    monkeypatch.setattr(running, "finished", lambda study, task: task.place.result.exists())
    workers = [
        threading.Thread(target=work, args=(study, tasks, CPU, never, quiet)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(trained) == [("coarse", 0), ("coarse", 1), ("plain", 0), ("plain", 1)]


HOLDS = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_is_gone_with_the_process_that_held_it(tmp_path):
    path = tmp_path / "it"
    words = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with locked(path) as ours:
            assert not ours
        process.kill()
        process.wait()
    with locked(path) as ours:
        assert ours
