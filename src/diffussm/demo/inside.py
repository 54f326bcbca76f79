"""What the page shows of a model's inside, and of HiPPO: charts, each with a sentence.

The numbers are those of `diffussm.analysis.inside` and `diffussm.ssm.reconstruction`.
"""

import torch

from diffussm.analysis.figures.hippo import band_limited
from diffussm.analysis.inside import directions, gate_sizes, kernels, memory_length
from diffussm.demo.chart import Line, chart
from diffussm.demo.html import paragraph
from diffussm.demo.request import nearest
from diffussm.generation import Generator
from diffussm.ssm.reconstruction import recall, remember

SHOWN = (0.1, 0.5, 0.9)
"""Which channels' kernels are drawn: by their place in the order of memory."""

POINTS = 61
"""Time steps at which gates are computed."""

LENGTH, MAX_STATE, MAX_WAVES = 400, 64, 40
"""Of the signal that HiPPO reads, in samples; bounds of the sliders."""


def show_kernels(model: Generator, block: object, direction: str) -> str:
    """The kernels of one layer and direction, and how far they remember, as HTML."""
    number = nearest("block", block, 1, depth(model)) - 1
    kernel = kernels(model.model, number, direction)
    remembered = memory_length(kernel, 0.9)
    order = remembered.argsort()
    lines = []
    for share in SHOWN:
        channel = int(order[round(share * (len(order) - 1))])
        values = kernel[channel] / kernel[channel].abs().max()
        name = f"channel {channel}, 90% within {int(remembered[channel])}"
        lines.append(Line(name=name, x=range(len(values)), y=values.tolist()))
    reads = "what came before" if direction == "forward" else "what comes after"
    learned = chart(
        f"Kernels of block {number + 1}, {direction}: how much {reads} counts",
        "distance in positions",
        "kernel / its largest value",
        lines,
    )
    count = len(order)
    places = [100 * (place + 0.5) / count for place in range(count)]
    memory = chart(
        "How far the channels remember, shortest first",
        "channels, %",
        "positions",
        [
            Line(
                name=f"{share:.0%} of the energy",
                x=places,
                y=memory_length(kernel, share).sort().values.tolist(),
            )
            for share in (0.5, 0.9, 0.99)
        ],
    )
    middle, longest = int(remembered.median()), int(remembered.max())
    said = (
        f"Of {count} channels, half hold 90% of their kernel's energy within {middle} of the "
        f"{kernel.shape[1]} positions of an image; the one with the longest memory needs {longest}."
    )
    return paragraph(said) + learned + memory


def show_gates(model: Generator, t: object) -> str:
    """How strongly each block acts over the process, and at step `t`, as HTML."""
    steps, config = model.config.diffusion.steps, model.config.model
    chosen = nearest("time step", t, 0, steps - 1)
    device = next(model.model.parameters()).device
    times = torch.linspace(0, steps - 1, POINTS).round().long()
    times = torch.cat([times, torch.tensor([chosen])]).to(device)
    labels = torch.full_like(times, config.num_classes) if config.num_classes else None
    sizes = gate_sizes(model.model, times, labels).cpu()
    shown = _spread(len(sizes), 6)
    curves = chart(
        "Mean size of each block's gate over the process",
        "time step (0: least noise)",
        "mean |gate|",
        [
            Line(name=f"block {block + 1}", x=times[:-1].tolist(), y=sizes[block, :-1].tolist())
            for block in shown
        ],
        mark=float(chosen),
    )
    now = sizes[:, -1]
    said = f"At step {chosen} block {int(now.argmax()) + 1} changes the image most (its gate is "
    said += f"{now.max():.3g} on average), block {int(now.argmin()) + 1} least ({now.min():.3g}). "
    said += "A gate multiplies what its block adds to the image; at 0 the block does nothing."
    return paragraph(said) + curves


def show_memory(memory: str, state: object, waves: object, window: object) -> str:
    """A signal read once, value by value, and what a HiPPO state recalls of it, as HTML."""
    size = nearest("state", state, 2, MAX_STATE)
    signal = band_limited(LENGTH, nearest("waves", waves, 1, MAX_WAVES), seed=3)
    length = LENGTH if memory == "legs" else nearest("window", window, 2, LENGTH)
    states = remember(signal, memory, size, None if memory == "legs" else length)
    points = (torch.arange(length) + 0.5) / length
    past, recalled = signal[-length:], recall(states[-1], points, memory)
    error = ((recalled - past).square().mean() / past.square().mean()).sqrt().item()
    where = [float(sample) for sample in range(LENGTH - length, LENGTH)]
    drawn = chart(
        f"{length} values in {size} numbers",
        "sample",
        "value",
        [
            Line(name="signal", x=[float(n) for n in range(LENGTH)], y=signal.tolist(), wide=True),
            Line(name=f"recalled from {size} numbers", x=where, y=recalled.tolist()),
        ],
    )
    said = f"{size} numbers recall the last {length} values with an error of {error:.1%} (rms)."
    return paragraph(said) + drawn


def depth(model: Generator) -> int:
    """Blocks of a model; ValueError where it has no state space layers."""
    directions(model.model)
    return model.config.model.depth


def _spread(count: int, most: int) -> list[int]:
    """At most so many of the first `count` numbers, evenly spread, both ends included."""
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]
