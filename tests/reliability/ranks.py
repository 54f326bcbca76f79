"""Training on several ranks: run by torchrun with a list of jobs, which the ranks do together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from tiny import tiny_recipe, train

from diffussm.training import joined

SETTINGS = {"images": 42, "save_every": 20, "warmup_images": 30, "lr_schedule": "cosine"}
"""Batches of 10; the last one has 2 images, fewer than some tests have ranks."""
MODEL = {"depth": 2}


def recipe_of(**tables):
    """The recipe of these tests, with tables laid over it."""
    tables["training"] = SETTINGS | tables.get("training", {})
    tables["model"] = MODEL | tables.get("model", {})
    return tiny_recipe(**tables)


def torchrun(ranks, *words, options=()):
    """The words of a command that starts `ranks` processes here, meeting at a free port."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    return [*start, str(ranks), *options, *map(str, words)]


def do(ranks, jobs):
    """Do all `jobs` on so many ranks: each names a folder, tables, and what `train` is told."""
    command = torchrun(ranks, __file__, json.dumps(jobs))
    environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done


def main():
    torch.set_num_threads(1)
    with joined() as world:
        for job in json.loads(sys.argv[1]):
            wanted = recipe_of(**job.get("tables", {}))
            train(wanted, Path(job["folder"]), world=world, until=job.get("until"))


if __name__ == "__main__":
    main()
