"""Every form of the convolution is the same function; who asks for one gets it, or a sentence."""

import pytest
import torch

from diffussm.ops import diagonal_conv
from diffussm.ops.diagonal_conv import diagonal_form
from diffussm.ops.forms import FORMS, asked_form, use_form
from diffussm.ssm import S4, S4D, Bidirectional
from diffussm.ssm.kernel_layer import reusing_kernels


def layers(dtype=torch.float64):
    return Bidirectional(S4D(3, d_state=4), S4D(3, d_state=4)).to(dtype)


def answers(layer, u, form, rows):
    with use_form("diagonal_conv", form):
        y = layer(u, rows)
    gradients = torch.autograd.grad(y.square().sum(), [u, *layer.parameters()])
    return [y, *gradients]


@pytest.mark.parametrize("rows", [1, 10])
@pytest.mark.parametrize("form", FORMS["diagonal_conv"])
def test_a_layer_is_the_same_in_every_form(form, rows):
    dtype = torch.float64
    if form == "triton":
        pytest.importorskip("triton")
        dtype = torch.float32
    layer, u = layers(dtype), torch.randn(2, 130, 3, dtype=dtype, requires_grad=True)
    for actual, expected in zip(
        answers(layer, u, form, rows), answers(layer, u, "fft", rows), strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
        if dtype == torch.float64:
            torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["fft", "chunked"])
def test_what_is_kept_for_sampling_belongs_to_its_form(form):
    layer, u = layers(), torch.randn(2, 70, 3, dtype=torch.float64)
    expected = layer(u)
    network = reusing_kernels(layer)
    with use_form("diagonal_conv", form):
        network(u)  # makes what is kept
        torch.testing.assert_close(network(u), expected)
    torch.testing.assert_close(network(u), expected)


def test_long_sequences_go_in_chunks(monkeypatch):
    monkeypatch.setattr(diagonal_conv, "LONG", 10)
    assert diagonal_form(torch.zeros(1, 39, 3), modes=4) == "fft"
    assert diagonal_form(torch.zeros(1, 40, 3), modes=4) == "chunked"
    with use_form("diagonal_conv", "fft"):
        assert diagonal_form(torch.zeros(1, 40, 3), modes=4) == "fft"


def test_only_sums_of_modes_have_a_choice():
    layer = Bidirectional(S4(3, d_state=4), S4D(3, d_state=4))
    u = torch.randn(2, 20, 3)
    with use_form("diagonal_conv", "chunked"):
        asked = layer(u)
    torch.testing.assert_close(asked, layer(u), rtol=0, atol=0)


def test_asking_ends_with_the_block_whatever_happens():
    with use_form("diagonal_conv", "fft"):
        with pytest.raises(RuntimeError, match="chunked"), use_form("diagonal_conv", "chunked"):
            raise RuntimeError(asked_form("diagonal_conv"))
        assert asked_form("diagonal_conv") == "fft"
    assert asked_form("diagonal_conv") is None


def test_mistakes():
    with (
        pytest.raises(ValueError, match="unknown operator 'diagonal'"),
        use_form("diagonal", "fft"),
    ):
        pass
    with (
        pytest.raises(
            ValueError, match=r"unknown form of diagonal_conv 'fast'; did you mean 'fft'"
        ),
        use_form("diagonal_conv", "fast"),
    ):
        pass
    pytest.importorskip("triton")
    u = torch.randn(2, 20, 3, dtype=torch.float64)  # Triton's form has no such precision
    with (
        use_form("diagonal_conv", "triton"),
        pytest.raises(ValueError, match=r"no Triton form here: .*; use another form"),
    ):
        layers()(u)
