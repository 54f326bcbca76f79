"""The page that the Hub shows of a model, README.md: what it is, how it draws, how to use it."""

import json
from pathlib import Path

from diffussm import __version__
from diffussm.checkpoint import Header
from diffussm.diffusion import Guidance
from diffussm.training.metrics import METRICS_FILE

LAST = 100
"""Steps over which a training loss is averaged."""

NAMED = 20
"""Class names that the page lists before it counts the rest."""

HEAD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: unconditional-image-generation
tags:
- diffusion
- state-space-model
- attention-free
- diffussm
---
"""

USAGE = """import torch
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained("{name}", trust_remote_code=True)
generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
images = pipeline({classes}generator=generators).images
images[0].save("image.png")"""

NOTES = """`trust_remote_code` is needed because the repository brings the model's code, which
diffusers does not have; nothing else needs to be installed. One CPU generator for each image makes
an image the same in any batch, and the one that `diffussm sample` draws from that seed.
`class_labels`, `num_inference_steps`, `guidance_scale`, `guidance_channels`, `guidance_interval`,
`eta`, `height` and `width` change what is drawn; unless given, they are those below."""

SOURCE = """Model: Yan, Gu and Rush, "Diffusion Models Without Attention", 2024. Weights and code
are under the Apache License 2.0, see LICENSE."""


def model_card(header: Header, name: str, parameters: int, samples: int, run: Path | None) -> str:
    """The text of README.md.

    name       what `from_pretrained` is told in the usage
    samples    images in samples.png
    run        the run folder, whose metrics are reported where it has them
    """
    title = f"# {name.rsplit('/', 1)[-1]}"
    picture = f"![Samples](samples.png)\n\nSeeds 0 to {samples - 1}, drawn by the protocol below."
    code = f"## Use\n\n```python\n{usage(header, name)}\n```"
    protocol = "\n".join(f"| {what} | {value} |" for what, value in _protocol(header))
    parts = [title, _what(header, parameters), picture, code, NOTES]
    parts += [f"## Protocol\n\n| | |\n|---|---|\n{protocol}"]
    parts += [f"## Metrics\n\n{_metrics(run)}", f"## Source\n\n{SOURCE}"]
    return HEAD + "\n" + "\n\n".join(parts) + "\n"


def usage(header: Header, name: str) -> str:
    """Six lines that draw four images and keep one."""
    known = header.model.num_classes
    classes = f"class_labels={[i % known for i in range(4)]}, " if known else ""
    return USAGE.format(name=name, classes=classes)


def _what(header: Header, parameters: int) -> str:
    config = header.model
    height, width = config.size
    drawn = "images" if header.autoencoder.is_identity else "latents"
    classes = f"of {config.num_classes} classes" if config.num_classes else "without classes"
    names = list(header.class_names[:NAMED])
    if len(header.class_names) > NAMED:
        names.append(f"and {len(header.class_names) - NAMED} more")
    listed = f" ({', '.join(names)})" if names else ""
    ways = "bidirectional " if config.bidirectional else ""
    return (
        f"DiffuSSM, a diffusion model without attention: {config.depth} {ways}state space blocks "
        f"({config.ssm}) of width {config.d_model}, {parameters:,} parameters. It was trained on "
        f"{drawn} of {height} x {width} with {config.in_channels} channels, {classes}{listed}."
    )


def _protocol(header: Header) -> list[tuple[str, str]]:
    diffusion, sampling = header.diffusion, header.sampling
    variance = ", and the variance" if diffusion.learned_variance else ""
    eta = f", eta {sampling.eta:g}" if sampling.eta else ""
    rows = [
        ("process", f"{diffusion.steps} steps, {diffusion.schedule} schedule"),
        ("prediction", diffusion.prediction + variance),
        ("sampler", f"{sampling.sampler}, {sampling.total} steps{eta}"),
        ("guidance", _guidance(header.guidance)),
        ("autoencoder", header.autoencoder.name),
        ("images seen in training", f"{header.images:,}" if header.images else "not known"),
        ("written by", f"diffussm {__version__}"),
    ]
    if sampling.sampler == "ddim" and (diffusion.steps % sampling.total or sampling.total == 1):
        grid = f"DDIMScheduler spreads {sampling.total} steps otherwise than `diffussm sample`"
        rows.append(("difference", f"{grid}: images are alike, not equal"))
    return rows


def _guidance(guidance: Guidance) -> str:
    if guidance.scale == 1:
        return "none (scale 1)"
    said = f"scale {guidance.scale:g}"
    if guidance.channels is not None:
        said += f", on the first {guidance.channels} channels"
    if guidance.interval != (0.0, 1.0):
        said += f", at t / steps from {guidance.interval[0]:g} to {guidance.interval[1]:g}"
    return said


def _metrics(run: Path | None) -> str:
    records = _records(run / METRICS_FILE) if run else []
    losses = [record["loss"] for record in records[-LAST:] if "loss" in record]
    if not losses:
        return "Quality: not measured. Training loss: not measured."
    mean, count = sum(losses) / len(losses), len(losses)
    return f"Quality: not measured. Training loss: {mean:.4f}, mean of the last {count} steps."


def _records(path: Path) -> list[dict]:
    """The lines of a metrics file; a kill may have cut the last one short."""
    records = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
