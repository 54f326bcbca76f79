"""Seed i gives image i, whatever else is drawn beside it."""

import pytest
import torch
from tiny import tiny_generator

from diffussm.diffusion import (
    DEFAULT_STEPS,
    SAMPLERS,
    DiffusionConfig,
    Guidance,
    Sample,
    Sampling,
)
from diffussm.ssm.s4d import S4D

EVERY_SAMPLER = [
    *(Sampling(sampler=name, steps=4) for name in SAMPLERS),
    Sampling(sampler="ddim", steps=4, eta=1.0),
]
by_sampler = pytest.mark.parametrize("sampling", EVERY_SAMPLER, ids=str)


def assert_same(images, others):
    torch.testing.assert_close(images, others, rtol=0, atol=1e-5)


@by_sampler
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_seed_is_an_image_in_any_batch(sampling, scale):
    model = tiny_generator(guidance=Guidance(scale=scale))
    seeds, labels = [7, 0, 3, 12, 5], [0, 1, 2, 0, 1]
    images = model.sample(seeds=seeds, labels=labels, sampling=sampling)
    for size in (1, 2, 5):
        assert_same(
            model.sample(seeds=seeds, labels=labels, sampling=sampling, batch_size=size), images
        )
    backwards = model.sample(seeds=seeds[::-1], labels=labels[::-1], sampling=sampling)
    assert_same(backwards, images.flip(0))
    alone = model.sample(seeds=[3], labels=[2], sampling=sampling)
    assert_same(alone, images[2:3])


@by_sampler
def test_other_seeds_and_labels_are_other_images(sampling):
    model = tiny_generator()
    images = model.sample(seeds=[0, 1, 0], labels=[0, 0, 1], sampling=sampling)
    assert images.isfinite().all()
    for first, second in ((0, 1), (0, 2)):
        assert (images[first] - images[second]).abs().max() > 1e-2


def test_the_callers_random_numbers_do_not_matter_and_are_left_alone():
    model, sampling = tiny_generator(), Sampling(sampler="ddpm", steps=3)
    first = model.sample(seeds=[4], sampling=sampling)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert torch.equal(model.sample(seeds=[4], sampling=sampling), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_classes_cycle_over_the_seeds():
    model = tiny_generator()
    assert model.labels(7) == [0, 1, 2, 0, 1, 2, 0]
    assert model.labels(5, [2, 1]) == [2, 1, 2, 1, 2]
    given = model.sample(seeds=range(4), labels=[0, 1, 2, 0])
    assert torch.equal(model.sample(seeds=range(4)), given)
    # batches do not begin the cycle anew
    assert_same(model.sample(seeds=range(4), batch_size=2), given)


def test_the_models_own_ways_are_its_defaults():
    model = tiny_generator(guidance=Guidance(scale=3.0))
    plain = model.sample(seeds=[0, 1])
    said = model.sample(seeds=[0, 1], sampling=model.config.sampling, guidance=Guidance(scale=3.0))
    assert torch.equal(plain, said)
    assert (model.sample(seeds=[0, 1], guidance=Guidance()) - plain).abs().max() > 1e-3


def test_an_unconditional_model_draws():
    model = tiny_generator(num_classes=0)
    assert model.labels(3) is None
    images = model.sample(seeds=[0, 1])
    assert images.shape == (2, 1, 8, 8)
    assert_same(model.sample(seeds=[1], guidance=Guidance(scale=1.0)), images[1:])
    for mistake in ({"labels": [0]}, {"guidance": Guidance(scale=2.0)}):
        with pytest.raises(ValueError, match="unconditional"):
            model.sample(seeds=[0], **mistake)


def test_any_size_from_one_set_of_weights():
    model = tiny_generator()
    images = model.sample(seeds=[0, 1], size=(5, 12))
    assert images.shape == (2, 1, 5, 12)
    assert_same(model.sample(seeds=[1], labels=[1], size=(5, 12)), images[1:])


def test_pixels_stay_in_range():
    model = tiny_generator(DiffusionConfig(clip_x0=False))
    *_, last = model.steps([0, 1, 2], [0, 1, 2])
    assert last.x.abs().max() > 1
    assert model.sample(seeds=range(3)).abs().max() <= 1


def test_intermediate_states_end_in_the_image():
    model = tiny_generator()
    states = list(model.steps([0, 1], [0, 1]))
    assert [(state.step, state.total) for state in states] == [(0, 3), (1, 3), (2, 3)]
    assert_same(states[-1].x.clamp(-1, 1), model.sample(seeds=[0, 1]))


def test_progress_counts_calls_of_the_network():
    told = []
    tiny_generator().sample(seeds=range(5), batch_size=2, progress=lambda *now: told.append(now))
    assert told == [(call, 9) for call in range(1, 10)]


def test_kernels_are_computed_once_and_never_go_stale(monkeypatch):
    computed, true_kernel = [], S4D.kernel

    def kernel(layer, length):
        computed.append(layer)
        return true_kernel(layer, length)

    monkeypatch.setattr(S4D, "kernel", kernel)
    model = tiny_generator(guidance=Guidance(scale=2.0))
    layers = [module for module in model.model.modules() if isinstance(module, S4D)]
    assert len(layers) == 4  # two blocks, two directions
    first = model.sample(seeds=range(5), batch_size=2)
    assert len(computed) == 4
    assert set(computed) == set(layers)
    layers[0].C.mul_(-1)
    assert (model.sample(seeds=range(5), batch_size=2) - first).abs().max() > 1e-3
    assert len(computed) == 8
    model.model(torch.zeros(1, 1, 8, 8), torch.tensor([5]), torch.tensor([0]))
    assert len(computed) == 12  # outside sampling nothing is remembered


MISTAKES = [
    ({"seeds": []}, "at least one seed"),
    ({"seeds": [-1]}, "seed -1 must lie in"),
    ({"seeds": [2**63]}, "must lie in"),
    ({"seeds": [0], "labels": [3]}, "class 3 does not exist; this model has 0 to 2"),
    ({"seeds": [0], "labels": [-1]}, "class -1 does not exist"),
    ({"seeds": [0, 1], "labels": [0]}, "2 seeds need as many labels, not 1"),
    ({"seeds": [0], "batch_size": 0}, "batch_size must be at least 1"),
    ({"seeds": [0], "size": (8, 7)}, "width 7 must be a positive multiple of 2"),
    ({"seeds": [0], "size": (0, 8)}, "height 0 must be a positive multiple"),
    ({"seeds": [0], "sampling": Sampling(sampler="ddim", steps=1001)}, "1001"),
    ({"seeds": [0], "guidance": Guidance(scale=2.0, channels=4)}, "4 channels of an image with 1"),
]


@pytest.mark.parametrize(("mistake", "sentence"), MISTAKES, ids=str)
def test_a_mistake_gets_a_sentence(mistake, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_generator().sample(**mistake)


def test_a_sampler_of_ones_own_draws(monkeypatch):
    def at_once(denoiser, diffusion, x, y, draw, steps):
        for step in range(steps):
            x = draw()
            yield Sample(step, steps, x, x)

    monkeypatch.setitem(SAMPLERS, "at once", at_once)
    monkeypatch.setitem(DEFAULT_STEPS, "at once", 2)
    calls = []
    images = tiny_generator().sample(
        seeds=[5],
        sampling=Sampling(sampler="at once"),
        progress=lambda done, total: calls.append((done, total)),
    )
    noise = torch.Generator().manual_seed(5)
    third = [torch.randn(1, 8, 8, generator=noise) for _ in range(3)][-1]  # the first is the start
    torch.testing.assert_close(images[0], third.clamp(-1, 1))
    assert calls == [(1, 2), (2, 2)]
