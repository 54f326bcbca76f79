"""Each short example runs on a model of a few steps, and does what it says."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_recipe, train

import diffussm
from diffussm.diffusion import DEFAULT_STEPS, SAMPLERS
from diffussm.ssm.choices import SSMS

EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT = ["own_folder", "swap_mixer", "custom_sampler", "inpainting", "interpolation"]
SHORT += ["export_to_diffusers"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    wanted = tiny_recipe(diffusion={"clip_x0": True}, guidance={"scale": 1.5})
    return str(train(wanted, tmp_path_factory.mktemp("short") / "run").folder)


def example(name):
    """What the file of an example defines."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.mark.parametrize("name", SHORT)
def test_they_are_short(name):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 60


@pytest.mark.parametrize("classes", [("", ""), ("left", "right")])
def test_a_folder_of_ones_own(tmp_path, capsys, classes):
    for number in range(4):
        folder = tmp_path / "pictures" / classes[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 36), (60 * number, 0, 0)).save(folder / f"{number}.png")
    settings = ["training.images=8", "training.batch_size=4", "data.size=8", "model.d_model=8"]
    settings += ["model.depth=1", "training.preview_every=0", "sampling.steps=2"]
    settings += [] if classes[0] else ["data.labels=none"]
    main = example("own_folder")["main"]
    main(tmp_path / "pictures", tmp_path / "run", *settings)
    assert ("left, right" if classes[0] else "one kind") in capsys.readouterr().out
    with Image.open(tmp_path / "run" / "drawn.png") as picture:
        assert picture.width > 4 * 64
    assert diffussm.load(tmp_path / "run").config.images == 8


def test_a_mixer_of_ones_own(capsys):
    names = example("swap_mixer")
    layer = names["Average"](3, d_state=1, dt_min=0.01, dt_max=0.5).double()
    u = torch.randn(2, 9, 3, dtype=torch.float64)
    state, walked = layer.initial_state(2), []
    for u_t in u.unbind(1):
        y_t, state = layer.step(u_t, state)
        walked.append(y_t)
    torch.testing.assert_close(layer(u), torch.stack(walked, 1), rtol=1e-6, atol=1e-6)
    try:
        names["main"](64)
    finally:
        SSMS.pop("average")
    assert re.search(r"s4d +loss \d\.\d+.*\naverage +loss \d\.\d+", capsys.readouterr().out)


def test_a_sampler_of_ones_own(run, capsys):
    heun = example("custom_sampler")
    try:
        heun["main"](run)
    finally:
        SAMPLERS.pop("heun"), DEFAULT_STEPS.pop("heun")
    lines = re.findall(r"calls: ddim ([\d.]+), heun ([\d.]+)", capsys.readouterr().out)
    errors = np.array(lines, dtype=float)
    assert (np.diff(errors, axis=0) < 0).all()  # more calls come closer
    assert (errors[-1, 1] < errors[-1, 0]).all()  # and of second order sooner


def test_inpainting_keeps_what_was_given(run, tmp_path):
    names = example("inpainting")
    known, labels = torch.rand(3, 1, 8, 8) * 2 - 1, torch.arange(3)
    given = (torch.arange(8) < 4)[:, None].expand(8, 8)
    filled = names["inpaint"](diffussm.load(run), known, given, labels)
    assert torch.equal(filled[:, :, :4], known[:, :, :4])
    assert not torch.isclose(filled[:, :, 4:], known[:, :, 4:]).any()


def test_the_corners_of_a_sheet_are_samples(run, tmp_path):
    out = tmp_path / "sheet.png"
    example("interpolation")["main"](run, out, 2, 5)
    with Image.open(out) as picture:
        sheet = np.asarray(picture.convert("L")).astype(int)
    alone = diffussm.load(run).sample(
        seeds=[3, 8],
        labels=[2, 5],
        sampling=diffussm.diffusion.Sampling(sampler="ddim", steps=50),
        guidance=diffussm.diffusion.Guidance(),
    )
    first, last = diffussm.generation.to_uint8(alone)[..., 0].astype(int)
    # 8 x 8 pixels, each 8 x 8 on the sheet; a frame of 6 and captions of 14 between
    cell_x, cell_y = 64 + 6, 64 + 14 + 6
    top, left = 6 + 6 * cell_y, 6 + 6 * cell_x
    assert abs(sheet[6:70:8, 6:70:8] - first).max() <= 1
    assert abs(sheet[top : top + 64 : 8, left : left + 64 : 8] - last).max() <= 1


def test_export_to_diffusers(run, tmp_path, monkeypatch, capsys):
    modules = pytest.importorskip("diffusers.utils.dynamic_modules_utils")
    monkeypatch.setattr("sys.path", [*sys.path])  # diffusers adds its folder of modules
    monkeypatch.setattr(modules, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    example("export_to_diffusers")["main"](run, str(tmp_path / "hub"))
    apart = int(re.search(r"difference is (\d+) of 255", capsys.readouterr().out)[1])
    assert apart <= 1
