"""How DiffuSSM's blocks are told the condition: against the published block, and by hand."""

import pytest
import torch
import torch.nn.functional as F
from tiny import awake

from diffussm.models.diffussm import CONDITIONINGS, MATRICES, DiffuSSM, DiffuSSMConfig
from diffussm.models.uvissm import UViSSM, UViSSMConfig
from diffussm.nn.embeddings import grid_positions
from diffussm.ssm.choices import SSMS

TINY = {"input_size": 8, "in_channels": 2, "num_classes": 5, "d_model": 8, "depth": 2, "d_state": 4}
T, Y = torch.tensor([0, 999]), torch.tensor([3, 5])


def tiny(**options):
    return DiffuSSM(DiffuSSMConfig(**(TINY | options)))


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_a_new_model_answers_zero_and_its_blocks_change_nothing(conditioning):
    model, x = tiny(conditioning=conditioning), torch.randn(2, 34, 8)
    assert not model(torch.randn(2, 2, 8, 8), T, Y).any()
    for block in model.blocks:
        assert torch.equal(block(x, torch.randn(2, 8)), x)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("ssm", SSMS)
def test_every_weight_learns_with_every_layer(conditioning, ssm):
    model = awake(tiny(conditioning=conditioning, ssm=ssm, depth=1))
    model(torch.randn(2, 2, 4, 4), T, Y).square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_a_new_model_can_begin_to_learn(conditioning):
    """What is zero at birth moves at the first steps; nothing keeps it there."""
    model = tiny(conditioning=conditioning)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (model(torch.randn(2, 2, 8, 8), T, Y) - 1).square().mean().backward()
        optimizer.step()
    assert all(parameter.any() for parameter in model.parameters())


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("size", [(8, 8), (3, 8), (1, 2)], ids=str)
def test_every_image_by_itself_at_any_size(conditioning, size):
    model, image = awake(tiny(conditioning=conditioning)), torch.randn(2, 2, *size)
    answer = model(image, T, Y)
    assert answer.shape == (2, 4, *size)
    torch.testing.assert_close(model(image[1:], T[1:], Y[1:]), answer[1:])
    for other in (model(image, T + 1, Y), model(image, T, Y - 1)):
        assert not torch.allclose(other, answer)


@pytest.mark.parametrize("scan", ["raster", "alternating"])
@pytest.mark.parametrize("matrices", MATRICES)
def test_six_with_the_second_triple_at_zero_are_three(matrices, scan):
    six = awake(tiny(conditioning="six", matrices=matrices, scan=scan))
    three = tiny(matrices=matrices, scan=scan)
    three.load_state_dict(six.state_dict(), strict=False)
    image = torch.randn(2, 2, 8, 8)
    assert not torch.allclose(six(image, T, Y), three(image, T, Y), rtol=0.01)
    for block in six.blocks:
        torch.nn.init.zeros_(block.fusion_modulation.linear.weight)
        torch.nn.init.zeros_(block.fusion_modulation.linear.bias)
    assert torch.equal(six(image, T, Y), three(image, T, Y))


@pytest.mark.parametrize("matrices", MATRICES)
def test_where_the_second_triple_acts(matrices):
    """x + gate W^3 (act((W^2 I)(1 + scale') + shift') * act(W^1 h) (1 + gate')), W^3 seen alone."""
    block = awake(tiny(conditioning="six", matrices=matrices)).blocks[0]
    wide = MATRICES[matrices].fused * 8
    seen = {}
    for name in ("value", "gate", "out"):
        getattr(block, name).register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)})
        )
    condition = torch.randn(1, 8)
    block(torch.randn(1, 4, 8), condition)
    vectors = block.fusion_modulation.linear(F.silu(condition))
    assert vectors.shape == (1, 3 * wide)
    scale, shift, more = vectors[0].split(wide)
    act = torch.nn.GELU("tanh")
    value, gate, entered = seen["value"][1], seen["gate"][1], seen["out"][0]
    expected = act(value + scale * value + shift) * (act(gate) + more * act(gate))
    torch.testing.assert_close(entered, expected)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_tokens_stand_at_both_ends_and_are_dropped(bidirectional):
    model = awake(tiny(conditioning="tokens", bidirectional=bidirectional))
    image = torch.randn(2, 2, 4, 8)
    condition = model.time(T) + model.label.table.weight[Y]
    grid = image.permute(0, 2, 3, 1).reshape(2, 16, 4)  # two neighbours of two channels
    pictured = model.embed(grid) + grid_positions(4, 4, 8)
    x = torch.stack([condition, *pictured.unbind(1), condition], dim=1)
    for block in model.blocks:
        normed = F.layer_norm(x, (8,), block.norm.weight, block.norm.bias, 1e-6)
        u = F.gelu(block.up(F.gelu(block.dense(normed), approximate="tanh")), approximate="tanh")
        assert u.shape == (2, 36, 8)
        mixed = F.gelu(block.down(block.ssm(u)), approximate="tanh")
        value, gate = (
            F.gelu(each, approximate="tanh") for each in (block.value(mixed), block.gate(normed))
        )
        x = x + block.out(value * gate)
    weight, bias = model.final_norm.weight, model.final_norm.bias
    decoded = model.decode(F.layer_norm(x[:, 1:17], (8,), weight, bias, 1e-6))
    expected = decoded.reshape(2, 4, 4, 2, 4).permute(0, 4, 1, 2, 3).flatten(3)
    torch.testing.assert_close(model(image, T, Y), expected)
    assert not any("modulation" in name for name in model.state_dict())


def test_a_token_reaches_all_pixels_through_one_direction_alone():
    model = awake(tiny(conditioning="tokens", bidirectional=False, depth=1)).double()
    image = torch.randn(1, 2, 8, 8).double()
    change = (model(image, T[:1], Y[:1]) - model(image, T[:1], Y[:1] - 1)).abs().amax(dim=(0, 1))
    assert (change > 0).all()


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_long_skips_know_every_way(conditioning):
    config = UViSSMConfig(**(TINY | {"depth": 3}), conditioning=conditioning)
    model, image = UViSSM(config), torch.randn(2, 2, 8, 8)
    assert not model(image, T, Y).any()
    straight = tiny(depth=3, conditioning=conditioning)
    awake(model)
    straight.load_state_dict(model.state_dict(), strict=False)
    assert not torch.allclose(model(image, T, Y), straight(image, T, Y), rtol=0.01)
    for linear in model.skips:
        linear.weight.data = torch.cat([torch.eye(8), torch.zeros(8, 8)], dim=1)
        torch.nn.init.zeros_(linear.bias)
    torch.testing.assert_close(model(image, T, Y), straight(image, T, Y))


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_autocast_changes_little(conditioning):
    model, image = awake(tiny(conditioning=conditioning)), torch.randn(2, 2, 8, 8)
    exact = model(image, T, Y)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(image, T, Y)
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()


def test_unconditional_blocks_are_told_the_time():
    for conditioning in CONDITIONINGS:
        model = awake(tiny(conditioning=conditioning, num_classes=0))
        image = torch.randn(1, 2, 8, 8)
        assert not torch.allclose(model(image, T[:1]), model(image, T[1:]))


def test_mistakes():
    with pytest.raises(ValueError, match="unknown conditioning 'token'; did you mean 'tokens'"):
        tiny(conditioning="token")
    with pytest.raises(ValueError, match=r"scan 'alternating' reads .* grid.*choose raster"):
        tiny(conditioning="tokens", scan="alternating")
