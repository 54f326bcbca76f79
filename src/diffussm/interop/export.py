"""A trained denoiser as a program that runs without this package.

    .pt2    torch.export: `torch.export.load(path).module()(x_t, t, y)` in any PyTorch
    .onnx   onnxruntime and whatever else reads ONNX: inputs x_t, t, y, output prediction

Unconditional networks have no y. Images are float32, time steps and labels int64. A program is made
for one size of image, and for one batch or any. Kernels of time-invariant layers rest in it; how
these layers are computed is told in `plain_layers`.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from diffussm.checkpoint import write_safely
from diffussm.interop.plain_layers import plain

OPSET = 20
"""Of ONNX: the oldest with gelu, which onnxruntime 1.17 and later run."""


def export_program(
    network: nn.Module,
    path: str | Path,
    size: tuple[int, int] | None = None,
    batch: int | None = 1,
) -> None:
    """Write `network` as a PyTorch program, `.pt2`.

    size     height and width of the images; those it is trained on, unless given
    batch    images in a batch; None makes a program for any number
    Raises ValueError for another ending, a size the network cannot take or a batch below 1;
    OSError where the file cannot be written.
    """
    path = _checked(path, ".pt2")
    program = _program(network, size, batch)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            torch.export.save(program, file)

    write_safely(path, write)


def export_onnx(
    network: nn.Module,
    path: str | Path,
    size: tuple[int, int] | None = None,
    batch: int | None = 1,
) -> None:
    """Write `network` as an ONNX model; arguments and errors as for `export_program`.

    A package that is missing is a ValueError too. Weights beyond ONNX's limit of 2 GB lie beside
    it, in a file with ".data" after its name.
    """
    path = _checked(path, ".onnx")
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ValueError(f"ONNX files need {' and '.join(missing)}: pip install 'diffussm[export]'")
    program = _program(network, size, batch)
    with _quiet():
        model = torch.onnx.export(
            program, output_names=["prediction"], opset_version=OPSET, verbose=False
        )
    assert model is not None

    def write(temporary: Path) -> None:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            written = Path(folder) / path.name  # a file says by which name its weights go
            model.save(written)
            weights = written.with_name(f"{path.name}.data")
            if weights.exists():
                write_safely(path.with_name(weights.name), weights.replace)
            written.replace(temporary)

    write_safely(path, write)


def _checked(path: str | Path, ending: str) -> Path:
    """A sentence, before any work is done, for a file that cannot be."""
    path = Path(path)
    if path.suffix != ending:
        raise ValueError(f"this program's file must end in {ending}, not {path.name}")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} to write {path.name} in")
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch's exporters say about themselves, which nobody here can mend."""
    absent = logging.getLogger("torch.onnx._internal.exporter._registration")  # torchvision
    level = absent.level
    absent.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            own = r"`isinstance\(treespec, LeafSpec\)` is deprecated"
            warnings.filterwarnings("ignore", own, FutureWarning)
            yield
    finally:
        absent.setLevel(level)


def _program(
    network: nn.Module, size: tuple[int, int] | None, batch: int | None
) -> ExportedProgram:
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1, or None for any number, not {batch}")
    config: Any = network.config
    height, width = size or config.size
    images = 2 if batch is None else batch  # an example of 1 would make it a constant
    inputs = {
        "x_t": torch.zeros(images, config.in_channels, height, width),
        "t": torch.zeros(images, dtype=torch.long),
    }
    if config.num_classes:
        inputs["y"] = torch.zeros(images, dtype=torch.long)
    shapes = None
    if batch is None:
        shapes = {name: {0: Dim("batch", min=1)} for name in inputs}
    with torch.no_grad(), _quiet():
        network = plain(network, *inputs.values())
        return torch.export.export(network, tuple(inputs.values()), dynamic_shapes=shapes)
