"""`diffussm study`: from a declaration to a table, by one process or two."""

import os
import signal
import subprocess
import sys
import time

import pytest
import typer
from tiny_study import TINY
from typer.testing import CliRunner

from diffussm.cli.stopping import on_stop
from diffussm.cli.study import study
from diffussm.studies import report
from diffussm.studies.result import Place
from diffussm.studies.running import locked
from diffussm.training import Trainer

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(study)


@pytest.fixture
def tiny(tmp_path):
    """The file of a study of two members and two seeds."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def drawn(monkeypatch):
    """Names of the figures that would be drawn; drawing them is tested elsewhere."""
    names = []
    monkeypatch.setattr(report, "write_figure", lambda path, figure: names.append(path.name))
    return names


@pytest.fixture
def command(tiny, tmp_path, drawn):
    """`diffussm study` on it, with more words."""

    def run(*words, name=tiny):
        return CliRunner().invoke(app, [str(name), "--out", str(tmp_path / "it"), *words])

    return run


def finished(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.glob("*/seed-?.json"))


def test_a_part_then_the_rest_then_the_table_alone(command, tmp_path, drawn):
    first = command("--only", "plain", "--seeds", "1", "--set", "training.lr=0.001")
    assert first.exit_code == 0
    assert finished(tmp_path / "it") == ["plain/seed-1.json"]
    assert "3 of 4 are still to do: the same command goes on" in first.stdout
    assert first.stderr.startswith("plain, seed 1: training on 64 images\nplain, seed 1: ")
    (tmp_path / "tiny.toml").write_text(TINY.replace("[all]", "[all]\ntraining.lr = 0.001"))
    rest = command()
    assert len(finished(tmp_path / "it")) == 4
    assert "still to do" not in rest.stdout
    assert "plain, seed 1" not in rest.stderr
    assert "## Every pixel counts" in rest.stdout
    drawn.clear()
    again = command("--table")
    assert sorted(drawn) == ["curves.png", "curves.svg", "results.png", "results.svg"]
    assert (again.stdout, again.stderr) == (rest.stdout, "")
    assert again.stdout == (tmp_path / "it" / "table.md").read_text() + "\n"


def test_what_another_process_holds_is_said(command, tmp_path):
    locks = [Place(tmp_path / "it", member, 1).lock for member in ("plain", "coarse")]
    for lock in locks:
        lock.parent.mkdir(parents=True)
    with locked(locks[0]):
        said = command("--only", "plain").stdout
        assert "3 of 4 are still to do: another process holds 1, with the others the same" in said
        with locked(locks[1]):
            said = command("--only", "coarse").stdout
            assert "2 of 4 are still to do: another process holds them and goes on\n" in said
        assert "1 of 4 are still to do: another process holds it and goes on" in command().stdout


def test_ctrl_c_saves_and_the_same_command_goes_on(command, tmp_path, monkeypatch):
    step, steps = Trainer._step, []

    def interrupted(trainer, batch, started):
        steps.append(trainer.images)
        if len(steps) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(trainer, batch, started)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    stopped = command("--only", "plain", "--seeds", "0")
    assert stopped.exit_code == 130
    assert stopped.stderr.endswith("plain, seed 0: stopped and saved\n")
    assert command("--only", "plain", "--seeds", "0").exit_code == 0
    assert steps == [0, 32]  # no step twice
    assert finished(tmp_path / "it") == ["plain/seed-0.json"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--only", "plan"), "unknown member 'plan'; did you mean 'plain'"),
        (("--seeds", "7"), "--seeds 7 is not one of the study's, which are 0, 1"),
        (("--seeds", "a"), "--seeds takes numbers like"),
        (("--processes", "0"), "--processes must be at least 1, not 0"),
        (("--table",), "there is no folder .*it with results of tiny"),
        (("--device", "gpu7"), "cannot run on device 'gpu7'"),
    ],
    ids=str,
)
def test_mistakes(command, words, sentence, tmp_path):
    result = command(*words)
    assert isinstance(result.exception, ValueError)
    with pytest.raises(ValueError, match=sentence):
        raise result.exception
    assert not (tmp_path / "it").exists()


def test_an_unknown_study(command):
    result = command(name="claim-digits")
    assert "unknown study 'claim-digits'; did you mean 'claims-digits'" in str(result.exception)


def test_the_first_signal_asks_and_the_second_does_what_it_did():
    came, asked = [], []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append("as before"))
    try:
        with on_stop(lambda: asked.append(1)):
            os.kill(os.getpid(), signal.SIGTERM)
            assert (asked, came) == ([1], [])
            os.kill(os.getpid(), signal.SIGTERM)
            assert (asked, came) == ([1], ["as before"])
        with on_stop(lambda: asked.append(2)):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert (asked, came) == ([1], ["as before"] * 2)
    finally:
        signal.signal(signal.SIGTERM, before)


WORDS = """
import sys, typer
from diffussm.cli.study import study
app = typer.Typer()
app.command()(study)
if __name__ == "__main__":
    app()
"""


@pytest.mark.slow
def test_two_processes_do_each_once_and_may_be_stopped(tiny, tmp_path):
    tiny.write_text(TINY.replace("training.images = 64", "training.images = 6400"))
    script, folder = tmp_path / "command.py", tmp_path / "it"
    script.write_text(WORDS)
    words = [sys.executable, str(script), str(tiny), "--out", str(folder), "--processes", "2"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        while len(list(folder.glob("*/seed-?/state"))) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.count("stopped and saved") == 2
    assert finished(folder) == []
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(": training on 6,400 images") == 4
    for member in ("plain", "coarse"):
        for seed in (0, 1):
            assert done.stderr.count(f"{member}, seed {seed}: training") == 1
            assert Place(folder, member, seed).result.exists()
    assert "4 of 4 results" in done.stdout
    assert "1 thread," in done.stdout
