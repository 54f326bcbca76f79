"""From photographs to samples of a latent model, as one does it with millions: by commands.

    python examples/photographs.py FOLDER

Crops of the photographs that scikit-image and scikit-learn bring along, a tiny autoencoder with
random weights in place of Stable Diffusion's, two processes in place of eight GPUs. Training is
killed half-way, and the same command goes on. Needs: pip install 'diffussm[latent]' scikit-image.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, STRIDE = 32, 48
IMAGES = 240
LIMIT = 300
"""Seconds after which something has gone wrong."""

RECIPE = """
[data]
name = "latents"
path = "latents"

[model]
name = "DiffuSSM"
d_model = 32
depth = 2

[training]
images = {images}
batch_size = 8
lr = 1e-3
ema_decay = 0.9
save_every = 40
preview_every = 0
"""


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    crop_photographs(folder / "photographs")
    make_autoencoder(folder / "autoencoder")
    (folder / "photographs.toml").write_text(RECIPE.format(images=IMAGES))

    encode = ["encode", "photographs", "--autoencoder", "autoencoder", "--out", "latents"]
    diffussm(folder, *encode, "--size", str(SIDE), "--shard-images", "64")
    diffussm(folder, "encode", "--out", "latents", "--verify")

    train = ["train", "photographs.toml", "--out", "run"]
    diffussm(folder, *train, "--dry-run", "--ranks", "2")
    kill_after(folder, IMAGES // 3, *train)
    diffussm(folder, *train, ranks=2)
    diffussm(folder, "sample", "run", "--seeds", "0-15", "--steps", "10", "--out", "samples.png")
    print(f"\nlook at {folder / 'samples.png'}: noise, since the autoencoder has learned nothing")


def crop_photographs(folder: Path) -> None:
    """Small squares of each photograph, in a folder of its name: its class."""
    for name, picture in photographs().items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        height, width = picture.shape[:2]
        for top in range(0, height - STRIDE, STRIDE):
            for left in range(0, width - STRIDE, STRIDE):
                square = picture[top : top + STRIDE, left : left + STRIDE]
                Image.fromarray(square).save(folder / name / f"{top}-{left}.png")


def photographs() -> dict[str, np.ndarray]:
    import skimage.data
    from sklearn.datasets import load_sample_images

    china, flower = load_sample_images().images
    return {"astronaut": skimage.data.astronaut(), "china": china, "flower": flower}


def make_autoencoder(folder: Path) -> None:
    """A network of the right shape: 4 channels at a quarter of the side."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    levels = 3
    AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=4,
        latent_channels=4,
    ).save_pretrained(folder)


def diffussm(folder: Path, *words: str, ranks: int = 1) -> None:
    """One command, by one process or several; this script ends where it fails."""
    print("\n$ " + shown(words, ranks), flush=True)
    done = subprocess.run(command(words, ranks), cwd=folder, timeout=LIMIT)
    if done.returncode:
        sys.exit(done.returncode)


def kill_after(folder: Path, images: int, *words: str) -> None:
    """Kill a training run on two processes once it has written about so many images."""
    print("\n$ " + shown(words, 2), flush=True)
    run = subprocess.Popen(command(words, 2), cwd=folder)
    started = time.monotonic()
    while run.poll() is None and seen(folder / "run") < images:
        if time.monotonic() - started > LIMIT:
            sys.exit("training does not get on")
        time.sleep(0.2)
    subprocess.run(["pkill", "-KILL", "-P", str(run.pid)])  # the ranks, then who started them
    run.kill()
    run.wait()
    print(f"\nkilled after {seen(folder / 'run')} images", flush=True)


def command(words: tuple[str, ...], ranks: int) -> list[str]:
    if ranks == 1:
        return [sys.executable, "-m", "diffussm", *words]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    return [*torchrun, "-m", "diffussm", *words]


def shown(words: tuple[str, ...], ranks: int) -> str:
    start = f"torchrun --nproc-per-node {ranks} -m " if ranks > 1 else ""
    return start + " ".join(["diffussm", *words])


def seen(run: Path) -> int:
    """Images in the last whole line of a run's metrics."""
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().split("\n")[:-1] if metrics.exists() else []
    return json.loads(lines[-1])["images"] if lines else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/photographs.py FOLDER")
    main(Path(sys.argv[1]))
