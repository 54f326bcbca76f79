"""Train on a folder of pictures, then draw some: from Python what `diffussm train` does.

    python examples/own_folder.py PICTURES RUN [key=value ...]

The first folder inside PICTURES is a picture's class; data.labels=none is for pictures without.
Any key of a recipe may be set: training.images=500000 model.depth=8. Run it again, and it goes on.
"""

import json
import sys
from pathlib import Path

import torch

import diffussm
from diffussm.data import load_data
from diffussm.generation import picture_grid, to_uint8, write_png
from diffussm.training import Run, find_recipe, read_tables, recipe

SETTINGS = [
    "data.name=images",
    "data.size=32",
    "model.d_model=192",
    "training.images=1000000",
    "training.batch_size=32",
    "training.lr=5e-4",
]


def main(pictures: Path, folder: Path, *settings: str) -> None:
    path = f"data.path={json.dumps(str(pictures))}"
    tables = read_tables(find_recipe("digits"), [*SETTINGS, path, *settings])
    wanted = recipe(tables | {"guidance": {}})
    data = load_data(wanted.data)
    print(f"{len(data)} pictures of {', '.join(data.class_names) or 'one kind'}")

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = Run(wanted, folder, device)
    try:
        for step in run.steps():
            if step.images % 10_000 < wanted.training.batch_size:
                print(f"{step.images:,} images, loss {step.loss:.4f}", flush=True)
        run.wait()
    finally:
        run.close()

    seeds = range(16)
    drawn = diffussm.load(folder, device).sample(seeds=seeds)
    write_png(folder / "drawn.png", picture_grid(to_uint8(drawn), [str(seed) for seed in seeds]))
    print(f"{len(seeds)} drawn in {folder / 'drawn.png'}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python examples/own_folder.py PICTURES RUN [key=value ...]")
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
