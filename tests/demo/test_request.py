"""Each mistake in a field is one sentence that says what is allowed."""

import shlex

import pytest

from diffussm.demo.request import MAX_IMAGES, MAX_MODELS, MAX_STEPS, file_name, read_request
from diffussm.diffusion import Guidance, Sampling

FIELDS = {
    "checkpoints": ["runs/digits"],
    "classes": [3, 7],
    "seed": "5",
    "number": 4,
    "sampler": "ddim",
    "steps": 50,
    "guidance": 1.5,
    "low": 0.1,
    "high": 0.8,
}


def test_what_the_fields_say():
    request = read_request(**FIELDS)
    assert list(request.seeds) == [5, 6, 7, 8]
    assert (request.checkpoints, request.classes) == (("runs/digits",), (3, 7))
    assert (request.steps, request.guidance, request.interval) == (50, 1.5, (0.1, 0.8))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("checkpoints", [], "no model is chosen"),
        ("checkpoints", list("abcdefg"), f"choose at most {MAX_MODELS}"),
        ("seed", "abc", "first seed must be a whole number from 0 to .* not 'abc'"),
        ("seed", "", "not nothing"),
        ("seed", None, "not nothing"),
        ("seed", "-1", "from 0 to .* not -1"),
        ("seed", "3.5", "not '3.5'"),
        ("seed", "9" * 5000, "whole number from 0 to .* not '9999"),
        ("seed", str(2**63 - 3), "from 0 to 9,223,372,036,854,775,804"),
        ("number", 0, "number of images must be a whole number from 1"),
        ("number", MAX_IMAGES + 1, f"to {MAX_IMAGES}, not {MAX_IMAGES + 1}"),
        ("number", 10**12, "not 1,000,000,000,000"),
        ("steps", MAX_STEPS + 1, f"steps must be a whole number from 1 to {MAX_STEPS}"),
        ("steps", float("nan"), "steps must be .* not 'nan'"),
        ("sampler", "ddimm", "did you mean 'ddim'"),
        ("low", 0.9, "Guide from, 0.9, must not be above Guide to, 0.8"),
    ],
)
def test_a_mistake_is_a_sentence(field, value, said):
    with pytest.raises(ValueError, match=said) as refused:
        read_request(**FIELDS | {field: value})
    assert len(str(refused.value)) < 200


def test_the_last_seed_is_the_largest_there_is():
    assert read_request(**FIELDS | {"seed": str(2**63 - 4)}).seeds[-1] == 2**63 - 1


def test_what_the_page_does_not_ask_stays_the_models():
    request = read_request(**FIELDS)
    assert request.sampling(Sampling(sampler="ddim", eta=0.5)).eta == 0.5
    assert request.sampling(Sampling(sampler="ddpm")) == Sampling(sampler="ddim", steps=50)
    guidance = Guidance(scale=1.5, interval=(0.1, 0.8), channels=3)
    assert request.guided(Guidance(scale=4.0, channels=3)) == guidance


def test_paths_with_spaces_survive_the_command_line():
    words = shlex.split(read_request(**FIELDS).command("my runs/it's"))
    assert words[:3] == ["diffussm", "sample", "my runs/it's"]
    assert words[words.index("--out") + 1] == "my-runs-it-s.png"


@pytest.mark.parametrize("path", ["/", "..", "-"])
def test_every_path_gives_a_file_name(path):
    assert file_name(path) == "model"
