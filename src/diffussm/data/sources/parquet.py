"""Images in Parquet files, as Hugging Face's datasets are stored.

The column of images holds {bytes, path} or the bytes alone; any other column may hold labels, whose
names then come from the note that Hugging Face leaves in the file. Parquet is read by row groups:
an image costs its whole group (usually 100 images), unless it lies in the one read last. Where that
is too slow, encode latents once, which reads in order.
"""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from diffussm.data.sources.source import Place, Source

IMAGE_COLUMN = "image"
NOTE = b"huggingface"


class Parquet(Source):
    """One or more files; `offset` is the row group, `size` the row in it."""

    def scan(self, column: str = "") -> Iterator[Place]:
        for part, path in enumerate(self.parts):
            prefix = self.prefix(part)
            file, row = _open(path), 0
            others = [name for name in file.schema_arrow.names if name != _image_column(path)]
            if column and column not in others:
                raise self.no_column(column, others)
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                labels: list[Any] = [None] * count
                if column:
                    table = file.read_row_group(group, [column], use_threads=False)
                    labels = [_label(value) for value in table[column].to_pylist()]
                for number, label in enumerate(labels):
                    yield Place(prefix + b"%09d" % row, part, group, number, label)
                    row += 1

    def read(self, place: Place) -> bytes:
        path = self.parts[place.part]
        value = _group(path, place.offset)[place.size].as_py()
        data = value["bytes"] if isinstance(value, dict) else value
        if data is None:
            raise OSError(f"{path} has nothing there")
        return data

    def label_names(self, column: str) -> tuple[str, ...]:
        note = json.loads((_open(self.parts[0]).schema_arrow.metadata or {}).get(NOTE, b"{}"))
        feature = note.get("info", {}).get("features", {}).get(column, {})
        return tuple(feature.get("names") or ())


def _label(value: Any) -> Any:
    return value if value is None or isinstance(value, int) else str(value)


@lru_cache(maxsize=32)
def _open(path: Path) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError(
            f"{path} is a Parquet file, which needs pyarrow: pip install 'diffussm[data]'"
        ) from None
    try:
        return parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is damaged, or no Parquet file: {error}") from None


def _image_column(path: Path) -> str:
    """The first column that can hold images, `image` before others."""
    from pyarrow import types

    def holds_images(kind: Any) -> bool:
        if types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return types.is_binary(kind) or types.is_large_binary(kind)

    names = [field.name for field in _open(path).schema_arrow if holds_images(field.type)]
    if not names:
        raise ValueError(f"{path} has no column of images: none holds bytes")
    return IMAGE_COLUMN if IMAGE_COLUMN in names else names[0]


@lru_cache(maxsize=1)
def _group(path: Path, group: int) -> Any:
    from pyarrow import ArrowException

    column = _image_column(path)
    try:
        return _open(path).read_row_group(group, [column], use_threads=False)[column]
    except (ArrowException, OSError) as error:
        raise OSError(f"{path} is damaged: {error}") from None
