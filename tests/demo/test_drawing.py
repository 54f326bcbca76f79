"""What the page draws is what the command line draws, to the byte; whoever leaves stops it."""

import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from diffussm.cli import main
from diffussm.demo import drawing
from diffussm.demo.drawing import draw, warm_up, write
from diffussm.demo.shelf import Shelf
from diffussm.diffusion import SAMPLERS, Guidance
from diffussm.generation import to_uint8


@pytest.fixture(autouse=True)
def every_frame(monkeypatch):
    monkeypatch.setattr(drawing, "FRAME_EVERY", 0)


def last(frames):
    *_, frame = frames
    return frame


def run_line(line, folder, monkeypatch):
    """Run a command line of the page in `folder`."""
    words = shlex.split(line)
    assert words[0] == "diffussm"
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code


@pytest.mark.parametrize(
    "asked",
    [
        {"number": 24},
        {"classes": (2, 0), "seed": 9, "number": 3, "guidance": 2.0},
        {"guidance": 3.5, "low": 0.3, "high": 0.8, "steps": 8},
        *({"sampler": sampler} for sampler in SAMPLERS),
    ],
    ids=str,
)
def test_the_command_line_makes_the_same_files(shelf, paths, ask, asked, tmp_path, monkeypatch):
    request = ask(*paths.values(), **asked)
    (tmp_path / "page").mkdir()
    (tmp_path / "command").mkdir()
    written = write(last(draw(shelf, request)), tmp_path / "page")
    assert len(written) == 4
    for path in paths.values():
        run_line(request.command(path), tmp_path / "command", monkeypatch)
    for file in map(Path, written):
        assert file.read_bytes() == (tmp_path / "command" / file.name).read_bytes()


def test_the_command_line_of_an_unconditional_model(saved, ask, tmp_path, monkeypatch):
    path = saved("free", num_classes=0)
    request = ask(path, number=3)
    written = write(last(draw(Shelf([path]), request)), tmp_path)
    before = [Path(file).read_bytes() for file in written]
    run_line(request.command(path), tmp_path, monkeypatch)
    assert [Path(file).read_bytes() for file in written] == before


def test_the_models_own_guided_channels_and_noise_are_drawn_with(saved, ask):
    path = saved("half", in_channels=2, guidance=Guidance(channels=1))
    shelf, request = Shelf([path]), ask(path, guidance=3.0)
    wanted = shelf.take(path).sample(
        seeds=[0, 1],
        sampling=request.sampling(shelf.take(path).config.sampling),
        guidance=Guidance(scale=3.0, channels=1),
    )
    assert np.array_equal(last(draw(shelf, request)).panels[0].pixels, to_uint8(wanted))


def test_frames_count_the_steps_of_all_models(shelf, paths, ask):
    frames = list(draw(shelf, ask(*paths.values(), steps=4)))
    assert [(frame.step, frame.total) for frame in frames] == [(step, 4) for step in (1, 2, 3, 4)]
    assert frames[-1].left == 0
    assert [panel.checkpoint for panel in frames[0].panels] == list(paths.values())
    pixels = [frame.panels[0].pixels for frame in frames]
    assert all((first != second).any() for first, second in pairwise(pixels))


def test_frames_are_not_shown_faster_than_they_are_seen(shelf, paths, ask, monkeypatch):
    monkeypatch.setattr(drawing, "FRAME_EVERY", 60)
    frames = list(draw(shelf, ask(paths["ours"], steps=9)))
    assert [frame.step for frame in frames] == [1, 9]


def test_closing_stops_the_work(shelf, paths, ask):
    calls = []
    network = shelf.take(paths["ours"]).model
    network.register_forward_hook(lambda *_: calls.append(shelf.work.locked()))
    frames = draw(shelf, ask(paths["ours"], steps=100))
    next(frames)
    next(frames)
    frames.close()
    assert calls == [True, True]  # nobody else computes meanwhile
    assert not shelf.work.locked()


def test_two_at_once_get_what_each_gets_alone(shelf, paths, ask):
    requests = [ask(paths["ours"], seed=seed, steps=12) for seed in (1, 2)]
    alone = [last(draw(shelf, request)).panels[0].pixels for request in requests]
    with ThreadPoolExecutor(2) as people:
        together = list(people.map(lambda request: last(draw(shelf, request)), requests))
    for frame, pixels in zip(together, alone, strict=True):
        assert np.array_equal(frame.panels[0].pixels, pixels)


def test_what_cannot_be_drawn_is_a_sentence(shelf, paths, saved, ask):
    with pytest.raises(ValueError, match="class 7 does not exist"):
        next(draw(shelf, ask(paths["ours"], classes=(7,))))
    free = saved("free", num_classes=0)
    shelf.add(free)
    with pytest.raises(ValueError, match="unconditional"):
        next(draw(shelf, ask(free, guidance=2.0)))
    with pytest.raises(ValueError, match="same images and classes"):
        next(draw(shelf, ask(paths["ours"], free)))
    assert not shelf.work.locked()


def test_warming_up_leaves_nothing_to_see(shelf, saved):
    shelf.add(saved("free", num_classes=0))
    warm_up(shelf)
    assert not shelf.work.locked()
