"""What the commands `train` and `evaluate` score samples with: features, reference, metrics."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from diffussm.evaluation.evaluator import Evaluator
    from diffussm.evaluation.references import Reference
    from diffussm.generation import Generator
    from diffussm.training import Recipe
    from diffussm.training.distributed import World

AUTO = "auto"


def make_evaluator(
    features: str,
    reference: "Reference | None",
    metrics: Sequence[str] | None,
    device: "torch.device",
    world: "World",
    *,
    adm: bool = False,
    weights: Path | None = None,
) -> "Evaluator":
    """Who scores; with features "auto" digits are seen by their own network, others by Inception.

    Raises ValueError for features or metrics that cannot be had.
    """
    from diffussm.evaluation.evaluator import Evaluator
    from diffussm.evaluation.networks import SeerOptions, load_seer

    if features == AUTO:
        features = "digits" if reference and reference.name == "digits" else "inception"
    options = SeerOptions(weights=weights, adm=adm, device=device)
    return Evaluator(load_seer(features, options), reference, metrics, adm=adm, ranks=world)


def scorer(
    recipe: "Recipe", device: "torch.device", world: "World"
) -> "Callable[[Generator], dict[str, float]] | None":
    """What training.evaluate_every asks for, if it does; mistakes are found now, not hours later.

    Raises ValueError for features, metrics or a reference that cannot be had.
    """
    if not recipe.training.evaluate_every:
        return None
    from diffussm.data import load_data
    from diffussm.evaluation.pictures import DrawnPictures
    from diffussm.evaluation.references import data_reference, open_reference

    wanted = recipe.evaluation
    coder, (channels, height, width) = load_data(recipe.data).autoencoder, _model_shape(recipe)
    colours = channels if coder.is_identity else 3
    shape = (colours, height * coder.factor, width * coder.factor)
    if wanted.reference:
        reference = open_reference(wanted.reference, shape)
    else:
        reference = data_reference(recipe.data, shape)
    evaluator = make_evaluator(wanted.features, reference, wanted.metrics, device, world)

    def evaluate(generator: "Generator") -> dict[str, float]:
        drawn = DrawnPictures(
            generator=generator,
            seeds=range(wanted.samples),
            sampling=recipe.sampling,
            guidance=recipe.guidance,
        )
        return evaluator.score(drawn).metrics

    return evaluate


def _model_shape(recipe: "Recipe") -> tuple[int, int, int]:
    height, width = recipe.model.size
    return recipe.model.in_channels, height, width
