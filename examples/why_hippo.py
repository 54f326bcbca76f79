"""Does a HiPPO matrix remember better than a random one? Two tasks, fixed and trained matrices.

    python examples/why_hippo.py [--seeds 3] [--steps 300] [--out FOLDER]

delay     give back white noise 32 positions later; error on new noise, 1 being a blind guess
digits    name a handwritten digit after reading its 64 pixels one by one; error on unseen digits

The same small network, learning rate and number of steps for every matrix; only A and B of its
LSSL layers differ. Writes why_hippo.png and why_hippo.md.
"""

import argparse
import platform
from datetime import date
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn.functional import cross_entropy, gelu, mse_loss

from diffussm.data import digits
from diffussm.ssm import LSSL, lssl
from diffussm.training.optimizer import make_optimizer

WIDTH, STATE, LAYERS, BATCH, LR = 32, 32, 2, 64, 1e-2
DELAY, LENGTH, TRAINED = 32, 128, 1500


class Network(nn.Module):
    """Numbers in, `outputs` numbers at each position out."""

    def __init__(self, outputs: int, init: str, train_A: bool):
        super().__init__()
        self.embed = nn.Linear(1, WIDTH)
        self.ssms = nn.ModuleList(
            LSSL(WIDTH, d_state=STATE, init=init, train_A=train_A) for _ in range(LAYERS)
        )
        self.mixes = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))
        self.read = nn.Linear(WIDTH, outputs)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        x = self.embed(u)
        for ssm, mix in zip(self.ssms, self.mixes, strict=True):
            x = x + mix(gelu(ssm(x)))
        return self.read(x)


class Delay:
    """White noise, to be repeated DELAY positions later."""

    outputs = 1

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        u = torch.randn(size, LENGTH, 1)
        return u, u[:, : LENGTH - DELAY]

    def loss(self, answer: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return mse_loss(answer[:, DELAY:], target)

    def error(self, network: nn.Module) -> float:
        u, target = self.batch(256)
        return self.loss(network(u), target).item()


class Digits:
    """Rows of pixels, one after another, and the digit they show."""

    outputs = 10

    def __init__(self):
        data = digits()
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
        self.labels = data.labels[order]
        self.pixels = data.images[order].flatten(1)[..., None]

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        some = torch.randint(TRAINED, (size,))
        return self.pixels[some], self.labels[some]

    def loss(self, answer: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return cross_entropy(answer[:, -1], target)

    def error(self, network: nn.Module) -> float:
        named = network(self.pixels[TRAINED:])[:, -1].argmax(-1)
        return (named != self.labels[TRAINED:]).float().mean().item()


def measure(task: Delay | Digits, init: str, train_A: bool, seed: int, steps: int) -> float:
    """The error after training."""
    torch.manual_seed(seed)
    network = Network(task.outputs, init, train_A)
    optimizer = make_optimizer(network, LR, weight_decay=0.0)
    for _ in range(steps):
        u, target = task.batch(BATCH)
        optimizer.zero_grad()
        task.loss(network(u), target).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        return task.error(network)


def main(seeds: int, steps: int, out: Path) -> None:
    tasks = {"delay": Delay(), "digits": Digits()}
    figure, panels = plt.subplots(1, len(tasks), figsize=(11, 4), layout="tight")
    lines = [
        f"{date.today()}, {platform.machine()}, torch {torch.__version__}; {steps} steps of "
        f"{BATCH}, {LAYERS} layers, width {WIDTH}, state {STATE}; mean and standard deviation "
        f"over {seeds} seeds",
        "",
        "| task | A and B at birth | A fixed | A trained |",
        "|---|---|---|---|",
    ]
    for panel, (name, task) in zip(panels, tasks.items(), strict=True):
        for place, init in enumerate(lssl.INITS):
            cells = []
            for train_A in (False, True):
                errors = [measure(task, init, train_A, seed, steps) for seed in range(seeds)]
                spread = stdev(errors) if seeds > 1 else 0.0
                cells.append(f"{mean(errors):.3f} ± {spread:.3f}")
                x = [place + (0.15 if train_A else -0.15)] * seeds
                style = {"marker": "s", "mfc": "none"} if train_A else {"marker": "o"}
                color = "#D55E00" if init == "random" else "#0072B2"
                panel.plot(x, errors, linestyle="", color=color, **style)
            lines.append(f"| {name} | {init} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
        panel.set_xticks(range(len(lssl.INITS)), lssl.INITS)
        panel.set_ylim(bottom=0)
    panels[0].set(title=f"Noise of {DELAY} positions ago", ylabel="mean squared error, new noise")
    panels[1].set(title="Digits, pixel by pixel", ylabel="share of unseen digits misnamed")
    panels[1].plot([], [], "ko", label="A fixed")
    panels[1].plot([], [], "ks", mfc="none", label="A trained")
    panels[1].legend(frameon=False)
    out.mkdir(parents=True, exist_ok=True)
    (out / "why_hippo.md").write_text("\n".join(lines) + "\n")
    figure.savefig(out / "why_hippo.png", dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("runs/why_hippo"))
    arguments = parser.parse_args()
    main(arguments.seeds, arguments.steps, arguments.out)
