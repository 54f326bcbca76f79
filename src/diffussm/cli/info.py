"""`diffussm info`: what a model is and costs."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import typer

from diffussm.cli.arguments import sizes as parse_sizes
from diffussm.cli.display import say

LATENT_CHANNELS = 4
LARGEST = 2**20
"""Pixels of a side: the bytes of what larger images hold are more than torch can count."""

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
PLAINER = {
    "1 blocks": "1 block",
    "1 blocks each": "1 block each",
    "three": "three vectors",
    "six": "six vectors",
    "tokens": "told by tokens",
}
"""What reads badly, mended."""
WORK = {"total": "total", "mixing": "mixing", "chunked": "mixing_chunked", "kernels": "kernels"}
"""Columns of multiply-adds."""


def info(
    model: str = typer.Argument(help="A preset's name (DiffuSSM-XL), a run folder or model file."),
    size: str | None = typer.Option(None, help="Image sizes in pixels, as 256,512,1024."),
    ssm: str | None = typer.Option(
        None, help="Another state space layer in a preset: s4d, s4, lssl, mamba."
    ),
    memory: bool = typer.Option(False, "--memory", help="Count what training holds, too."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object, for machines."),
) -> None:
    """Print size and cost: diffussm info DiffuSSM-XL --size 256,512,1024

    Presets work on latents with an eighth of an image's side, U-Nets on pixels. DiT's cost stands
    beside DiffuSSM's.
    """
    facts = gather(model, size, ssm, memory)
    say(json.dumps(facts) if as_json else describe(facts))


def gather(model: str, size: str | None, ssm: str | None, memory: bool) -> dict[str, Any]:
    """All that is known of a preset, run or model file, as plain values.

    Multiply-adds are of one image; `weight_bytes` in float32. Raises ValueError for a model, layer
    or size that does not exist.
    """
    from diffussm.checkpoint import load_model
    from diffussm.config import to_dict
    from diffussm.models import PRESETS, model_config

    if model in PRESETS or not Path(model).exists():
        if ssm and not hasattr(model_config(model, {}), "ssm"):
            raise ValueError(f"{model} has no state space layer: --ssm is for DiffuSSM and UViSSM")
        config, images = model_config(model, {"ssm": ssm} if ssm else {}), None
        reduction = 8 if config.in_channels == LATENT_CHANNELS else 1
        usual = parse_sizes("256,512,1024") if reduction > 1 else [config.size]
        network = _sized_up(config)
    elif ssm:
        raise ValueError(f"{model} has been trained with its layer: --ssm is for presets")
    else:
        network, header = load_model(model)
        config, images, reduction = header.model, header.images, header.autoencoder.factor
        usual = [(side[0] * reduction, side[1] * reduction) for side in [config.size]]
    beside = model.replace("DiffuSSM", "DiT") + "/2"  # DiffuSSM-XL stands beside DiT-XL/2
    other = model_config(beside, {}) if beside in PRESETS and beside != model else None
    facts = {
        "name": model,
        "preset": model in PRESETS,
        "network": type(network).__name__,
        "parameters": _numel(network),
        "weight_bytes": 4 * _numel(network),
        "images": images,
        "config": to_dict(config),
        "sizes": [],
    }
    if hasattr(config, "ssm"):
        facts["ssm_parameters"] = _layers(network)
    if other:
        fixed = sum(buffer.numel() for buffer in _sized_up(other).buffers())
        facts["beside"] = {"name": beside, "parameters": _numel(_sized_up(other)) + fixed}
    for height, width in parse_sizes(size) if size else usual:
        _check_size(model, config, reduction, height, width)
        if other:
            _check_size(f"{beside} beside it", other, reduction, height, width)
        latent = height // reduction, width // reduction
        found = {"height": height, "width": width} | _costs(config, latent)
        if other:
            found["beside"] = _costs(other, latent)
        if memory:
            found["training_memory"] = _training_memory(config, latent)
        facts["sizes"].append(found)
    return facts


def describe(facts: dict[str, Any]) -> str:
    """`gather`'s facts as a person reads them."""
    config, sizes = facts["config"], facts["sizes"]
    kind = "" if facts["preset"] else f"{facts['network']}, "
    trained = "" if facts["images"] is None else f", {facts['images']:,} images seen"
    lines = [
        f"{facts['name']}: {kind}{facts['parameters']:,} parameters, {_described(config)}{trained}"
    ]
    if "ssm" in config:
        ways = "both directions" if config["bidirectional"] else "one direction"
        lines.append(
            f"{config['ssm']} in {ways}, state size {config['d_state']}: "
            f"{facts['ssm_parameters']:,} of the parameters"
        )
    lines += _table([_row(facts, found) for found in sizes])
    lines += [
        "Giga-multiply-adds of one image, by formula; length: positions that are mixed.",
        "mixing: what carries information along them, by FFTs, a scan or attention.",
    ]
    if "mixing_chunked" in sizes[0]["multiply_adds"]:
        lines.append(
            "chunked: the same by products of matrices, which long sequences and GPUs use."
        )
    lines.append("kernels: made once a batch (once in all to sample), and not in the total.")
    if "training_memory" in sizes[-1]:
        held = sizes[-1]["training_memory"]
        lines.append(
            f"MiB: kept for each image of a batch in bfloat16 training, beside "
            f"{held['state'] / 2**30:,.1f} GiB of state and {held['fixed'] / 2**20:,.0f} MiB of "
            f"kernels."
        )
    if "beside" in facts:
        other = facts["beside"]
        lines.append(
            f"{other['name']} has {other['parameters']:,} parameters, fixed positions included."
        )
    return "\n".join(lines)


def _row(facts: dict[str, Any], found: dict[str, Any]) -> dict[str, str]:
    """A line of the table, by the name of the column."""
    ours = found["multiply_adds"]
    row = {
        "pixels": f"{found['height']}x{found['width']}",
        "length": f"{found['positions']:,}",
        "tokens": f"{found['tokens']:,}",
    }
    row |= {word: _giga(ours[name]) for word, name in WORK.items() if name in ours}
    if "beside" in found:
        theirs = found["beside"]
        row[facts["beside"]["name"]] = _giga(theirs["multiply_adds"]["total"])
        row["its tokens"] = f"{theirs['tokens']:,}"
        row["ratio"] = f"{ours['total'] / theirs['multiply_adds']['total']:.2f}"
    if "training_memory" in found:
        row["MiB"] = f"{found['training_memory']['image'] / 2**20:,.0f}"
    return row


def _table(rows: list[dict[str, str]]) -> list[str]:
    """Columns as wide as they must be, whatever the terminal: numbers are never cut."""
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    ]


def _check_size(name: str, config, reduction: int, height: int, width: int) -> None:
    """A ValueError, in pixels, for an image whose latent, `reduction` times smaller, does not fit.

    A config says only whether a size fits, so the least height and width are tried for.
    """
    if max(height, width) > LARGEST:
        raise ValueError(
            f"{height}x{width} is too large: sides are at most {LARGEST:,} pixels; ask for less"
        )
    rows, columns = config.size
    down = reduction * next(side for side in count(1) if _fits(config, side, columns))
    across = reduction * next(side for side in count(1) if _fits(config, rows, side))
    if height % down or width % across:
        raise ValueError(
            f"{height}x{width} pixels do not fit {name}: give a height that is a multiple of "
            f"{down} and a width that is one of {across}"
        )


def _fits(config, height: int, width: int) -> bool:
    from diffussm.analysis.flops import cost

    try:
        cost(config, height, width)
    except ValueError:
        return False
    return True


def _costs(config, latent: tuple[int, int]) -> dict[str, Any]:
    from diffussm.analysis.flops import cost
    from diffussm.ops.forms import use_form

    price = cost(config, *latent)
    parts = {name: getattr(price, name) for name in ("total", "linears", "mixing", "kernels")}
    if getattr(config, "ssm", None) == "s4d":
        with use_form("diagonal_conv", "chunked"):
            parts["mixing_chunked"] = cost(config, *latent).mixing
    return {"positions": price.positions, "tokens": price.tokens, "multiply_adds": parts}


def _training_memory(config, latent: tuple[int, int]) -> dict[str, int]:
    from dataclasses import asdict

    import torch

    from diffussm.analysis.memory import training_memory

    return asdict(training_memory(config, *latent, torch.bfloat16))


def _sized_up(config):
    """The network of a config without its weights."""
    import torch

    from diffussm.models import build

    with torch.device("meta"):
        return build(config)


def _described(config: dict[str, Any]) -> str:
    """The settings that make a model the size it is."""
    said = [words.format(_said(config[name])) for name, words in SAID.items() if name in config]
    return ", ".join(PLAINER.get(words, words) for words in said)


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _layers(network) -> int:
    """Parameters of the state space layers."""
    from diffussm.ssm.layer import Layer

    return sum(_numel(part) for part in network.modules() if isinstance(part, Layer))


def _numel(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _giga(multiply_adds: int) -> str:
    giga = multiply_adds / 1e9
    return f"{giga:,.1f}" if giga >= 1 or giga == 0 else f"{giga:.4f}"
