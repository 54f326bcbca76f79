"""Latents become pictures by the autoencoder that the model names; here, by a tiny one."""

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL
from tiny import tiny_generator

from diffussm.autoencoder import (
    PIXELS,
    Autoencoder,
    AutoencoderConfig,
    find_autoencoder,
    fingerprint,
    load_autoencoder,
)
from diffussm.checkpoint import MODEL_FILE, save_model
from diffussm.config import from_dict
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


def test_images_are_encoded_as_the_network_does(folder):
    found = find_autoencoder(str(folder), SCALE)
    images = torch.rand(2, 3, 8, 12) * 2 - 1
    with torch.no_grad():
        expected = AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False).encode(images)
    posterior = found.encode(images)
    torch.testing.assert_close(posterior.mean, expected.latent_dist.mode())
    torch.testing.assert_close(posterior.std**2, expected.latent_dist.var)
    noise = torch.randn(posterior.mean.shape)
    back = found.decode(posterior.latents(noise, SCALE))  # the scale is undone
    sampled = expected.latent_dist.mean + expected.latent_dist.std * noise
    with torch.no_grad():
        decoded = found.network.decode(sampled).sample.clamp(-1, 1)
    torch.testing.assert_close(back, decoded)


def test_pixels_are_sure_of_themselves():
    images = torch.rand(2, 1, 5, 7)
    mean, std = Autoencoder(PIXELS).encode(images)
    assert torch.equal(mean, images)
    assert not std.any()
    assert find_autoencoder("identity").config == PIXELS


def test_what_a_network_says_of_itself(folder):
    found = find_autoencoder(str(folder)).config
    assert (found.name, found.scale, found.factor) == (str(folder), 0.18215, 4)
    assert len(found.identity) == 64
    assert find_autoencoder(str(folder), 0.3).config == replace(found, scale=0.3)


def test_images_that_an_autoencoder_cannot_take(folder):
    found = find_autoencoder(str(folder))
    assert found.latent_shape(3, 8, 12) == (2, 2, 3)
    with pytest.raises(ValueError, match=r"10x8 pixels have no latent: .* multiples of 4"):
        found.encode(torch.zeros(1, 3, 10, 8))
    with pytest.raises(ValueError, match="takes images of 3 channels, not 1"):
        found.encode(torch.zeros(1, 1, 8, 8))


def network(folder):
    return AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False)


def test_an_identity_is_that_of_weights_and_architecture(tmp_path, folder):
    mine = fingerprint(network(folder))
    moved = network(folder)
    moved.register_to_config(scaling_factor=0.5, sample_size=512)
    moved.save_pretrained(tmp_path / "moved")
    assert fingerprint(network(tmp_path / "moved")) == mine
    for parameter in moved.parameters():
        changed = parameter.detach().clone()
        with torch.no_grad():
            parameter.flatten()[-1].add_(1e-3)
        assert fingerprint(moved) != mine
        with torch.no_grad():
            parameter.copy_(changed)
    assert fingerprint(moved) == mine
    moved.register_to_config(act_fn="relu")
    assert fingerprint(moved) != mine


def test_weights_stored_in_half_precision_have_one_identity(tmp_path, folder):
    half = network(folder).half()
    half.save_pretrained(tmp_path / "half")
    half.float().save_pretrained(tmp_path / "whole")
    assert len({fingerprint(network(tmp_path / name)) for name in ("half", "whole")}) == 1


def test_another_autoencoder_under_the_same_name_is_refused(tmp_path, latent_model, folder):
    found = find_autoencoder(str(folder), SCALE).config
    other = network(folder)
    with torch.no_grad():
        other.decoder.conv_out.bias.add_(0.1)
    other.save_pretrained(tmp_path / "name")
    header = replace(latent_model.config, autoencoder=replace(found, name=str(tmp_path / "name")))
    save_model(tmp_path / MODEL_FILE, latent_model.model, header)
    with pytest.raises(ValueError, match="holds another autoencoder than the one that made"):
        load(tmp_path).sample(seeds=[1])
    images = load(tmp_path, autoencoder=str(folder)).sample(seeds=[1])
    assert torch.equal(images, latent_model.sample(seeds=[1]))
    load(tmp_path, autoencoder=str(tmp_path / "name")).sample(seeds=[1])  # one may insist


def test_a_model_file_from_before_identities(config):
    described = {"name": config.name, "scale": SCALE, "factor": 4}
    assert from_dict(AutoencoderConfig, described).identity == ""


def test_a_name_on_the_hub_needs_a_network():
    # tests run with HF_HUB_OFFLINE
    with pytest.raises(ValueError, match=r"cannot load .* some/name .*on the Hub while there is"):
        find_autoencoder("some/name")
    with pytest.raises(ValueError, match="cannot load the autoencoder no name at all"):
        find_autoencoder("no name at all")


WRONG = [{"scale": 0.0}, {"scale": float("nan")}, {"factor": 0}, {"scale": 0.5}, {"factor": 8}]


@pytest.mark.parametrize("wrong", WRONG)
def test_scales_and_factors_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=r"an autoencoder's|pixels are their own latents"):
        AutoencoderConfig(**wrong)


def test_a_model_of_pixels_takes_none(tmp_path):
    model = tiny_generator()
    save_model(tmp_path / MODEL_FILE, model.model, model.config)
    with pytest.raises(ValueError, match="draws pixels"):
        load(tmp_path, autoencoder="somewhere")
