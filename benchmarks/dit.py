"""Our DiT against diffusers' with the same weights: forward and backward of a training step.

    python benchmarks/dit.py [--threads 2] [--repeats 8] [--out benchmarks/results/FILE.md]

DiT-S/2 on 32 x 32 latents, batch 4, float32. diffusers' model has its two constants corrected
(`diffussm.interop.dit_diffusers`), and is timed only if it answers the same.
"""

import torch
from timing import Side, agree, alternate, run, table
from torch import Tensor, nn

from diffussm.interop.dit_diffusers import to_diffusers
from diffussm.models import create_model


def report(repeats: int) -> str:
    torch.manual_seed(0)
    ours = create_model("DiT-S/2")
    for parameter in ours.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    theirs = to_diffusers(ours).requires_grad_(True)
    x, t = torch.randn(4, 4, 32, 32), torch.tensor([0, 10, 500, 999])
    y = torch.tensor([1, 2, 3, 1000])
    with torch.no_grad():
        agree("DiT-S/2", [ours(x, t, y)], [theirs(x, t, y).sample])

    def step(network: nn.Module, answer) -> Side:
        def both_ways() -> list[Tensor]:
            network.zero_grad(set_to_none=True)
            answer().square().mean().backward()
            return []

        return both_ways

    sides = step(ours, lambda: ours(x, t, y)), step(theirs, lambda: theirs(x, t, y).sample)
    return table([alternate("DiT-S/2, 32 x 32, batch 4", *sides, repeats)], "diffusers")


if __name__ == "__main__":
    run("Our DiT against diffusers'", report)
