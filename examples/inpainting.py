"""Fill the lower half of digits whose upper half is given, by resampling.

    python examples/inpainting.py RUN OUT.png

After each step the given pixels are put back, at their present level of noise. So that the new
ones come to fit them, a little noise is added and the step is made again, a few times. Lugmayr et
al., "RePaint: Inpainting Using Denoising Diffusion Probabilistic Models", 2022, algorithm 1.
"""

import sys
from pathlib import Path

import torch

import diffussm
from diffussm.data import digits
from diffussm.diffusion import guided
from diffussm.generation import picture_grid, to_uint8, write_png
from diffussm.ssm.kernel_layer import reusing_kernels

STEPS, AGAIN = 50, 5


@torch.no_grad()
def inpaint(model, known, given, labels):
    """`known` images with new pixels where `given` is false, as the classes `labels`."""
    config, diffusion = model.config, model.diffusion.respaced(str(STEPS))
    network, classes = reusing_kernels(model.model), config.model.num_classes
    denoiser = guided(network, config.guidance, classes, config.diffusion.steps)
    betas = diffusion.schedule.betas
    x = torch.randn_like(known)
    for index in reversed(range(STEPS)):
        at = torch.full((len(x),), index)
        for round in range(AGAIN):
            found = diffusion.denoised(denoiser(x, diffusion.timesteps(at), labels), x, at)
            if index == 0:
                return torch.where(given, known, found.mean)
            x = found.mean + torch.exp(0.5 * found.log_variance) * torch.randn_like(x)
            x = torch.where(given, diffusion.add_noise(known, at - 1, torch.randn_like(x)), x)
            if round < AGAIN - 1:  # one step back to more noise
                beta = betas[index].item()
                x = (1 - beta) ** 0.5 * x + beta**0.5 * torch.randn_like(x)


def main(run: str, out: Path) -> None:
    torch.manual_seed(0)
    real = digits()
    known, labels = real.images[:10], real.labels[:10]
    given = (torch.arange(8) < 4)[:, None].expand(8, 8)
    filled = inpaint(diffussm.load(run), known, given, labels)
    rows = torch.cat([known, torch.where(given, known, torch.zeros(())), filled])
    captions = [f"{label}{word}" for word in ("", ": given", ": filled") for label in labels]
    write_png(out, picture_grid(to_uint8(rows), captions, 10))
    print(f"real digits, what was given of them, and what was filled in: {out}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/inpainting.py RUN OUT.png, after: diffussm train digits")
    main(sys.argv[1], Path(sys.argv[2]))
