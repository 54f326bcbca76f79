"""Latents become pictures by the autoencoder that the model names; here, by a tiny one."""

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL
from tiny import tiny_generator

from diffussm.autoencoder import PIXELS, AutoencoderConfig, load_autoencoder
from diffussm.checkpoint import MODEL_FILE, save_model
from diffussm.diffusion import DiffusionConfig
from diffussm.generation import Generator, load

SCALE = 0.25


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("autoencoder")
    AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=2,
        norm_num_groups=4,
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def config(folder):
    return AutoencoderConfig(name=str(folder), scale=SCALE, factor=4)


@pytest.fixture
def latent_model(config):
    model = tiny_generator(DiffusionConfig(prediction="v"), in_channels=2)
    return Generator(model.model, replace(model.config, autoencoder=config))


def test_latents_are_unscaled_and_decoded(folder, config):
    latents = torch.randn(3, 2, 5, 8)
    expected = AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False)
    images = load_autoencoder(config, 2).decode(latents)
    assert images.shape == (3, 3, 20, 32)
    with torch.no_grad():
        torch.testing.assert_close(images, expected.decode(latents / SCALE).sample.clamp(-1, 1))


def test_pixels_are_only_brought_into_range():
    images = 3 * torch.randn(2, 1, 4, 4)
    assert torch.equal(load_autoencoder(PIXELS, 1).decode(images), images.clamp(-1, 1))


def test_a_latent_model_draws_pictures(latent_model):
    images = latent_model.sample(seeds=[3, 4], batch_size=1)
    assert images.shape == (2, 3, 32, 32)
    *_, last = latent_model.steps([3, 4], latent_model.labels(2))
    decoded = latent_model.autoencoder.decode(last.x)
    torch.testing.assert_close(images, decoded, rtol=0, atol=1e-4)
    assert latent_model.sample(seeds=[3], size=(16, 48)).shape == (1, 3, 16, 48)  # in pixels
    with pytest.raises(ValueError, match="18x16 pixels have no latent"):
        latent_model.sample(seeds=[3], size=(18, 16))


def test_a_model_file_names_its_autoencoder(tmp_path, latent_model, folder):
    elsewhere = replace(latent_model.config.autoencoder, name=str(tmp_path / "gone"))
    header = replace(latent_model.config, autoencoder=elsewhere)
    save_model(tmp_path / MODEL_FILE, latent_model.model, header)
    assert load(tmp_path).config.autoencoder == elsewhere
    found = load(tmp_path, autoencoder=str(folder)).sample(seeds=[1])
    assert torch.equal(found, latent_model.sample(seeds=[1]))
    with pytest.raises(ValueError, match=r"gone.*give the folder of an AutoencoderKL"):
        load(tmp_path).sample(seeds=[1])


def test_another_autoencoder_is_refused(config):
    with pytest.raises(ValueError, match=r"2 channels at 1/4 of .*; this model's .* 3 at 1/4"):
        load_autoencoder(config, 3)
    with pytest.raises(ValueError, match="this model's latents have 2 at 1/8"):
        load_autoencoder(replace(config, factor=8), 2)


def test_a_folder_without_weights_is_refused(tmp_path, folder, config):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(ValueError, match="cannot load the autoencoder"):
        load_autoencoder(replace(config, name=str(tmp_path)), 2)


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"scale": float("nan")}, {"factor": 0}])
def test_a_scale_is_positive(wrong):
    with pytest.raises(ValueError, match="an autoencoder's"):
        AutoencoderConfig(**wrong)


def test_a_model_of_pixels_takes_none(tmp_path):
    model = tiny_generator()
    save_model(tmp_path / MODEL_FILE, model.model, model.config)
    with pytest.raises(ValueError, match="draws pixels"):
        load(tmp_path, autoencoder="somewhere")
