"""Sinusoids by hand, and labels that exist."""

import math

import pytest
import torch

from diffussm.nn.embeddings import LabelEmbedding, TimestepEmbedding, grid_positions, sinusoids


def test_time_is_cosines_then_sines_at_128_frequencies():
    times = [0, 1, 57, 999]
    actual = sinusoids(torch.tensor(times), 256)
    assert actual.shape == (4, 256)
    for row, t in zip(actual, times, strict=True):
        frequencies = [math.exp(-math.log(10_000) * i / 128) for i in range(128)]
        expected = [math.cos(t * f) for f in frequencies] + [math.sin(t * f) for f in frequencies]
        torch.testing.assert_close(row, torch.tensor(expected), rtol=0, atol=1e-4)


def test_time_goes_through_a_perceptron():
    embedding, t = TimestepEmbedding(8), torch.tensor([3, 500])
    first, second = embedding.mlp[0], embedding.mlp[2]
    hidden = sinusoids(t, 256) @ first.weight.T + first.bias
    hidden = hidden * torch.sigmoid(hidden)
    torch.testing.assert_close(embedding(t), hidden @ second.weight.T + second.bias)
    assert embedding.bfloat16()(t).dtype == torch.bfloat16


def test_positions_are_column_then_row():
    s, c = math.sin, math.cos
    # dim 4 has the one frequency 1
    by_hand = [[s(col), c(col), s(row), c(row)] for row in range(2) for col in range(3)]
    torch.testing.assert_close(grid_positions(2, 3, 4), torch.tensor(by_hand))


@pytest.mark.parametrize(("rows", "columns", "dim"), [(1, 1, 8), (3, 5, 12), (16, 8, 64)])
def test_positions_are_sines_then_cosines_of_falling_frequencies(rows, columns, dim):
    positions = grid_positions(rows, columns, dim).reshape(rows, columns, 4, dim // 4)
    for row in range(rows):
        for column in range(columns):
            for i in range(dim // 4):
                f = 10_000 ** (-i / (dim / 4))
                angles = [math.sin(column * f), math.cos(column * f)]
                angles += [math.sin(row * f), math.cos(row * f)]
                actual = positions[row, column, :, i]
                torch.testing.assert_close(actual, torch.tensor(angles), rtol=0, atol=1e-6)


def test_positions_of_an_indivisible_width_get_a_sentence():
    with pytest.raises(ValueError, match=r"divisible by 4 .*not 6"):
        grid_positions(2, 2, 6)


def test_each_class_and_no_label_have_a_row():
    labels = LabelEmbedding(3, 2000, std=0.5)
    rows = labels(torch.tensor([0, 1, 2, 3]))
    assert torch.equal(rows, labels.table.weight)
    torch.testing.assert_close(rows.std(dim=1), torch.full((4,), 0.5), rtol=0.1, atol=0)


@pytest.mark.parametrize("wrong", [-1, 4, 1000])
def test_labels_without_a_row_get_a_sentence(wrong):
    labels = LabelEmbedding(3, 8, std=1.0)
    with pytest.raises(ValueError, match=rf"labels must lie in 0\.\.2, or be 3 .* not {wrong}"):
        labels(torch.tensor([0, wrong, 3]))


def test_labels_of_another_device_are_not_looked_at():
    labels = LabelEmbedding(3, 8, std=1.0).to("meta")
    assert labels(torch.tensor([0, 1000], device="meta")).shape == (2, 8)


def test_label_embeddings_are_born_with_their_deviation():
    table = LabelEmbedding(999, 64, 0.5).table.weight
    assert table.shape == (1000, 64)
    assert 0.49 < table.std() < 0.51
