"""Published DiT checkpoints, in and out.

A `.pt` file holds a dict of tensors by name, or, as the training code saves it, several such dicts
of which "ema" is the one to sample with. Nothing in it says which DiT it is: shapes tell.

Files are unpickled by torch's restricted reader, which makes tensors and plain values and runs
no code that a file may bring.

Names and shapes: Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023, as released.
"""

import argparse
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffussm.autoencoder import PIXELS, STABLE_DIFFUSION
from diffussm.checkpoint import MODEL_FILE, Header, make_folder, save_model, write_safely
from diffussm.diffusion import DIT_CHANNELS, DiffusionConfig, Guidance, Sampling
from diffussm.models.dit import DIT_PRESETS, DiT, DiTConfig
from diffussm.nn.embeddings import grid_positions

HEADS = {options["d_model"]: options["num_heads"] for options in DIT_PRESETS.values()}
"""Heads of the published widths; shapes do not tell them."""

BLOCK = re.compile(r"blocks\.\d+\.attn\.qkv\.weight")
"""What each block has once."""

LATENT_CHANNELS = 4
"""Of Stable Diffusion's autoencoder."""

LISTED = 3
"""Names that an error lists before it counts the rest."""


def read_dit(
    path: str | Path,
    *,
    num_heads: int | None = None,
    input_size: int | tuple[int, int] | None = None,
) -> DiT:
    """The DiT of a published checkpoint, in float32, ready to denoise.

    num_heads    of each attention; that of the published model of the same width, unless given
    input_size   height and width it was trained on; a square, unless given
    Raises ValueError for a file that is missing, damaged, no DiT, or brings more than tensors.
    """
    path = Path(path)
    weights = _weights(path, _unpickled(path))
    config = _config(path, weights, num_heads, input_size)
    with torch.device("meta"):
        network = DiT(config)
    _check(path, weights, network.state_dict())
    network = network.to_empty(device="cpu")
    network.load_state_dict(weights)
    expected = grid_positions(*config.tokens(*config.size), config.d_model)
    if not torch.allclose(network.pos_embed[0], expected, atol=0.01):  # a half-precision file's
        raise ValueError(
            f"pos_embed in {path} is not that of {config.size[0]}x{config.size[1]}; "
            "give the input_size it was trained on"
        )
    return network.eval().requires_grad_(False)


def write_dit(model: DiT, path: str | Path) -> None:
    """Write the weights as a published checkpoint, a dict of tensors; OSError where that fails.

    Raises ValueError for a model whose blocks have no published form.
    """
    if model.config.conditioning != "adaln-zero":
        raise ValueError(
            f"published checkpoints have adaln-zero blocks, not {model.config.conditioning}"
        )
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    write_safely(Path(path), lambda temporary: torch.save(weights, temporary))


def convert_dit(
    path: str | Path,
    folder: str | Path,
    *,
    num_heads: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    images: int = 0,
) -> DiT:
    """Read a published checkpoint, and write it as the model file of a run folder; returns it.

    images    seen in training, where known; the rest and ValueErrors as in `read_dit`
    Raises OSError where the folder cannot be written.
    """
    network, folder = read_dit(path, num_heads=num_heads, input_size=input_size), Path(folder)
    make_folder(folder)
    save_model(folder / MODEL_FILE, network, published_header(network.config, images))
    return network


def published_header(config: DiTConfig, images: int = 0) -> Header:
    """What a published checkpoint does not say of itself: how it was trained and is sampled.

    Latents of Stable Diffusion, 1000 linear steps, noise and variance predicted, 250 steps to
    sample, and the guidance of the paper's best numbers (table 2): 1.5, on the first three latent
    channels. A model with another number of channels is taken for one of pixels.
    """
    latent = config.in_channels == LATENT_CHANNELS
    guidance = Guidance()
    if config.num_classes:
        guidance = Guidance(scale=1.5, channels=DIT_CHANNELS if latent else None)
    return Header(
        model=config,
        diffusion=DiffusionConfig(learned_variance=config.learned_variance, clip_x0=not latent),
        class_names=(),
        sampling=Sampling(sampler="ddpm", steps=250),
        guidance=guidance,
        images=images,
        autoencoder=STABLE_DIFFUSION if latent else PIXELS,
    )


def _unpickled(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}; give a .pt file")
    # The training code saves its arguments beside the weights; a Namespace only holds values.
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            # Mapped, not read: beside the weights lie the optimiser's, which nobody needs here.
            mapped = zipfile.is_zipfile(path)  # files older than PyTorch 1.6 are not
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:  # a damaged pickle raises whatever it leads to
            called = _would_call(path)
            if called:
                raise ValueError(
                    f"{path} holds more than tensors: to read it is to call {_some(called)}, which "
                    "could do anything to this machine; nothing of it was run"
                ) from None
            # torch's own words end in the advice to trust the file: only their kind is passed on
            kind = type(error).__name__
            raise ValueError(f"{path} is damaged or no PyTorch file of tensors ({kind})") from None


def _would_call(path: Path) -> list[str]:
    """What else than tensors a file would make, read off without making it."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # too old or too damaged to tell
        return []


def _weights(path: Path, content: Any) -> dict[str, Tensor]:
    for name in ("ema", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise ValueError(
            f'{path} is not a DiT checkpoint: it holds no tensors by name, neither in "ema" '
            'and "model" nor at its top'
        )
    return content


def _config(
    path: Path,
    weights: dict[str, Tensor],
    num_heads: int | None,
    input_size: int | tuple[int, int] | None,
) -> DiTConfig:
    def shape(name: str, axes: int) -> torch.Size:
        if name not in weights or weights[name].dim() != axes or 0 in weights[name].shape:
            raise ValueError(f"{path} is not a DiT checkpoint: it has no {name} of {axes} axes")
        return weights[name].shape

    dim, channels, patch, _ = shape("x_embedder.proj.weight", 4)
    tokens = shape("pos_embed", 3)[1]
    outputs = shape("final_layer.linear.weight", 2)[0]
    mlp_width = shape("blocks.0.mlp.fc1.weight", 2)[0]
    labels = "y_embedder.embedding_table.weight"
    num_classes = shape(labels, 2)[0] - 1 if labels in weights else 0
    if num_heads is None and dim not in HEADS:
        raise ValueError(
            f"no published DiT has the width {dim} of {path}, and shapes do not tell its heads: "
            "give num_heads"
        )
    side = math.isqrt(tokens)
    if input_size is None and side**2 != tokens:
        raise ValueError(f"the {tokens} tokens of {path} are no square: give its input_size")
    try:
        return DiTConfig(
            input_size=side * patch if input_size is None else input_size,
            in_channels=channels,
            num_classes=num_classes,
            patch_size=patch,
            d_model=dim,
            depth=sum(bool(BLOCK.fullmatch(name)) for name in weights),
            num_heads=HEADS[dim] if num_heads is None else num_heads,
            mlp_ratio=mlp_width / dim,
            learned_variance=outputs == 2 * channels * patch**2,
        )
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a DiT: {error}") from None


def _check(path: Path, weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """ValueError, listing a few, for names or shapes that are not those of the network."""
    differing = [
        f"{name} {tuple(weights[name].shape)} (not {tuple(tensor.shape)})"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    problems = [
        f"{what} {_some(names)}"
        for what, names in (
            ("lacks", [name for name in expected if name not in weights]),
            ("has the unknown", [name for name in weights if name not in expected]),
            ("has other shapes:", differing),
        )
        if names
    ]
    if problems:
        raise ValueError(f"{path} is no published DiT: it {'; it '.join(problems)}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
