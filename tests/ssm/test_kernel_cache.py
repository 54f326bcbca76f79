"""Kernels are made once while parameters rest, and never outlast them."""

import pytest
import torch
from torch import nn

from diffussm.ssm.bidirectional import Bidirectional
from diffussm.ssm.kernel_cache import reusing_kernels
from diffussm.ssm.s4d import S4D


@pytest.fixture
def network():
    return nn.Sequential(S4D(4, d_state=4), Bidirectional(S4D(4, d_state=4), S4D(4, d_state=4)))


def count_kernels(monkeypatch):
    calls, kernel = [], S4D.kernel

    def counted(self, length):
        calls.append(length)
        return kernel(self, length)

    monkeypatch.setattr(S4D, "kernel", counted)
    return calls


def test_each_kernel_is_made_once_for_each_length(network, monkeypatch):
    calls = count_kernels(monkeypatch)
    fast = reusing_kernels(network)
    for length in (7, 7, 9, 7, 9):
        u = torch.randn(2, length, 4)
        torch.testing.assert_close(fast(u), network(u))
    assert sorted(calls[:3]) == [7, 7, 7]
    made_by_fast = len(calls) - 5 * 3
    assert made_by_fast == 2 * 3


def change_by_optimizer(layer):
    layer.C.grad = torch.ones_like(layer.C)
    torch.optim.SGD([layer.C], lr=1.0).step()


def change_by_data(layer):
    layer.C.data.mul_(2)


def change_by_loading(layer):
    layer.load_state_dict({name: 2 * value for name, value in layer.state_dict().items()})


@pytest.mark.parametrize("change", [change_by_optimizer, change_by_data, change_by_loading])
def test_a_changed_parameter_is_seen(network, change):
    u = torch.randn(1, 8, 4)
    before = reusing_kernels(network)(u)
    change(network[0])
    after = reusing_kernels(network)(u)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, network(u))


def test_nothing_is_kept_after_an_error(network):
    fast = reusing_kernels(network)
    with pytest.raises(ValueError, match="length 1 or more"):
        fast(torch.randn(1, 0, 4))
    assert network[0]._kernels is None
    u = torch.randn(1, 8, 4)
    change_by_data(network[0])
    torch.testing.assert_close(reusing_kernels(network)(u), network(u))
