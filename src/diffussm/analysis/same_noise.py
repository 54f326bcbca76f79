"""The same noise through several models: seed i begins with the same noise in each of them."""

from collections.abc import Callable, Mapping, Sequence

from diffussm.diffusion import Guidance, Sampling
from diffussm.generation import Generator
from diffussm.shapes import Image

Progress = Callable[[int, int], None]
"""Told after each call of a network: calls made, calls in all."""


def check_comparable(models: Mapping[str, Generator]) -> None:
    """A ValueError, saying who takes what, unless all models take the same noise and classes."""
    taken = {name: _taken(model) for name, model in models.items()}
    if len(set(taken.values())) > 1:
        said = "; ".join(f"{name} draws {images}" for name, images in taken.items())
        raise ValueError(
            f"the same noise fits only models of the same images and classes: {said}; "
            "leave out what differs"
        )


def same_noise(
    models: Mapping[str, Generator],
    seeds: Sequence[int],
    classes: Sequence[int] | None = None,
    *,
    sampling: Mapping[str, Sampling] | None = None,
    guidance: Mapping[str, Guidance] | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Image]:
    """Images of each model, (seeds, channels, height, width) in [-1, 1], by its name.

    classes               in turn over the seeds; all, unless given
    sampling, guidance    of each model by name; its usual ones, unless given
    Raises ValueError for models that cannot be compared, and what `Generator.sample` refuses.
    """
    check_comparable(models)
    ways = sampling or {name: model.config.sampling for name, model in models.items()}
    total, before, images = sum(way.total for way in ways.values()), 0, {}
    for name, model in models.items():
        images[name] = model.sample(
            seeds=seeds,
            labels=model.labels(len(seeds), classes),
            sampling=ways[name],
            guidance=guidance[name] if guidance else None,
            batch_size=max(len(seeds), 1),
            progress=lambda done, _, before=before: progress(before + done, total),
        )
        before += ways[name].total
    return images


def _taken(model: Generator) -> str:
    config = model.config.model
    height, width = config.size
    classes = f"{config.num_classes} classes" if config.num_classes else "no classes"
    kind = "" if model.config.autoencoder.is_identity else "latents of "
    return f"{kind}{config.in_channels} x {height} x {width}, {classes}"
