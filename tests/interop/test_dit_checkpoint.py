"""Published checkpoints: they come in as they went out, and a bad one gets a sentence."""

import argparse
import os
import pickle

import pytest
import torch
from torch import nn

from diffussm.checkpoint import load_model
from diffussm.diffusion import DIT_CHANNELS, DiffusionConfig, Guidance
from diffussm.interop.dit_checkpoint import (
    HEADS,
    convert_dit,
    published_header,
    read_dit,
    write_dit,
)
from diffussm.models import MODELS
from diffussm.models.dit import DIT_PRESETS, DiT, DiTConfig

T, Y = torch.tensor([0, 999]), torch.tensor([3, 5])


def tiny(**options):
    """A small model of which no weight is zero."""
    defaults = {"input_size": 8, "num_classes": 5, "d_model": 16, "depth": 2, "num_heads": 2}
    model = DiT(DiTConfig(**(defaults | options))).requires_grad_(False)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def path(tmp_path):
    return tmp_path / "dit.pt"


def refused(path, **options):
    """The sentence with which a file is refused."""
    with pytest.raises(ValueError, match=path.name) as caught:
        read_dit(path, **({"num_heads": 2} | options))
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "weights_only" not in sentence  # torch's own advice is to trust the file
    assert len(sentence) < 500
    return sentence


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_classes": 0},
        {"learned_variance": False},
        {"patch_size": 1, "in_channels": 3},
        {"patch_size": 4, "input_size": 16},
        {"depth": 11, "num_heads": 4},
        {"mlp_ratio": 2.7},
    ],
    ids=str,
)
def test_there_and_back(path, options):
    model = tiny(**options)
    write_dit(model, path)
    again = read_dit(path, num_heads=model.config.num_heads)
    image = torch.randn(2, model.config.in_channels, *model.config.size)
    labels = Y if model.config.num_classes else None
    assert torch.equal(again(image, T, labels), model(image, T, labels))
    assert again.config.mlp_width == model.config.mlp_width
    differing = {
        name
        for name, value in vars(again.config).items()
        if value != getattr(model.config, name) and name != "mlp_ratio"
    }
    assert not differing
    assert not again.training


@pytest.mark.parametrize("size", [(4, 16), (4, 8)], ids=str)
def test_a_rectangle_must_be_told(path, size):
    write_dit(tiny(input_size=size), path)
    assert "input_size" in refused(path)
    wrong = refused(path, input_size=8)
    assert "not that of 8x8" in wrong or "pos_embed (1, 8, 16) (not (1, 16, 16))" in wrong
    assert read_dit(path, num_heads=2, input_size=size).config.size == size


def test_published_widths_tell_their_heads(path):
    assert HEADS == {384: 6, 768: 12, 1024: 16, 1152: 16}
    model = tiny(d_model=384, num_heads=6, depth=1)
    write_dit(model, path)
    assert read_dit(path).config == model.config
    write_dit(tiny(), path)
    with pytest.raises(ValueError, match=r"no published DiT has the width 16 .* give num_heads"):
        read_dit(path)


@pytest.mark.parametrize("name", [name for name in DIT_PRESETS if "S" in name or "/2" in name])
def test_every_width_and_patch_is_recognised(path, name):
    # one block stands for all, as these sizes take gigabytes
    options = DIT_PRESETS[name] | {"depth": 1, "num_classes": 3, "input_size": 16}
    config = DiTConfig(**options)
    write_dit(DiT(config), path)
    assert read_dit(path).config == config


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", ["plain", "ema", "model", "both"])
def test_every_form_of_file(path, kind, zipped):
    model, other = tiny(), tiny()
    weights, others = dict(model.state_dict()), dict(other.state_dict())
    content = {
        "plain": weights,
        "ema": {"ema": weights},
        "model": {"model": weights},
        "both": {"model": others, "ema": weights, "opt": {"state": {}, "param_groups": [{"lr": 1}]}}
        | {"args": argparse.Namespace(model="DiT-XL/2", epochs=1400, ckpt=None)},
    }[kind]
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    image = torch.randn(2, 4, 8, 8)
    assert torch.equal(read_dit(path, num_heads=2)(image, T, Y), model(image, T, Y))


def test_half_precision_comes_in_as_float32(path):
    model = tiny().half()
    write_dit(model, path)
    again = read_dit(path, num_heads=2)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].float())
        assert tensor.dtype == torch.float32


def test_reading_leaves_the_callers_random_numbers_and_the_file_alone(path):
    write_dit(tiny(), path)
    content, state = path.read_bytes(), torch.get_rng_state()
    model = read_dit(path, num_heads=2)
    for parameter in model.parameters():
        parameter.zero_()
    assert torch.equal(torch.get_rng_state(), state)
    assert path.read_bytes() == content


def test_only_published_blocks_are_written(path):
    with pytest.raises(ValueError, match="have adaln-zero blocks, not in-context"):
        write_dit(tiny(conditioning="in-context"), path)
    assert not path.exists()


def test_conversion_to_a_run_folder(path, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "DiT", (DiT, DiTConfig))
    model = tiny()
    write_dit(model, path)
    convert_dit(path, tmp_path / "run", num_heads=2, images=7)
    network, header = load_model(tmp_path / "run")
    image = torch.randn(2, 4, 8, 8)
    assert torch.equal(network(image, T, Y), model(image, T, Y))
    assert header == published_header(model.config, images=7)


def test_the_header_says_how_dit_was_trained_and_is_sampled():
    header = published_header(DiTConfig(**DIT_PRESETS["DiT-XL/2"]))
    process = DiffusionConfig(schedule="linear", steps=1000, prediction="eps")
    assert header.diffusion == process
    assert header.diffusion.learned_variance
    assert not header.diffusion.clip_x0
    assert (header.sampling.sampler, header.sampling.total) == ("ddpm", 250)
    assert header.guidance == Guidance(scale=1.5, channels=DIT_CHANNELS)
    assert (header.autoencoder.scale, header.autoencoder.factor) == (0.18215, 8)
    pixels = published_header(DiTConfig(in_channels=3))
    assert pixels.guidance.channels is None
    assert pixels.autoencoder.is_identity
    assert pixels.diffusion.clip_x0
    assert published_header(DiTConfig(num_classes=0)).guidance == Guidance()
    assert not published_header(DiTConfig(learned_variance=False)).diffusion.learned_variance


class Malicious:
    """Unpickled by a reader that trusts its file, it makes a file."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["beside", "among", "alone"])
@pytest.mark.parametrize("function", [os.mkdir, exec, eval])
def test_what_a_file_would_run_is_not_run(path, tmp_path, function, place, zipped):
    trace = tmp_path / "trace"
    argument = str(trace) if function is os.mkdir else f"__import__('os').mkdir({str(trace)!r})"
    bad, weights = Malicious(function, argument), dict(tiny().state_dict())
    content = {
        "beside": {"ema": weights, "args": bad},
        "among": weights | {"pos_embed": bad},
        "alone": bad,
    }[place]
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    sentence = refused(path)
    assert not trace.exists()
    if zipped:
        assert "holds more than tensors" in sentence
        assert f"{function.__name__}, which" in sentence
        assert "nothing of it was run" in sentence
    torch.load(path, weights_only=False)  # the file does what it is made for
    assert trace.exists()


def test_a_pickled_model_is_refused(path):
    torch.save(tiny(), path)
    assert "holds more than tensors" in refused(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0, 1, 7, 100, 0.1, 0.5, 0.99, -4, -1])
def test_a_truncated_file(path, kept, zipped):
    torch.save(dict(tiny().state_dict()), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    assert "is damaged or no PyTorch file" in refused(path)


@pytest.mark.parametrize(
    "content",
    [b"hello", b"PK\x03\x04" * 99, bytes(999), b"\xff" * 999, pickle.dumps([1], 2), b"\x80\x02."],
    ids=range(6),
)
def test_garbage(path, content):
    path.write_bytes(content)
    assert "is damaged or no PyTorch file" in refused(path)


def test_nothing_to_read(path, tmp_path):
    assert "there is no checkpoint" in refused(path)
    assert "there is no checkpoint" in refused(tmp_path)


NO_DITS = {
    "a list": [torch.zeros(3)],
    "a tensor": torch.zeros(3),
    "numbers": {"step": 3},
    "numbered tensors": {3: torch.zeros(3)},
    "nothing": {},
    "another model": {"conv.weight": torch.zeros(3, 3)},
    "no axes": {"x_embedder.proj.weight": torch.zeros(())},
}


def test_no_width(path):
    torch.save(tiny().state_dict() | {"x_embedder.proj.weight": torch.zeros(0, 4, 2, 2)}, path)
    assert "it has no x_embedder.proj.weight of 4 axes" in refused(path)


@pytest.mark.parametrize("content", NO_DITS.values(), ids=NO_DITS)
def test_no_dit(path, content):
    torch.save(content, path)
    assert "is not a DiT checkpoint" in refused(path)


def test_missing_extra_and_misshapen_weights_are_listed(path):
    model = tiny(depth=4)
    weights = dict(model.state_dict())
    for block in range(4):
        del weights[f"blocks.{block}.attn.proj.weight"]
    torch.save(weights, path)
    lacks = ", ".join(f"blocks.{block}.attn.proj.weight" for block in range(3))
    assert f"it lacks {lacks} and 1 more" in refused(path)

    torch.save(model.state_dict() | {"pos": torch.zeros(3), "blocks.99.x": torch.zeros(3)}, path)
    assert "it has the unknown pos, blocks.99.x" in refused(path)

    weights = model.state_dict() | {"t_embedder.mlp.0.bias": torch.zeros(3)}
    torch.save(weights, path)
    assert "has other shapes: t_embedder.mlp.0.bias (3,) (not (16,))" in refused(path)

    torch.save({f"module.{name}": tensor for name, tensor in model.state_dict().items()}, path)
    assert "is not a DiT checkpoint: it has no x_embedder.proj.weight of 4 axes" in refused(path)


def test_sizes_that_no_dit_has(path):
    write_dit(tiny(), path)
    assert "num_heads must be at least 1 and divide the width 16, not 3" in refused(
        path, num_heads=3
    )
    assert "height 7 must be a positive multiple of patch_size 2" in refused(path, input_size=7)
    assert "height 0 must be" in refused(path, input_size=0)


def test_other_positions_are_noticed(path):
    weights = dict(tiny().state_dict())
    torch.save(weights | {"pos_embed": weights["pos_embed"].flip(1)}, path)
    assert "pos_embed in" in refused(path)
