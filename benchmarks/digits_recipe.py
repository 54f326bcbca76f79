"""What the digits recipe owes to its settings: the same budget for each row, one change a row.

    python benchmarks/digits_recipe.py --seeds 0,1,2 --rows recipe,label_std=0.02

Each model sees the recipe's number of images of 1500 digits. Printed: the loss of its average on
the other 297 (four draws of noise each), and the share of 300 images, drawn by 25 steps of DDIM
without and with guidance, that a support vector machine trained on all real digits recognises.
"""

import argparse
import platform
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from diffussm.checkpoint import Header
from diffussm.data import ImageDataset, digits
from diffussm.diffusion import Guidance, Sampling, diffusion_loss
from diffussm.evaluation.digits import score_digits
from diffussm.generation import Generator
from diffussm.training import Trainer, find_recipe, read_tables, recipe

ROWS = {
    "recipe": [],
    "label_std=0.02": ["model.label_std=0.02"],
    "label_std=0.2": ["model.label_std=0.2"],
    "lr=1e-3": ["training.lr=1e-3"],
    "lr=4e-3": ["training.lr=4e-3"],
    "d_state=16": ["model.d_state=16"],
    "one direction": ["model.bidirectional=false"],
    "M=1": ["model.hourglass_ratio=1"],
    "patch 2": ["model.patch_size=2", "model.hourglass_ratio=1"],
    "figure": ["model.matrices=figure"],
    "min-snr": ["training.weighting=min-snr"],
}
TRAINED, DRAWN = 1500, 300


@dataclass(frozen=True)
class Figures:
    """What came of one training run."""

    parameters: int
    loss: float
    """Of the average, on digits it never saw."""
    recognised: float
    guided: float
    """Share recognised, unguided and at guidance 1.5."""
    seconds: float
    """Of processor time in training."""


def measure(name: str, settings: list[str], seed: int) -> Figures:
    """Train a recipe on TRAINED digits, and measure what came of it."""
    everything = digits()
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(1))
    known, unseen = order[:TRAINED], order[TRAINED:].repeat(4)
    subset = ImageDataset(
        images=everything.images[known],
        labels=everything.labels[known],
        class_names=everything.class_names,
    )
    tables = read_tables(find_recipe(name), [*settings, f"training.seed={seed}"])
    trainer = Trainer(recipe(tables), subset, torch.device("cpu"))
    started = time.process_time()
    for _ in trainer.steps():
        pass
    seconds = time.process_time() - started

    draws = torch.Generator().manual_seed(0)
    x_0, labels = everything.images[unseen], everything.labels[unseen]
    t = torch.randint(len(trainer.diffusion.schedule), (len(x_0),), generator=draws)
    noise = torch.randn(x_0.shape, generator=draws)
    with torch.no_grad():
        loss = diffusion_loss(trainer.ema.model, trainer.diffusion, x_0, t, labels, noise)

    header = Header(
        model=trainer.recipe.model,
        diffusion=trainer.recipe.diffusion,
        class_names=everything.class_names,
        sampling=Sampling(sampler="ddim", steps=25),
        guidance=Guidance(),
        images=trainer.images,
    )
    model = Generator(trainer.ema.model, header)
    asked = [number % 10 for number in range(DRAWN)]
    recognised = []
    for scale in (1.0, 1.5):
        images = model.sample(seeds=range(DRAWN), labels=asked, guidance=Guidance(scale=scale))
        recognised.append(score_digits(images, asked).recognised)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    return Figures(parameters, loss.simple.mean().item(), *recognised, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0", help="for instance 0,1,2")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of: {', '.join(ROWS)}")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--images", type=int, help="train on fewer, to try the script")
    parser.add_argument("--out", type=Path, help="also write the table here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    less = [f"training.images={arguments.images}"] if arguments.images else []
    lines = [
        f"{date.today()}, {platform.machine()}, {arguments.threads} threads, "
        f"torch {torch.__version__}",
        "",
        "| row | seed | parameters | held-out loss | recognised | guided 1.5 | CPU seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for row in arguments.rows.split(","):
        for seed in arguments.seeds.split(","):
            found = measure("digits", ROWS[row] + less, int(seed))
            lines.append(
                f"| {row} | {seed} | {found.parameters:,} | {found.loss:.4f} | "
                f"{found.recognised:.1%} | {found.guided:.1%} | {found.seconds:.0f} |"
            )
            print(lines[-1], flush=True)
            if arguments.out:
                arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
