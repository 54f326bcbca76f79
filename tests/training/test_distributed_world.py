"""Who am I: what the environment says, and what one process alone does."""

import pytest
import torch
from tiny import CPU, tiny_recipe

from diffussm.data import digits
from diffussm.training import Trainer
from diffussm.training.distributed import ALONE, World, joined

NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK")


@pytest.fixture
def environment(monkeypatch):
    def name(*values):
        for key, value in zip(NAMES, values, strict=False):
            monkeypatch.setenv(key, value)

    for key in NAMES:
        monkeypatch.delenv(key, raising=False)
    return name


@pytest.mark.parametrize("words", [(), ("1", "0", "0"), ("",)])
def test_one_process_needs_nothing(environment, words):
    environment(*words)
    with joined() as world:
        assert world == ALONE
        assert world.leads
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    "words", [("2",), ("2", "x", "0"), ("2", "2", "0"), ("2", "-1", "0"), ("4", "1", "2"), ("no",)]
)
def test_an_environment_that_cannot_be_gets_a_sentence(environment, words):
    environment(*words)
    with pytest.raises(ValueError, match=r"the environment names no rank: .* start with torchrun"):
        joined().__enter__()


def test_alone_it_agrees_with_itself():
    numbers = torch.tensor([1.0, 2.0])
    assert ALONE.sum(numbers) is numbers
    assert ALONE.gather("it") == ["it"]
    assert ALONE.agree(lambda: 5) == 5
    with pytest.raises(ValueError, match="mine"):
        ALONE.agree(lambda: (_ for _ in ()).throw(ValueError("mine")))


def test_more_ranks_than_images_get_a_sentence():
    wanted = tiny_recipe(training={"batch_size": 3})
    with pytest.raises(ValueError, match="batch_size is 3, which leaves some of 4 ranks without"):
        Trainer(wanted, digits(), CPU, World(rank=1, size=4))
