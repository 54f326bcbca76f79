"""Plain dictionaries become settings and back; what does not fit gets a sentence."""

import re
from dataclasses import dataclass, field

import pytest

from diffussm.config import choose, from_dict, to_dict, unknown


@dataclass(frozen=True, kw_only=True)
class Optics:
    focus: float = 1.0
    size: int | tuple[int, int] = 8


@dataclass(frozen=True, kw_only=True)
class Camera:
    optics: Optics = field(default_factory=Optics)
    name: str = "box"
    shots: int = 1
    colour: bool = True
    limit: int | None = None
    weights: tuple[float, ...] = ()


def test_tables_become_dataclasses_and_back():
    values = {
        "optics": {"focus": 2, "size": [4, 6]},
        "name": "reflex",
        "shots": 3,
        "colour": False,
        "limit": 5,
        "weights": [1, 0.5],
    }
    camera = from_dict(Camera, values)
    optics = Optics(focus=2.0, size=(4, 6))
    assert camera == Camera(
        optics=optics, name="reflex", shots=3, colour=False, limit=5, weights=(1.0, 0.5)
    )
    assert isinstance(camera.optics.focus, float)
    assert to_dict(camera) == values
    assert from_dict(Camera, to_dict(camera)) == camera


def test_what_is_not_said_keeps_its_default():
    assert from_dict(Camera, {"optics": {"size": 4}}) == Camera(optics=Optics(size=4))
    assert from_dict(Camera, {}) == Camera()


def test_none_is_left_out_and_may_be_said():
    assert "limit" not in to_dict(Camera())
    assert from_dict(Camera, {"limit": None}).limit is None


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"shot": 1}, "unknown key 'shot'; did you mean 'shots'?"),
        ({"optics": {"fokus": 1}}, "unknown key 'optics.fokus'; did you mean 'optics.focus'?"),
        ({"zzz": 1}, "unknown key 'zzz' (allowed: 'optics', 'name', 'shots'"),
        ({"shots": 1.5}, "shots must be a whole number, not 1.5"),
        ({"shots": True}, "shots must be a whole number, not True"),
        ({"shots": "3"}, "shots must be a whole number, not '3'"),
        ({"colour": 1}, "colour must be true or false, not 1"),
        ({"name": 3}, "name must be text, not 3"),
        ({"limit": "x"}, "limit must be a whole number, not 'x'"),
        ({"shots": None}, "shots must be a whole number, not None"),
        ({"weights": [1, "x"]}, "weights must be a list, not [1, 'x']"),
        ({"optics": {"focus": True}}, "optics.focus must be a number, not True"),
        ({"optics": {"size": [1, 2, 3]}}, "optics.size must be a whole number or a list, not"),
        ({"optics": 3}, "optics is a table, not 3; set optics.NAME instead"),
    ],
    ids=str,
)
def test_what_does_not_fit_gets_a_sentence(values, sentence):
    with pytest.raises(ValueError, match="^" + re.escape(sentence)):
        from_dict(Camera, values)


def test_errors_say_where():
    with pytest.raises(ValueError, match=r"^model\.shots must be"):
        from_dict(Camera, {"shots": "x"}, "model.")


def test_choosing_by_name():
    choices = {"zoh": 1, "bilinear": 2}
    assert choose("rule", "zoh", choices) == 1
    with pytest.raises(ValueError, match="unknown rule 'bilinaer'; did you mean 'bilinear'"):
        choose("rule", "bilinaer", choices)
    assert unknown("rule", "?", choices) == "unknown rule '?' (allowed: 'zoh', 'bilinear')"
