"""Values at birth have the spread of their own shapes."""

import math

import torch
from torch import nn

from diffussm.nn.adaln import Modulation
from diffussm.nn.embeddings import LabelEmbedding, TimestepEmbedding
from diffussm.nn.hourglass import Contract, Expand
from diffussm.nn.initialization import initialize, zero
from diffussm.ssm.mamba import Mamba
from diffussm.ssm.s4d import S4D


def assert_xavier(weight):
    """Uniform within sqrt(6 / (inputs + outputs))."""
    bound = math.sqrt(6 / sum(weight.shape))
    assert 0.98 * bound < weight.abs().max() <= bound
    torch.testing.assert_close(weight.std(), torch.tensor(bound / 3**0.5), rtol=0.05, atol=0)


def test_linears_and_each_place_of_the_hourglass_are_xavier():
    linear, expand, contract = nn.Linear(80, 40), Expand(80, 40, 4), Contract(40, 80, 4)
    modules = nn.ModuleList([linear, expand, contract])
    for weight in (linear.weight, linear.bias, expand.weight, expand.bias, contract.weight):
        nn.init.ones_(weight)
    initialize(modules)
    for weight in (linear.weight, *expand.weight.split(40), *contract.weight):
        assert_xavier(weight)
    assert not any(module.bias.any() for module in modules)


def test_time_is_small_modulation_zero_and_the_rest_keeps_its_own():
    time, modulation = TimestepEmbedding(64), Modulation(8, 3)
    labels, ssms = LabelEmbedding(10, 8, std=1.0), nn.ModuleList([S4D(8), Mamba(8)])
    before = [p.clone() for p in (*labels.parameters(), *ssms.parameters())]
    initialize(nn.ModuleList([time, modulation, labels, ssms]))
    for linear in (time.mlp[0], time.mlp[2]):
        torch.testing.assert_close(linear.weight.std(), torch.tensor(0.02), rtol=0.05, atol=0)
        assert not linear.bias.any()
    assert not any(parameter.any() for parameter in modulation.parameters())
    assert all(map(torch.equal, before, (*labels.parameters(), *ssms.parameters())))


def test_zero_silences_a_layer():
    linear = nn.Linear(3, 2)
    zero(linear)
    assert torch.equal(linear(torch.randn(5, 3)), torch.zeros(5, 2))
