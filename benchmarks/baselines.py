"""Every model at digits size, trained on the same images in the same order: one table.

    python benchmarks/baselines.py --seeds 0,1,2 --out benchmarks/results/FILE.md

Recipes are trained on 1500 digits, several seeds each, one thread a run. A row has the mean and the
standard deviation over the seeds of what `digits_recipe.py` measures. Each run is appended to
FILE.jsonl as it ends, and what stands there already is not run again.
"""

import argparse
import json
from dataclasses import asdict
from datetime import date
from pathlib import Path
from statistics import mean, stdev

import torch
from digits_recipe import Figures, measure
from timing import processor

from diffussm.analysis.flops import cost
from diffussm.training import find_recipe, read_tables, recipe

RECIPES = [
    "digits",
    "digits-dit",
    "digits-dit-adaln",
    "digits-dit-cross-attention",
    "digits-dit-in-context",
    "digits-dit-madds",
    "digits-dit-pixels",
    "digits-uvissm",
    "digits-uvit",
    "digits-uvit-madds",
    "digits-unet",
    "digits-unet-without-attention",
]


def multiply_adds(name: str) -> float:
    """Millions for one image."""
    config = recipe(read_tables(find_recipe(name))).model
    return cost(config, *config.size).total / 1e6


def row(name: str, runs: list[Figures]) -> str:
    def spread(key: str, scale: float, digits: int) -> str:
        values = [scale * getattr(run, key) for run in runs]
        around = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{mean(values):.{digits}f}{around}"

    figures = [spread("loss", 1, 4), spread("recognised", 100, 1), spread("guided", 100, 1)]
    figures.append(f"{mean(run.seconds for run in runs):.0f}")
    size = [f"{runs[0].parameters:,}", f"{multiply_adds(name):.1f}", str(len(runs))]
    return f"| {name} | {' | '.join(size + figures)} |"


def table(done: dict[str, dict[int, Figures]]) -> str:
    lines = [
        f"{date.today()}, {processor()}, one thread a run, torch {torch.__version__}",
        "",
        "| recipe | parameters | M multiply-adds | seeds | held-out loss | recognised, % | "
        "guided 1.5, % | CPU seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [row(name, list(runs.values())) for name, runs in done.items()]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--recipes", default=",".join(RECIPES), help="names, with commas")
    parser.add_argument("--images", type=int, help="train on fewer, to try the script")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file of the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    less = [f"training.images={arguments.images}"] if arguments.images else []
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    records = arguments.out.with_suffix(".jsonl")
    names = arguments.recipes.split(",")
    done: dict[str, dict[int, Figures]] = {}
    for line in records.read_text().splitlines() if records.exists() else []:
        record = json.loads(line)
        name, seed = record.pop("recipe"), record.pop("seed")
        done.setdefault(name, {})[seed] = Figures(**record)
    for seed in map(int, arguments.seeds.split(",")):
        for name in names:
            if seed in done.setdefault(name, {}):
                continue
            found = done[name][seed] = measure(name, less, seed)
            with records.open("a") as file:
                file.write(json.dumps({"recipe": name, "seed": seed} | asdict(found)) + "\n")
            print(name, seed, found, flush=True)
    arguments.out.write_text(table(done))
    print(table(done))


if __name__ == "__main__":
    main()
