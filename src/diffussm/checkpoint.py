"""The model file: weights in safetensors, and a header that says everything needed to use them.

    model.safetensors   EMA weights; metadata "diffussm" = one JSON object, the `Header`

Files are written under another name, flushed to the disk and renamed, so that a kill or a full
disk at any instant leaves the last good one. No file holds code.
"""

import json
import os
import textwrap
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diffussm import __version__
from diffussm.autoencoder import PIXELS, AutoencoderConfig
from diffussm.config import choose, from_dict, to_dict
from diffussm.diffusion import DiffusionConfig, Guidance, Sampling
from diffussm.models import MODELS, build

FORMAT = 1
MODEL_FILE = "model.safetensors"
METADATA_KEY = "diffussm"


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a model file says of itself."""

    model: Any
    """Config of the network, a dataclass of one of `diffussm.models.MODELS`."""
    diffusion: DiffusionConfig
    """The process it was trained on."""
    class_names: tuple[str, ...]
    """Names of the labels 0, 1, ...; empty for an unconditional model."""
    sampling: Sampling
    """Its usual sampler."""
    guidance: Guidance
    """Its usual guidance."""
    images: int
    """Images seen in training."""
    autoencoder: AutoencoderConfig = PIXELS
    """What made the latents it works on; none, unless said."""


def save_model(path: Path, network: nn.Module, header: Header) -> None:
    """Write a model file; OSError, and the previous file untouched, where that fails."""
    save_weights(path, network.state_dict(), header)


def save_weights(path: Path, weights: Mapping[str, Tensor], header: Header) -> None:
    """Write a model file from a network's `state_dict`; errors as in `save_model`."""
    family = next(name for name, (_, kind) in MODELS.items() if type(header.model) is kind)
    described = to_dict(header) | {
        "format": FORMAT,
        "version": __version__,
        "family": family,
    }
    metadata = {METADATA_KEY: json.dumps(described)}
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}

    def write(temporary: Path) -> None:
        save_file(tensors, temporary, metadata=metadata)
        temporary.chmod(0o644)  # safetensors lets only its owner read a file

    write_safely(path, write)


def load_model(path: str | Path, device: str | torch.device = "cpu") -> tuple[nn.Module, Header]:
    """The network of a model file or run folder, ready to denoise, and its header.

    Raises ValueError for a missing, truncated, foreign or newer file.
    """
    path = model_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = _read_header(path, file.metadata() or {})
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None
    with torch.random.fork_rng(devices=[]):  # fresh weights must not use up the caller's numbers
        network = build(header.model)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"the weights in {path} do not fit its header: {one_line(error)}"
        ) from None
    return network.to(device).eval().requires_grad_(False), header


def load_header(path: str | Path) -> Header:
    """What a model file or run folder says of itself; errors as in `load_model`."""
    path = model_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return _read_header(path, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def model_file(path: str | Path) -> Path:
    """The model file that `path` means: itself, or the one at the root of a run folder."""
    path = Path(path)
    if path.is_dir():
        if not (path / MODEL_FILE).is_file():
            raise ValueError(f"the folder {path} has no {MODEL_FILE}; has its run saved one yet?")
        return path / MODEL_FILE
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}; give a run folder or a model file")
    return path


def make_folder(path: Path) -> None:
    """Make a folder and those above it; OSError, saying which, where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make the folder {path} ({error.strerror}); try another") from None


def write_safely(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file, and put it at `path` only once all of it is on the disk.

    Whatever stops it, an earlier file at `path` stays whole. Raises OSError for a full disk.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        write(temporary)
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, (OSError, RuntimeError, SafetensorError)):  # each may mean a full disk
            raise OSError(
                f"could not write {path} ({one_line(error)}); is there space? "
                "Any earlier file is untouched"
            ) from error
        raise


def one_line(error: BaseException) -> str:
    """What an error says, short and on one line."""
    return textwrap.shorten(str(error), 200, placeholder=" ...") or type(error).__name__


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged or not a safetensors file ({one_line(error)})")


def _read_header(path: Path, metadata: dict[str, str]) -> Header:
    if METADATA_KEY not in metadata:
        raise ValueError(f"{path} was not written by diffussm: it has no {METADATA_KEY!r} header")
    try:
        described = json.loads(metadata[METADATA_KEY])
        if described["format"] <= FORMAT:
            return header_from(described, _model(described))
        newer = f"format {described['format']}, written by diffussm {described['version']}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the header of {path} is damaged ({type(error).__name__}: {one_line(error)})"
        ) from None
    raise ValueError(
        f"{path} has {newer}; this is {__version__}, which reads up to {FORMAT}: "
        "install a newer one"
    )


def header_from(described: dict[str, Any], model: Any) -> Header:
    """The header of a model from its plain values; KeyError, TypeError or ValueError if wrong."""
    return Header(
        model=model,
        diffusion=from_dict(DiffusionConfig, described["diffusion"], "diffusion."),
        class_names=tuple(described["class_names"]),
        sampling=from_dict(Sampling, described["sampling"], "sampling."),
        guidance=from_dict(Guidance, described["guidance"], "guidance."),
        images=int(described["images"]),
        autoencoder=from_dict(AutoencoderConfig, described["autoencoder"], "autoencoder."),
    )


def _model(described: dict[str, Any]) -> Any:
    _, kind = choose("model family", described["family"], MODELS)
    return from_dict(kind, described["model"], "model.")
