"""Images by number, whatever they come from."""

from functools import partial

import numpy as np
import pytest
import torch
from tiny import tiny_generator

from diffussm.autoencoder import AutoencoderConfig
from diffussm.cli.arguments import numbers
from diffussm.data import DataConfig, ImageDataset, digits
from diffussm.diffusion import Guidance, Sampling
from diffussm.evaluation.adm_reference import AdmFile
from diffussm.evaluation.features import BLOCK, numbers_of
from diffussm.evaluation.pictures import (
    DataPictures,
    DrawnPictures,
    FilePictures,
    Pictures,
    as_bytes,
    shown_seeds,
)
from diffussm.generation import to_uint8, write_npz


def data(count=120):
    real = digits()
    return ImageDataset(
        images=real.images[:count], labels=real.labels[:count], class_names=real.class_names
    )


def drawn(count=7, **options):
    torch.manual_seed(0)
    generator = tiny_generator()
    usual = {"seeds": range(3, 3 + count), "sampling": Sampling(sampler="ddim", steps=2)}
    return DrawnPictures(generator=generator, **(usual | {"guidance": Guidance()} | options))


def stored(folder, count=120):
    path = folder / "a.npz"
    write_npz(path, to_uint8(data(count).images), None)
    return FilePictures(AdmFile(path))


def all_of(pictures, rank=0, ranks=1, progress=lambda done: None):
    numbers = numbers_of(rank, ranks, pictures.count)
    return list(pictures.blocks(numbers, progress))


@pytest.fixture(params=["data", "drawn", "stored"])
def pictures(request, tmp_path):
    """120 images of each source, but fewer drawn ones."""
    if request.param == "drawn":
        return drawn(BLOCK + 7)
    return DataPictures(data()) if request.param == "data" else stored(tmp_path)


def test_ranks_see_between_them_what_one_sees(pictures):
    assert isinstance(pictures, Pictures)
    whole = torch.cat(all_of(pictures))
    assert whole.shape == (pictures.count, *pictures.shape)
    assert whole.dtype == torch.uint8
    parts = [all_of(pictures, rank, 2) for rank in range(2)]
    merged = [part[number] for number in range(2) for part in parts if number < len(part)]
    assert torch.equal(torch.cat(merged), whole)


def test_progress_ends_at_all_the_work(pictures):
    for ranks in (1, 2):
        told = []
        all_of(pictures, 0, ranks, told.append)
        assert told == sorted(told)
        assert told[-1] == pictures.work(numbers_of(0, ranks, pictures.count))


def test_what_is_drawn_is_what_sample_draws():
    pictures = drawn(BLOCK + 4)
    labels = [number % 3 for number in range(BLOCK + 4)]
    draw = partial(pictures.generator.sample, sampling=pictures.sampling)
    first = draw(seeds=range(3, 53), labels=labels[:50])
    expected = torch.cat([first, draw(seeds=range(53, 57), labels=labels[50:])])
    found = torch.cat(all_of(pictures)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(found, to_uint8(expected))


def test_the_protocol_says_how_they_are_drawn(tmp_path):
    described = drawn(5).protocol()
    assert described["seeds"] == "3-7"
    assert described["labels"] == "0 to 2 in turn"
    assert (described["sampler"], described["steps"]) == ("ddim", 2)
    assert (described["guidance_scale"], described["guidance_interval"]) == (1.0, None)
    guided = drawn(5, guidance=Guidance(scale=2.0, channels=1)).protocol()
    assert (guided["guidance_interval"], guided["guidance_channels"]) == ([0.0, 1.0], 1)
    of_a_file = stored(tmp_path).protocol()
    assert of_a_file.keys() - described.keys() == {"model"}
    assert of_a_file["image"] == described["image"] == "1 x 8 x 8"
    assert of_a_file["sampler"] is None


@pytest.mark.parametrize("size", [1, 2, 3])
def test_another_batch_size_changes_next_to_nothing(size):
    expected, found = (torch.cat(all_of(drawn(7, batch_size=n))).int() for n in (50, size))
    assert (expected - found).abs().max() <= 1
    assert drawn(7, batch_size=size).work([range(7)]) == 2 * -(-7 // size)


def test_what_cannot_be_drawn_gets_a_sentence():
    with pytest.raises(ValueError, match="nothing to draw"):
        drawn(0)
    for size in (0, BLOCK + 1):
        with pytest.raises(ValueError, match=f"batch_size must lie in 1 to 50, not {size}"):
            drawn(batch_size=size)


def test_bytes_are_rounded_to_the_nearest():
    values = torch.tensor([-1, -0.9999, 0, 1 / 255, 1.0005, 1]).view(1, 1, 1, 6)
    assert as_bytes(values, "", [0]).flatten().tolist() == [0, 0, 128, 128, 255, 255]


@pytest.mark.parametrize(
    ("value", "found"), [(torch.nan, "NaN"), (torch.inf, "NaN"), (2.0, "values from -1 to 2")]
)
def test_images_without_pixels_are_named(value, found):
    images = data(5).images.clone()
    images[3, 0, 2, 2] = value
    images[3, 0, 0, 0] = -1
    with pytest.raises(ValueError, match=rf"image 13 drawn holds {found}"):
        as_bytes(images, "drawn", range(10, 15))


def test_a_model_that_draws_nan_is_named_by_its_seed():
    pictures = drawn(4)
    for parameter in pictures.generator.model.parameters():
        parameter.fill_(torch.nan)
    with pytest.raises(ValueError, match="image 3 drawn holds NaN"):
        all_of(pictures)


def test_an_image_that_cannot_be_read_is_no_reference(tmp_path):
    from PIL import Image

    from diffussm.data import load_data

    for name in ("a", "b"):
        Image.new("L", (8, 8), 100).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    config = DataConfig(name="images", path=str(tmp_path), size=8, channels=1, labels="none")
    with pytest.raises(ValueError, match=r"cannot be read: c\.png .* mend or remove it"):
        all_of(DataPictures(load_data(config)))


@pytest.mark.parametrize("text", ["0-9999", "5", "1,5,9", "3-4,8-9,2"])
def test_seeds_are_shown_as_they_are_written(text):
    assert shown_seeds(numbers("--seeds", text)) == text


def test_latents_count_with_their_autoencoder():
    pictures = drawn(2)
    coder = AutoencoderConfig(name="vae", factor=8, scale=0.5, identity="c" * 64)
    config = pictures.generator.config
    object.__setattr__(config, "autoencoder", coder)
    pictures.generator.__dict__["autoencoder"] = type("Coder", (), {"colours": 3})()
    assert pictures.shape == (3, 64, 64)
    assert pictures.protocol()["autoencoder"] == "c" * 64
