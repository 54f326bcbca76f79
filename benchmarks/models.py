"""Training and sampling of whole models: images a second, and memory.

    python benchmarks/models.py [--device cpu|cuda] [--dtype float32|bfloat16] [--batch 4]
        [--models DiffuSSM-S,DiT-S/2,DiT-S/1] [--sizes 256,512] [--out benchmarks/results/FILE.md]

All models of one size in turn. Training is forward and backward; sampling one forward pass, kernels
made before. "naive" is DiffuSSM with S4D's kernel as one writes it, at the first size only. Memory
is the allocator's peak on a GPU, elsewhere what training keeps by count
(`diffussm.analysis.memory`).
"""

from collections.abc import Callable

import torch
from networks import alive, arguments, check, denoising_step, training_step
from s4d_kernel import naive_kernels
from timing import columns, device_conditions, device_parser, in_turn, put

from diffussm.analysis.flops import cost
from diffussm.analysis.memory import training_memory
from diffussm.cli.process import prepare
from diffussm.models import model_config

MODELS = {"cpu": "DiffuSSM-S,DiT-S/2,DiT-S/1", "cuda": "DiffuSSM-XL,DiT-XL/2,DiT-XL/1"}
SIZES = {"cpu": "256", "cuda": "256,512,1024"}


def size_table(
    names: list[str],
    size: int,
    batch: int,
    device: str,
    dtype: torch.dtype,
    repeats: int,
    naive: bool,
) -> str:
    """Every model at one size of image, in pixels."""
    latent = size // 8
    training: dict[str, Callable] = {}
    sampling: dict[str, Callable] = {}
    for name in names:
        network = alive(published(name), device, input_size=latent, **options(name))
        inputs = arguments(network, batch, latent)
        check(name, network, inputs, dtype)
        training[name] = training_step(network, inputs, dtype)
        sampling[name] = denoising_step(network, inputs, dtype)
        if naive and name.startswith("DiffuSSM"):
            training[f"{name}, naive"] = with_naive_kernels(training[name])
    trained, sampled = in_turn(training, repeats), in_turn(sampling, repeats)
    first = names[0]
    rows = []
    for name, seconds in trained.items():
        row = [name, "", f"{batch / seconds:.3f}", f"{seconds / trained[first]:.2f}"]
        row += ["", "", ""]
        if name in sampled:
            config = model_config(published(name), {"input_size": latent, **options(name)})
            row[1] = f"{cost(config, latent, latent).total / 1e9:,.1f}"
            row[4:] = [f"{batch / sampled[name]:.3f}", f"{sampled[name] / sampled[first]:.2f}"]
            row.append(f"{memory(config, latent, batch, device, dtype, training[name]):,.0f}")
        rows.append(row)
    names = ["", "G multiply-adds", "training, images/s", f"time of {first}'s"]
    names += ["sampling, images/s", f"time of {first}'s", "training, MiB"]
    return f"{size} x {size} pixels, batch {batch}\n\n{columns(names, rows)}"


def published(name: str) -> str:
    """DiT-S/1 is DiT-S/2 with patches of one pixel; DiffuSSM-S:4 is DiffuSSM-S with M = 4."""
    return name.split(":")[0].replace("/1", "/2")


def options(name: str) -> dict[str, int]:
    if name.endswith("/1"):
        return {"patch_size": 1}
    return {"hourglass_ratio": int(name.split(":")[1])} if ":" in name else {}


def with_naive_kernels(step: Callable) -> Callable:
    def naive() -> None:
        with naive_kernels():
            step()

    return naive


def memory(
    config, latent: int, batch: int, device: str, dtype: torch.dtype, step: Callable
) -> float:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() / 2**20
    held = training_memory(config, latent, latent, dtype)
    return (held.state + held.fixed + batch * held.image) / 2**20


def main() -> None:
    prepare()
    words = device_parser(__doc__.splitlines()[0])
    words.add_argument("--models", help="presets; DiT-S/1 has patch 1, DiffuSSM-S:4 has M = 4")
    words.add_argument("--sizes", help="pixels, as 256,512")
    words.add_argument("--batch", type=int, default=4)
    given = words.parse_args()
    torch.set_num_threads(given.threads)
    dtype = getattr(torch, given.dtype)
    names = (given.models or MODELS[given.device]).split(",")
    sizes = [int(size) for size in (given.sizes or SIZES[given.device]).split(",")]
    parts = [device_conditions(given.device, dtype, given.repeats)]
    for size in sizes:
        naive = size == sizes[0]
        parts.append(
            size_table(names, size, given.batch, given.device, dtype, given.repeats, naive)
        )
    put("\n".join(parts), given.out)


if __name__ == "__main__":
    main()
