"""Anyone's feature network, as an ONNX file: a graph and numbers, and no code.

    input     images: uint8 (batch, channels, height, width), batch of any size
    output    features: float32 (batch, dim), the first one where there are several

What is done to bytes before a network sees them (scaling, resizing) belongs into its graph. Other
programs that torch can read back are no safe thing to be sent: loading a `.pt2` falls back on
pickle and evaluates text.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diffussm.checkpoint import one_line
from diffussm.evaluation.features import Features, Pixels


class OnnxFeatures:
    """A feature network from a file; its name is the file's.

    Raises ValueError where the file is missing or holds no such network, or onnxruntime is missing.
    """

    def __init__(self, path: Path):
        self.name = path.stem
        self._session, self.identity = _open(path)
        (source, *others), target = self._session.get_inputs(), self._session.get_outputs()[0]
        if others or source.type != "tensor(uint8)" or len(source.shape) != 4:
            raise ValueError(
                f"{path} must have one input, uint8 (batch, channels, height, width), not "
                f"{_described([source, *others])}"
            )
        if isinstance(source.shape[0], int):
            raise ValueError(
                f"{path} takes {source.shape[0]} images at a time; export it for any number"
            )
        if (
            target.type != "tensor(float)"
            or len(target.shape) != 2
            or not isinstance(target.shape[1], int)
        ):
            raise ValueError(
                f"{path} must give float32 (batch, dim) with a known dim first, not "
                f"{_described([target])}"
            )
        self._source, self._target = source, target.name
        self.spaces: Mapping[str, int] = {"pool": target.shape[1]}

    def __call__(self, images: Pixels) -> dict[str, Features]:
        """Features of images; grey ones are shown thrice where the network takes colour.

        Raises ValueError for images of a size or channels that it does not take.
        """
        channels, *sides = self._source.shape[1:]
        if channels == 3 and images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        found = images.shape[1:]
        wanted = (channels, *sides)
        if any(
            isinstance(want, int) and want != is_ for want, is_ in zip(wanted, found, strict=True)
        ):
            raise ValueError(
                f"{self.name} sees images of {' x '.join(map(str, wanted))}, not of "
                f"{' x '.join(map(str, found))}; take other features"
            )
        shown = images.cpu().contiguous().numpy()
        given = self._session.run([self._target], {self._source.name: shown})[0]
        return {"pool": torch.from_numpy(given)}


def _open(path: Path) -> tuple[Any, str]:
    """The program in a file, ready to run, and the SHA-256 of the file."""
    if not path.is_file():
        raise ValueError(f"there is no feature network {path}; give an .onnx file")
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            "feature networks in ONNX need onnxruntime: pip install 'diffussm[export]'"
        ) from None
    data = path.read_bytes()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    # all of it must lie in this file, or its SHA-256 would not tell what it is
    nowhere = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(nowhere, str(path.parent / f".{path.name}.none"))
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds, one for each way to be damaged
        raise ValueError(
            f"{path} is damaged, no ONNX file, or has weights outside it ({one_line(error)})"
        ) from None
    return session, hashlib.sha256(data).hexdigest()


def _described(values: list[Any]) -> str:
    return ", ".join(f"{value.type} {value.shape}" for value in values)
