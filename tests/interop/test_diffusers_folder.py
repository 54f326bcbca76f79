"""An exported folder, whole or not at all: loaded by diffusers alone, and read back by us."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_bundle import run_alone
from tiny import tiny_generator

from diffussm.checkpoint import save_model
from diffussm.diffusion import DiffusionConfig, Guidance, Sampling
from diffussm.generation import Generator, to_uint8
from diffussm.interop.dit_checkpoint import published_header
from diffussm.models.dit import DiT, DiTConfig

pytest.importorskip("diffusers")

import diffusers
from diffusers.utils import dynamic_modules_utils

from diffussm.interop import diffusers_folder
from diffussm.interop.diffusers_folder import export_folder, import_folder

SAMPLING = Sampling(sampler="ddim", steps=4)
FILES = {
    "LICENSE",
    "README.md",
    "model_index.json",
    "pipeline.py",
    "samples.png",
    "scheduler/scheduler_config.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors",
}


def write_checkpoint(path, **options):
    generator = tiny_generator(guidance=Guidance(scale=2.0), **options)
    generator = Generator(generator.model, replace(generator.config, sampling=SAMPLING, images=9))
    save_model(path, generator.model, generator.config)
    return generator


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A generator and its folder, which tests only read."""
    place = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    generator = write_checkpoint(place / "model.safetensors")
    export_folder(place / "model.safetensors", place / "digits")
    return generator, place / "digits"


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported[1], tmp_path / "copy")


def test_what_is_in_it(exported):
    _, folder = exported
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    (code,) = files - FILES
    assert files - {code} == FILES
    index = json.loads((folder / "model_index.json").read_text())
    assert code == f"transformer/{index['transformer'][0]}.py"
    assert "Apache License" in (folder / "LICENSE").read_text()
    with Image.open(folder / "samples.png") as picture:
        assert picture.width > 4 * 64
    assert list(folder.parent.glob(".*")) == []  # nothing temporary is left


ALONE = """
import sys
import torch
import numpy as np
from diffusers import DiffusionPipeline
pipelines = [DiffusionPipeline.from_pretrained("digits", trust_remote_code=True) for _ in range(2)]
for number, pipeline in enumerate(pipelines):  # the second load must leave the first as it was
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    images = pipeline(class_labels=[0, "b", 2, 0], generator=generators).images
    np.save(f"drawn{number}.npy", np.stack([np.asarray(image) for image in images]))
assert not pipelines[0].transformer.training
try:
    DiffusionPipeline.from_pretrained("digits")
except ValueError as error:
    print(error)
"""


def test_in_a_new_process_diffusers_alone_draws_the_same_picture(exported, monkeypatch, tmp_path):
    generator, folder = exported
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    said = run_alone(folder.parent, ALONE)
    assert "trust_remote_code=True" in said
    ours = to_uint8(generator.sample(seeds=range(4), labels=[0, 1, 2, 0]))[..., 0].astype(int)
    assert ours.std() > 10
    for number in range(2):
        drawn = np.load(folder.parent / f"drawn{number}.npy")
        assert np.abs(drawn - ours).max() <= 1


def test_it_runs_on_diffusers_command_line(exported, monkeypatch, tmp_path):
    pytest.importorskip("accelerate")
    generator, folder = exported
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    command = "import sys; from diffusers.commands.diffusers_cli import main; main()"
    options = ["run", "--model", str(folder), "--trust-remote-code", "--device-map", "cpu"]
    options += ["--seed", "5", "--pipeline-kwargs", '{"class_labels": ["c"]}']
    options += ["--output", str(tmp_path / "image.png")]
    done = subprocess.run([sys.executable, "-c", command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "image.png") as image:
        drawn = np.asarray(image).astype(int)
    ours = to_uint8(generator.sample(seeds=[5], labels=[2]))[0, :, :, 0]
    assert np.abs(drawn - ours).max() <= 1


def test_the_usage_on_its_page_runs(exported, monkeypatch, tmp_path):
    _, folder = exported
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    page = (folder / "README.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) == 6
    run_alone(folder.parent, code)
    with Image.open(folder.parent / "image.png") as image:
        assert image.size == (8, 8)


def test_it_comes_back_bit_by_bit(exported):
    generator, folder = exported
    network, header = import_folder(folder)
    assert header == generator.config
    weights = network.state_dict()
    assert weights.keys() == generator.model.state_dict().keys()
    for name, value in generator.model.state_dict().items():
        assert torch.equal(weights[name], value)
    images = Generator(network, header).sample(seeds=[1])
    assert torch.equal(images, generator.sample(seeds=[1]))


@pytest.mark.parametrize("ssm", ["s4", "lssl", "mamba"])
def test_every_layer_goes_out_and_in(ssm, tmp_path):
    generator = write_checkpoint(tmp_path / "model.safetensors", ssm=ssm, num_classes=0)
    export_folder(tmp_path / "model.safetensors", tmp_path / "out", samples=1)
    network, header = import_folder(tmp_path / "out")
    assert header == generator.config
    weights = generator.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_a_target_in_use_is_left_alone(exported, tmp_path):
    checkpoint = exported[1].parent / "model.safetensors"
    (tmp_path / "kept.txt").write_text("mine")
    for target in (tmp_path, tmp_path / "kept.txt"):
        with pytest.raises(ValueError, match="not an empty folder; give another"):
            export_folder(checkpoint, target)
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_export_leaves_nothing(exported, tmp_path, monkeypatch, error):
    def stop(*_, **__):
        raise error

    monkeypatch.setattr(diffusers_folder, "model_card", stop)
    with pytest.raises(error):
        export_folder(exported[1].parent / "model.safetensors", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_export_leaves_no_folder_of_its_name(exported, tmp_path):
    code = f"""
import os
from diffussm.interop import diffusers_folder
diffusers_folder.model_card = lambda *_, **__: os.kill(os.getpid(), 9)
diffusers_folder.export_folder({str(exported[1].parent / "model.safetensors")!r}, "out")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == -9, done.stderr
    assert not (tmp_path / "out").exists()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.")


def test_another_family_is_sent_elsewhere(tmp_path):
    config = DiTConfig(input_size=4, d_model=8, depth=1, num_heads=2)
    save_model(tmp_path / "dit.safetensors", DiT(config), published_header(config))
    with pytest.raises(ValueError, match=r"holds a DiT, .*to_diffusers"):
        export_folder(tmp_path / "dit.safetensors", tmp_path / "out")


def test_a_model_of_latents_brings_its_autoencoder(tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])  # diffusers adds its folder of modules
    vae = diffusers.AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=2,
        norm_num_groups=8,
    )
    vae.save_pretrained(tmp_path / "vae")
    generator = tiny_generator(DiffusionConfig(prediction="v"), in_channels=2)
    told = replace(generator.config.autoencoder, name=str(tmp_path / "vae"), scale=0.3, factor=2)
    generator.config = replace(generator.config, autoencoder=told, sampling=SAMPLING)
    save_model(tmp_path / "model.safetensors", generator.model, generator.config)
    export_folder(tmp_path / "model.safetensors", tmp_path / "out", samples=2)
    ours = to_uint8(generator.sample(seeds=[4], labels=[1]))
    config = json.loads((tmp_path / "out" / "vae" / "config.json").read_text())
    assert config["scaling_factor"] == 0.3
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out", trust_remote_code=True)
    (image,) = pipeline([1], generator=torch.manual_seed(4)).images
    assert np.abs(np.asarray(image).astype(int) - ours[0]).max() <= 1


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def remove_weight(folder):
    path = folder / "transformer" / diffusers_folder.WEIGHTS
    weights = load_file(path)
    del weights["embed.bias"]
    save_file(weights, path)


SPOILED = {
    "no index": (lambda f: os.remove(f / "model_index.json"), "model_index.json is missing"),
    "no config": (lambda f: os.remove(f / "transformer/config.json"), "config.json is missing"),
    "no weights": (
        lambda f: os.remove(f / "transformer" / diffusers_folder.WEIGHTS),
        "safetensors is missing or damaged",
    ),
    "half the weights": (
        lambda f: os.truncate(f / "transformer" / diffusers_folder.WEIGHTS, 99),
        "safetensors is missing or damaged",
    ),
    "a weight too few": (remove_weight, "does not fit its config: .*embed.bias"),
    "another size": (
        lambda f: change(f / "transformer/config.json", d_model=16),
        "does not fit its config: .*size mismatch",
    ),
    "another model": (
        lambda f: change(f / "transformer/config.json", _class_name="DiTTransformer2DModel"),
        "another model: its transformer is DiTTransformer2DModel",
    ),
    "no protocol": (lambda f: change(f / "model_index.json", protocol={}), "are damaged"),
    "an unknown option": (
        lambda f: change(f / "transformer/config.json", d_modle=1),
        "unknown key 'transformer.d_modle'",
    ),
    "no JSON": (lambda f: (f / "model_index.json").write_text("{"), "is missing or damaged"),
    "a list": (lambda f: (f / "model_index.json").write_text("[]"), "holds no JSON object"),
}


@pytest.mark.parametrize(("spoil", "sentence"), SPOILED.values(), ids=SPOILED)
def test_a_spoiled_folder_gets_a_sentence(copy, spoil, sentence):
    spoil(copy)
    with pytest.raises(ValueError, match=sentence) as caught:
        import_folder(copy)
    assert "\n" not in str(caught.value)
