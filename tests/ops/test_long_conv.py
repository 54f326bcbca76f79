"""The FFT convolution equals the written sums, values and gradients, at awkward sizes."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from diffussm.ops.long_conv import fft_length, long_conv, long_conv_flops, long_conv_reference

LENGTHS = [1, 2, 63, 64, 65, 97]


def inputs(length, directions, dtype=torch.float64, batch=2, dim=3):
    u = torch.randn(batch, length, dim, dtype=dtype, requires_grad=True)
    kernels = torch.randn(directions, dim, length, dtype=dtype, requires_grad=True)
    return u, kernels


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("directions", [1, 2])
def test_values_and_gradients_equal_the_reference(length, directions):
    u, kernels = inputs(length, directions)
    cotangent = torch.randn(2, length, directions, 3, dtype=u.dtype)
    expected = long_conv_reference(u, kernels)
    actual = long_conv(u, kernels)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual, (u, kernels), cotangent),
        torch.autograd.grad(expected, (u, kernels), cotangent),
    )


def test_both_directions_see_the_present():
    u = torch.zeros(1, 5, 1)
    u[0, 2] = 1.0
    kernels = torch.tensor([[[1.0, 2, 3, 4, 5]], [[10.0, 20, 30, 40, 50]]])
    y = long_conv(u, kernels)[0, :, :, 0]
    torch.testing.assert_close(y[:, 0], torch.tensor([0.0, 0, 1, 2, 3]), atol=1e-5, rtol=0)
    torch.testing.assert_close(y[:, 1], torch.tensor([30.0, 20, 10, 0, 0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("directions", [1, 2])
def test_inputs_may_lie_anyhow_in_memory(directions):
    u, kernels = inputs(17, directions)
    strange = u.detach().transpose(0, 2).contiguous().transpose(0, 2)
    flipped = kernels.detach().transpose(1, 2).contiguous().transpose(1, 2)
    torch.testing.assert_close(long_conv(strange, flipped), long_conv(u, kernels).detach())


def test_bfloat16_signals_are_convolved_in_float32():
    u, kernels = inputs(65, 2, torch.float32)
    rounded = u.detach().bfloat16()
    actual = long_conv(rounded, kernels)
    assert actual.dtype == torch.bfloat16
    expected = long_conv(rounded.float(), kernels).bfloat16()
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("directions", [1, 2])
def test_compilers_can_take_the_operator(directions):
    # It once returned wrong values here alone: a lazy conj() was lost below the dispatcher.
    torch.library.opcheck(torch.ops.diffussm.long_conv.default, inputs(9, directions))


def test_flops_are_counted_forward_and_backward():
    u, kernels = inputs(64, 2, torch.float32)
    with FlopCounterMode(display=False) as forward:
        y = long_conv(u, kernels)
    assert forward.get_total_flops() == long_conv_flops(2, 64, 3, 2) > 0
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    assert backward.get_total_flops() > forward.get_total_flops()


def test_fft_length_is_the_next_smooth_even_size():
    def smooth(size):
        for factor in (2, 3, 5):
            while size % factor == 0:
                size //= factor
        return size == 1

    for length in range(1, 300):
        size = fft_length(length)
        candidates = [n for n in range(2 * length, size + 1) if n % 2 == 0 and smooth(n)]
        assert candidates == [size]


@pytest.mark.parametrize(
    ("shape", "kernels", "message"),
    [
        ((1, 0, 2), (1, 2, 0), "length 1 or more"),
        ((1, 4, 2), (1, 2, 5), "5 long and the sequence 4"),
        ((1, 4, 2), (3, 2, 4), "not 3"),
    ],
)
def test_unusable_shapes_are_told(shape, kernels, message):
    with pytest.raises(ValueError, match=message):
        long_conv(torch.zeros(shape), torch.zeros(kernels))
