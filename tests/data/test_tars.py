"""Our reader of tars beside the standard library's, which is an independent one."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import in_tar, stored

from diffussm.data.sources import find_source
from diffussm.data.sources.tars import BLOCK, members

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
parts = st.text(st.characters(exclude_characters="/\0\n", exclude_categories=["Cs"]), min_size=1)
parts = parts.filter(lambda part: part.strip(". "))
sizes = st.sampled_from([0, 1, 511, 512, 513, 1500])


def found(path):
    with path.open("rb") as file:
        return list(members(file, path, 0, path.stat().st_size))


def found_by_tarfile(path):
    with tarfile.open(path, errors="surrogateescape") as archive:
        files = [member for member in archive if member.isreg()]
    return [(m.name.encode("utf-8", "surrogateescape"), m.offset_data, m.size) for m in files]


@settings(max_examples=60, deadline=None)
@given(
    format=st.sampled_from(FORMATS),
    names=st.lists(st.lists(parts, min_size=1, max_size=4).map("/".join), min_size=1, max_size=6),
    size=sizes,
    links=st.booleans(),
)
def test_the_same_members_as_tarfile(tmp_path_factory, format, names, size, links):
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    with tarfile.open(path, "w", format=format) as archive:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = size + number
            try:
                archive.addfile(member, io.BytesIO(b"x" * member.size))
            except ValueError:  # too long a name for the oldest format
                continue
            if links:
                folder, link = tarfile.TarInfo("folder"), tarfile.TarInfo("link" * 40)
                folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "y" * 120
                archive.addfile(folder)
                if format != tarfile.USTAR_FORMAT:
                    archive.addfile(link)
    assert found(path) == found_by_tarfile(path)


@pytest.mark.parametrize("format", FORMATS[1:])
def test_a_member_of_ten_gigabytes(tmp_path, format):
    path, size = tmp_path / "a.tar", 10 * 2**30 + 7
    head, tail = tarfile.TarInfo("head"), tarfile.TarInfo("tail")
    head.size = size
    with path.open("wb") as file:  # sparse: nothing of the ten gigabytes is written
        start = file.write(head.tobuf(format))
        file.seek(start + -(-size // BLOCK) * BLOCK)
        file.write(tail.tobuf(format) + b"\0" * 2 * BLOCK)
    assert found(path) == [(b"head", start, size), (b"tail", path.stat().st_size - 2 * BLOCK, 0)]


def test_a_tar_without_an_end_is_read_to_its_end(tmp_path):
    path = in_tar({b"a/1.png": b"1" * 600}, tmp_path / "a.tar")
    path.write_bytes(path.read_bytes()[: 3 * BLOCK])
    assert found(path) == [(b"a/1.png", BLOCK, 600)]


def test_every_cut_is_noticed(tmp_path):
    whole = in_tar({b"a/1.png": b"1" * 600, b"a/2.png": b"2" * 600}, tmp_path / "whole.tar")
    data = whole.read_bytes()
    path = tmp_path / "cut.tar"
    for size in (100, BLOCK, BLOCK + 599, 3 * BLOCK + 1, 4 * BLOCK, 4 * BLOCK + 599):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"cut\.tar (ends within a/|is damaged)"):
            stored(path)


def test_a_flipped_bit_in_a_header_is_noticed(tmp_path):
    path = in_tar({b"a/1.png": b"1" * 600, b"a/2.png": b"2"}, tmp_path / "a.tar")
    data = bytearray(path.read_bytes())
    data[3 * BLOCK + 124 + 10] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"is damaged, or no tar: .* at byte {3 * BLOCK}"):
        stored(path)


def test_a_cut_after_the_list_was_made_is_an_error_of_reading(tmp_path):
    path = in_tar({b"a/1.png": b"1" * 600}, tmp_path / "a.tar")
    source = find_source(path)
    (place,) = source.scan()
    path.write_bytes(path.read_bytes()[:BLOCK])
    with pytest.raises(OSError, match=r"a\.tar ends before byte 1112"):
        source.read(place)
