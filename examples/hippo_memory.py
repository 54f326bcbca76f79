"""Draw what HiPPO remembers of a signal that it has read once, value by value.

python examples/hippo_memory.py [--out FILE]
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from diffussm.ssm.reconstruction import recall, remember

LENGTH, STATES = 1000, (4, 8, 12, 16, 24, 32, 48, 64)
STYLES = [{"color": "#E69F00", "lw": 2}, {"color": "#0072B2", "lw": 2}, {"color": "k", "ls": "--"}]
VIEWS = {  # title, samples in a past, when it is recalled, states to draw, marker of the errors
    "legs": ("LegS: the whole past, recalled at its end", LENGTH, [LENGTH], [8, 32, 64], "o"),
    "legt": ("LegT: a window, recalled at three instants", 250, [290, 640, 990], [4, 8, 16], "s"),
}


def band_limited(periods: int = 12) -> torch.Tensor:
    """Noise in waves of 1 to `periods` periods, of mean square 1."""
    noise = torch.randn(periods, 2, generator=torch.Generator().manual_seed(0)).double()
    spectrum = torch.nn.functional.pad(noise, (0, 0, 1, LENGTH // 2 - periods))
    signal = torch.fft.irfft(torch.view_as_complex(spectrum), LENGTH)
    return signal / signal.square().mean().sqrt()


def main(out: Path) -> None:
    signal = band_limited()
    layout = [["legs", "error"], ["legt", "error"]]
    figure, axes = plt.subplot_mosaic(layout, figsize=(12, 6), width_ratios=(5, 2), layout="tight")
    print("error  " + "".join(f"{f'N = {state}':>9}" for state in STATES))
    for memory, (title, length, instants, drawn, marker) in VIEWS.items():
        panel, errors, x = axes[memory], [], (torch.arange(length) + 0.5) / length
        where = torch.stack([torch.arange(now - length, now) for now in instants])
        panel.plot(signal, color="0.8", linewidth=6, label="signal")
        for state in STATES:
            states = remember(signal, memory, state, None if memory == "legs" else length)
            pasts = torch.stack([recall(states[now - 1], x) for now in instants])
            errors.append((pasts - signal[where]).square().mean().sqrt().item())
            if state in drawn:
                lines = panel.plot(where.T, pasts.T, **STYLES[drawn.index(state)])
                lines[0].set_label(f"N = {state}")
        for now in instants:
            panel.axvspan(now - length, now, color="0.96", zorder=0)
        panel.set(title=title, xlim=(0, LENGTH), ylim=(-2.8, 2.8), xlabel="sample")
        panel.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        print(f"{memory:7}" + "".join(f"{error:9.1e}" for error in errors))
        axes["error"].semilogy(STATES, errors, color="k", marker=marker, label=title[:4])
    axes["error"].set(title="Error / signal (rms)", xlabel="state size N", xlim=(0, 68))
    axes["error"].legend(frameon=False)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw what HiPPO remembers of a signal.")
    parser.add_argument("--out", type=Path, default="docs/images/hippo_memory.png")
    main(parser.parse_args().out)
