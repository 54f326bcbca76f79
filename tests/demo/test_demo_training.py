"""The page's training is the run that `diffussm train digits` makes, in a process of its own."""

import json
import os
import signal
import time

import pytest
from tiny import SETTINGS

import diffussm
from diffussm.demo import trainer, training
from diffussm.demo.html import training_progress
from diffussm.demo.training import Progress, Training


@pytest.fixture(autouse=True)
def own_signals():
    """What a trainer does to signals in this process is undone."""
    before = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)}
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


def told(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_trainer_says_where_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trainer, "TELL_EVERY", 0)
    trainer.main(tmp_path / "run", SETTINGS)
    lines = told(capsys)
    assert [line["images"] for line in lines] == [0, 10, 20, 30, 40, 50, 60, 60]
    assert {line["total"] for line in lines} == {60}
    for line in lines:
        Progress(**line)
    assert diffussm.load(tmp_path / "run").config.images == 60


def test_sigterm_saves_and_the_same_again_goes_on(tmp_path, capsys, monkeypatch):
    tell = trainer._tell

    def interrupt(**values):
        tell(**values)
        if values["images"] == 30:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(trainer, "TELL_EVERY", 0)
    monkeypatch.setattr(trainer, "_tell", interrupt)
    trainer.main(tmp_path / "run", SETTINGS)
    assert told(capsys)[-1]["images"] == 40  # the step that was on its way is finished
    assert diffussm.load(tmp_path / "run").config.images == 40
    trainer.main(tmp_path / "run", SETTINGS)
    assert [line["images"] for line in told(capsys)] == [40, 50, 60, 60]


def test_the_pages_end_saves(tmp_path, monkeypatch):
    def gone(**values):
        if values["images"] == 20:
            raise BrokenPipeError

    monkeypatch.setattr(trainer, "TELL_EVERY", 0)
    monkeypatch.setattr(trainer, "_tell", gone)
    trainer.main(tmp_path / "run", SETTINGS)
    assert diffussm.load(tmp_path / "run").config.images == 20


def a_process(monkeypatch, code):
    """Let a training run `code` in place of the trainer."""
    monkeypatch.setattr(training, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(training, "TRAINER", ["-c", code])


COUNTING = """
import json, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
for images in range(1, 1000):
    print(json.dumps({"images": images, "total": 1000, "loss": 0.5, "speed": 100.0}), flush=True)
    time.sleep(0.01)
"""


def test_it_stops_when_the_last_watcher_leaves(tmp_path, monkeypatch):
    a_process(monkeypatch, COUNTING)
    trains = Training(tmp_path)
    one, other = trains.watch(), trains.watch()
    assert next(one).running
    assert next(other).running
    one.close()
    time.sleep(0.2)
    assert next(other).running
    other.close()
    trains.wait()
    before = trains.progress.images
    again = list(zip(trains.watch(), range(3), strict=False))
    assert again[0][0].images == 0
    assert 0 < before < 900
    trains.stop()
    trains.wait()


def test_a_killed_process_is_a_sentence(tmp_path, monkeypatch):
    a_process(monkeypatch, "import os; os.kill(os.getpid(), 9)")
    *_, end = Training(tmp_path).watch()
    assert not end.running
    assert "ended with code -9; the same button goes on" in training_progress(end)


@pytest.mark.slow
def test_a_refusal_is_its_own_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "LOOK_EVERY", 0.01)
    (tmp_path / "note.txt").write_text("not a run")
    *_, end = Training(tmp_path, SETTINGS).watch()
    assert end.error == f"{tmp_path} is not empty and holds no run; give a new folder"


@pytest.mark.parametrize(
    ("progress", "said"),
    [
        (Progress(), "starting"),
        (
            Progress(images=20, total=60, loss=0.25, speed=10.0),
            "20 of 60 images, loss 0.250, 4.0 s",
        ),
        (Progress(images=20, total=60, running=False), "stopped and saved after 20 of 60"),
        (Progress(images=60, total=60, running=False), "done: 60 of 60"),
    ],
    ids=["begins", "runs", "stopped", "done"],
)
def test_progress_in_words(progress, said):
    assert said in training_progress(progress)


def test_the_newest_preview_is_the_one_of_most_images(tmp_path):
    trains = Training(tmp_path)
    assert trains.newest_preview() is None
    (tmp_path / "previews").mkdir()
    for name in ("000000000200.png", "000000000030.png", ".000000000900.png.part"):
        (tmp_path / "previews" / name).touch()
    assert trains.newest_preview().name == "000000000200.png"
