"""`diffussm info`: what a model is and costs."""

from pathlib import Path

import typer

from diffussm.cli.arguments import sizes as parse_sizes

LATENT_CHANNELS = 4

SAID = {
    "d_model": "width {}",
    "depth": "{} blocks",
    "patch_size": "patch {}",
    "hourglass_ratio": "M = {}",
    "conditioning": "{}",
    "base_channels": "{} channels",
    "multipliers": "times {} on its levels",
    "blocks": "{} blocks each",
    "attention_levels": "attention on levels {}",
}
"""Settings that make a model the size it is, in words."""


def info(
    model: str = typer.Argument(help="A preset's name (DiffuSSM-XL), a run folder or model file."),
    size: str | None = typer.Option(None, help="Image sizes in pixels, as 256,512,1024."),
    ssm: str | None = typer.Option(
        None, help="Another state space layer in a preset: s4d, s4, lssl, mamba."
    ),
    memory: bool = typer.Option(False, "--memory", help="Count what training holds, too."),
) -> None:
    """Print size and cost: diffussm info DiffuSSM-XL --size 256,512,1024

    Presets work on latents with an eighth of an image's side, U-Nets on pixels. DiT's cost stands
    beside DiffuSSM's.
    """
    import torch
    from rich.console import Console
    from rich.table import Table

    from diffussm.analysis.flops import cost
    from diffussm.analysis.memory import training_memory
    from diffussm.checkpoint import load_model
    from diffussm.models import PRESETS, model_config

    if model in PRESETS or not Path(model).exists():
        if ssm and not hasattr(model_config(model, {}), "ssm"):
            raise ValueError(f"{model} has no state space layer: --ssm is for DiffuSSM and UViSSM")
        config, trained = model_config(model, {"ssm": ssm} if ssm else {}), ""
        reduction = 8 if config.in_channels == LATENT_CHANNELS else 1
        usual = parse_sizes("256,512,1024") if reduction > 1 else [config.size]
        sizes = parse_sizes(size) if size else usual
        network = _sized_up(config)
    elif ssm:
        raise ValueError(f"{model} has been trained with its layer: --ssm is for presets")
    else:
        network, header = load_model(model)
        config, reduction = header.model, header.autoencoder.factor
        trained = f", {header.images:,} images seen"
        height, width = config.size
        sizes = parse_sizes(size) if size else [(height * reduction, width * reduction)]
    console = Console(highlight=False)
    kind = "" if model in PRESETS else f"{type(network).__name__}, "
    said = f"{model}: {kind}{_numel(network):,} parameters, {_described(config)}{trained}"
    console.print(said, soft_wrap=True)
    if hasattr(config, "ssm"):
        console.print(_mixer(config, network))
    beside = model.replace("DiffuSSM", "DiT") + "/2"  # DiffuSSM-XL stands beside DiT-XL/2
    other = model_config(beside, {}) if beside in PRESETS and beside != model else None
    names = ["pixels", "length", "tokens", "total", "mixing", "kernels"]
    names += [beside, "its tokens", "ratio"] if other else []
    names += ["MiB"] if memory else []
    held = None
    table = Table(*names, box=None, header_style="bold", pad_edge=False)
    for column in table.columns:
        column.justify = "right"
    for height, width in sizes:
        if height % reduction or width % reduction:
            raise ValueError(
                f"{height}x{width} pixels have no latent: sides must be multiples of {reduction}"
            )
        latent = height // reduction, width // reduction
        ours = cost(config, *latent)
        row = [f"{height}x{width}", f"{ours.positions:,}", f"{ours.tokens:,}"]
        row += [_giga(ours.total), _giga(ours.mixing), _giga(ours.kernels)]
        if other:
            theirs = cost(other, *latent)
            row += [_giga(theirs.total), f"{theirs.tokens:,}", f"{ours.total / theirs.total:.2f}"]
        if memory:
            held = training_memory(config, *latent, torch.bfloat16)
            row.append(f"{held.image / 2**20:,.0f}")
        table.add_row(*row)
    console.print(table)
    console.print("Giga-multiply-adds of one image, by formula; length: positions that are mixed.")
    console.print("mixing: what carries information along them, by FFTs, a scan or attention.")
    console.print("kernels: made once a batch (once in all to sample), and not in the total.")
    if held:
        console.print(
            f"MiB: kept for each image of a batch in bfloat16 training, beside "
            f"{held.state / 2**30:,.1f} GiB of state and {held.fixed / 2**20:,.0f} MiB of kernels."
        )
    if other:
        fixed = sum(buffer.numel() for buffer in _sized_up(other).buffers())
        parameters = _numel(_sized_up(other)) + fixed
        console.print(f"{beside} has {parameters:,} parameters, fixed positions included.")


def _sized_up(config):
    """The network of a config without its weights."""
    import torch

    from diffussm.models import build

    with torch.device("meta"):
        return build(config)


def _described(config) -> str:
    """The settings that make a model the size it is."""
    found = [
        (words, getattr(config, name)) for name, words in SAID.items() if hasattr(config, name)
    ]
    return ", ".join(words.format(value if value != () else "none") for words, value in found)


def _mixer(config, network) -> str:
    """Which state space layer there is, and what it weighs."""
    from diffussm.ssm.layer import Layer

    layers = sum(_numel(part) for part in network.modules() if isinstance(part, Layer))
    ways = "both directions" if config.bidirectional else "one direction"
    state = config.ssm_options["d_state"]
    return f"{config.ssm} in {ways}, state size {state}: {layers:,} of the parameters"


def _numel(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _giga(multiply_adds: int) -> str:
    giga = multiply_adds / 1e9
    return f"{giga:,.1f}" if giga >= 1 else f"{giga:.4f}"
