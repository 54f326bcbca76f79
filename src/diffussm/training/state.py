"""The state of a run on the disk: all that going on exactly needs, kept for the two last times.

    state/000000012800/rank-0-of-2.safetensors     what rank 0 had after 12,800 images
    state/000000012800/rank-1-of-2.safetensors

Each rank writes its own file, whole or not at all, and asks no other: a folder counts once all of
its files are there, so that a kill at any instant leaves the last one that does. The layout is that
of torch.distributed.checkpoint, which reads it onto any number of ranks: beside the tensors stands
at which place of the whole each belongs. A checksum covers everything. No file holds code.
"""

import json
import re
import shutil
import warnings
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffussm.checkpoint import make_folder, one_line, write_safely
from diffussm.training.distributed import World
from diffussm.training.parallel import is_sliced, local

STATE = "state"
KEPT = 2
FORMAT = 1
NAME = re.compile(r"rank-(\d+)-of-(\d+)\.safetensors")

Described = dict[str, dict[str, Any]]
"""A file's metadata."""

AVERAGE = "ema."
"""How the names of the averaged weights begin."""

PLACES, PLACE = "DCP_SHARDING_INFO", "saved_offsets"
"""Where torch.distributed.checkpoint looks, in a file's metadata, for each tensor's place."""
OURS = "diffussm"
"""What we add there: counts, format and checksum. One key alone keeps a file's bytes the same."""


def snapshot(tensors: Mapping[str, Tensor], world: World) -> tuple[dict[str, Tensor], Described]:
    """This rank's share of `tensors`, copied to the CPU, and the place of each in the whole.

    A sliced tensor's slice is this rank's. Of the others rank 0 takes the average's, since it
    writes the model too, and the rest goes round.
    """
    copies, places, dealt = {}, {}, 0
    for name, tensor in tensors.items():
        if is_sliced(tensor):
            place = list(tensor.__create_chunk_list__()[0].offsets)  # pyright: ignore
        else:
            place = [0] * tensor.dim()
            owner = 0
            if not name.startswith(AVERAGE):
                owner, dealt = dealt % world.size, dealt + 1
            if owner != world.rank:
                continue
        piece = local(tensor.detach())
        if piece.numel():
            copies[name] = piece.to("cpu", copy=True).contiguous()
            places[name] = {PLACE: place}
    return copies, places


def write_state(
    folder: Path,
    tensors: Mapping[str, Tensor],
    places: Described,
    counts: dict[str, int],
    world: World,
) -> None:
    """Write this rank's file into `folder` of a run; OSError where that cannot be."""
    target = state_folder(folder, counts["images"])
    make_folder(target)
    described = {OURS: {"format": FORMAT, "counts": counts}} | places
    described[OURS]["checksum"] = _checksum(described, sorted(tensors.items()))

    def save(temporary: Path) -> None:
        save_file(dict(tensors), temporary, metadata={PLACES: json.dumps(described)})
        temporary.chmod(0o644)  # safetensors lets only its owner read a file

    write_safely(target / f"rank-{world.rank}-of-{world.size}.safetensors", save)


def complete(folder: Path) -> list[Path]:
    """The states of a run with all their files, newest first."""
    found = (folder / STATE).glob("[0-9]*") if folder.is_dir() else []
    return sorted((each for each in found if _files(each)), key=_images, reverse=True)


def forget(folder: Path, *, newer_than: int) -> None:
    """Remove states that going on will write anew, and parts of such."""
    for each in (folder / STATE).glob("[0-9]*"):
        if _images(each) > newer_than or not _files(each):
            shutil.rmtree(each)


def prune(folder: Path) -> None:
    """Remove what is older than the last states that count."""
    kept = complete(folder)[:KEPT]
    for each in (folder / STATE).glob("[0-9]*"):
        if len(kept) == KEPT and _images(each) < _images(kept[-1]):
            shutil.rmtree(each)


def damage(state: Path, world: World) -> str:
    """What is wrong with a state's files, one sentence; "" where nothing is. All ranks must ask."""
    wrong = [_damage(path) for path in _files(state)[world.rank :: world.size]]
    return next((sentence for part in world.gather(wrong) for sentence in part if sentence), "")


def read_state(state: Path, tensors: dict[str, Tensor], world: World) -> dict[str, int]:
    """Fill `tensors` with a state, however many ranks wrote it, and give its counts.

    Raises ValueError where they are not the state's in names or shapes.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = HuggingFaceStorageReader(str(state))
    found = {name: tuple(entry.size) for name, entry in _entries(reader).items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != wanted:
        name = min(found.keys() ^ wanted.keys() or _differing(found, wanted))
        raise ValueError(
            f"{state} does not fit the recipe's model: {name} is {_shape(found.get(name))} there "
            f"and {_shape(wanted.get(name))} here"
        )
    with warnings.catch_warnings():  # that a single process is what it looks like
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load(tensors, storage_reader=reader, no_dist=world.size == 1)
    with safe_open(_files(state)[0], framework="pt") as file:
        return json.loads(file.metadata()[PLACES])[OURS]["counts"]


def state_folder(folder: Path, images: int) -> Path:
    """Where the state after so many images lies in a run's folder."""
    return folder / STATE / f"{images:012d}"


def _images(state: Path) -> int:
    return int(state.name)


def _files(state: Path) -> list[Path]:
    """All files of a state in the order of ranks; none where one is missing."""
    names = [match for path in state.iterdir() if (match := NAME.fullmatch(path.name))]
    sizes = {int(match[2]) for match in names}
    if len(sizes) != 1 or len(names) != min(sizes):
        return []
    return [state / match[0] for match in sorted(names, key=lambda match: int(match[1]))]


def _damage(path: Path) -> str:
    try:
        with safe_open(path, framework="pt") as file:
            described = json.loads(file.metadata()[PLACES])
            checksum = described[OURS].pop("checksum")
            tensors = ((name, file.get_tensor(name)) for name in sorted(file.keys()))
            if checksum != _checksum(described, tensors):
                return f"{path} is damaged (its checksum is wrong)"
        if described[OURS]["format"] > FORMAT:
            return f"{path} was written by a newer diffussm"
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        return f"{path} is damaged ({one_line(error)})"
    return ""


def _checksum(described: Described, tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Of all that a file says: of its metadata, then name, kind, shape and bytes of each tensor."""
    found = zlib.crc32(json.dumps(described).encode())
    for name, tensor in tensors:
        found = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), found)
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"


def _entries(reader: Any) -> dict[str, Any]:
    return reader.read_metadata().state_dict_metadata


def _differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    return [name for name in wanted if found[name] != wanted[name]]


def _shape(size: tuple[int, ...] | None) -> str:
    return "missing" if size is None else " x ".join(map(str, size)) or "a number"
