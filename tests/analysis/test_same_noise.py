"""The same noise through several models: each draws what it would draw alone."""

import pytest
import torch
from tiny import tiny_generator

from diffussm.analysis.same_noise import same_noise
from diffussm.diffusion import Guidance, Sampling


def test_each_model_draws_as_it_would_alone():
    first, second = tiny_generator(), tiny_generator(d_model=12)
    told = []
    images = same_noise(
        {"a": first, "b": second, "again": first},
        [3, 5],
        [2, 0],
        progress=lambda *done: told.append(done),
    )
    assert list(images) == ["a", "b", "again"]
    assert torch.equal(images["a"], images["again"])
    assert not torch.equal(images["a"], images["b"])
    assert torch.equal(images["b"], second.sample(seeds=[3, 5], labels=[2, 0]))
    assert told == [(done, 9) for done in range(1, 10)]


def test_settings_are_each_models_own_unless_given():
    model = tiny_generator()
    way, guided, told = Sampling(sampler="ddpm", steps=4), Guidance(scale=2.0), []
    images = same_noise(
        {"a": model, "b": model},
        [1],
        [0],
        sampling={"a": way, "b": model.config.sampling},
        guidance={"a": guided, "b": Guidance(scale=1.0)},
        progress=lambda *done: told.append(done),
    )
    alone = model.sample(seeds=[1], labels=[0], sampling=way, guidance=guided)
    assert torch.equal(images["a"], alone)
    assert not torch.equal(images["b"], alone)
    assert told[-1] == (7, 7)
    unlabelled = tiny_generator(num_classes=0)
    assert same_noise({"a": unlabelled}, [0, 1])["a"].shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"input_size": 16}, "one draws 1 x 8 x 8, 3 classes; two draws 1 x 16 x 16, 3 classes"),
        ({"in_channels": 3}, "3 x 8 x 8"),
        ({"num_classes": 2}, "2 classes"),
        ({"num_classes": 0}, "no classes"),
    ],
)
def test_other_images_or_classes_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        same_noise({"one": tiny_generator(), "two": tiny_generator(**options)}, [0])
