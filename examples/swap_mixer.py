"""Put a sequence mixer of one's own into DiffuSSM, and train it beside S4D.

    python examples/swap_mixer.py [IMAGES]

A mixer is a `diffussm.ssm.layer.Layer`: (batch, length, dim) to the same shape. This one keeps one
real state a channel, h' = -h + u: an exponential moving average, S4D's poorest relative.
"""

import sys
import tempfile
from pathlib import Path

import torch

from diffussm.ssm.choices import SSMS, Choice
from diffussm.ssm.kernel_layer import KernelLayer
from diffussm.training import Run, find_recipe, read_tables, recipe


class Average(KernelLayer):
    """y_l = (1 - a) u_l + a y_{l-1} with a = exp(-dt), and a skip."""

    def __init__(self, dim: int, *, d_state: int, dt_min: float, dt_max: float):
        super().__init__(dim, dt_min, dt_max)
        self.D = torch.nn.Parameter(torch.randn(dim))

    def kernel(self, length: int) -> torch.Tensor:
        lags = torch.arange(length, device=self.D.device)
        return -torch.expm1(-self.dt)[:, None] * torch.exp(-self.dt[:, None] * lags)

    def initial_state(self, batch: int) -> torch.Tensor:
        return self.D.new_zeros(batch, len(self.D))

    def step(self, u_t: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state = torch.lerp(u_t, state, torch.exp(-self.dt))
        return state + self.D * u_t, state


def main(images: int = 12_800) -> None:
    SSMS["average"] = Choice(layer=Average, d_state=1)
    for mixer in ("s4d", "average"):
        settings = [f"model.ssm={mixer}", f"training.images={images}", "training.preview_every=0"]
        with tempfile.TemporaryDirectory() as folder:
            tables = read_tables(find_recipe("digits"), settings)
            run = Run(recipe(tables), Path(folder), torch.device("cpu"))
            losses = [step.simple for step in run.steps()]
            run.close()
        last = losses[-len(losses) // 4 :]
        print(f"{mixer:8} loss {sum(last) / len(last):.4f} over the last quarter", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
