"""What a recipe would do: sizes, memory, work and time, before anything is done."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffussm.data import Dataset
    from diffussm.training.recipe import Recipe

PAPER = 1.85e11
"""Total G multiply-adds of the paper's DiffuSSM-XL at 256 px: its 660 M images, forward only."""

RECENT = 100
"""Lines of a run's metrics whose median speed counts."""


def plan(recipe: Recipe, data: Dataset | None, ranks: int, rate: float | None) -> str:
    """A few lines. `data` is None where the images are not there; `rate` is images a second."""
    import torch

    from diffussm.analysis.flops import cost
    from diffussm.analysis.memory import training_memory
    from diffussm.models import build

    model, training = recipe.model, recipe.training
    with torch.device("meta"):
        network = build(model)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    height, width = model.size
    price = cost(model, height, width)
    total = training.images * price.total / 1e9
    steps = -(-training.images // training.batch_size)
    half = torch.float32 if training.precision == "float32" else torch.bfloat16
    again = training.checkpoint_blocks
    held = training_memory(model, height, width, half, checkpointed=again)
    share = -(-training.batch_size // (ranks * training.accumulate))
    state = held.state // (ranks if training.parallel == "fsdp" else 1)
    gibibytes = (state + held.fixed + share * held.image) / 2**30
    how = "blocks computed again" if again else "all kept"
    lines = [
        f"model      {recipe.model_name}: {parameters:,} parameters",
        f"input      {model.in_channels} x {height} x {width}: {price.positions:,} positions, "
        f"{price.tokens:,} tokens",
        f"data       {_described(recipe, data)}",
        f"training   {training.images:,} images in {steps:,} steps of {training.batch_size}",
        f"work       {total:.2e} G multiply-adds forward, {total / PAPER:.1%} of the paper's XL",
        f"memory     {gibibytes:,.1f} GiB a rank, {ranks} in all: {state / 2**30:,.1f} of state, "
        f"{share} images of {held.image / 2**20:,.0f} MiB, {how}",
    ]
    if recipe.data.name == "latents":
        lines.append(f"disk       {_latents(model, 1_000_000) / 2**30:,.0f} GiB a million images")
    if rate is None:
        lines.append("time       unknown; --rate 300 tells it for 300 images a second")
    else:
        days = training.images / rate / 86_400
        lines.append(f"time       {days:,.2f} days at {rate:,.1f} images a second")
    return "\n".join(lines)


def dry_run(
    recipe: str, settings: list[str], out: Path | None, ranks: int, rate: float | None
) -> str:
    """`plan` of a recipe by name, whether its data are there or not; the speed of the run `out`."""
    from diffussm import training
    from diffussm.data import load_data

    tables = training.read_tables(training.find_recipe(recipe), settings)
    path = tables.get("data", {}).get("path", "")
    if path and not Path(path).exists():
        wanted, data = training.recipe(tables, training.stand_in(tables)), None
    else:
        wanted = training.recipe(tables)
        data = load_data(wanted.data)
    rate = rate or (measured_rate(out) if out else None)
    return plan(wanted, data, ranks, rate)


def measured_rate(run: Path) -> float | None:
    """Images a second of a run's latest steps, if it has any."""
    path = run / "metrics.jsonl"
    if not path.is_file():
        return None
    lines = path.read_text().split("\n")[:-1]  # a kill may have cut the last one short
    speeds = [json.loads(line)["speed"] for line in lines[-RECENT:]]
    return median(speeds) if speeds else None


def _described(recipe: Recipe, data: Dataset | None) -> str:
    if data is None:
        return f"{recipe.data.name} in {recipe.data.path}: not there yet"
    classes = f"{len(data.class_names):,} classes" if data.class_names else "no classes"
    epochs = recipe.training.images / len(data)
    return f"{recipe.data.name}: {len(data):,} images, {classes}, seen {epochs:,.1f} times"


def _latents(model, images: int) -> int:
    """Bytes of means and deviations of images and mirror images, two bytes a number."""
    height, width = model.size
    return images * 2 * 2 * model.in_channels * height * width * 2
