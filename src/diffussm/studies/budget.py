"""What members of a study have in equal amounts: each has a price an image, and all may spend what
the reference spends.

    images of a member = images of the reference x its price / the member's price

images          every image costs the same
multiply-adds   one forward pass by formula, kernels shared by a batch; training costs three times
                that for each
seconds         measured on the spot over a few steps, so the amounts differ from one measurement,
                and one machine, to the next by as much as timings do
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median

import torch

from diffussm.analysis.flops import cost
from diffussm.data import Dataset, hold_out
from diffussm.training import Recipe, Trainer

WARM_UP, TIMED = 3, 12
"""Steps of a calibration: not counted, counted."""


def images_price(recipe: Recipe, data: Dataset, device: torch.device) -> float:
    """1: an image is an image."""
    return 1.0


def multiply_adds(recipe: Recipe, data: Dataset, device: torch.device) -> float:
    """Of one forward pass for one image, and its share of the kernels that a batch needs."""
    passed = cost(recipe.model, *recipe.model.size)
    return passed.total + passed.kernels / recipe.training.batch_size


def seconds(recipe: Recipe, data: Dataset, device: torch.device) -> float:
    """Median over TIMED training steps, for one image."""
    images = (WARM_UP + TIMED) * recipe.training.batch_size
    short = replace(recipe, training=replace(recipe.training, images=images))
    trainer = Trainer(short, hold_out(data, recipe.data.hold_out)[0], device)
    steps, times = trainer.steps(), []
    clock = clock_of(device)
    for _ in range(WARM_UP):
        next(steps)
    for _ in range(TIMED):
        before = clock()
        next(steps)
        times.append(clock() - before)
    return median(times) / recipe.training.batch_size


BUDGETS: dict[str, Callable[[Recipe, Dataset, torch.device], float]] = {
    "images": images_price,
    "multiply-adds": multiply_adds,
    "seconds": seconds,
}
"""Price of an image, by what is equal."""


EQUAL = {
    "images": "each member sees as many images as",
    "multiply-adds": "each member spends as many multiply-adds as",
    "seconds": "each member trains as long as",
}
"""What a study says of each, before the name of the reference."""


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds of this process's processors, or of the world's clock where a GPU does the work."""
    return time.process_time if device.type == "cpu" else time.perf_counter


def share_out(
    images: int, reference: str, prices: Mapping[str, float], batch_sizes: Mapping[str, int]
) -> dict[str, int]:
    """Images for each member, in whole batches and at least one; `images` for the reference."""
    shares = {}
    for member, price in prices.items():
        batches = images * prices[reference] / price / batch_sizes[member]
        shares[member] = max(1, round(batches)) * batch_sizes[member]
    return shares | {reference: images}
