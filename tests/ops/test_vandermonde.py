"""The split Vandermonde product equals the written sum, and never forms dim x state x length."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from diffussm.ops.vandermonde import vandermonde, vandermonde_reference


def modes(dim=3, state=4, dtype=torch.float64):
    decay = -torch.rand(dim, state, dtype=dtype) / 20
    angle = 6 * torch.rand(dim, state, dtype=dtype) - 3
    coefficients = torch.randn(2, dim, state, dtype=dtype)
    return [x.requires_grad_() for x in (decay, angle, *coefficients.unbind())]


@pytest.mark.parametrize("length", [1, 2, 3, 63, 64, 65, 257, 1000])
def test_values_and_gradients_equal_the_reference(length):
    inputs = modes()
    actual, expected = vandermonde(*inputs, length), vandermonde_reference(*inputs, length)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
    cotangent = torch.randn(3, length, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad(actual, inputs, cotangent),
        torch.autograd.grad(expected, inputs, cotangent),
        rtol=1e-8,
        atol=1e-9,
    )


def test_a_mode_that_forgets_at_once_leaves_one_value():
    # |z| = 0: z^0 = 1 and nothing after, also where exp is asked for -inf's neighbourhood
    decay = torch.full((1, 1), -200.0)
    kernel = vandermonde(decay, torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 1), 5)
    torch.testing.assert_close(kernel, torch.tensor([[2.0, 0, 0, 0, 0]]))


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation makes, forward or backward."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def test_memory_stays_far_below_dim_state_length():
    dim, state, length = 8, 32, 4096
    with Largest() as largest:
        vandermonde(*modes(dim, state, torch.float32), length).sum().backward()
    assert largest.numel <= 2 * dim * 2 * state * 64  # both factors have 64 = sqrt(4096) powers
    assert largest.numel < dim * state * length / 30


def test_autocast_does_not_round_the_kernel():
    inputs = [x.detach() for x in modes(dtype=torch.float32)]
    with torch.autocast("cpu", torch.bfloat16):
        inside = vandermonde(*inputs, 65)
    torch.testing.assert_close(inside, vandermonde(*inputs, 65), rtol=0, atol=0)
