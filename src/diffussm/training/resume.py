"""Going on: from the newest state of a run's folder that is whole."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from diffussm.training.loop import Trainer
from diffussm.training.state import AVERAGE, complete, damage, read_state


def restore(trainer: Trainer, folder: Path) -> str:
    """Fill a new trainer from the folder's newest whole state, if it has one; all ranks together.

    Gives a sentence where a newer one is damaged, else "". Raises ValueError where all are, or
    where the state is that of another model.
    """
    world, wrong = trainer.world, ""
    candidates = world.gather(complete(folder))[0]
    for candidate in candidates:
        trouble = damage(candidate, world)
        if not trouble:
            trainer.counts = read_state(candidate, trainer.tensors(), world)
            return wrong and f"{wrong}; going on from {trainer.images:,} images instead"
        wrong = wrong or trouble
    if wrong:
        raise ValueError(
            f"{wrong}, and so is any state before it; the model beside it may still be good to "
            "sample from, but training has to begin again in a new folder"
        )
    return ""


def average_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The averaged weights among a state's tensors."""
    return {
        name.removeprefix(AVERAGE): tensor
        for name, tensor in tensors.items()
        if name.startswith(AVERAGE)
    }
