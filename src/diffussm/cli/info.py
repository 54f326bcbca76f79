"""`diffussm info`: what a model is and costs."""

from pathlib import Path

import typer


def info(
    model: str = typer.Argument(help="A preset's name (DiffuSSM-XL), a run folder or model file."),
    size: str | None = typer.Option(None, help="Image sizes in pixels, as 256,512,1024."),
    ssm: str | None = typer.Option(
        None, help="Another state space layer in a preset: s4d, s4, lssl, mamba."
    ),
) -> None:
    """Print size and cost: diffussm info DiffuSSM-XL --size 256,512,1024

    Presets work on latents with an eighth of an image's side; DiT's stand beside them.
    """
    import torch
    from rich.console import Console
    from rich.table import Table

    from diffussm.analysis.flops import DITS, diffussm_cost
    from diffussm.checkpoint import load_model
    from diffussm.models import PRESETS, build, model_config
    from diffussm.ssm.layer import Layer

    if model in PRESETS or not Path(model).exists():
        config, reduction, trained = model_config(model, {"ssm": ssm} if ssm else {}), 8, ""
        sizes = _sizes(size or "256,512,1024")
        with torch.device("meta"):
            network = build(config)
    elif ssm:
        raise ValueError(f"{model} has been trained with its layer: --ssm is for presets")
    else:
        network, header = load_model(model)
        config, reduction, trained = header.model, 1, f", {header.images:,} images seen"
        sizes = _sizes(size) if size else [config.size]
    parameters = _numel(network)
    layers = sum(_numel(part) for part in network.modules() if isinstance(part, Layer))
    console = Console(highlight=False)
    console.print(
        f"{model}: {parameters:,} parameters, width {config.d_model}, {config.depth} blocks, "
        f"M = {config.hourglass_ratio}, {config.ssm}{trained}"
    )
    ways = "both directions" if config.bidirectional else "one direction"
    console.print(
        f"{config.ssm} in {ways}, state size {config.ssm_options['d_state']}: "
        f"{layers:,} of the parameters"
    )
    beside = model.replace("DiffuSSM", "DiT") + "/2"  # DiffuSSM-XL stands beside DiT-XL/2
    dit = DITS.get(beside)
    names = ["pixels", "length", "tokens", "total", "mixing", "kernels"]
    names += [beside, "its tokens", "ratio"] if dit else []
    table = Table(*names, box=None, header_style="bold", pad_edge=False)
    for column in table.columns:
        column.justify = "right"
    for height, width in sizes:
        if height % reduction or width % reduction:
            raise ValueError(
                f"{height}x{width} pixels have no latent: sides must be multiples of {reduction}"
            )
        cost = diffussm_cost(config, height // reduction, width // reduction)
        row = [f"{height}x{width}", f"{cost.positions:,}", f"{cost.tokens:,}"]
        row += [_giga(cost.total), _giga(cost.mixing), _giga(cost.kernels)]
        if dit:
            other = dit.cost(height // reduction, width // reduction)
            row += [_giga(other.total), f"{other.tokens:,}", f"{cost.total / other.total:.2f}"]
        table.add_row(*row)
    console.print(table)
    console.print("Giga-multiply-adds of one image, by formula; length: positions the SSM scans.")
    console.print("mixing: what carries information along the sequence, by FFTs or a scan.")
    console.print("kernels: made once a batch (once in all to sample), and not in the total.")
    if dit:
        console.print(f"{beside} as published has {dit.parameters:,} parameters.")


def _numel(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _giga(multiply_adds: int) -> str:
    giga = multiply_adds / 1e9
    return f"{giga:,.1f}" if giga >= 1 else f"{giga:.4f}"


def _sizes(text: str) -> list[tuple[int, int]]:
    sizes = []
    for part in text.split(","):
        height, cross, width = part.strip().partition("x")
        if not height.isdecimal() or (cross and not width.isdecimal()) or int(height) == 0:
            raise ValueError(f"--size takes sizes like 256,512 or 256x512, not {text!r}")
        sizes.append((int(height), int(width) if cross else int(height)))
    return sizes
