"""A sampler of one's own: Heun's method, beside DDIM with as many calls of the network.

    python examples/custom_sampler.py RUN

In x / alpha, as a function of s = sigma / alpha, sampling is the differential equation
d(x / alpha) = eps ds. DDIM is Euler's method for it; Heun's looks at the slope at both ends of a
step. Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
algorithm 1.
"""

import sys

import torch

import diffussm
from diffussm.diffusion import DEFAULT_STEPS, SAMPLERS, Sample, Sampling


@torch.no_grad()
def heun(denoiser, diffusion, x, y, draw, steps=25):
    diffusion = diffusion.respaced(str(steps))
    alpha, sigma = diffusion.schedule.signal_scale, diffusion.schedule.noise_scale

    def estimate(x, index):
        indices = torch.full((len(x),), index, device=x.device)
        return diffusion.denoised(denoiser(x, diffusion.timesteps(indices), y), x, indices)

    for step, index in enumerate(reversed(range(steps))):
        here = estimate(x, index)
        if index == 0:
            x = here.x_0
        else:
            width = (sigma[index - 1] / alpha[index - 1] - sigma[index] / alpha[index]).item()
            start, scale = x / alpha[index].item(), alpha[index - 1].item()
            there = estimate(scale * (start + width * here.eps), index - 1)
            x = scale * (start + width * (here.eps + there.eps) / 2)
        yield Sample(step, steps, x, here.x_0)


def main(run: str) -> None:
    SAMPLERS["heun"], DEFAULT_STEPS["heun"] = heun, 25
    model = diffussm.load(run)

    def drawn(sampler, steps):
        return model.sample(seeds=range(10), sampling=Sampling(sampler=sampler, steps=steps))

    exact = drawn("heun", 100)
    print("root mean square distance from the equation's solution")
    for steps in (5, 10, 20):
        both = {"ddim": drawn("ddim", 2 * steps), "heun": drawn("heun", steps)}
        apart = {name: (x - exact).square().mean().sqrt().item() for name, x in both.items()}
        said = ", ".join(f"{name} {distance:.4f}" for name, distance in apart.items())
        print(f"{2 * steps} calls: {said}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/custom_sampler.py RUN, after: diffussm train digits")
    main(sys.argv[1])
