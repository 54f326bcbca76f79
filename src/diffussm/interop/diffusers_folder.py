"""Folders of diffusers, out and in: a repository for the Hub that needs nothing but diffusers.

    model_index.json              the pipeline, its parts and the model's protocol
    pipeline.py                   DiffuSSMPipeline
    transformer/                  config.json, diffusion_pytorch_model.safetensors and the code
    scheduler/                    scheduler_config.json
    vae/                          the autoencoder, for a model of latents
    README.md, samples.png, LICENSE

diffusers copies the code of every folder to one place, so the model's file is named by what is in
it: two folders made by different versions can be loaded in one process.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from diffussm.checkpoint import Header, header_from, make_folder, one_line
from diffussm.config import from_dict, to_dict
from diffussm.generation import load, picture_grid, to_uint8, write_png
from diffussm.generation.generator import Generator
from diffussm.interop.bundle import bundle
from diffussm.interop.model_card import model_card
from diffussm.models import DiffuSSM, DiffuSSMConfig

PIPELINE, TRANSFORMER = "DiffuSSMPipeline", "DiffuSSMTransformer2DModel"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def export_folder(
    checkpoint: str | Path,
    folder: str | Path,
    *,
    name: str | None = None,
    autoencoder: str | None = None,
    samples: int = 16,
) -> None:
    """Write a model file or run folder as a repository that diffusers loads.

    name           what the usage in README.md loads: the Hub's name; the folder's own unless given
    autoencoder    folder or Hub name of what decodes latents; the one the model names, unless given
    samples        images in samples.png
    Raises ValueError for a checkpoint that cannot be read, a model that is no DiffuSSM or a target
    that is not empty, and OSError where the folder cannot be written. It is there whole or not at
    all.
    """
    checkpoint, folder = Path(checkpoint), Path(folder)
    generator = load(checkpoint, autoencoder=autoencoder)
    if type(generator.model) is not DiffuSSM:
        raise ValueError(
            f"{checkpoint} holds a {type(generator.model).__name__}, and only DiffuSSM brings its "
            "own code to diffusers; a DiT of adaln-zero blocks becomes one of diffusers by "
            "diffussm.interop.dit_diffusers.to_diffusers"
        )
    _ = generator.autoencoder  # a mistake should not wait for the drawing
    run = checkpoint if checkpoint.is_dir() else None
    parameters = sum(parameter.numel() for parameter in generator.model.parameters())
    with _whole(folder) as part:
        _write_parts(generator, part)
        _draw(generator, part / "samples.png", samples)
        card = model_card(generator.config, name or folder.name, parameters, samples, run)
        (part / "README.md").write_text(card)
        (part / "LICENSE").write_text(_licence())


def import_folder(folder: str | Path) -> tuple[DiffuSSM, Header]:
    """The network of such a folder, or of one that its pipeline saved again, and its header.

    Raises ValueError for a folder of another model, and for missing or damaged files.
    """
    folder = Path(folder)
    index = _json(folder / "model_index.json")
    options = _json(folder / "transformer" / "config.json")
    kind = options.get("_class_name")
    if kind != TRANSFORMER:
        raise ValueError(f"{folder} holds another model: its transformer is {kind}")
    header = _header(folder, index, options)
    path = folder / "transformer" / WEIGHTS
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is missing or damaged ({one_line(error)})") from None
    with torch.device("meta"):
        network = DiffuSSM(header.model)
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its config: {one_line(error)}") from None
    return network.eval().requires_grad_(False), header


def to_diffusers_model(network: DiffuSSM) -> Any:
    """The same network as diffusers' own kind of model; both hold the same parameters."""
    from diffussm.interop.diffusers_model import DiffuSSMTransformer2DModel

    with torch.device("meta"):
        model = DiffuSSMTransformer2DModel(**to_dict(network.config))
    model.load_state_dict(network.state_dict(), assign=True)
    return model.eval().requires_grad_(False)


def protocol(header: Header) -> dict[str, Any]:
    """What a header says besides the model, in plain values; the sampler's steps by number."""
    said = to_dict(replace(header, sampling=replace(header.sampling, steps=header.sampling.total)))
    return {key: value for key, value in said.items() if key != "model"}


def _write_parts(generator: Generator, folder: Path) -> None:
    from diffussm.interop.diffusers_scheduler import to_scheduler

    header, autoencoder = generator.config, generator.autoencoder.network
    code = bundle("diffussm.interop.diffusers_model", TRANSFORMER)
    module = f"modeling_diffussm_{code.fingerprint}"
    scheduler = to_scheduler(header.diffusion, header.sampling)
    assert isinstance(generator.model, DiffuSSM)
    to_diffusers_model(generator.model).save_pretrained(folder / "transformer")
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "transformer" / f"{module}.py").write_text(code.source)
    pipeline = bundle("diffussm.interop.diffusers_pipeline", PIPELINE)
    (folder / "pipeline.py").write_text(pipeline.source)
    if autoencoder is not None:
        autoencoder.register_to_config(scaling_factor=header.autoencoder.scale)
        autoencoder.save_pretrained(folder / "vae")
    index = {
        "_class_name": ["pipeline", PIPELINE],
        "_diffusers_version": scheduler.config["_diffusers_version"],
        "transformer": [module, TRANSFORMER],
        "scheduler": ["diffusers", type(scheduler).__name__],
        "vae": [None, None] if autoencoder is None else ["diffusers", "AutoencoderKL"],
        "protocol": protocol(header),
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _draw(generator: Generator, path: Path, count: int) -> None:
    labels, names = generator.labels(count), generator.config.class_names
    pixels = to_uint8(generator.sample(seeds=range(count), labels=labels))
    captions = [str(number) for number in labels or range(count)]
    if labels and names:
        captions = [names[label] for label in labels]
    write_png(path, picture_grid(pixels, captions))


def _licence() -> str:
    text = distribution("diffussm").read_text("licenses/LICENSE")
    if text is None:
        raise ValueError("the licence of diffussm is not installed; install it with pip")
    return text


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write into, which takes its place once all is written."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder} is there already and not an empty folder; give another")
    make_folder(folder.parent)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        yield part
        part.chmod(0o755)
        for file in part.rglob("*.safetensors"):
            file.chmod(0o644)  # safetensors lets only its owner read a file
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is missing or damaged ({one_line(error)})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object")
    return content


def _header(folder: Path, index: dict[str, Any], options: dict[str, Any]) -> Header:
    named = {name: value for name, value in options.items() if not name.startswith("_")}
    try:
        return header_from(index["protocol"], from_dict(DiffuSSMConfig, named, "transformer."))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"the configs in {folder} are damaged ({type(error).__name__}: {one_line(error)})"
        ) from None
