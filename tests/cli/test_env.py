"""`diffussm env` says what a report needs, and nothing about the person."""

import getpass
import json
import os
import socket
from importlib import import_module

import numpy as np
import torch

from diffussm import __version__


def test_the_machine_in_words(diffussm):
    said = diffussm("env")
    assert said.code == 0
    lines = dict(line.split("  ", 1) for line in said.out.splitlines())
    told = {name.strip(): value.strip() for name, value in lines.items()}
    assert told["diffussm"] == __version__
    assert told["torch"] == torch.__version__
    assert told["numpy"] == np.__version__
    assert told["wandb"] == "not installed" or told["wandb"][0].isdigit()


def test_for_machines_and_without_secrets(diffussm):
    found = json.loads(diffussm("env", "--json").out)
    assert found["cores"] == str(os.cpu_count())
    text = json.dumps(found)
    for secret in (os.path.expanduser("~"), os.getcwd(), socket.gethostname()):
        assert secret not in text
    user = getpass.getuser()
    assert all(user != word for value in found.values() for word in str(value).split())


def test_too_little_memory_is_a_sentence(diffussm, monkeypatch):
    def starve():
        raise MemoryError

    monkeypatch.setattr(import_module("diffussm.cli.env"), "_found", starve)
    said = diffussm("env")
    assert (said.code, said.out) == (2, "")
    assert "not enough memory" in said.err
