"""Where the weights of FID's Inception-v3 come from: a path, the usual places, or a download.

The file is pytorch-fid's conversion of TensorFlow's graph of 2015-12-05; its name holds the first
digits of its SHA-256. Nothing is fetched unless asked for.
"""

import hashlib
import http.client
import os
import pickle
import urllib.request
from pathlib import Path
from typing import Any

import torch

from diffussm.checkpoint import make_folder, one_line, write_safely
from diffussm.data.index import cache_folder

FILE = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
CHECKSUM = "6726825d"
"""First digits of the SHA-256 of the file."""
MEGABYTES = 95
PATIENCE = 60
"""Seconds without an answer after which a download is given up."""


def find_weights(path: Path | None = None, *, download: bool = False) -> Path:
    """The file of weights: `path` if given, else the first in `usual_places`, else a download.

    download    fetch the file into the last of the usual places if it is in none of them
    Raises ValueError where it is missing or cannot be fetched, OSError where it cannot be written.
    """
    if path is not None:
        if not path.is_file():
            raise ValueError(f"there is no file {path}; give the path of {FILE}")
        return path
    places = usual_places()
    for place in places:
        if place.is_file():
            return place
    if download:
        return _download(places[-1])
    raise ValueError(
        f"FID needs the Inception weights {FILE}, which are in none of "
        f"{', '.join(str(place.parent) for place in places)}; give their path (--weights), or let "
        f"them be downloaded (--download: {MEGABYTES} MB from {URL}), or take other features "
        "(--features), whose Frechet distance then bears their name"
    )


def usual_places() -> list[Path]:
    """Where torch.hub keeps such files, and this package's own cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    hub = Path(os.environ.get("TORCH_HOME") or cache / "torch") / "hub" / "checkpoints"
    return [hub / FILE, cache_folder() / FILE]


def check_weights(path: Path) -> str:
    """The SHA-256 of a file of weights; ValueError where it is not that of the published ones."""
    found = _sha256(path)
    if not found.startswith(CHECKSUM):
        raise ValueError(
            f"{path} holds other weights than {FILE}, or not all of them: its SHA-256 is {found} "
            f"and must begin with {CHECKSUM}; remove it and download it again"
        )
    return found


def read_weights(path: Path) -> dict[str, Any]:
    """The tensors of a file, which may hold nothing else; ValueError where it cannot be read."""
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError) as error:
        raise ValueError(f"cannot read the weights in {path} ({one_line(error)})") from None


def _download(place: Path) -> Path:
    def fetch(temporary: Path) -> None:
        try:
            with urllib.request.urlopen(URL, timeout=PATIENCE) as answer:
                content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ValueError(
                f"cannot download {URL} ({one_line(error)}); fetch it elsewhere and put it into "
                f"{place.parent}"
            ) from None
        temporary.write_bytes(content)
        found = _sha256(temporary)
        if not found.startswith(CHECKSUM):
            raise ValueError(
                f"what {URL} gave is not whole: its SHA-256 is {found} and must begin with "
                f"{CHECKSUM}; try again"
            )

    make_folder(place.parent)
    write_safely(place, fetch)
    return place


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
