"""The network that sees digits: the same everywhere, and telling apart what people tell apart."""

import pytest
import torch

from diffussm.data import digits, seeded
from diffussm.evaluation import digits_features as module
from diffussm.evaluation.digits_features import digits_features, identity_of, train
from diffussm.evaluation.features import extract
from diffussm.evaluation.frechet import frechet_distance
from diffussm.evaluation.moments import moments
from diffussm.evaluation.pictures import as_bytes

IDENTITY = "d911d11657b1a09fb240c8467cb383e56e9094664554ce6a54d1a1df3a7c5536"
"""As trained on an AMD EPYC by torch 2.13, with one thread or two, with oneDNN or without."""


@pytest.fixture(scope="module")
def network():
    return digits_features()


@pytest.fixture(scope="module")
def real():
    return as_bytes(digits().images, "of the digits", range(1797))


@pytest.fixture(scope="module")
def distance(network, real):
    """From all real digits to some images."""
    known = moments(extract(network, [real])["pool"])
    return lambda images: frechet_distance(known, moments(extract(network, [images])["pool"]))


def test_its_weights_are_the_same_everywhere(network):
    assert network.identity == IDENTITY


@pytest.mark.slow
def test_rounding_in_training_does_not_reach_its_weights(monkeypatch):
    born = module._born

    def disturbed(chance):
        network = born(chance)
        with torch.no_grad():
            for weight in network.parameters():
                weight *= 1 + 1e-13  # a hundred times what rounding differs by
        return network

    monkeypatch.setattr(module, "_born", disturbed)
    assert identity_of(train(digits()).float()) == IDENTITY


def test_it_recognises_digits_and_distances_are_as_documented(network, real, distance):
    labels = digits().labels
    seen = extract(network, [real])
    assert seen["pool"].shape == (1797, 64)
    assert (seen["logits"].argmax(1) == labels).float().mean() > 0.99
    order = torch.randperm(1797, generator=seeded(0))
    noise = torch.randint(0, 256, real.shape, generator=seeded(1)).byte()
    mean = real.float().mean(0, keepdim=True).round().byte().expand(100, -1, -1, -1)
    found = {
        0: distance(real),
        0.08: distance(real[order[:1000]]),
        0.7: distance(real[order[:300]]),
        1.1: distance(real[labels != 3]),
        36: distance(noise),
        44: distance(real[labels == 3]),
        48: distance(mean),
    }
    assert list(found.values()) == pytest.approx(list(found), rel=0.08, abs=1e-6)


def test_it_is_kept_and_not_trained_again(monkeypatch, network):
    monkeypatch.setattr(module, "train", None)
    assert digits_features().identity == network.identity


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_file_is_made_again(tmp_path, monkeypatch, network, damage):
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path)
    trained = []
    monkeypatch.setattr(module, "train", lambda data: trained.append(data) or network.network)
    digits_features()
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes({"cut": content[:-100], "changed": content, "empty": b""}[damage])
    assert digits_features().identity == network.identity
    assert digits_features().identity == network.identity
    assert len(trained) == 2


def test_it_works_where_nothing_can_be_kept(tmp_path, monkeypatch, network):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "file")
    monkeypatch.setattr(module, "train", lambda data: network.network)
    assert digits_features().identity == network.identity


def test_other_images_get_a_sentence(network):
    for shape in ((3, 8, 8), (1, 16, 16)):
        with pytest.raises(ValueError, match="the digits features see 1 x 8 x 8 pixels, not"):
            network(torch.zeros(2, *shape, dtype=torch.uint8))
