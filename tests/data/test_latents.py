"""A folder of latents as a data set: the network's posteriors, sampled anew at each look."""

import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_latents import SCALE, Pictures, encode, write_autoencoder

from diffussm.autoencoder import PIXELS, find_autoencoder, load_autoencoder
from diffussm.data import DataConfig, Dataset, load_data
from diffussm.data.latent_index import fault, read_index
from diffussm.data.latent_shards import Shard
from diffussm.data.latents import Latents, check_latents

PICTURES = Pictures(9)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    return find_autoencoder(str(write_autoencoder(tmp_path_factory.mktemp("network"))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, autoencoder):
    folder = tmp_path_factory.mktemp("latents")
    encode(PICTURES, autoencoder, folder, precision="float32")
    return folder


@pytest.fixture
def copy(tmp_path, folder):
    return shutil.copytree(folder, tmp_path / "copy")


def at(numbers):
    return torch.tensor(numbers)


def test_they_are_what_a_recipe_asks_for(folder, autoencoder):
    data = load_data(DataConfig(name="latents", path=str(folder)))
    assert isinstance(data, Dataset)
    assert (len(data), data.shape, data.class_names) == (9, (3, 4, 4), ("a", "b", "c"))
    assert data.autoencoder == autoencoder.config
    batch = data.batch(at([8, 0, 4]), [5, 6, 7])
    assert batch.images.shape == (3, *data.shape)
    assert (batch.labels.tolist(), batch.corrupt) == ([2, 0, 1], ())


@pytest.fixture(scope="module")
def sure(tmp_path_factory, autoencoder):
    """An autoencoder that knows its latents to 3e-7, and a folder of them."""
    sure = find_autoencoder(autoencoder.config.name)
    with torch.no_grad():
        sure.network.quant_conv.bias[3:] = -100  # log variances, which diffusers clips at -30
    folder = tmp_path_factory.mktemp("sure")
    encode(PICTURES, sure, folder, precision="float32")
    return sure, folder


def test_decoded_they_are_the_networks_reconstruction(sure):
    sure, folder = sure
    numbers = list(range(9))
    latents = Latents(folder, flip=False).batch(at(numbers), numbers).images
    images = torch.stack([PICTURES.image(number) for number in numbers])
    with torch.no_grad():
        expected = sure.network(images).sample.clamp(-1, 1)
    torch.testing.assert_close(sure.decode(latents), expected, rtol=0, atol=1e-5)


def test_samples_follow_the_posterior(folder, autoencoder):
    count = 4000
    data = Latents(folder, flip=False)
    samples = data.batch(at([5] * count), range(count)).images / SCALE
    with torch.no_grad():
        posterior = autoencoder.network.encode(PICTURES.image(5)[None]).latent_dist
    noise = (samples - posterior.mean) / posterior.std
    # standard normal: means have a deviation of 1 / sqrt(4000), variances of sqrt(2 / 4000)
    assert noise.mean(0).abs().max() < 5 * count**-0.5
    assert (noise.var(0) - 1).abs().max() < 5 * (2 / count) ** 0.5
    assert torch.corrcoef(noise.flatten(1).T).triu(1).abs().max() < 5 * count**-0.5


def test_half_of_the_looks_are_at_the_mirror_image(sure):
    sure, folder = sure
    count, image = 1000, PICTURES.image(5)[None]
    means = [SCALE * sure.encode(side).mean[0] for side in (image, image.flip(-1))]

    def looks_at(mean, data):
        images = data.batch(at([5] * count), range(count)).images
        return (images - mean).abs().amax((1, 2, 3)) < 1e-4

    straight, mirrored = (looks_at(mean, Latents(folder)) for mean in means)
    assert torch.equal(straight, ~mirrored)
    assert abs(mirrored.float().mean() - 0.5) < 5 * (0.25 / count) ** 0.5
    assert looks_at(means[0], Latents(folder, flip=False)).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2**63 - 1)), min_size=1, max_size=6))
def test_an_image_depends_on_its_seed_alone(folder, looks):
    numbers, seeds = map(list, zip(*looks, strict=True))
    data = Latents(folder)
    together = data.batch(at(numbers), seeds)
    other = pickle.loads(pickle.dumps(data))  # as a worker gets it
    for place, (number, seed) in enumerate(looks):
        alone = other.batch(at([number]), [seed])
        assert torch.equal(alone.images[0], together.images[place])
        assert alone.labels[0] == together.labels[place] == number % 3


def flip_bit(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_found(tmp_path_factory, folder, data):
    copy = tmp_path_factory.mktemp("copy")
    for path in folder.iterdir():
        shutil.copy(path, copy)
    entry = data.draw(st.sampled_from(read_index(copy).shards))
    flip_bit(copy / entry.file, data.draw(st.integers(0, 8 * entry.bytes - 1)))
    assert entry.file in fault(copy, entry)
    with pytest.raises(ValueError, match=f"{entry.file} (is damaged|has format)"):
        Shard(copy / entry.file).check()


def test_a_flipped_bit_in_the_index_is_found(copy):
    path = copy / "index.json"
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 37):
        flip_bit(path, bit)
        with pytest.raises(ValueError, match=r"index.json (is damaged|has format)"):
            Latents(copy)
        path.write_bytes(whole)


def test_one_damaged_image_is_found_when_it_is_read(copy):
    path = copy / read_index(copy).shards[1].file
    shard = Shard(path)
    mean = shard.posterior(2, True).mean.tobytes()
    flip_bit(path, 8 * path.read_bytes().index(mean) + 9)
    straight = Latents(copy, flip=False)
    straight.batch(at(list(range(9))), range(9))  # the other images are as good as before
    with pytest.raises(ValueError, match=r"latents-00001-of-00003.* is damaged \(image 2\).*again"):
        Latents(copy).batch(at([6] * 20), range(20))


@pytest.mark.parametrize("change", ["truncate", "delete", "swap"])
def test_a_shard_that_does_not_fit_the_index(copy, change):
    first, second, _ = (copy / entry.file for entry in read_index(copy).shards)
    if change == "truncate":
        first.write_bytes(first.read_bytes()[:-1])
    elif change == "delete":
        first.unlink()
    else:
        shutil.copy(second, first)
    with pytest.raises(ValueError, match=f"{first.name} is (missing|damaged)"):
        Latents(copy).batch(at([0]), [0])
    assert first.name in fault(copy, read_index(copy).shards[0])


def test_a_shard_of_another_folder(tmp_path, copy, autoencoder):
    scaled = find_autoencoder(autoencoder.config.name, 0.7)
    encode(PICTURES, scaled, tmp_path / "other", precision="float32")
    entry = read_index(copy).shards[0]
    shutil.copy(tmp_path / "other" / entry.file, copy)
    with pytest.raises(ValueError, match=f"{entry.file} is not the one that index.json means"):
        Latents(copy).batch(at([0]), [0])
    assert "is not the one that index.json means" in fault(copy, entry)


def test_a_folder_without_an_index(tmp_path):
    with pytest.raises(ValueError, match=r"has no index.json: it holds no latents, or .* not done"):
        Latents(tmp_path)


def test_a_newer_format(copy):
    path = copy / "index.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ValueError, match="has format 2: install a newer diffussm"):
        Latents(copy)


MISFITS = {
    "shape": ((3, 8, 8), {}, "the model takes 3 x 8 x 8, the data are 3 x 4 x 4"),
    "weights": ((3, 4, 4), {"identity": "f" * 64}, "latents of another autoencoder"),
    "name": ((3, 4, 4), {"identity": "", "name": "other"}, "latents of another autoencoder"),
    "scale": ((3, 4, 4), {"scale": 0.3}, r"times 0.5, .* times 0.3; .* --scale 0.3"),
}


@pytest.mark.parametrize(("shape", "changes", "sentence"), MISFITS.values(), ids=MISFITS)
def test_latents_that_do_not_fit_a_model(folder, shape, changes, sentence):
    data = Latents(folder)
    with pytest.raises(ValueError, match=sentence):
        check_latents(data, shape, replace(data.autoencoder, **changes))


def test_latents_that_fit(folder, autoencoder):
    data = Latents(folder)
    check_latents(data, (3, 4, 4), data.autoencoder)
    check_latents(data, (3, 4, 4), replace(data.autoencoder, name="moved"))
    check_latents(data, (3, 4, 4), replace(data.autoencoder, identity=""))  # an older model file
    assert load_autoencoder(data.autoencoder, 3).config == autoencoder.config
    with pytest.raises(ValueError, match="trained on pixels, the data are latents"):
        check_latents(data, (3, 4, 4), PIXELS)
