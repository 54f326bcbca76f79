"""Make a folder that diffusers alone can load, and draw with both.

    python examples/export_to_diffusers.py RUN FOLDER

FOLDER is a complete repository for the Hub: it brings the model's code with it, so whoever loads it
needs no diffussm. Needs: pip install 'diffussm[latent]'.
"""

import sys

import numpy as np
import torch
from diffusers import DiffusionPipeline

import diffussm
from diffussm.generation import to_uint8
from diffussm.interop.diffusers_folder import export_folder


def main(run: str, folder: str) -> None:
    export_folder(run, folder)
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)

    seeds = range(8)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    model = diffussm.load(run)
    labels = model.labels(len(seeds))
    theirs = pipeline(class_labels=labels, generator=generators).images
    ours = to_uint8(model.sample(seeds=seeds, labels=labels))
    apart = max(
        np.abs(np.asarray(picture, dtype=int).reshape(image.shape) - image.astype(int)).max()
        for picture, image in zip(theirs, ours, strict=True)
    )
    print(f"{len(seeds)} pictures each; the largest difference is {apart} of 255 levels")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/export_to_diffusers.py RUN FOLDER")
    main(sys.argv[1], sys.argv[2])
