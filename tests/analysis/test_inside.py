"""What is said of a network's inside is what the network does."""

import math

import pytest
import torch
from tiny import awake

from diffussm.analysis import inside
from diffussm.models import create_model
from diffussm.models.diffussm import CONDITIONINGS
from diffussm.ssm.choices import SSMS

SMALL = {"input_size": 8, "in_channels": 1, "num_classes": 3, "d_model": 8, "depth": 3}


def small(name="DiffuSSM", **options):
    return awake(create_model(name, **(SMALL | {"d_state": 4} | options))).eval()


@pytest.mark.parametrize("ssm", [name for name in SSMS if name != "mamba"])
def test_kernels_are_what_layers_make_of_a_single_one(ssm):
    model, place = small(ssm=ssm), 20
    layer = model.blocks[1].ssm
    u = torch.zeros(1, 64, 8)
    u[:, place] = 1
    with torch.no_grad():
        forward, backward = layer(u)[0].split(8, dim=-1)
        forward[place] -= layer.forward_ssm.D
        backward[place] -= layer.backward_ssm.D
    ahead, behind = (inside.kernels(model, 1, way) for way in inside.directions(model))
    assert ahead.shape == behind.shape == (8, 64)
    torch.testing.assert_close(forward[place:].T, ahead[:, : 64 - place], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        backward[: place + 1].flip(0).T, behind[:, : place + 1], rtol=0, atol=1e-5
    )
    assert inside.kernels(model, 1, length=100).shape == (8, 100)


def test_one_direction_has_one_kernel():
    model = small(bidirectional=False)
    assert inside.directions(model) == ("forward",)
    assert inside.kernels(model, 0).shape == (8, 64)


@pytest.mark.parametrize(("conditioning", "positions"), [("three", 64), ("tokens", 68)])
def test_positions_are_those_that_the_layers_read(conditioning, positions):
    model, read = small(conditioning=conditioning), []
    model.blocks[0].ssm.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].shape[1]))
    model(torch.zeros(1, 1, 8, 8), torch.zeros(1).long(), torch.zeros(1).long())
    assert read == [positions] == [inside.positions(model)]


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_the_memory_of_an_exponential_is_known(share):
    # the first n of a^0, a^2, a^4, ... hold 1 - a^2n of all
    decays = [0.5, 0.9, -0.99]
    kernel = torch.tensor(decays)[:, None].double() ** torch.arange(4000)
    expected = [math.ceil(math.log(1 - share) / (2 * math.log(abs(a)))) for a in decays]
    assert inside.memory_length(kernel, share).tolist() == expected


def test_the_memory_of_short_kernels():
    kernel = torch.tensor([[0.0, 0, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 0]])
    assert inside.memory_length(kernel, 1.0).tolist() == [0, 1, 4, 3]
    assert inside.memory_length(kernel, 2 / 3).tolist() == [0, 1, 4, 2]
    assert inside.memory_length(kernel, 0.1).tolist() == [0, 1, 4, 1]


def test_memory_by_block():
    model = small()
    found = inside.memory_by_block(model, "backward", 0.5)
    assert found.shape == (3, 8)
    expected = inside.memory_length(inside.kernels(model, 2, "backward"), 0.5)
    assert found[2].tolist() == expected.tolist()


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("conditioning", [name for name in CONDITIONINGS if name != "tokens"])
def test_gates_are_what_multiplies_a_branch(conditioning, classes):
    model = small(conditioning=conditioning, num_classes=classes)
    t, y = torch.tensor([0, 500, 999]), torch.tensor([0, 1, 2]) if classes else None
    added, branches = [], []
    for block in model.blocks:
        block.out.register_forward_hook(lambda _, __, answer: branches.append(answer))
        block.register_forward_hook(lambda _, given, answer: added.append(answer - given[0]))
    with torch.no_grad():
        model(torch.randn(3, 1, 8, 8), t, y)
    found = inside.gates(model, t, y)
    assert found.shape == (3, 3, 8)
    for gate, branch, change in zip(found, branches, added, strict=True):
        torch.testing.assert_close(gate[:, None] * branch, change, rtol=0, atol=1e-5)
    torch.testing.assert_close(inside.gate_sizes(model, t, y)[1, 2], found[1, 2].abs().mean())


def test_at_birth_all_gates_are_closed():
    model = create_model("DiffuSSM", **SMALL)
    assert not inside.gates(model, torch.tensor([3]), torch.tensor([0])).any()


REFUSED = [
    (lambda: inside.kernels(small(), 3), "block 3 does not exist; this model has 0 to 2"),
    (lambda: inside.kernels(small(), -1), "block -1 does not exist"),
    (lambda: inside.kernels(small(), 0, "forwards"), "did you mean 'forward'"),
    (lambda: inside.kernels(small(bidirectional=False), 0, "backward"), "allowed: 'forward'"),
    (lambda: inside.kernels(small(ssm="mamba"), 0), "Mamba chooses at each position"),
    (lambda: inside.kernels(torch.nn.Linear(2, 2), 0), "Linear has no state space layers"),
    (lambda: inside.directions(create_model("DiT", d_model=12, depth=1)), "DiT has no state"),
    (lambda: inside.memory_length(torch.ones(1, 3), 0.0), "share must lie above 0"),
    (lambda: inside.memory_length(torch.ones(1, 3), 1.5), "not 1.5"),
    (lambda: inside.gates(small(), torch.tensor([1])), "needs labels"),
    (lambda: inside.gates(small(), torch.tensor([1]), torch.tensor([9])), "labels must lie in"),
    (lambda: inside.gates(small(conditioning="tokens"), torch.tensor([1])), "has no gates"),
]


@pytest.mark.parametrize(("call", "sentence"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_is_not_there(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
