"""A model is in memory once, and only what is on the shelf can be asked for."""

import os
from pathlib import Path

import pytest

from diffussm.checkpoint import MODEL_FILE
from diffussm.demo.shelf import Shelf, newest_run


def test_a_model_is_read_once_until_its_file_changes(saved):
    path = saved("run")
    shelf = Shelf([path])
    first = shelf.take(path)
    assert shelf.take(path) is first
    os.utime(Path(path) / MODEL_FILE, ns=(1, 1))
    assert shelf.take(path) is not first


def test_only_what_is_on_the_shelf_can_be_asked_for(saved):
    shelf = Shelf([saved("runs")])
    with pytest.raises(ValueError, match="unknown model '/etc/passwd'"):
        shelf.take("/etc/passwd")


def test_a_model_that_went_away_is_a_sentence_and_comes_back(saved):
    path = saved("run")
    shelf, file = Shelf([path]), Path(path) / MODEL_FILE
    shelf.take(path)
    file.rename(file.with_name("away"))
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        shelf.take(path)
    file.with_name("away").rename(file)
    shelf.take(path)


def test_facts_are_those_of_the_network(shelf, paths):
    facts = shelf.facts(paths["dit"])
    network = shelf.take(paths["dit"]).model
    assert (facts.family, facts.images) == ("DiT", 7)
    assert facts.parameters == sum(each.numel() for each in network.parameters())
    tokens, dim = 16, 8  # its linears alone, without the ends and conditions
    assert facts.multiply_adds > tokens * 12 * dim**2


def test_the_newest_run_is_the_one_written_last(saved, tmp_path):
    assert newest_run(tmp_path) is None
    assert newest_run(tmp_path / "nowhere") is None
    (tmp_path / "empty").mkdir()
    old, new = saved("b"), saved("a")
    os.utime(Path(old) / MODEL_FILE, ns=(1, 1))
    assert newest_run(tmp_path) == new
