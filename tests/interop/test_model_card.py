"""The page of a model says what its header says, and no number that was not measured."""

import json
from dataclasses import replace

import pytest
from tiny import tiny_generator

from diffussm.diffusion import Guidance, Sampling
from diffussm.interop.model_card import model_card
from diffussm.training.metrics import METRICS_FILE


@pytest.fixture
def header():
    return replace(tiny_generator().config, images=12_345)


def page(header, run=None):
    return model_card(header, "me/digits", parameters=4_321, samples=16, run=run)


def test_it_says_what_the_header_says(header):
    guidance = Guidance(scale=2.5, channels=1, interval=(0.1, 0.7))
    sampling = Sampling(sampler="ddim", steps=20, eta=0.5)
    text = page(replace(header, guidance=guidance, sampling=sampling))
    head = text.split("---")[1]
    for line in ("license: apache-2.0", "library_name: diffusers", "- attention-free"):
        assert line in head.splitlines()
    for said in (
        "# digits",
        "4,321 parameters",
        "2 bidirectional state space blocks (s4d)",
        "images of 8 x 8 with 1 channels, of 3 classes (a, b, c)",
        "| sampler | ddim, 20 steps, eta 0.5 |",
        "| guidance | scale 2.5, on the first 1 channels, at t / steps from 0.1 to 0.7 |",
        "| images seen in training | 12,345 |",
        'from_pretrained("me/digits", trust_remote_code=True)',
        "![Samples](samples.png)",
    ):
        assert said in text
    assert "difference" not in text


def test_a_grid_that_diffusers_has_not_is_owned_up_to(header):
    text = page(replace(header, sampling=Sampling(sampler="ddim", steps=3)))
    assert "| difference | DDIMScheduler spreads 3 steps otherwise" in text


def test_metrics_are_the_runs_or_not_measured(header, tmp_path):
    for run in (None, tmp_path):
        assert "Training loss: not measured" in page(header, run)
    lines = [json.dumps({"images": n, "loss": float(n)}) for n in range(300)]
    (tmp_path / METRICS_FILE).write_text("\n".join([*lines, '{"images": 3']))
    text = page(header, tmp_path)
    assert "Training loss: 249.5000, mean of the last 100 steps." in text
    assert "Quality: not measured" in text


def test_an_unconditional_model_asks_for_no_classes():
    text = page(tiny_generator(num_classes=0).config)
    assert "without classes" in text
    assert "class_labels=" not in text
