"""DiffuSSM is the paper's block, counts what the paper counts, and takes any size."""

import pytest
import torch
import torch.nn.functional as F

from diffussm.models import DiffuSSMConfig, build, create_model
from diffussm.models.diffussm import MATRICES, SSMS, DiffuSSMBlock
from diffussm.models.presets import PRESETS

TINY = {
    "d_model": 16,
    "depth": 2,
    "d_state": 4,
    "input_size": 8,
    "in_channels": 3,
    "num_classes": 5,
}


def tiny(**options):
    return build(DiffuSSMConfig(**(TINY | options)))


def awake(model):
    """The same model with every parameter away from its value at birth."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def batch(height=8, width=8, count=2):
    return torch.randn(count, 3, height, width), torch.tensor([3, 900]), torch.tensor([0, 5])


@pytest.mark.parametrize(
    ("matrices", "parameters"), [("totals", 673_088_272), ("figure", 711_607_696)]
)
def test_xl_has_the_published_size(matrices, parameters):
    with torch.device("meta"):
        model = create_model("DiffuSSM-XL", matrices=matrices)
    assert sum(p.numel() for p in model.parameters()) == parameters


def act(x):
    return F.gelu(x, approximate="tanh")


@pytest.mark.parametrize("matrices", MATRICES)
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_block_is_the_papers_table_position_by_position(matrices, bidirectional, ratio):
    config = DiffuSSMConfig(
        **TINY, matrices=matrices, bidirectional=bidirectional, hourglass_ratio=ratio
    )
    block = awake(DiffuSSMBlock(config)).double()
    dim, tokens = 16, 6
    length = tokens * ratio
    x = torch.randn(1, tokens, dim, dtype=torch.float64)
    condition = torch.randn(1, dim, dtype=torch.float64)

    scale, shift, gate = F.linear(
        F.silu(condition), block.modulation.linear.weight, block.modulation.linear.bias
    ).chunk(3, dim=-1)
    h = F.layer_norm(x, (dim,), eps=1e-6) * (1 + scale) + shift
    u = torch.empty(1, length, dim, dtype=torch.float64)
    for l in range(length):
        j, k = l // ratio, l % ratio
        rows = slice(k * dim, (k + 1) * dim)
        wide = act(F.linear(h[:, j], block.dense.weight, block.dense.bias))
        u[:, l] = act(F.linear(wide, block.up.weight[rows], block.up.bias[rows]))
    if bidirectional:
        forward, backward = block.ssm.forward_ssm, block.ssm.backward_ssm
        y = torch.cat([forward(u), backward(u.flip(1)).flip(1)], dim=-1)
    else:
        y = block.ssm(u)
    contracted = torch.empty(1, tokens, 2 * dim, dtype=torch.float64)
    width = 2 * dim // ratio
    for l in range(length):
        j, k = l // ratio, l % ratio
        piece = slice(k * width, (k + 1) * width)
        contracted[:, j, piece] = act(
            F.linear(y[:, l], block.down.weight[k], block.down.bias[piece])
        )
    value = act(F.linear(contracted, block.value.weight, block.value.bias))
    gated = act(F.linear(h, block.gate.weight, block.gate.bias))
    expected = x + gate * F.linear(value * gated, block.out.weight, block.out.bias)
    torch.testing.assert_close(block(x, condition), expected)


def test_a_new_model_outputs_zero_and_its_blocks_do_nothing():
    model = tiny()
    assert torch.equal(model(*batch()), torch.zeros(2, 6, 8, 8))
    x = torch.randn(2, 32, 16)
    for block in model.blocks:
        torch.testing.assert_close(block(x, torch.randn(2, 16)), x, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(8, 8), (7, 8), (8, 4), (3, 10), (1, 2)])
def test_any_size_from_one_set_of_weights(size):
    assert awake(tiny())(*batch(*size)).shape == (2, 6, *size)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_pixels_return_to_where_they_came_from(patch, ratio):
    # With a decoder that undoes the embedding and silent blocks, an image comes back as it was.
    model = tiny(d_model=64, patch_size=patch, hourglass_ratio=ratio, learned_variance=False)
    pixels = patch**2 * ratio * 3
    with torch.no_grad():
        model.embed.weight.copy_(torch.eye(64, pixels))
        model.decode.weight.copy_(torch.eye(pixels, 64))
    model.final_norm.norm = torch.nn.Identity()
    for position in (0, 17, 40, 63):
        image = torch.zeros(2, 3, 8, 8)
        image.view(2, 3, 64)[:, 1, position] = 100.0
        output = model(image, *batch()[1:])
        assert output[0, 1].flatten().argmax() == position
        assert output[0, 1].flatten()[position] > 90


def test_a_patch_of_pixels_shares_a_token():
    """Pixels of one token reach the blocks only together; those of another do not move it."""
    model = tiny(patch_size=2, hourglass_ratio=2)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x, t, y = batch()
    model(x, t, y)
    moved = x.clone()
    moved[:, :, 5, 6] += 1  # patch row 2, patch column 3: token row 2, token column 1 of 2
    model(moved, t, y)
    changed = (seen[0] != seen[1]).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == [2 * 2 + 1]


def test_one_direction_does_not_see_what_follows():
    model = awake(tiny(bidirectional=False, hourglass_ratio=1))
    x, t, y = batch()
    later = x.clone()
    later[:, :, 4:] += 1
    one, other = model(x, t, y), model(later, t, y)
    torch.testing.assert_close(one[:, :, :4], other[:, :, :4])
    both = awake(tiny(hourglass_ratio=1))
    assert not torch.allclose(both(x, t, y)[:, :, :4], both(later, t, y)[:, :, :4], atol=1e-4)


def test_unconditional_and_fixed_variance():
    model = awake(tiny(num_classes=0, learned_variance=False))
    x, t, y = batch()
    assert model(x, t).shape == (2, 3, 8, 8)
    assert not any("label" in name for name, _ in model.named_parameters())
    with pytest.raises(ValueError, match="unconditional"):
        model(x, t, y)


def test_labels_and_time_matter():
    model = awake(tiny())
    x, t, y = batch()
    assert not torch.allclose(model(x, t, y), model(x, t, y.flip(0)))
    assert not torch.allclose(model(x, t, y), model(x, t.flip(0), y))
    with pytest.raises(ValueError, match=r"needs labels 0\.\.4 \(5 for no label\)"):
        model(x, t)


@pytest.mark.parametrize("ssm", SSMS)
@pytest.mark.parametrize("matrices", MATRICES)
@pytest.mark.parametrize("patch", [1, 2])
def test_every_choice_trains_every_parameter(ssm, matrices, patch):
    model = awake(tiny(ssm=ssm, matrices=matrices, patch_size=patch))
    model(*batch()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds(name):
    with torch.device("meta"):
        model = create_model(name, input_size=(16, 32), num_classes=7)
    assert model.config.num_classes == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 9}, "width 9 must be a positive multiple of 2"),
        (
            {"input_size": 9, "patch_size": 2},
            "height 9 must be a positive multiple of patch_size 2",
        ),
        ({"input_size": (8, 6), "hourglass_ratio": 4}, "width 6 must be a positive multiple of 4"),
        ({"input_size": 0}, "height 0"),
        ({"depth": 0}, "depth must be at least 1, not 0"),
        ({"num_classes": -1}, "not -1"),
        ({"matrices": "total"}, "'total'; did you mean 'totals'"),
        ({"ssm": "s4e"}, "'s4e'; did you mean 's4d'"),
        ({"d_model": 18}, "d_model must be divisible by 4.*not 18"),
        ({"d_state": 3}, "d_state must be even.*not 3"),
        ({"dept": 3}, "'dept'; did you mean 'depth'"),
        ({"depth": 2.5}, "depth must be a whole number, not 2.5"),
    ],
)
def test_wrong_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("DiffuSSM", **(TINY | options))


def test_a_wrong_name_is_told():
    with pytest.raises(ValueError, match="'DiffuSM-XL'; did you mean 'DiffuSSM-XL'"):
        create_model("DiffuSM-XL")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_whole_model_compiles_without_a_break():
    # "error" for warnings also means: none about complex numbers
    model = awake(tiny())
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(*batch()), model(*batch()), rtol=1e-4, atol=1e-5)
