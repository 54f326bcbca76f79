"""Models so small that a training step takes milliseconds, for tests of everything around them."""

import json
from pathlib import Path

import torch

from diffussm.checkpoint import Header
from diffussm.diffusion import DiffusionConfig, Guidance, Sampling
from diffussm.generation import Generator
from diffussm.models import DiffuSSMConfig, build
from diffussm.training import Run, recipe

CPU = torch.device("cpu")
MODEL = {"name": "DiffuSSM", "d_model": 8, "depth": 1, "d_state": 4}
TRAINING = {"images": 60, "batch_size": 10, "lr": 1e-2, "ema_decay": 0.9, "preview_every": 0}

SETTINGS = [f"model.{key}={value}" for key, value in MODEL.items() if key != "name"]
SETTINGS += [f"training.{key}={value}" for key, value in TRAINING.items()]
SETTINGS += ["sampling.steps=2"]
"""The same for the command line, over the digits recipe."""


def tiny_recipe(**tables):
    """A checked recipe; keyword arguments are tables laid over the tiny ones."""
    plain = {"model": MODEL, "training": TRAINING, "sampling": {"sampler": "ddim", "steps": 2}}
    names = plain.keys() | tables.keys()
    return recipe({name: plain.get(name, {}) | tables.get(name, {}) for name in names})


def train(wanted, folder, *, until=None, save=True, **options):
    """Train in `folder` to the end, or stop at `until` images, saving first or not."""
    run = Run(wanted, folder, CPU, **options)
    try:
        for step in run.steps():
            if until is not None and step.images >= until:
                break
        if save and run.unsaved:
            run.save()
        run.wait()
    finally:
        run.close()
    return run


MACHINE = {"seconds", "waited", "speed", "memory"}
"""What a record says of the machine rather than of the training."""


def metric_lines(folder: Path):
    """The records of a run, without the time and memory they took."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line.keys() - MACHINE} for line in lines]


def newest_state(folder: Path):
    """The files of a run's last state, in the order of ranks."""
    newest = max((folder / "state").iterdir(), key=lambda path: int(path.name))
    return sorted(newest.glob("rank-*.safetensors"))


def awake(network):
    """The network with noise for the weights that are zero at birth, so that it answers."""
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return network


def tiny_generator(diffusion=None, guidance=None, **options):
    """A model that draws something, though nothing was learned.

    It predicts v: eps multiplies rounding in the network by sigma / alpha, up to 158.
    """
    defaults = {"input_size": 8, "in_channels": 1, "num_classes": 3, "d_model": 8, "depth": 2}
    config = DiffuSSMConfig(**(defaults | {"d_state": 4, "label_std": 1.0} | options))
    header = Header(
        model=config,
        diffusion=diffusion or DiffusionConfig(prediction="v", clip_x0=True),
        class_names=tuple("abc"[: config.num_classes]),
        sampling=Sampling(sampler="ddim", steps=3),
        guidance=guidance or Guidance(),
        images=0,
    )
    return Generator(awake(build(config)).eval().requires_grad_(False), header)
