"""The pipeline draws what `diffussm sample` draws, by each of diffusers' schedulers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import tiny_generator

from diffussm.diffusion import PREDICTIONS, SCHEDULES, DiffusionConfig, Guidance, Sampling
from diffussm.generation import Generator

pytest.importorskip("diffusers")

import diffusers

from diffussm.interop.diffusers_folder import protocol, to_diffusers_model
from diffussm.interop.diffusers_pipeline import DiffuSSMPipeline
from diffussm.interop.diffusers_scheduler import to_scheduler

# diffusers' own use of numpy; what is tested is its arithmetic
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")

SAMPLINGS = [
    Sampling(sampler="ddpm", steps=20),
    Sampling(sampler="ddpm", steps=2),
    Sampling(sampler="ddim", steps=10),
    Sampling(sampler="ddim", steps=10, eta=0.7),
    Sampling(sampler="dpm++", steps=9),
    Sampling(sampler="dpm++", steps=2),
]
SEEDS = [3, 0, 11]


def pipeline_of(generator):
    header = generator.config
    pipeline = DiffuSSMPipeline(
        to_diffusers_model(generator.model),
        to_scheduler(header.diffusion, header.sampling),
        protocol=protocol(header),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def with_sampling(generator, sampling):
    return Generator(generator.model, replace(generator.config, sampling=sampling))


def seeded(seeds=SEEDS):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def assert_same(images, ours):
    """`images` in [0, 1], `ours` in [-1, 1], which differ by float32 schedules."""
    torch.testing.assert_close(images, (ours / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("learned", [True, False])
def test_a_seed_is_the_same_image(sampling, learned):
    diffusion = DiffusionConfig(prediction="v", clip_x0=True, learned_variance=learned)
    model = tiny_generator(diffusion, Guidance(scale=2.0), learned_variance=learned)
    model = with_sampling(model, sampling)
    ours = model.sample(seeds=SEEDS, labels=[0, 1, 2])
    images = pipeline_of(model)([0, 1, 2], generator=seeded(), output_type="pt").images
    assert images.std() > 0.1
    assert_same(images, ours)


@pytest.mark.parametrize("sampling", SAMPLINGS[::2], ids=str)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("clip", [True, False])
def test_any_process(sampling, schedule, prediction, clip):
    diffusion = DiffusionConfig(schedule=schedule, prediction=prediction, clip_x0=clip, steps=500)
    model = with_sampling(tiny_generator(diffusion), sampling)
    states = list(model.steps(SEEDS, [0, 1, 2]))
    images = pipeline_of(model)([0, 1, 2], generator=seeded(), output_type="latent").images
    scale = states[-1].x.abs().max().clamp(min=1).item()
    torch.testing.assert_close(images, states[-1].x, rtol=0, atol=2e-3 * scale)


GUIDANCES = [
    Guidance(scale=3.0, interval=(0.2, 0.6)),
    Guidance(scale=3.0, channels=1),
    Guidance(scale=0.0),
]


@pytest.mark.parametrize("guidance", GUIDANCES, ids=str)
def test_guidance_is_ours_whether_usual_or_asked_for(guidance):
    plain = with_sampling(tiny_generator(in_channels=2), Sampling(sampler="ddim", steps=10))
    ours = plain.sample(seeds=SEEDS, labels=[0, 1, 2], guidance=guidance)
    assert (ours - plain.sample(seeds=SEEDS, labels=[0, 1, 2])).abs().max() > 1e-2
    asked = {
        "guidance_scale": guidance.scale,
        "guidance_channels": guidance.channels,
        "guidance_interval": guidance.interval,
    }
    usual = Generator(plain.model, replace(plain.config, guidance=guidance))
    for pipeline, options in ((pipeline_of(plain), asked), (pipeline_of(usual), {})):
        images = pipeline([0, 1, 2], generator=seeded(), output_type="pt", **options).images
        assert_same(images, ours)


def test_steps_eta_and_size_can_be_asked_for():
    model = tiny_generator()
    sampling = Sampling(sampler="ddim", steps=20, eta=0.5)
    ours = model.sample(seeds=SEEDS, labels=[2, 1, 0], sampling=sampling, size=(4, 12))
    images = pipeline_of(model)(
        ["c", 1, "a"],
        num_inference_steps=20,
        eta=0.5,
        height=4,
        width=12,
        generator=seeded(),
        output_type="pt",
    ).images
    assert images.shape == (3, 1, 4, 12)
    assert_same(images, ours)


def test_without_classes():
    model = with_sampling(tiny_generator(num_classes=0), Sampling(sampler="ddim", steps=5))
    images = pipeline_of(model)(generator=seeded(), output_type="pt").images
    assert_same(images, model.sample(seeds=SEEDS))
    assert pipeline_of(model)(batch_size=2, output_type="np").images.shape == (2, 8, 8, 1)
    # a model with classes draws with its "no label", whatever guidance is usual
    model = with_sampling(tiny_generator(guidance=Guidance(scale=2.0)), model.config.sampling)
    null = torch.full((3,), 3)
    draws = list(model.steps(SEEDS, [0, 0, 0], guidance=Guidance(scale=0.0)))
    images = pipeline_of(model)(generator=seeded(), output_type="latent").images
    torch.testing.assert_close(images, draws[-1].x, rtol=0, atol=1e-3)
    assert pipeline_of(model)._labels(None, 3, None).equal(null)


def test_one_generator_serves_a_whole_batch():
    pipeline = pipeline_of(tiny_generator())
    first, again = (
        pipeline([0, 1], generator=torch.manual_seed(3), output_type="pt").images for _ in range(2)
    )
    assert torch.equal(first, again)
    assert (first[0] - first[1]).abs().max() > 1e-2


def test_output_types():
    pipeline = pipeline_of(tiny_generator())
    drawn = {
        kind: pipeline([0], generator=seeded([5]), output_type=kind, return_dict=False)[0]
        for kind in ("pil", "np", "pt", "latent")
    }
    pixels = np.asarray(drawn["pil"][0])
    assert pixels.shape == (8, 8)
    np.testing.assert_allclose(pixels / 255, drawn["np"][0, :, :, 0], atol=0.51 / 255)
    np.testing.assert_array_equal(drawn["np"][0, :, :, 0], drawn["pt"][0, 0].numpy())
    torch.testing.assert_close((drawn["latent"] / 2 + 0.5).clamp(0, 1), drawn["pt"])


def test_a_callback_sees_every_step_and_may_change_it():
    pipeline, seen = pipeline_of(tiny_generator()), []

    def note(pipe, step, t, tensors):
        seen.append((pipe is pipeline, step, int(t), sorted(tensors)))
        return {"latents": torch.zeros_like(tensors["latents"])}

    images = pipeline(
        [1],
        num_inference_steps=4,
        output_type="latent",
        callback_on_step_end=note,
        callback_on_step_end_tensor_inputs=["latents", "class_labels"],
    ).images
    names = ["class_labels", "latents"]
    assert seen == [(True, i, t, names) for i, t in enumerate([750, 500, 250, 0])]
    assert not images.any()


def vae():
    network = diffusers.AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=2,
        scaling_factor=0.5,
        norm_num_groups=8,
    )
    return network.eval().requires_grad_(False)


def test_latents_are_decoded():
    model, network = tiny_generator(DiffusionConfig(prediction="v"), in_channels=2), vae()
    pipeline = pipeline_of(model)
    pipeline.register_modules(vae=network)
    (latents,) = pipeline([0], generator=seeded([1]), output_type="latent", return_dict=False)
    expected = (network.decode(latents / 0.5).sample / 2 + 0.5).clamp(0, 1)
    images = pipeline([0], generator=seeded([1]), output_type="pt").images
    assert images.shape == (1, 3, 16, 16)
    torch.testing.assert_close(images, expected)
    assert pipeline([0], height=8, width=24).images[0].size == (24, 8)
    with pytest.raises(ValueError, match="7 pixels have no latent: give a multiple of 2"):
        pipeline([0], height=7)


@pytest.mark.usefixtures("unchecked_shapes")  # some count time in fractions
def test_schedulers_of_ones_own():
    pipeline = pipeline_of(with_sampling(tiny_generator(), Sampling(sampler="ddpm", steps=4)))
    config = pipeline.scheduler.config
    for kind, options in {
        diffusers.DDIMScheduler: {},
        diffusers.EulerDiscreteScheduler: {},
        diffusers.DPMSolverMultistepScheduler: {"use_karras_sigmas": True, "variance_type": None},
    }.items():
        pipeline.scheduler = kind.from_config(config, **options)
        assert torch.isfinite(pipeline([0], output_type="pt").images).all()
    pipeline.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(config)
    with pytest.raises(ValueError, match="no use for a learned variance"):
        pipeline([0])


MISTAKES = [
    ({"class_labels": [3]}, "class 3 does not exist; this model has 0 to 2"),
    ({"class_labels": -1}, "class -1 does not exist"),
    ({"class_labels": "seven"}, "no class named 'seven' .it has: a, b, c"),
    ({"class_labels": []}, "at least one class"),
    ({"class_labels": [0, 1], "generator": seeded([1])}, "2 images do not go with generators: 1"),
    ({"class_labels": [0], "batch_size": 2}, "1 images do not go with batch_size: 2"),
    ({"class_labels": [0], "num_inference_steps": 0}, "must lie in 1 to 1000, not 0"),
    ({"class_labels": [0], "num_inference_steps": 1001}, "must lie in 1 to 1000"),
    ({"class_labels": [0], "output_type": "png"}, "must be one of pil, np, pt, latent"),
    ({"class_labels": [0], "width": 7}, "width 7 must be a positive multiple of 2"),
    ({"class_labels": [0], "guidance_scale": -1.0}, "guidance scale must be"),
    ({"class_labels": [0], "callback_on_step_end_tensor_inputs": ["x"]}, "not x"),
    ({"guidance_scale": 2.0}, "guidance_scale must be 1"),
]


@pytest.mark.parametrize(("mistake", "sentence"), MISTAKES, ids=[said for _, said in MISTAKES])
def test_a_mistake_gets_a_sentence(mistake, sentence):
    with pytest.raises(ValueError, match=sentence):
        pipeline_of(tiny_generator())(**mistake)


def test_mistakes_of_other_models():
    with pytest.raises(ValueError, match="unconditional"):
        pipeline_of(tiny_generator(num_classes=0))([0])
    with pytest.raises(ValueError, match="2 channels are no picture"):
        pipeline_of(tiny_generator(in_channels=2))([0])
    ddpm = with_sampling(tiny_generator(), Sampling(sampler="ddpm"))
    with pytest.raises(ValueError, match=r"eta 0\.5 is for DDIMScheduler, not DDPMScheduler"):
        pipeline_of(ddpm)([0], eta=0.5)
