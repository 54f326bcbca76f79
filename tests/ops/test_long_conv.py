"""The FFT convolution equals its written-out sums, in values and in every gradient."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from diffussm.ops.long_conv import fft_length, long_conv, long_conv_flops, long_conv_reference

LENGTHS = [1, 2, 63, 64, 65, 97]
GRIDS = [(6, 1), (6, 2), (6, 6), (63, 7), (65, 5), (64, 4), (15, 5)]  # length, rows
OPERATORS = torch.ops.diffussm


def inputs(length, directions, batch=2, dim=3):
    """Signal and kernels in float64, neither of them contiguous."""
    u = torch.randn(dim, length, batch, dtype=torch.float64).permute(2, 1, 0)
    kernels = torch.randn(directions, length, 2 * dim, dtype=torch.float64)[..., ::2].mT
    return u.requires_grad_(), kernels.requires_grad_()


def values_and_gradients(function, u, kernels, cotangent, rows=1):
    y = function(u, kernels, rows)
    return y, *torch.autograd.grad(y, (u, kernels), cotangent)


def weights_of(u, kernels):
    """A cotangent, not contiguous."""
    batch, length, dim = u.shape
    return torch.randn(batch, dim, len(kernels), length, dtype=torch.float64).permute(0, 3, 2, 1)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_written_sums(length, directions):
    u, kernels = inputs(length, directions)
    cotangent = weights_of(u, kernels)
    expected = values_and_gradients(long_conv_reference, u, kernels, cotangent)
    actual = values_and_gradients(long_conv, u, kernels, cotangent)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)
    assert torch.autograd.gradcheck(long_conv, (u, kernels), fast_mode=True)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(("length", "rows"), GRIDS)
def test_a_grid_is_read_column_by_column(length, rows, directions):
    u, kernels = inputs(length, directions)
    cotangent = weights_of(u, kernels)
    expected = values_and_gradients(long_conv_reference, u, kernels, cotangent, rows)
    actual = values_and_gradients(long_conv, u, kernels, cotangent, rows)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)
    turned = u.unflatten(1, (rows, -1)).transpose(1, 2).flatten(1, 2)
    y = long_conv(turned, kernels).unflatten(1, (-1, rows)).transpose(1, 2).flatten(1, 2)
    torch.testing.assert_close(actual[0], y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("length", LENGTHS)
def test_half_precision_signals_meet_float32_kernels(length, directions, kind):
    u, kernels = inputs(length, directions)
    cotangent = weights_of(u, kernels).to(kind)
    u, kernels = u.detach().to(kind).requires_grad_(), kernels.detach().float().requires_grad_()
    y, du, dkernels = values_and_gradients(long_conv, u, kernels, cotangent)
    assert (y.dtype, du.dtype, dkernels.dtype) == (kind, kind, torch.float32)

    exact = [u.detach().double().requires_grad_(), kernels.detach().double().requires_grad_()]
    expected = values_and_gradients(long_conv_reference, *exact, cotangent.double())
    for actual, true in zip((y, du, dkernels), expected, strict=True):
        # bfloat16 only stores results: nothing is computed in it
        rounding = torch.finfo(actual.dtype).eps
        noise = 1e-6 * length**0.5 * true.abs().max().item()
        torch.testing.assert_close(actual.double(), true, rtol=rounding, atol=noise)


def test_a_shifted_impulse_is_a_shifted_kernel():
    u = torch.zeros(1, 7, 1)
    u[0, 2] = 1.0
    y = long_conv(u, torch.arange(1.0, 15.0).reshape(2, 1, 7))[0, :, :, 0]
    torch.testing.assert_close(y[:, 0], torch.tensor([0.0, 0, 1, 2, 3, 4, 5]))
    torch.testing.assert_close(y[:, 1], torch.tensor([10.0, 9, 8, 0, 0, 0, 0]))


@pytest.mark.parametrize("directions", [1, 2])
def test_the_operators_keep_torch_s_contract(directions):
    u, kernels = inputs(6, directions)
    dy = torch.randn(*u.shape[:2], directions, u.shape[2], dtype=u.dtype)
    torch.library.opcheck(OPERATORS.long_conv.default, (u, kernels, 3))
    backward = (u.detach(), kernels.detach(), dy, 3)
    torch.library.opcheck(OPERATORS.long_conv_backward.default, backward)


def test_flops_are_counted_forward_and_backward():
    # Length 64 pads to 128: a real FFT costs 2.5 * 128 * 7 flops and has 65 bins.
    transform, bins, batch, dim = 2.5 * 128 * 7, 65, 2, 3
    u, kernels = inputs(64, 2, batch, dim)
    with FlopCounterMode(display=False) as counter:
        y = long_conv(u, kernels)
    signals, both, each = batch * dim, 2 * batch * dim, 2 * dim
    forward = (signals + each + both) * transform + both * bins * 6
    assert counter.get_total_flops() == forward == long_conv_flops(batch, 64, dim, 2)

    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    # in: signals, kernels, cotangents; out: gradients of signals and of kernels
    backward = (signals + each + both + signals + each) * transform + 2 * both * bins * 8
    assert counter.get_total_flops() == backward


def test_fft_length_is_the_next_even_smooth_number():
    powers = range(17)
    smooth = sorted(2 * 2**a * 3**b * 5**c for a in powers for b in powers for c in powers)
    for length in [*range(1, 200), 1024, 4096, 16385]:
        assert fft_length(length) == next(size for size in smooth if size >= 2 * length)


def test_wrong_kernels_get_a_sentence(unchecked_shapes):
    u = torch.zeros(1, 5, 2)
    with pytest.raises(ValueError, match="one kernel or two"):
        long_conv(u, torch.zeros(3, 2, 5))
    with pytest.raises(ValueError, match="the kernels are 4 long and the sequence 5"):
        long_conv(u, torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="length 1 or more, not 0"):
        long_conv(u[:, :0], torch.zeros(1, 2, 0))
    with pytest.raises(ValueError, match="sequence of 5 cannot be read as 2 equal rows"):
        long_conv(u, torch.zeros(1, 2, 5), rows=2)
