"""The split kernel equals the sum over modes, and never holds dim x state x length numbers."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffussm.ops.vandermonde import vandermonde, vandermonde_reference

LENGTHS = [1, 2, 63, 64, 65, 257, 1000]


def modes(dim=3, state=4, dtype=torch.float64):
    """decay, angle, c_re, c_im: from modes that never fade to those that fade at once."""
    decay = -torch.logspace(-4, 0, dim * state, dtype=dtype).reshape(dim, state)
    decay[0, 0] = 0.0
    angle = 3 * torch.randn(dim, state, dtype=dtype)
    return [x.requires_grad_() for x in (decay, angle, *torch.randn(2, dim, state, dtype=dtype))]


@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_sum_over_modes(length):
    arguments = modes()
    expected, actual = vandermonde_reference(*arguments, length), vandermonde(*arguments, length)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    cotangent = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(actual, arguments, cotangent),
        torch.autograd.grad(expected, arguments, cotangent),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("length", LENGTHS)
def test_gradients_are_differences(length):
    assert torch.autograd.gradcheck(lambda *x: vandermonde(*x, length), modes(), fast_mode=True)


def test_reference_is_a_geometric_series():
    # z = i/2 has powers 1, i/2, -1/4, -i/8; c = 3 + i
    z = torch.log(torch.tensor([[0.5]])), torch.tensor([[torch.pi / 2]])
    kernel = vandermonde_reference(*z, torch.tensor([[3.0]]), torch.tensor([[1.0]]), 4)
    torch.testing.assert_close(kernel, torch.tensor([[6.0, -1.0, -1.5, 0.25]]))


def test_a_mode_that_forgets_at_once_leaves_one_value():
    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    kernel = vandermonde(-200 * one, zero, one, zero, 5)
    torch.testing.assert_close(kernel, torch.tensor([[2.0, 0, 0, 0, 0]]))


class LargestTensor(TorchDispatchMode):
    """Notes the most numbers that any operation put into one tensor."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        self.numel = max(self.numel, *sizes, 0)
        return result


@pytest.mark.parametrize(
    ("function", "small"), [(vandermonde, True), (vandermonde_reference, False)]
)
def test_memory_is_that_of_the_kernel(function, small):
    dim, state, length = 2, 32, 4096
    arguments = modes(dim, state)
    with LargestTensor() as largest:
        function(*arguments, length).sum().backward()
    assert largest.numel >= dim * length
    assert (largest.numel <= 2 * dim * length) == small  # state plays no part


def test_float32_keeps_its_digits_also_under_autocast():
    exact = modes()
    arguments = [x.detach().float() for x in exact]
    expected = vandermonde(*(x.double() for x in arguments), 257)
    with torch.autocast("cpu", torch.bfloat16):
        actual = vandermonde(*arguments, 257)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=2e-3)
    torch.testing.assert_close(actual[:, :64].double(), expected[:, :64], rtol=0, atol=2e-4)


def test_a_kernel_of_no_length_gets_a_sentence():
    with pytest.raises(ValueError, match="length 1 or more, not 0"):
        vandermonde(*modes(), 0)


def test_several_kernels_of_the_same_modes_come_at_once():
    decay, angle = -torch.rand(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    c_re, c_im = torch.randn(2, 3, 2, 5, 4, dtype=torch.float64)
    together = vandermonde(decay, angle, c_re, c_im, 37)
    for i in range(2):
        for j in range(5):
            alone = vandermonde(decay, angle, c_re[:, i, j], c_im[:, i, j], 37)
            torch.testing.assert_close(together[:, i, j], alone, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(together, vandermonde_reference(decay, angle, c_re, c_im, 37))
