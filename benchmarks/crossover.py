"""Time to denoise one image against its size: where DiffuSSM overtakes DiT.

    python benchmarks/crossover.py [--device cpu|cuda] [--dtype float32|bfloat16] [--scale S]
        [--sizes 256,512,1024,1536,2048] [--limit 60] [--out benchmarks/results/FILE.md]

One forward pass, batch 1, kernels made before; every model at a size in turn. A pass expected to
take more than --limit seconds, by the time of the size before and the multiply-adds, is left out.
With --out there is a .json beside the table, from which `diffussm figures cost --measured` draws.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from models import options, published
from networks import alive, arguments, check, denoising_step
from timing import columns, device_conditions, device_parser, in_turn, put

from diffussm.analysis.flops import cost
from diffussm.cli.process import prepare
from diffussm.models import model_config

Times = dict[str, dict[int, float]]


def measure(
    names: list[str], sizes: list[int], device: str, dtype: torch.dtype, repeats: int, limit: float
) -> Times:
    """Seconds by model and size."""
    times: Times = {name: {} for name in names}
    for size in sizes:
        latent = size // 8
        steps: dict[str, Callable] = {}
        for name in names:
            if expected(name, times[name], size) > limit:
                continue
            network = alive(published(name), device, input_size=latent, **options(name))
            inputs = arguments(network, 1, latent)
            if size == sizes[0]:
                check(name, network, inputs, dtype)
            steps[name] = denoising_step(network, inputs, dtype)
        for name, seconds in in_turn(steps, repeats).items():
            times[name][size] = seconds
    return times


def expected(name: str, before: dict[int, float], size: int) -> float:
    """By multiply-adds from the largest size that was measured."""
    if not before:
        return 0.0
    last = max(before)
    return before[last] * multiply_adds(name, size) / multiply_adds(name, last)


def multiply_adds(name: str, size: int) -> int:
    config = model_config(published(name), {"input_size": size // 8, **options(name)})
    return cost(config, size // 8, size // 8).total


def as_table(times: Times, sizes: list[int]) -> str:
    rows = []
    for name, found in times.items():
        cells = [f"{found[size]:.3f}" if size in found else "" for size in sizes]
        giga = [f"{multiply_adds(name, size) / 1e9:,.0f}" for size in sizes]
        rows.append([name, *cells])
        rows.append([f"{name}, G multiply-adds", *giga])
    return columns(["seconds an image", *map(str, sizes)], rows)


def write_times(times: Times, path: Path, said: str) -> None:
    """For `diffussm figures cost --measured`."""
    path.write_text(json.dumps({"conditions": said, "seconds": times}, indent=1) + "\n")


def main() -> None:
    prepare()
    words = device_parser(__doc__.splitlines()[0])
    words.add_argument("--scale", choices=["S", "L", "XL"], help="S on a CPU, XL on a GPU")
    words.add_argument("--sizes", default="256,512,1024,1536,2048")
    words.add_argument("--limit", type=float, default=60.0, help="seconds a pass")
    given = words.parse_args()
    torch.set_num_threads(given.threads)
    scale = given.scale or ("XL" if given.device == "cuda" else "S")
    names = [f"DiffuSSM-{scale}", f"DiffuSSM-{scale}:4", f"DiT-{scale}/2", f"DiT-{scale}/1"]
    sizes = [int(size) for size in given.sizes.split(",")]
    dtype = getattr(torch, given.dtype)
    times = measure(names, sizes, given.device, dtype, given.repeats, given.limit)
    said = device_conditions(given.device, dtype, given.repeats)
    put(f"{said}\n{as_table(times, sizes)}", given.out)
    if given.out:
        write_times(times, given.out.with_suffix(".json"), said.strip())


if __name__ == "__main__":
    main()
