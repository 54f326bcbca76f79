"""Files that claim what they do not hold, or cannot be read, are a sentence."""

import io
import zipfile

import numpy as np
import pytest

from diffussm.evaluation.adm_reference import AdmFile


def with_header(path, header, content=b"\0" * 64):
    """An npz whose arr_0 begins with `header`."""
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        magic = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little")
        archive.writestr("arr_0.npy", magic + text + content)
    return path


@pytest.mark.parametrize("shape", ["(1000000000000, 8, 8, 1)", "(-5, 8, 8, 1)", "(2, 8, 8, 1)"])
def test_a_shape_that_is_not_the_content(tmp_path, shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}"
    with pytest.raises(ValueError, match=r"says its shape is .* but it is 64 bytes long"):
        AdmFile(with_header(tmp_path / "x.npz", header))


def test_a_header_that_is_no_header(tmp_path):
    with pytest.raises(ValueError, match="is no npz"):
        AdmFile(with_header(tmp_path / "x.npz", "{[[[[["))


def test_an_encrypted_archive(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, arr_0=np.zeros((1, 8, 8, 1), np.uint8))
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag of encryption
        data[data.index(mark) + place] |= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="encrypted"):
        AdmFile(path)


def test_a_good_file_is_still_good(tmp_path):
    stored = io.BytesIO()
    np.savez_compressed(stored, arr_0=np.zeros((3, 8, 8, 1), np.uint8), mu=np.zeros(2048))
    path = tmp_path / "x.npz"
    path.write_bytes(stored.getvalue())
    assert AdmFile(path).count == 3
