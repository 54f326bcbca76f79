"""Training memory counted without numbers is what real numbers take."""

from functools import partial

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from diffussm.analysis.memory import training_memory
from diffussm.models import MODELS, DiffuSSMConfig, build, model_config

TINY = {
    "DiffuSSM": {"d_model": 16, "depth": 2},
    "UViSSM": {"d_model": 16, "depth": 3},
    "DiT": {"d_model": 24, "depth": 2, "num_heads": 3},
    "U-ViT": {"d_model": 24, "depth": 3, "num_heads": 3},
    "U-Net": {"base_channels": 64, "multipliers": (1, 2), "blocks": 1, "attention_levels": (1,)},
}


def kept(config, batch, network=None):
    """Bytes that a forward pass on real numbers keeps, beside the weights."""
    network = network or build(config)
    own = {x.untyped_storage().data_ptr() for x in [*network.parameters(), *network.buffers()]}
    found = {}

    def note(x):
        found[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with saved_tensors_hooks(note, lambda x: x):
        answer = network(
            torch.randn(batch, config.in_channels, *config.size), torch.zeros(batch).long()
        )
    assert answer.requires_grad
    return sum(s.nbytes() for address, s in found.items() if address not in own)


@pytest.mark.parametrize("name", MODELS)
def test_fake_numbers_take_what_real_ones_do(name):
    options = {"in_channels": 2, "num_classes": 0, "input_size": 16}
    config = model_config(name, TINY[name] | options)
    memory = training_memory(config, *config.size, torch.float32)
    for batch in (1, 3):
        assert kept(config, batch) == pytest.approx(memory.fixed + batch * memory.image, rel=0.02)


def test_a_published_model():
    # its 675,129,632 numbers count 256 fixed positions; 20 bytes a parameter
    xl = model_config("DiT-XL/2", {})
    state = 20 * (675_129_632 - 256 * 1152)
    assert training_memory(xl, 8, 8, torch.float32).state == state
    # four times the positions keep four times as much
    small = DiffuSSMConfig(d_model=16, depth=2, num_classes=0)
    one, four = (training_memory(small, side, side, torch.float32) for side in (32, 64))
    assert four.image == pytest.approx(4 * one.image, rel=0.01)
    half = training_memory(small, 32, 32, torch.bfloat16)
    assert 0.4 * one.image < half.image < 0.7 * one.image


@pytest.mark.parametrize("name", MODELS)
def test_checkpointed_blocks_keep_what_enters_them(name):
    options = {"in_channels": 2, "num_classes": 0, "input_size": 16}
    config = model_config(name, TINY[name] | options)
    network = build(config)
    for block in network.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    real = kept(config, 3, network)
    memory, whole = (
        training_memory(config, *config.size, torch.float32, checkpointed=again)
        for again in (True, False)
    )
    # one block is there whole, when it is computed again
    counted = memory.fixed + 3 * memory.image
    assert real < counted < whole.fixed + 3 * whole.image


def test_a_deep_checkpointed_model_grows_by_its_tokens():
    deep, deeper = (
        training_memory(
            DiffuSSMConfig(d_model=16, depth=depth, num_classes=0),
            32,
            32,
            torch.float32,
            checkpointed=True,
        )
        for depth in (4, 7)
    )
    assert deeper.image - deep.image == 3 * 512 * 16 * 4  # blocks, tokens, width, bytes
