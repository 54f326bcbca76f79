"""The loss of the averaged weights on images held out from training.

Time steps and noise belong to the image's number, so that two validations differ by the weights
alone, and ranks share the images out.
"""

import torch

from diffussm.data import Dataset, seeded
from diffussm.diffusion import diffusion_loss
from diffussm.training.batches import VALIDATION, cut, piece_of
from diffussm.training.loop import Trainer


@torch.no_grad()
def validate(trainer: Trainer, held_out: Dataset) -> float:
    """Squared error of the prediction, mean over the images held out; every rank must ask."""
    settings, device = trainer.recipe.training, trainer.device
    total = torch.zeros(1, device=device)
    for first in range(0, len(held_out), settings.batch_size):
        whole = range(first, min(first + settings.batch_size, len(held_out)))
        for numbers, share in cut(whole, trainer.world, settings.accumulate):
            seeds = [seeded(settings.seed, VALIDATION, n).initial_seed() for n in numbers]
            batch = held_out.batch(torch.tensor(numbers), seeds)
            piece = piece_of(trainer.recipe, batch, numbers, device, share, purpose=VALIDATION)
            with torch.autocast(device.type, torch.bfloat16, enabled=trainer.in_bfloat16):
                losses = diffusion_loss(
                    trainer.ema.model, trainer.diffusion, piece.x_0, piece.t, piece.y, piece.noise
                )
            total += losses.simple.mean() * share * len(whole)
    return trainer.world.sum(total).item() / len(held_out)
