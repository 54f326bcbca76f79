"""Reading an image by columns is a permutation that can be undone."""

import pytest
import torch

from diffussm.ops.reading_order import reading_order


@pytest.mark.parametrize(("rows", "columns"), [(1, 7), (7, 1), (2, 3), (3, 2), (8, 8), (5, 13)])
def test_columns_come_one_after_another_and_go_back(rows, columns):
    image = torch.arange(rows * columns).reshape(rows, columns)
    order = reading_order(image.numel(), rows)
    read = image.flatten()[order]
    assert torch.equal(read, torch.cat([image[:, column] for column in range(columns)]))
    assert torch.equal(read[order.argsort()], image.flatten())


@pytest.mark.parametrize("rows", [0, -1, 4])
def test_a_grid_that_does_not_fit_gets_a_sentence(rows):
    with pytest.raises(ValueError, match=f"sequence of 6 cannot be read as {rows} equal rows"):
        reading_order(6, rows)
