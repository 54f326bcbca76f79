"""Images in tar archives, read at random without unpacking.

One tar or a folder of them; a tar of tars, one a class, as ILSVRC2012_img_train.tar is distributed;
WebDataset's naming, where KEY.jpg has its label in KEY.cls or in a field of KEY.json.

Links inside a tar are not followed. Headers: POSIX.1-2017, pax, "pax Interchange Format" and "ustar
Interchange Format"; GNU tar's long names and sizes.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from diffussm.data.sources.source import Place, Source, is_image, read_bytes, shown

BLOCK = 512
FILES = b"0\x007"
LONG_NAME, EXTENDED = b"L", b"x"
PAX_FIELD = re.compile(rb"\d+ (path|size)=([^\n]*)\n")
TAR_SUFFIX = b".tar"


class Member(NamedTuple):
    """A file in a tar, and where its bytes lie."""

    name: bytes
    offset: int
    size: int


class Tars(Source):
    """One or more tar archives."""

    def scan(self, column: str = "") -> Iterator[Place]:
        for part, path in enumerate(self.parts):
            with path.open("rb") as file:
                end = os.fstat(file.fileno()).st_size
                yield from self._region(file, part, self.prefix(part), 0, end, column)

    def read(self, place: Place) -> bytes:
        return read_bytes(self.parts[place.part], place.offset, place.size)

    def _region(
        self, file: BinaryIO, part: int, prefix: bytes, start: int, end: int, column: str
    ) -> Iterator[Place]:
        """The images of the tar that lies between two offsets, and of the tars in it."""
        labels: dict[bytes, int | str] = {}
        unlabelled: list[Place] = []
        for member in members(file, self.parts[part], start, end):
            name = prefix + member.name
            if is_image(member.name):
                place = Place(name, part, member.offset, member.size)
                if column:
                    unlabelled.append(place)
                else:
                    yield place
            elif member.name.lower().endswith(TAR_SUFFIX):
                last = member.offset + member.size
                yield from self._region(file, part, name + b"/", member.offset, last, column)
            elif column:
                self._note(file, member, prefix, column, labels)
        for place in unlabelled:
            key = _key(place.name)
            if key not in labels:
                raise ValueError(
                    f"{self.path}: {shown(place.name)} has no label: there is no {shown(key)}."
                    f"{column}, nor a field {column!r} in {shown(key)}.json"
                )
            yield place._replace(label=labels[key])

    def _note(
        self, file: BinaryIO, member: Member, prefix: bytes, column: str, labels: dict
    ) -> None:
        """Keep the label that a file beside an image holds."""
        name = prefix + member.name
        key = _key(name)
        suffix = name[len(key) + 1 :].decode("utf-8", "replace")
        if suffix not in (column, "json"):
            return
        file.seek(member.offset)
        text = file.read(member.size)
        try:
            label = text.decode().strip() if suffix == column else json.loads(text)[column]
        except KeyError:
            return
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.path}: {shown(name)} holds no label ({error})") from None
        whole = isinstance(label, str) and label.isdecimal()
        labels[key] = int(label) if whole or isinstance(label, int) else str(label)


def members(file: BinaryIO, path: Path, start: int, end: int) -> Iterator[Member]:
    """The regular files of a tar that lies in `file` between two offsets.

    `tarfile` of the standard library is several times slower, which tells at a million members.
    Raises ValueError where the tar is damaged or ends too early.
    """
    position, long_name, long_size = start, b"", None
    while position < end:
        file.seek(position)
        header = file.read(BLOCK)
        if not header.strip(b"\0") and len(header) == BLOCK:
            return
        size = _size(header, path, position)
        kind = header[156:157]
        name = long_name or _name(header)
        offset = position + BLOCK
        if long_size is not None and kind in FILES:
            size = long_size
        if offset + size > end:
            raise ValueError(f"{path} ends within {shown(name)}: was it downloaded whole?")
        position = offset + -(-size // BLOCK) * BLOCK
        if kind == LONG_NAME:
            long_name = file.read(size).rstrip(b"\0")
        elif kind == EXTENDED:
            fields = dict(PAX_FIELD.findall(file.read(size)))
            long_name = fields.get(b"path", b"")
            long_size = int(fields[b"size"]) if b"size" in fields else None
        else:
            if kind in FILES:
                yield Member(name.removeprefix(b"./"), offset, size)
            long_name, long_size = b"", None


def _name(header: bytes) -> bytes:
    name = header[:100].rstrip(b"\0")
    if header[257:263] == b"ustar\0" and header[345]:  # GNU's own format has other things there
        return header[345:500].rstrip(b"\0") + b"/" + name
    return name


def _size(header: bytes, path: Path, position: int) -> int:
    """The size of the member, once its header's checksum is found right."""
    try:
        summed = sum(header) - sum(header[148:156]) + 8 * ord(" ")
        if len(header) == BLOCK and summed == _octal(header[148:156]):
            field = header[124:136]
            # sizes from 8 GiB on are binary, marked by the highest bit
            return int.from_bytes(field[1:]) if field[0] & 0x80 else _octal(field)
    except ValueError:  # not octal
        pass
    raise ValueError(f"{path} is damaged, or no tar: there is no member at byte {position}")


def _octal(field: bytes) -> int:
    return int(field.strip(b"\0 ") or b"0", 8)


def _key(name: bytes) -> bytes:
    """WebDataset's: the path up to the first dot of the file's name."""
    folder, slash, base = name.rpartition(b"/")
    return folder + slash + base.partition(b".")[0]
