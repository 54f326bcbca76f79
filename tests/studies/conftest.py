"""Tiny studies, and what they are to train."""

import pytest
from tiny_study import TINY

from diffussm.studies import read_study


@pytest.fixture
def declare(tmp_path):
    """A study of TINY with pieces of its text replaced."""

    def make(*changes, name="tiny"):
        text = TINY
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return read_study(path)

    return make
