"""Reading images: the list of a large archive, decoding, and what is left of it in a training step.

    python benchmarks/data.py [--entries 1280000] [--step 0.5] [--out benchmarks/results/FILE.md]

The archive is a tar of members of one byte in a thousand folders (1 KiB an entry, in --folder).
Decoding is of photographs of 500 x 375 pixels, as JPEG, cropped to 256 x 256. A step stands for an
accelerator's: it leaves the processor alone. Overhead is the share of time in which training waits
for a batch.
"""

import argparse
import io
import os
import shutil
import tarfile
import tempfile
from datetime import date
from itertools import count, islice
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import PIL.Image
import torch
from timing import processor, seconds

from diffussm.data import DataConfig, read_ahead
from diffussm.data.images import StoredImages

CLASSES, SIZE, BATCH = 1000, 256, 16
BUILD_LIMIT, REOPEN_LIMIT, OVERHEAD_LIMIT = 30, 2, 5
"""Microseconds an entry, seconds, percent of a step."""


def make_tar(path: Path, entries: int) -> None:
    """A tar of `entries` images of one byte, named as ImageNet's."""
    template = tarfile.TarInfo("n00000000/n00000000_00000000.JPEG")
    template.size = 1
    with path.open("wb") as file:
        for number in range(entries):
            folder = number * CLASSES // entries
            template.name = f"n{folder:08d}/n{folder:08d}_{number:08d}.JPEG"
            file.write(template.tobuf(tarfile.USTAR_FORMAT) + b"x" + bytes(511))
        file.write(bytes(1024))


def make_photographs(folder: Path, number: int = 64) -> None:
    """JPEG files of smooth random colours, which cost what photographs do."""
    draws = np.random.default_rng(0)
    for name in range(number):
        small = PIL.Image.fromarray(draws.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        data = io.BytesIO()
        small.resize((500, 375), PIL.Image.Resampling.BICUBIC).save(data, "JPEG", quality=92)
        (folder / f"{name}.jpg").write_bytes(data.getvalue())


def index_rows(path: Path, entries: int) -> list[str]:
    config = DataConfig(name="images", path=str(path))
    build = seconds(lambda: StoredImages(config))
    reopen = seconds(lambda: StoredImages(config))
    data = StoredImages(config)
    last = f"n{CLASSES - 1:08d}_{entries - 1:08d}.JPEG".encode()
    place = data.index.place(len(data) - 1)
    if (len(data), len(data.class_names)) != (entries, CLASSES) or not place.name.endswith(last):
        raise SystemExit("the list is wrong; not timed")
    return [
        row(f"list of {entries:,} entries, µs each", 1e6 * build / entries, BUILD_LIMIT),
        row("the same reopened, s", reopen, REOPEN_LIMIT),
    ]


def reading_rows(folder: Path, workers: int, step: float) -> list[str]:
    data = StoredImages(DataConfig(name="images", path=str(folder), size=SIZE, labels="none"))
    ranges = (range(start, start + BATCH) for start in count(0, BATCH))
    batches = read_ahead(data, 0, ranges, workers)
    expected = next(read_ahead(data, 0, [range(BATCH)], 0))
    if not torch.equal(next(batches).images, expected.images):
        raise SystemExit(f"{workers} workers read something else; not timed")
    list(islice(batches, workers))  # what was ready before the clock starts
    number = 8
    speed = number * BATCH / seconds(lambda: list(islice(batches, number)))
    rows = [row(f"images decoded a second, {workers} workers", speed)]
    if workers:
        waited = []
        for _ in range(number):
            sleep(step)
            started = perf_counter()
            next(batches)
            waited.append(perf_counter() - started)
        share = 100 * sum(waited) / (number * step + sum(waited))
        what = f"overhead over steps of {step} s, batch {BATCH}, {workers} workers, %"
        rows.append(row(what, share, OVERHEAD_LIMIT))
    batches.close()
    return rows


def row(what: str, value: float, limit: float | None = None) -> str:
    return f"| {what} | {value:.3g} | {'' if limit is None else f'{limit:g}'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_280_000, help="of the archive")
    parser.add_argument("--step", type=float, default=0.5, help="seconds of a training step")
    parser.add_argument("--workers", default="0,1,2", help="numbers of them, with commas")
    parser.add_argument("--folder", type=Path, help="where the made files lie meanwhile")
    parser.add_argument("--out", type=Path, help="write the table there too")
    arguments = parser.parse_args()
    if arguments.entries < CLASSES:
        raise SystemExit(f"--entries must be at least {CLASSES}, one for each class")
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    try:
        make_tar(folder / "images.tar", arguments.entries)
        (folder / "photographs").mkdir()
        make_photographs(folder / "photographs")
        rows = index_rows(folder / "images.tar", arguments.entries)
        for workers in map(int, arguments.workers.split(",")):
            rows += reading_rows(folder / "photographs", workers, arguments.step)
    finally:
        shutil.rmtree(folder)
    lines = [f"{date.today()}, {processor()}, torch {torch.__version__}", ""]
    lines += ["| | measured | at most |", "|---|---|---|", *rows]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
