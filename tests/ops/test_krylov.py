"""The split kernel of a dense system equals the recurrence, in values and in every gradient."""

import pytest
import torch

from diffussm.ops.krylov import krylov, krylov_reference

LENGTHS = [1, 2, 3, 4, 5, 63, 64, 65, 257]


def system(dim=3, state=4):
    """Contractions, and their inputs and outputs, in float64."""
    a_bar = torch.randn(dim, state, state, dtype=torch.float64)
    a_bar = 0.98 * a_bar / torch.linalg.matrix_norm(a_bar, 2)[:, None, None]
    b_bar, c = torch.randn(2, dim, state, dtype=torch.float64)
    return [x.requires_grad_() for x in (a_bar, b_bar, c)]


@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_recurrence(length):
    inputs = system()
    weights = torch.randn(3, length, dtype=torch.float64)

    def values_and_gradients(function):
        kernel = function(*inputs, length)
        gradients = torch.autograd.grad(kernel, inputs, weights, materialize_grads=True)
        return kernel, *gradients

    actual, expected = values_and_gradients(krylov), values_and_gradients(krylov_reference)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


def test_gradients_are_differences():
    assert torch.autograd.gradcheck(lambda *x: krylov(*x, 7), system(dim=2, state=2))


def test_autocast_changes_nothing():
    inputs = [x.detach().float() for x in system()]
    with torch.autocast("cpu", torch.bfloat16):
        kernel = krylov(*inputs, 65)
    assert torch.equal(kernel, krylov(*inputs, 65))


def test_never_holds_dim_state_and_length_at_once():
    dim, state, length = 2, 16, 4096
    sizes = []

    def note(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        krylov(*system(dim, state), length).sum().backward()
    assert max(sizes) <= dim * state * length / 16


def test_an_empty_kernel_gets_a_sentence():
    with pytest.raises(ValueError, match="length 1 or more, not 0"):
        krylov(*system(), 0)
