"""Commands that go well."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from diffussm import __version__, load
from diffussm.diffusion import SAMPLERS, Sampling
from diffussm.generation import to_uint8
from diffussm.models import create_model
from diffussm.models.diffussm import SSMS
from diffussm.models.dit_blocks import CONDITIONINGS
from diffussm.training.recipe import recipes_folder

BUILT_IN = sorted(path.stem for path in recipes_folder().glob("*.toml"))


def test_train_writes_a_run_and_says_where(tmp_path, tiny_train):
    said = tiny_train(tmp_path / "run")
    assert said.code == 0
    assert "60 images of digits" in said.out
    assert f"diffussm sample {tmp_path / 'run'}" in said.out
    assert "100%" in said.err
    found = {path.name for path in (tmp_path / "run").iterdir()}
    assert found == {"model.safetensors", "state", "metrics.jsonl", "recipe.toml", "previews"}
    assert load(tmp_path / "run").config.images == 60


def test_the_same_command_on_a_finished_run_changes_nothing(tmp_path, tiny_train):
    tiny_train(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    said = tiny_train(tmp_path)
    assert (said.code, "resuming after 60 images" in said.out) == (0, True)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_changes_are_accepted_when_told(tmp_path, tiny_train):
    tiny_train(tmp_path)
    assert tiny_train(tmp_path, "training.images=80", options=["--accept-changes"]).code == 0
    assert load(tmp_path).config.images == 80


def test_a_recipe_file_trains(tmp_path, diffussm):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[model]\nname = "DiffuSSM"\nd_model = 8\ndepth = 1\nnum_classes = 0\n'
        "[training]\nimages = 20\nbatch_size = 10\npreview_every = 0\n"
    )
    assert diffussm("train", path, "--out", tmp_path / "run").code == 0
    said = diffussm("sample", tmp_path / "run", "--out", tmp_path / "a.png", "--steps", 2)
    assert said.code == 0


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sample_writes_what_python_draws(tmp_path, trained, diffussm, sampler):
    npz, folder = tmp_path / "deep" / "a.npz", tmp_path / "images"
    options = ["--sampler", sampler, "--steps", 3, "--guidance", 2, "--classes", "3,7"]
    options += ["--seeds", "0-2,9", "--batch-size", 3]
    said = diffussm("sample", trained, "--npz", npz, "--images", folder, *options)
    assert said.code == 0
    model = load(trained)
    pixels = to_uint8(
        model.sample(
            seeds=[0, 1, 2, 9],
            labels=[3, 7, 3, 7],
            sampling=Sampling(sampler=sampler, steps=3),
            guidance=type(model.config.guidance)(scale=2.0),
        )
    )
    with np.load(npz) as arrays:
        assert np.abs(arrays["arr_0"].astype(int) - pixels).max() <= 1
        assert arrays["arr_1"].tolist() == [3, 7, 3, 7]
    assert sorted(path.name for path in folder.iterdir()) == [
        "000000.png",
        "000001.png",
        "000002.png",
        "000009.png",
    ]


def test_sample_draws_a_grid(tmp_path, trained, diffussm):
    for options in (
        ["--seeds", "0-19"],
        ["--size", "8x16", "--seeds", "0-3", "--eta", "0.5"],
        ["--interval", "0.1,0.8", "--guidance", "3", "--guidance-channels", "1"],
        ["--sampler", "dpm++"],
    ):
        said = diffussm("sample", trained, "--out", tmp_path / "grid.png", *options)
        assert said.code == 0, said.err
        assert f"images in {tmp_path / 'grid.png'}" in said.out
        with Image.open(tmp_path / "grid.png") as picture:
            assert picture.width > 10 * 64  # ten classes side by side


@pytest.mark.parametrize(("classes", "columns"), [("3,7", 4), ("0-9", 10), ("5", 4)])
def test_each_class_has_columns_of_its_own(tmp_path, trained, diffussm, classes, columns):
    grid = tmp_path / "grid.png"
    options = ["--seeds", "0-15", "--classes", classes, "--steps", 2]
    assert diffussm("sample", trained, "--out", grid, *options).code == 0
    with Image.open(grid) as picture:
        assert picture.width // 70 == columns  # tiles of 64 pixels, 6 between


def test_info_of_presets_prints_the_published_figures(diffussm):
    said = diffussm("info", "DiffuSSM-XL", "--size", "256,512x256,1024")
    assert said.code == 0
    for figure in ("673,088,272", "118.6", "675,129,632", "512x256"):
        assert figure in said.out, figure
    row = next(line.split() for line in said.out.splitlines() if "256x256" in line)
    assert row[1:3] == ["1,024", "512"]
    assert float(row[3]) == pytest.approx(280, rel=0.02)
    assert "DiT" not in diffussm("info", "DiffuSSM").out


def test_info_of_a_run(trained, diffussm):
    said = diffussm("info", trained)
    assert said.code == 0
    assert "60 images seen" in said.out
    assert "8x8" in said.out
    parameters = sum(p.numel() for p in load(trained).model.parameters())
    assert f"{parameters:,} parameters" in said.out
    assert diffussm("info", trained / "model.safetensors", "--size", "16").code == 0


@pytest.mark.parametrize("ssm", SSMS)
def test_every_layer_trains_and_samples(tmp_path, tiny_train, diffussm, ssm):
    run = tmp_path / "run"
    assert tiny_train(run, f"model.ssm={ssm}").code == 0
    assert diffussm("sample", run, "--out", tmp_path / "a.png", "--seeds", "0-3").code == 0
    assert f"{ssm} in both directions" in diffussm("info", run).out


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name.startswith("digits-")])
def test_every_sibling_trains_resumes_and_samples(tmp_path, diffussm, name):
    def train(run, images):
        settings = [f"training.images={images}", "training.batch_size=2"]
        settings += ["training.lr_schedule=constant", "training.preview_every=0"]
        words = [word for setting in settings for word in ("--set", setting)]
        said = diffussm("train", name, "--out", run, *words, "--accept-changes")
        assert said.code == 0, said.err

    train(tmp_path / "once", 8)
    train(tmp_path / "twice", 4)
    train(tmp_path / "twice", 8)
    once, twice = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("once", "twice"))
    assert once == twice
    words = ["--seeds", "0-3", "--steps", "2", "--size", "8x12", "--out", tmp_path / "a.png"]
    assert diffussm("sample", tmp_path / "once", *words).code == 0
    assert "8 images seen" in diffussm("info", tmp_path / "once").out


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_dit_trains_and_samples(tmp_path, diffussm, conditioning):
    run, settings = tmp_path / "run", [f"model.conditioning={conditioning}", "model.d_model=16"]
    settings += ["model.depth=1", "training.images=20", "training.batch_size=10"]
    options = [word for setting in settings for word in ("--set", setting)]
    assert diffussm("train", "digits-dit", "--out", run, *options).code == 0
    words = ["--out", tmp_path / "a.png", "--seeds", "0-3", "--steps", "2", "--size", "6x10"]
    assert diffussm("sample", run, *words).code == 0
    assert f"patch 2, {conditioning}" in diffussm("info", run).out


def test_another_rate_draws_another_picture(tmp_path, trained, diffussm):
    pictures = []
    for rate in ("1", "0.5"):
        out = tmp_path / f"{rate}.npz"
        words = ["--npz", out, "--seeds", "0-3", "--size", "16x16", "--rate", rate]
        assert diffussm("sample", trained, *words).code == 0
        pictures.append(np.load(out)["arr_0"])
    assert pictures[0].shape == (4, 16, 16, 1)
    assert (pictures[0] != pictures[1]).any()


def test_info_of_a_unet(diffussm):
    """Its sizes are pixels, its own unless given; the count is ADM's and a row of labels."""
    said = diffussm("info", "ADM-256")
    assert "553,839,110 parameters" in said.out
    assert re.search(r"256x256 .* 1,119\.8 ", said.out)
    assert "512x512" not in said.out
    assert "512x512" in diffussm("info", "ADM-256", "--size", "512").out


@pytest.mark.parametrize("ssm", SSMS)
def test_info_of_every_layer(diffussm, ssm):
    said = diffussm("info", "DiffuSSM-S", "--ssm", ssm, "--size", "256")
    assert said.code == 0
    with torch.device("meta"):
        model = create_model("DiffuSSM-S", ssm=ssm)
    layers = sum(p.numel() for block in model.blocks for p in block.ssm.parameters())
    assert f"{layers:,} of the parameters" in said.out


def test_a_skipped_step_is_reported(tmp_path, tiny_train, monkeypatch):
    from diffussm.training import loop

    calls, true_loss = [], loop.diffusion_loss

    def loss(*args, **options):
        calls.append(1)
        found = true_loss(*args, **options)
        return found._replace(total=found.total * torch.nan) if len(calls) in (1, 3) else found

    monkeypatch.setattr(loop, "diffusion_loss", loss)
    said = tiny_train(tmp_path)
    assert said.code == 0
    for images in (10, 30):
        assert f"the loss at {images} images was not finite: step skipped" in said.err
    assert "nan" not in said.err


def test_version(diffussm):
    assert diffussm("--version") == (0, f"diffussm {__version__}\n", "")


def test_no_help_waits_for_torch():
    code = """
import sys
import typer.main
from diffussm.cli import app, main
commands = typer.main.get_command(app).commands
several = [[], *([name] for name in commands)]
several += [["figures", name] for name in commands["figures"].commands]
for words in several:
    sys.argv = ["diffussm", *words, "--help"]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code
assert not {"torch", "numpy", "sklearn", "matplotlib", "gradio", "scipy"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--accept-changes", "--guidance-channels", "--size"):
        assert option in done.stdout


def test_the_module_is_the_command(tmp_path):
    command = [sys.executable, "-m", "diffussm", "train", "digit", "--out", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("diffussm: unknown recipe 'digit'; did you mean 'digits'?")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
