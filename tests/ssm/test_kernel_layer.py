"""Kernels are made once while parameters rest, and never outlive a change of them."""

import pytest
import torch
from torch import nn

from diffussm.ssm.bidirectional import Bidirectional
from diffussm.ssm.kernel_layer import reusing_kernels
from diffussm.ssm.s4d import S4D


class Network(nn.Module):
    """One layer of each kind, and a way to fail in between."""

    def __init__(self):
        super().__init__()
        self.one = S4D(2, d_state=4)
        self.two = Bidirectional(S4D(2, d_state=4), S4D(2, d_state=4))

    def forward(self, u, fail=None):
        y = self.one(u)
        if fail is not None:
            raise ArithmeticError("in the middle")
        return self.two(y)


@pytest.fixture
def made(monkeypatch):
    """Lengths of the kernels made so far."""
    lengths, kernel = [], S4D.kernel

    def counted(self, length):
        lengths.append(length)
        return kernel(self, length)

    monkeypatch.setattr(S4D, "kernel", counted)
    return lengths


U = torch.linspace(-1, 1, 2 * 7 * 2).reshape(2, 7, 2)


def test_kernels_are_made_once_for_each_length(made):
    network = Network()
    plain = network(U), network(U[:, :4])
    assert made == [7, 7, 7, 4, 4, 4]
    made.clear()
    call = reusing_kernels(network)
    for _ in range(3):
        assert torch.equal(call(U), plain[0])
        assert torch.equal(call(U[:, :4]), plain[1])
    assert made == [7, 7, 7, 4, 4, 4]


def optimizer_step(network):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(U).square().sum().backward()
    optimizer.step()


def copied_data(network):
    network.one.C.data.copy_(2 * network.one.C.data)


def loaded_state(network):
    network.load_state_dict(Network().state_dict())


def swapped_data(network):
    network.two.backward_ssm.frequency.data = network.two.backward_ssm.frequency.data + 1


@pytest.mark.parametrize("change", [optimizer_step, copied_data, loaded_state, swapped_data])
def test_sampling_again_sees_changed_parameters(change):
    network = Network()
    before = reusing_kernels(network)(U)
    change(network)
    after = reusing_kernels(network)(U)
    fresh = Network()
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(after, fresh(U))
    assert not torch.allclose(after, before)


@pytest.mark.parametrize("change", [optimizer_step, copied_data, loaded_state, swapped_data])
def test_training_between_calls_is_not_served_old_kernels(change, made):
    network = Network()
    reusing_kernels(network)(U)
    change(network)
    made.clear()
    network(U)
    assert made == [7, 7, 7]


def test_a_failure_inside_leaves_nothing_behind():
    network = Network()
    call = reusing_kernels(network)
    with pytest.raises(ArithmeticError):
        call(U, torch.tensor(True))
    copied_data(network)
    fresh = Network()
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(network(U), fresh(U))
