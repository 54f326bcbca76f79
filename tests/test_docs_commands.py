"""Every command that a page shows is one; those of the first hour are run."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import typer.main
from PIL import Image

from diffussm.cli import app, main

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FENCED = re.compile(r"^```(?:sh)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SMALL = ["training.images=64", "training.batch_size=32", "training.preview_every=0"]
SMALL += ["model.d_model=16", "model.depth=1"]
FEWER = {
    "train": [word for setting in SMALL for word in ("--set", setting)],
    "sample": ["--seeds", "0-3", "--steps", "2", "--sampler", "ddim"],
    "evaluate": ["--samples", "60", "--steps", "2"],
    "figures same-noise": ["--steps", "2"],
}
"""What makes a command of the first hour a matter of a second."""


def commands(page):
    """The words after `diffussm` of every command in a page's blocks."""
    for block in FENCED.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r"(?:\$ )?(?:torchrun .* -m )?diffussm (\S.*)", line)
            if found:
                yield shlex.split(found[1], comments=True)


def parsed(words):
    """The words as the command line understands them; raises what a person would be told."""
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    context = command.make_context("diffussm", words)
    return command.resolve_command(context, words) if hasattr(command, "commands") else context


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_understood(page):
    for words in commands(page):
        parsed(list(words))


def test_a_wrong_command_would_be_noticed():
    for words in (["trian", "digits"], ["train", "digits", "--outt", "x"], ["sample"]):
        with pytest.raises(Exception, match=r"[Nn]o such|[Mm]issing"):
            parsed(words)


def exit_code():
    try:
        main()
    except SystemExit as stop:
        return stop.code


def test_the_first_hour(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "red").mkdir(parents=True)
    Image.new("RGB", (40, 40), (200, 0, 0)).save(tmp_path / "photos" / "red" / "1.png")
    ran = set()
    for words in commands(ROOT / "docs" / "first-hour.md"):
        name = " ".join(words[:2]) if words[0] == "figures" else words[0]
        ran.add(name)
        monkeypatch.setattr(sys, "argv", ["diffussm", *words, *FEWER.get(name, [])])
        assert not exit_code(), (words, capsys.readouterr().err)
    assert {"train", "sample", "evaluate", "info", "figures training"} <= ran
    for file in ("grid.png", "digits.json", "losses.png", "noise.png", "runs/mine/recipe.toml"):
        assert (tmp_path / file).exists()
