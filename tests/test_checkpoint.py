"""The model file: it comes back as it was, says what it is, and a bad one gets a sentence."""

import json
import resource
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tiny import tiny_generator

from diffussm import __version__
from diffussm.checkpoint import (
    FORMAT,
    METADATA_KEY,
    load_model,
    make_folder,
    model_file,
    save_model,
    write_safely,
)
from diffussm.diffusion import DiffusionConfig, Guidance


@pytest.fixture
def generator():
    diffusion = DiffusionConfig(schedule="cosine", prediction="v", clip_x0=True)
    guidance = Guidance(scale=2.0, interval=(0.1, 0.9), channels=1)
    return tiny_generator(diffusion, guidance, input_size=(4, 8), matrices="figure")


@pytest.fixture
def saved(tmp_path, generator):
    path = tmp_path / "model.safetensors"
    save_model(path, generator.model, generator.config)
    return path


def described(path):
    with safe_open(path, framework="np") as file:
        return json.loads(file.metadata()[METADATA_KEY])


def rewrite(path, header=None, tensors=None):
    """The same file with another header, or other tensors."""
    header = json.dumps(described(path)) if header is None else header
    tensors = load_file(path) if tensors is None else tensors
    save_file(tensors, path, metadata={METADATA_KEY: header})


def refused(path):
    """The sentence with which a file is refused."""
    with pytest.raises(ValueError, match=path.name) as caught:
        load_model(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 500
    return sentence


def test_it_comes_back_as_it_was(saved, generator):
    network, header = load_model(saved)
    assert header == generator.config
    inputs = torch.randn(2, 1, 4, 8), torch.tensor([3, 700]), torch.tensor([0, 3])
    assert torch.equal(network(*inputs), generator.model(*inputs))
    assert generator.model(*inputs).any()
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_header_says_everything_without_diffussm(saved, generator):
    header = described(saved)
    assert header == {
        "format": FORMAT,
        "version": __version__,
        "family": "DiffuSSM",
        "model": header["model"],
        "diffusion": {
            "schedule": "cosine",
            "steps": 1000,
            "prediction": "v",
            "learned_variance": True,
            "clip_x0": True,
        },
        "autoencoder": {"name": "identity", "scale": 1.0, "factor": 1, "identity": ""},
        "class_names": ["a", "b", "c"],
        "sampling": {"sampler": "ddim", "steps": 3, "eta": 0.0},
        "guidance": {"scale": 2.0, "interval": [0.1, 0.9], "channels": 1},
        "images": 0,
    }
    assert header["model"]["input_size"] == [4, 8]
    assert header["model"].keys() == vars(generator.config.model).keys()
    weights = load_file(saved)
    assert weights.keys() == generator.model.state_dict().keys()
    np.testing.assert_array_equal(weights["embed.weight"], generator.model.embed.weight.numpy())


def test_loading_leaves_the_callers_random_numbers_alone(saved):
    before = torch.get_rng_state()
    load_model(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_folder_stands_for_its_model(saved, tmp_path):
    assert model_file(tmp_path) == saved
    assert load_model(tmp_path)[1].class_names == ("a", "b", "c")


def test_nothing_to_load(tmp_path):
    with pytest.raises(ValueError, match=r"has no model\.safetensors; has its run saved"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match="there is no checkpoint"):
        load_model(tmp_path / "absent")


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 100, 0.1, 0.5, 0.99, -4, -1])
def test_a_truncated_file(saved, kept):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    assert "is damaged or not a safetensors file" in refused(saved)


@pytest.mark.parametrize("content", [b"hello", b"PK\x03\x04" * 99, bytes(999), b"\xff" * 999])
def test_garbage(saved, content):
    saved.write_bytes(content)
    assert "is damaged or not a safetensors file" in refused(saved)


def test_a_foreign_file(tmp_path):
    path = tmp_path / "other.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"weight": np.zeros(3)}, path, metadata=metadata)
        assert "was not written by diffussm" in refused(path)


def test_a_newer_format(saved):
    newer = described(saved) | {"format": FORMAT + 1, "version": "9.8.7", "model": "changed"}
    rewrite(saved, json.dumps(newer))
    assert "9.8.7" in refused(saved)
    assert "install a newer one" in refused(saved)


BAD_HEADERS = {
    "no JSON": lambda header: "{",
    "a list": lambda header: "[]",
    "a number": lambda header: "3",
    "nothing": lambda header: "{}",
    **{
        f"without {key}": lambda header, key=key: json.dumps(
            {name: value for name, value in header.items() if name != key}
        )
        for key in ("format", "family", "model", "diffusion", "class_names", "sampling", "images")
    },
    **{
        f"{key} {value!r}": lambda header, key=key, value=value: json.dumps(header | {key: value})
        for key, value in {
            "format": "one",
            "family": "DiffuSM",
            "model": 3,
            "diffusion": [1],
            "class_names": 5,
            "autoencoder": {"name": "identity", "scale": 0},
            "sampling": {"sampler": "magic"},
            "guidance": {"scale": -1},
            "images": "many",
        }.items()
    },
    "unknown option": lambda header: json.dumps(header | {"model": {"d_modle": 8}}),
}


@pytest.mark.parametrize("spoil", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_damaged_header(saved, spoil):
    rewrite(saved, spoil(described(saved)))
    assert "the header of" in refused(saved)


def test_weights_that_do_not_fit(saved):
    weights = load_file(saved)
    missing = {name: value for name, value in weights.items() if name != "embed.bias"}
    for wrong, reason in (
        (missing, "embed.bias"),
        (weights | {"extra": np.zeros(1)}, "extra"),
        (weights | {"embed.bias": np.zeros(5, np.float32)}, "size mismatch for embed.bias"),
    ):
        rewrite(saved, tensors=wrong)
        assert "do not fit its header" in refused(saved)
        assert reason in refused(saved)
    header = described(saved)
    header["model"]["d_model"] = 16
    rewrite(saved, json.dumps(header), weights)
    assert "do not fit its header" in refused(saved)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def write(temporary):
        temporary.write_text("half of the n")
        raise error

    with pytest.raises(error):
        write_safely(path, write)
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["old"]


@contextmanager
def disk_with(space):
    """Files can grow to `space` bytes only, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (space, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("space", [0, 10, 9_000])
def test_a_full_disk_leaves_the_old_model(saved, generator, space):
    before = saved.read_bytes()
    assert len(before) > space
    with disk_with(space), pytest.raises(OSError, match="is there space") as caught:
        save_model(saved, generator.model, generator.config)
    assert "\n" not in str(caught.value)
    assert [entry.read_bytes() for entry in saved.parent.iterdir()] == [before]


@pytest.mark.parametrize("space", [0, 10, 100_000])
def test_a_full_disk_leaves_the_old_state(tmp_path, space):
    path = tmp_path / "training.pt"
    write_safely(path, lambda temporary: torch.save({"small": 1}, temporary))
    state = {name: torch.randn(10_000) for name in "abcd"}
    with disk_with(space), pytest.raises(OSError, match="is there space") as caught:
        write_safely(path, lambda temporary: torch.save(state, temporary))
    assert "\n" not in str(caught.value)
    assert torch.load(path, weights_only=True) == {"small": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "model", tmp_path / "absent" / "model"):
        with pytest.raises(OSError, match=f"could not write {path}"):
            write_safely(path, lambda temporary: temporary.write_text("x"))
    with pytest.raises(OSError, match="cannot make the folder"):
        make_folder(tmp_path / "file" / "run")
