"""The condition's vectors against the formula, one number at a time."""

import math

import torch

from diffussm.nn.adaln import ModulatedNorm, Modulation
from diffussm.nn.initialization import initialize


def test_norm_then_scale_and_shift():
    x = 3 + 2 * torch.randn(2, 3, 5, dtype=torch.float64)
    scale, shift = torch.randn(2, 2, 1, 5, dtype=torch.float64)
    actual = ModulatedNorm(5)(x, scale, shift)
    for b in range(2):
        for j in range(3):
            row = x[b, j].tolist()
            mean = sum(row) / 5
            deviation = math.sqrt(sum((value - mean) ** 2 for value in row) / 5 + 1e-6)
            for d in range(5):
                normed = (row[d] - mean) / deviation
                expected = normed * (1 + scale[b, 0, d].item()) + shift[b, 0, d].item()
                assert math.isclose(actual[b, j, d].item(), expected, rel_tol=1e-12, abs_tol=1e-12)


def test_norm_has_no_weights():
    assert list(ModulatedNorm(5).parameters()) == []


def test_vectors_are_slices_of_a_linear_of_silu():
    modulation, condition = Modulation(4, 3), torch.randn(2, 4)
    activated = condition / (1 + torch.exp(-condition))
    for i, vector in enumerate(modulation(condition)):
        rows = slice(4 * i, 4 * (i + 1))
        weight, bias = modulation.linear.weight[rows], modulation.linear.bias[rows]
        torch.testing.assert_close(vector, (activated @ weight.T + bias)[:, None])
    assert i == 2


def test_vectors_are_zero_at_birth():
    modulation = Modulation(4, 3)
    initialize(modulation)
    assert all(torch.equal(v, torch.zeros(2, 1, 4)) for v in modulation(torch.randn(2, 4)))
