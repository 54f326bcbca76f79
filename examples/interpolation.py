"""Walk from one seed to another, and from one class to another, on one sheet.

    python examples/interpolation.py RUN OUT.png [FIRST_CLASS LAST_CLASS]

Between seeds the starting noise turns from the one to the other along a great circle, which keeps
its length. Between classes the network is asked for both, and its two answers are mixed.
"""

import math
import sys
from pathlib import Path

import torch

import diffussm
from diffussm.diffusion import Sampling, sample
from diffussm.generation import picture_grid, to_uint8, write_png
from diffussm.ssm.kernel_layer import reusing_kernels

SEEDS, SIDE = (3, 8), 7


def main(run: str, out: Path, first: int = 1, last: int = 7) -> None:
    model = diffussm.load(run)
    config, network = model.config, reusing_kernels(model.model)
    shape = (config.model.in_channels, *config.model.size)
    one, other = (torch.randn(shape, generator=torch.manual_seed(seed)) for seed in SEEDS)

    shares = torch.linspace(0, 1, SIDE)
    angles = shares * math.pi / 2
    noises = [torch.cos(angle) * one + torch.sin(angle) * other for angle in angles]
    x = torch.stack(noises).repeat_interleave(SIDE, 0)  # a row of the sheet for each noise
    share = shares.repeat(SIDE)[:, None, None, None]  # a column for each mix of classes

    @torch.no_grad()
    def between(x_t, t, y):
        answers = [network(x_t, t, torch.full_like(t, label)) for label in (first, last)]
        return torch.lerp(*answers, share)

    sampling = Sampling(sampler="ddim", steps=50)
    states = sample(between, model.diffusion, x, None, lambda: torch.randn_like(x), sampling)
    *_, final = states
    drawn = model.autoencoder.decode(final.x)
    captions = [f"{100 * value:.0f}%" for value in share.flatten()]
    write_png(out, picture_grid(to_uint8(drawn), captions, SIDE))
    print(f"class {first} to class {last} from left to right, seed {SEEDS[0]} to {SEEDS[1]}: {out}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 5):
        sys.exit("usage: python examples/interpolation.py RUN OUT.png [FIRST_CLASS LAST_CLASS]")
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
