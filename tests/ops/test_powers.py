"""Split powers equal powers one by one, and their gradients need nothing but themselves."""

import pytest
import torch

from diffussm.ops.powers import powers, powers_reference


def modes(dtype=torch.float64):
    """From a mode that never fades to one that fades at once."""
    decay = -torch.logspace(-4, 1, 12, dtype=dtype).reshape(3, 4)
    decay[0, 0] = 0.0
    return decay.requires_grad_(), (3 * torch.randn(3, 4, dtype=dtype)).requires_grad_()


@pytest.mark.parametrize("stride", [1, 32])
@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 97])
def test_powers_and_gradients_equal_those_one_by_one(count, stride):
    arguments = modes()
    expected = powers_reference(*arguments, count, stride)
    actual = powers(*arguments, count, stride)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)
    cotangents = [torch.randn_like(part) for part in expected]
    torch.testing.assert_close(
        torch.autograd.grad(actual, arguments, cotangents),
        torch.autograd.grad(expected, arguments, cotangents),
        rtol=1e-9,
        atol=1e-9,
    )


def test_a_fourth_root_of_one_comes_round():
    angle = torch.tensor([torch.pi / 2], dtype=torch.float64)
    re, im = powers(torch.zeros_like(angle), angle, 9)
    torch.testing.assert_close(re[:, 0], torch.tensor([1.0, 0, -1, 0, 1, 0, -1, 0, 1]).double())
    torch.testing.assert_close(im[:, 0], torch.tensor([0.0, 1, 0, -1, 0, 1, 0, -1, 0]).double())


def test_float32_loses_no_more_than_the_angle_has_lost():
    decay, angle = (x.detach() for x in modes())
    exact = powers(decay.float().double(), angle.float().double(), 65)
    for ours, true in zip(powers(decay.float(), angle.float(), 65), exact, strict=True):
        # an angle of a few radians times 64 is known to 64 x its rounding
        assert (ours - true).abs().max() < 64 * 9 * 2**-24


@pytest.mark.parametrize("gradient", [True, False])
def test_few_of_them_are_computed_one_by_one(gradient, monkeypatch):
    computed = []
    cosine = torch.cos
    monkeypatch.setattr(torch, "cos", lambda x: (computed.append(x.numel()), cosine(x))[1])
    decay, angle = (x.requires_grad_(gradient) for x in modes())
    re, im = powers(decay, angle, 4096)
    if gradient:
        (re + im).sum().backward()
    assert sum(computed) == 2 * 64 * decay.numel()
