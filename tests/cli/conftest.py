"""The command in this process, and a small run to use it on."""

import sys
from typing import NamedTuple

import pytest
from tiny import SETTINGS

from diffussm.cli import main


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


def sets(settings):
    """The options that set `settings`."""
    return [word for setting in settings for word in ("--set", setting)]


def run_main(monkeypatch, words):
    """The exit code of `diffussm` with `words`."""
    monkeypatch.setattr(sys, "argv", ["diffussm", *map(str, words)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def diffussm(monkeypatch, capsys):
    """Call it with the words of a command; it gives exit code and what was said."""

    def command(*words):
        capsys.readouterr()
        code = run_main(monkeypatch, words)
        return Said(code, *capsys.readouterr())

    return command


@pytest.fixture
def tiny_train(diffussm):
    """`diffussm train digits` made tiny: call it with the folder, more settings and options."""

    def command(folder, *settings, options=()):
        return diffussm("train", "digits", "--out", folder, *sets([*SETTINGS, *settings]), *options)

    return command


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run, to be read only."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as monkeypatch:
        words = ["train", "digits", "--out", folder, *sets(SETTINGS)]
        assert run_main(monkeypatch, words) == 0
    return folder
