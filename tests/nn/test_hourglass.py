"""Opening and closing tokens, place by place, with a matrix for each place."""

import pytest
import torch

from diffussm.nn.hourglass import Contract, Expand

RATIOS = [1, 2, 4]


@pytest.mark.parametrize("ratio", RATIOS)
def test_expand_has_a_matrix_for_each_place(ratio):
    expand, h = Expand(6, 5, ratio), torch.randn(2, 3, 6)
    matrices, biases = expand.weight.split(5), expand.bias.split(5)
    assert len(matrices) == ratio
    positions = expand(h)
    assert positions.shape == (2, ratio * 3, 5)
    for b in range(2):
        for l in range(ratio * 3):
            j, k = l // ratio, l % ratio
            expected = matrices[k] @ h[b, j] + biases[k]
            torch.testing.assert_close(positions[b, l], expected)


@pytest.mark.parametrize("ratio", RATIOS)
def test_contract_lays_the_places_side_by_side(ratio):
    contract, y = Contract(6, 8, ratio), torch.randn(2, ratio * 3, 6)
    torch.nn.init.normal_(contract.bias)
    piece = 8 // ratio
    assert contract.weight.shape == (ratio, piece, 6)
    tokens = contract(y)
    assert tokens.shape == (2, 3, 8)
    for b in range(2):
        for j in range(3):
            for k in range(ratio):
                columns = slice(piece * k, piece * (k + 1))
                expected = contract.weight[k] @ y[b, ratio * j + k] + contract.bias[columns]
                torch.testing.assert_close(tokens[b, j, columns], expected)


def test_a_ratio_that_does_not_divide_gets_a_sentence():
    with pytest.raises(ValueError, match="hourglass_ratio 3 must divide the contracted width 8"):
        Contract(6, 8, 3)
