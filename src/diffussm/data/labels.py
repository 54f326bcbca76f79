"""From folders, a CSV file or a column to labels 0, 1, ... and their names."""

import csv
import os
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from diffussm.data.sources import Folders, Source, shown

FOLDERS, NONE, CSV_SUFFIX = "folders", "none", ".csv"
NAME, LABEL = "name", "label"
MAX_CLASSES = 100_000

Given = Sequence[int | str | None]
"""Labels as they are found, one for each image."""


def column_of(labels: str) -> str:
    """The column of the data that `data.labels` names, if it names one."""
    return "" if labels in (FOLDERS, NONE) or labels.lower().endswith(CSV_SUFFIX) else labels


def csv_file(labels: str, source: Source) -> Path | None:
    """The CSV file that `data.labels` names, from the working directory or else beside the data."""
    if not labels.lower().endswith(CSV_SUFFIX):
        return None
    beside = source.path if source.path.is_dir() else source.path.parent
    for path in (Path(labels), beside / labels):
        if path.is_file():
            return path
    raise ValueError(f"data.labels is {labels}: there is no such file, nor one in {beside}")


def find_labels(
    source: Source, labels: str, names: Sequence[bytes], given: Given
) -> tuple[tuple[str, ...], list[int]]:
    """The names of the classes, and each image's number among them, as `data.labels` asks.

    `given` are the labels of its column. Whole numbers stay what they are; texts are numbered in
    their order. Raises ValueError for an image without a label.
    """
    if labels == NONE:
        return (), [0] * len(names)
    table = csv_file(labels, source)
    if table:
        given = _from_csv(table, names)
        where = f"is not in {table}"
    elif labels == FOLDERS:
        given = _from_folders(names, wrapped=not isinstance(source, Folders))
        where = "lies in no folder; set data.labels to none, a CSV file or a column"
    else:
        where = f"has none in the column {labels}"
    missing = [name for name, label in zip(names, given, strict=True) if label is None]
    if missing:
        raise ValueError(
            f"{len(missing):,} of {len(names):,} images in {source.path} have no label: "
            f"{shown(missing[0])} {where}"
        )
    return _numbered(source, labels, given)


def _numbered(source: Source, labels: str, given: Given) -> tuple[tuple[str, ...], list[int]]:
    numbers = [label for label in given if isinstance(label, int)]
    if len(numbers) < len(given):
        classes = sorted({str(label) for label in given})
        number = {name: i for i, name in enumerate(classes)}
        return tuple(classes), [number[str(label)] for label in given]
    names = source.label_names(labels)
    low, high = min(numbers), max(numbers)
    limit = len(names) or MAX_CLASSES
    if low < 0 or high >= limit:
        raise ValueError(
            f"the labels {labels} of {source.path} run from {low} to {high}; those of classes lie "
            f"between 0 and {limit - 1}"
        )
    return names or tuple(map(str, range(high + 1))), numbers


def _from_folders(names: Sequence[bytes], wrapped: bool) -> Given:
    """The first folder of each name; where `wrapped`, not those that hold all the others."""
    levels = [_levels(name) for name in names]
    outer = 0
    if wrapped:
        pairs = zip(min(levels), max(levels), strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        outer = max(0, min(shared, min(map(len, levels)) - 1))
    return [shown(level[outer]) if len(level) > outer else None for level in levels]


def _levels(name: bytes) -> list[bytes]:
    """The folders of a name within its archive; an archive of loose images is one itself."""
    levels = name.split(b"/")[:-1]
    for place in range(len(levels) - 1, -1, -1):
        stem, suffix = os.path.splitext(levels[place])
        if suffix.lower() in (b".tar", b".zip"):
            return levels[place + 1 :] or [stem]
    return levels


def _from_csv(path: Path, names: Sequence[bytes]) -> Given:
    try:
        found = _read_csv(path)
    except csv.Error as error:
        raise ValueError(f"{path} is no table: {error}") from None
    given = [found.get(name) for name in names]
    whole = all(label is None or label.isdecimal() for label in given)
    return [int(label) if label is not None and whole else label for label in given]


def _read_csv(path: Path) -> dict[bytes, str | None]:
    found: dict[bytes, str | None] = {}
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file)
        if not {NAME, LABEL} <= set(rows.fieldnames or ()):
            raise ValueError(f"{path} has no columns {NAME!r} and {LABEL!r} in its first line")
        for row in rows:
            name = os.fsencode(row[NAME] or "")
            label = shown(os.fsencode(row[LABEL])) if row[LABEL] else None
            if found.setdefault(name, label) != label:
                raise ValueError(f"{path} gives {shown(name)} two labels: {found[name]}, {label}")
    return found
