"""Images in zip archives, one or a folder of them, read without unpacking.

Layout of a member: PKWARE, "APPNOTE.TXT - .ZIP File Format Specification", 4.3.7.
"""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator

from diffussm.data.sources.source import Place, Source, is_image, read_bytes, shown

HEADER = struct.Struct("<4s4xH16xHH")
"""A member's own header: signature, method, length of its name and of what follows that."""
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
SIGNATURE = b"PK\x03\x04"
ENCRYPTED, UTF8 = 1, 0x800
LARGEST = 2**30
"""Bytes to which a member is unpacked at most."""


class Zips(Source):
    """One or more zip archives; a place is the offset of a member's header and its packed size."""

    def scan(self, column: str = "") -> Iterator[Place]:
        if column:
            raise self.no_column(column)
        for part, path in enumerate(self.parts):
            prefix = self.prefix(part)
            try:
                with zipfile.ZipFile(path) as archive:
                    members = archive.infolist()
            except zipfile.BadZipFile as error:
                raise ValueError(f"{path} is damaged, or no zip archive: {error}") from None
            for member in members:
                # zipfile reads old names as cp437; what was stored are the bytes behind that
                utf8 = member.flag_bits & UTF8
                name = os.fsencode(member.filename) if utf8 else member.filename.encode("cp437")
                if not is_image(name):
                    continue
                if member.flag_bits & ENCRYPTED or member.compress_type not in (STORED, DEFLATED):
                    raise ValueError(
                        f"{path}: {shown(name)} is encrypted or packed in a rare way; pack the "
                        "images again with zip -0"
                    )
                yield Place(prefix + name, part, member.header_offset, member.compress_size)

    def read(self, place: Place) -> bytes:
        path = self.parts[place.part]
        header = read_bytes(path, place.offset, HEADER.size)
        signature, method, name, extra = HEADER.unpack(header)
        if signature != SIGNATURE:
            raise OSError(f"{path} has changed since it was listed")
        data = read_bytes(path, place.offset + HEADER.size + name + extra, place.size)
        if method == STORED:
            return data
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, LARGEST)
        except zlib.error as error:
            raise OSError(f"{path} is damaged: {error}") from None
