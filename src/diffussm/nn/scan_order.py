"""In which order each block reads the image.

The paper reads row after row (raster). Two neighbours in a column are then a row's length apart, so
a block that reads column by column sees the image's other direction as closely. An order is the
number of rows that `ssm.layer.Layer.forward` is told: 1 reads as the positions lie.
"""

from collections.abc import Callable


def raster(block: int, rows: int) -> int:
    """Row after row in every block."""
    return 1


def alternating(block: int, rows: int) -> int:
    """Row after row in blocks 0, 2, ..., column after column in blocks 1, 3, ..."""
    return rows if block % 2 else 1


SCANS: dict[str, Callable[[int, int], int]] = {"raster": raster, "alternating": alternating}
