"""The small parts against their formulas, written out."""

import math

import pytest
import torch

from diffussm.nn.adaln import ModulatedNorm, Modulation
from diffussm.nn.embeddings import LabelEmbedding, TimestepEmbedding, grid_positions, sinusoids
from diffussm.nn.hourglass import Contract, Expand
from diffussm.nn.initialization import initialize


def test_time_frequencies_are_the_published_ones():
    angles = torch.tensor([7.0])[:, None] * torch.exp(-math.log(10_000) * torch.arange(128) / 128)
    expected = torch.cat([angles.cos(), angles.sin()], dim=1)
    torch.testing.assert_close(sinusoids(torch.tensor([7]), 256), expected)
    assert TimestepEmbedding(12)(torch.tensor([0, 999])).shape == (2, 12)


def test_positions_give_the_column_first():
    encoded = grid_positions(2, 3, 8)  # 2 frequencies: 1 and 1/100
    row, column = 1, 2
    expected = []
    for place in (column, row):
        expected += [math.sin(place), math.sin(place / 100), math.cos(place), math.cos(place / 100)]
    torch.testing.assert_close(encoded[row * 3 + column], torch.tensor(expected))


def test_positions_need_a_width_divisible_by_four():
    with pytest.raises(ValueError, match="divisible by 4 for 2-D positions, not 6"):
        grid_positions(2, 2, 6)


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_out_of_range_are_told(label):
    with pytest.raises(ValueError, match=rf"0\.\.2, or be 3 for no label, not {label}"):
        LabelEmbedding(3, 8, 0.02)(torch.tensor([0, label]))


def test_label_embeddings_are_born_with_their_deviation():
    table = LabelEmbedding(999, 64, 0.5).table.weight
    assert table.shape == (1000, 64)
    assert 0.49 < table.std() < 0.51


@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_hourglass_gives_each_place_a_matrix_of_its_own(ratio):
    dim, tokens = 8, 3
    expand, contract = Expand(dim, 5, ratio), Contract(6, dim, ratio)
    torch.nn.init.normal_(contract.bias)
    h, y = torch.randn(2, tokens, dim), torch.randn(2, tokens * ratio, 6)
    opened, closed = expand(h), contract(y)
    assert opened.shape == (2, tokens * ratio, 5)
    assert closed.shape == (2, tokens, dim)
    width = dim // ratio
    for j in range(tokens):
        for k in range(ratio):
            rows = slice(5 * k, 5 * (k + 1))
            expected = h[:, j] @ expand.weight[rows].T + expand.bias[rows]
            torch.testing.assert_close(opened[:, ratio * j + k], expected)
            piece = slice(width * k, width * (k + 1))
            expected = y[:, ratio * j + k] @ contract.weight[k].T + contract.bias[piece]
            torch.testing.assert_close(closed[:, j, piece], expected)


def test_a_ratio_that_does_not_divide_the_width_is_told():
    with pytest.raises(ValueError, match="hourglass_ratio 3 must divide the contracted width 8"):
        Contract(4, 8, 3)


def test_modulated_norm_is_adaln():
    x, condition = torch.randn(2, 5, 8), torch.randn(2, 8)
    modulation = Modulation(8, 2)
    scale, shift = modulation(condition)
    h = ModulatedNorm(8)(x, scale, shift)
    vectors = modulation.linear(condition * torch.sigmoid(condition))
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    norm = (x - mean) / torch.sqrt(variance + 1e-6)
    torch.testing.assert_close(h, norm * (1 + vectors[:, None, :8]) + vectors[:, None, 8:])


def test_each_matrix_of_the_hourglass_is_born_by_its_own_shape():
    expand = Expand(64, 64, 4)
    initialize(torch.nn.ModuleList([expand]))
    bound = math.sqrt(6 / (64 + 64))  # Xavier's, of one 64 x 64 matrix, not of all four together
    assert 0.98 * bound < expand.weight.abs().max() <= bound
