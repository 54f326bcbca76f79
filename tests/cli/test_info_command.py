"""`diffussm info`: what a person reads, and the object that machines read, are the same facts."""

import json
import re
from dataclasses import asdict

import pytest
import torch

from diffussm.analysis.flops import cost
from diffussm.analysis.memory import training_memory
from diffussm.checkpoint import load_header
from diffussm.cli.info import _check_size
from diffussm.models import create_model, model_config


def test_json_is_one_object_of_exact_numbers(diffussm):
    said = diffussm("info", "DiffuSSM-S", "--size", "256x512", "--json")
    assert said.code == 0
    facts = json.loads(said.out)
    assert said.out.count("\n") == 1
    config = model_config("DiffuSSM-S", {})
    with torch.device("meta"):
        parameters = sum(p.numel() for p in create_model("DiffuSSM-S").parameters())
    assert (facts["parameters"], facts["weight_bytes"]) == (parameters, 4 * parameters)
    assert facts["config"]["d_model"] == 384
    (size,) = facts["sizes"]
    expected, work = cost(config, 32, 64), size["multiply_adds"]
    assert (size["height"], size["width"]) == (256, 512)
    assert (work["total"], work["mixing"]) == (expected.total, expected.mixing)
    assert (size["positions"], size["tokens"]) == (2048, 1024)
    # in chunks: 64 + 2 * 64 multiply-adds a number and direction
    assert work["mixing_chunked"] == 13 * 2 * 2048 * 384 * (64 + 128)
    assert (
        size["beside"]["multiply_adds"]["total"]
        == cost(model_config(facts["beside"]["name"], {}), 32, 64).total
    )
    assert "training_memory" not in size


def test_json_of_a_run(trained, diffussm):
    facts = json.loads(diffussm("info", trained, "--memory", "--json").out)
    assert (facts["images"], facts["network"], facts["preset"]) == (60, "DiffuSSM", False)
    assert [(size["height"], size["width"]) for size in facts["sizes"]] == [(8, 8)]
    held = training_memory(load_header(trained).model, 8, 8, torch.bfloat16)
    assert facts["sizes"][0]["training_memory"] == asdict(held)
    assert f" {held.state / 2**30:,.1f} GiB of state" in diffussm("info", trained, "--memory").out
    assert "beside" not in facts
    assert 0 < facts["ssm_parameters"] < facts["parameters"]


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("DiffuSSM-S", "99999999992", "sides are at most 1,048,576 pixels"),
        ("DiffuSSM-S", "512x8", "512x8 pixels do not fit DiffuSSM-S: .* 8 and a width .* 16"),
        ("DiffuSSM-S", "8x512", "8x512 pixels do not fit DiT-S/2 beside it: .* 16 and .* 16"),
        ("DiffuSSM-S", "9", "9x9 pixels do not fit DiffuSSM-S: .* 8 and a width .* 16"),
        ("DiT-S/8", "256x32", "256x32 pixels do not fit DiT-S/8: .* 64 and a width .* 64"),
        ("ADM-256", "100", "100x100 pixels do not fit ADM-256: .* 32 and a width .* 32"),
    ],
)
def test_sizes_are_told_in_pixels(diffussm, name, size, sentence):
    said = diffussm("info", name, "--size", size, "--memory")
    assert said.code == 2
    assert re.search(sentence, said.err)


@pytest.mark.parametrize("name", ["DiffuSSM-S", "UViSSM", "DiT-S/8", "U-ViT-S/2", "ADM-256"])
def test_the_multiples_that_are_named_are_the_least(name):
    config = model_config(name, {})
    with pytest.raises(ValueError, match="do not fit") as refused:
        _check_size(name, config, 1, 7, 7)
    down, across = map(int, re.search(r"of (\d+) and .* of (\d+)$", str(refused.value)).groups())
    for height, width in ((down, across), (3 * down, 5 * across)):
        assert cost(config, height, width).total > 0
        _check_size(name, config, 1, height, width)
    for height, width in ((down, across // 2), (down // 2, across)):
        with pytest.raises(ValueError, match="positive multiple"):
            cost(config, height, width)


@pytest.mark.parametrize("name", ["DiffuSSM-XL", "DiT-S/2", "U-ViT-S/2", "ADM-256", "UViSSM"])
def test_numbers_are_never_cut(diffussm, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "40")
    lines = diffussm("info", name, "--size", "256,1024").out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[0] == "pixels")
    assert [line.split()[0] for line in lines[first + 1 : first + 3]] == ["256x256", "1024x1024"]
    assert len({len(line) for line in lines[first : first + 3]}) == 1
    assert "…" not in "".join(lines)


def test_one_block_is_one_block(tmp_path, diffussm, trained):
    said = diffussm("info", trained).out
    assert ", 1 block, " in said
    assert "three vectors" in said
    said = diffussm("info", "ADM-256").out
    assert (
        "times 1, 1, 2, 2, 4, 4 on its levels, 2 blocks each, attention on levels 3, 4, 5" in said
    )
    assert "attention on levels none" not in said
