"""`diffussm convert`: published files become runs that draw, and runs become others' files."""

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers import AutoencoderKL
from test_mistakes import assert_refused
from tiny import awake

from diffussm import load
from diffussm.models.dit import DiT, DiTConfig


@pytest.fixture
def published(tmp_path):
    """A tiny DiT in the published form: latents of four channels, five classes."""
    torch.manual_seed(0)
    config = DiTConfig(input_size=4, num_classes=5, d_model=16, depth=2, num_heads=2)
    model = awake(DiT(config))
    torch.save({"ema": model.state_dict(), "opt": {}}, tmp_path / "DiT.pt")
    return tmp_path / "DiT.pt"


@pytest.fixture
def autoencoder(tmp_path):
    AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
    ).save_pretrained(tmp_path / "autoencoder")
    return tmp_path / "autoencoder"


def test_a_published_checkpoint_draws(tmp_path, diffussm, published, autoencoder):
    run, array = tmp_path / "run", tmp_path / "drawn.npz"
    said = diffussm("convert", published, "--out", run, "--heads", 2)
    assert said.code == 0, said.err
    assert f"diffussm sample {run}" in said.out
    words = ["--seeds", "0-6", "--steps", 2, "--autoencoder", autoencoder, "--npz", array]
    said = diffussm("sample", run, *words, "--out", tmp_path / "grid.png")
    assert said.code == 0, said.err
    assert np.load(array)["arr_0"].shape == (7, 32, 32, 3)
    assert np.load(array)["arr_1"].tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert (tmp_path / "grid.png").exists()
    assert "DiT" in diffussm("info", run).out


def test_and_goes_back_to_the_bit(tmp_path, diffussm, published):
    diffussm("convert", published, "--out", tmp_path / "run", "--heads", 2)
    said = diffussm("convert", tmp_path / "run", "--to", "dit", "--out", tmp_path / "back.pt")
    assert said.code == 0, said.err
    before, after = torch.load(published)["ema"], torch.load(tmp_path / "back.pt")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_what_cannot_be_converted(tmp_path, diffussm, published, trained):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    for words, sentence in (
        ([tmp_path / "absent.pt"], "there is no checkpoint"),
        ([published], "give num_heads"),
        ([published, "--size", "8x8"], "give num_heads"),
        ([published, "--heads", 2, "--size", "big"], "--size takes two numbers like 8x16"),
        ([published, "--heads", 2, "--size", "8x16"], "has other shapes"),
        ([trained], "say what to make of it with --to"),
        ([trained / "model.safetensors"], "say what to make of it with --to"),
        ([trained, "--to", "onx"], "did you mean 'onnx'"),
        ([trained, "--to", "dit"], "is a DiffuSSM; --to dit writes DiTs"),
        ([trained, "--to", "onnx", "--push", "a/b"], "--push uploads what --to diffusers writes"),
        ([trained, "--to", "onnx", "--batch", -1], "--batch must be 0 (any number) or more"),
        ([published, "--to", "diffusers"], "is damaged or not a safetensors file"),
    ):
        assert_refused(diffussm("convert", *words, "--out", out), sentence)
        assert not out.exists()


def test_a_model_is_not_overwritten(tmp_path, diffussm, published, trained):
    before = (trained / "model.safetensors").read_bytes()
    said = diffussm("convert", published, "--heads", 2, "--out", trained)
    assert_refused(said, "holds a model already")
    assert (trained / "model.safetensors").read_bytes() == before


def test_a_latent_model_without_its_autoencoder(tmp_path, diffussm, published):
    diffussm("convert", published, "--out", tmp_path / "run", "--heads", 2)
    assert load(tmp_path / "run").config.autoencoder.scale == 0.18215
    words = ["sample", tmp_path / "run", "--out", tmp_path / "new" / "grid.png", "--autoencoder"]
    assert_refused(diffussm(*words, tmp_path), "give the folder of an AutoencoderKL")
    assert not (tmp_path / "new").exists()


def test_a_run_goes_to_diffusers_and_comes_back(tmp_path, diffussm, trained):
    said = diffussm("convert", trained, "--to", "diffusers", "--out", tmp_path / "hub")
    assert said.code == 0, said.err
    assert (tmp_path / "hub" / "model_index.json").is_file()
    assert diffussm("convert", tmp_path / "hub", "--out", tmp_path / "back").code == 0
    before, after = load(trained), load(tmp_path / "back")
    assert after.config == before.config
    weights = after.model.state_dict()
    for name, tensor in before.model.state_dict().items():
        assert torch.equal(weights[name], tensor)
    again = diffussm("convert", trained, "--to", "diffusers", "--out", tmp_path / "hub")
    assert_refused(again, "is there already and not an empty folder")


def test_nothing_is_pushed_offline(tmp_path, diffussm, trained, monkeypatch):
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
    words = ["--to", "diffusers", "--out", tmp_path / "hub", "--push", "me/digits"]
    assert_refused(diffussm("convert", trained, *words), "HF_HUB_OFFLINE is set")
    assert "me/digits" in (tmp_path / "hub" / "README.md").read_text()  # whole, to push later


@pytest.mark.parametrize("recipe", ["digits-dit", "digits-uvissm", "digits-unet"])
def test_only_diffussm_brings_its_code(tmp_path, diffussm, recipe):
    run = tmp_path / "run"
    settings = ["training.images=4", "training.batch_size=2", "training.preview_every=0"]
    words = [word for setting in settings for word in ("--set", setting)]
    assert diffussm("train", recipe, "--out", run, *words).code == 0
    said = diffussm("convert", run, "--to", "diffusers", "--out", tmp_path / "hub")
    assert_refused(said, "only DiffuSSM brings its own code to diffusers")
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(("target", "name"), [("onnx", "a.onnx"), ("torch-export", "a.pt2")])
def test_a_run_becomes_a_program(tmp_path, diffussm, trained, target, name):
    words = ["--to", target, "--out", tmp_path / name, "--size", "8x12", "--batch", 0]
    said = diffussm("convert", trained, *words)
    assert said.code == 0, said.err
    inputs = torch.randn(3, 1, 8, 12), torch.tensor([0, 5, 999]), torch.tensor([0, 9, 10])
    if target == "onnx":
        session = onnxruntime.InferenceSession(tmp_path / name)
        values = dict(zip(("x_t", "t", "y"), (x.numpy() for x in inputs), strict=True))
        answer = torch.from_numpy(session.run(None, values)[0])
    else:
        answer = torch.export.load(tmp_path / name).module()(*inputs)
    torch.testing.assert_close(answer, load(trained).model(*inputs), rtol=0, atol=1e-5)
    words[3] = tmp_path / "a.txt"
    assert_refused(diffussm("convert", trained, *words), "must end in")
