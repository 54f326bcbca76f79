"""`diffussm env`: what a report of an error should say about the machine."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import typer

from diffussm import __version__
from diffussm.cli.display import say

PACKAGES = [
    "numpy",
    "safetensors",
    "scikit-learn",
    "matplotlib",
    "triton",
    "diffusers",
    "accelerate",
]
PACKAGES += ["lmdb", "pyarrow", "onnx", "onnxruntime", "gradio", "tensorboard", "wandb"]


def env(
    as_json: bool = typer.Option(False, "--json", help="One JSON object, for machines."),
) -> None:
    """Say what is installed, and on what: diffussm env

    No path, user or host name is in it: it can go into a report as it is.
    """
    found = _found()
    if as_json:
        say(json.dumps(found, indent=2))
        return
    width = max(map(len, found))
    for name, value in found.items():
        say(f"{name:{width}}  {', '.join(value) if isinstance(value, list) else value}")


def _found() -> dict[str, str | list[str]]:
    import torch

    from diffussm.cli.devices import choose_device
    from diffussm.studies.running import processor

    gpus = []
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        gpus.append(f"{device.name}, {device.total_memory / 2**30:.0f} GiB")
    return {
        "diffussm": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(torch.device("cpu")),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "gpus": gpus or "none",
        "device": str(choose_device("auto")),
    } | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
