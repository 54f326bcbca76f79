"""The low-rank kernel equals the written-out Cauchy sums, and the powers of the dense matrix."""

import pytest
import torch

from diffussm.ops.cauchy import low_rank_kernel, low_rank_kernel_reference

LENGTHS = [1, 2, 3, 63, 64, 65, 257]


def system(rank, dim=3, state=4):
    """Half of a stable system's modes, and its P, B, C; float64."""
    eigenvalues = torch.complex(
        -torch.rand(dim, state).double(), 5 * torch.randn(dim, state).double()
    )
    p = torch.randn(dim, rank, state, dtype=torch.complex128)
    b, c = torch.randn(2, dim, state, dtype=torch.complex128)
    return eigenvalues, p, b, c


def arguments(eigenvalues, p, b, c, dt=0.1):
    """The operator's arguments: diagonal bilinear step, and all products with its gain."""
    a_bar = (1 + dt * eigenvalues / 2) / (1 - dt * eigenvalues / 2)
    gain = dt / (1 - dt * eigenvalues / 2)
    left, right = torch.cat([c[:, None], p.conj()], 1), torch.cat([b[:, None], p], 1)
    w = left[:, :, None] * right[:, None] * gain[:, None, None]
    values = a_bar.abs().log(), a_bar.angle(), w.real.clone(), w.imag.clone()
    return [x.requires_grad_() for x in values]


def powers_of_the_dense_matrix(eigenvalues, p, b, c, length, dt=0.1):
    p, b, c = (torch.cat([x, x.conj()], dim=-1) for x in (p, b, c))
    a = torch.diag_embed(torch.cat([eigenvalues, eigenvalues.conj()], dim=-1))
    a = a - torch.einsum("drn,drm->dnm", p, p.conj())
    identity = torch.eye(a.shape[-1], dtype=a.dtype)
    a_bar = torch.linalg.solve(identity - dt / 2 * a, identity + dt / 2 * a)
    h = torch.linalg.solve(identity - dt / 2 * a, dt * b[..., None])
    kernel = []
    for _ in range(length):
        kernel.append((c * h[..., 0]).sum(-1).real)
        h = a_bar @ h
    return torch.stack(kernel, dim=1)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("length", LENGTHS)
def test_is_the_impulse_response_of_the_dense_system(length, rank):
    made = system(rank)
    expected = powers_of_the_dense_matrix(*made, length)
    size = expected.abs().max().item()
    kernel = low_rank_kernel(*arguments(*made), length)
    torch.testing.assert_close(kernel, expected, rtol=0, atol=1e-9 * size)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_written_cauchy_sums(length, rank):
    inputs = arguments(*system(rank))

    def values_and_gradients(function):
        kernel = function(*inputs, length)
        weights = torch.linspace(-1, 2, kernel.numel(), dtype=torch.float64).reshape(kernel.shape)
        return kernel, *torch.autograd.grad(kernel, inputs, weights)

    ours = values_and_gradients(low_rank_kernel)
    written = values_and_gradients(low_rank_kernel_reference)
    for actual, expected in zip(ours, written, strict=True):
        size = max(expected.abs().max().item(), written[0].abs().max().item())
        torch.testing.assert_close(actual, expected, rtol=0, atol=2e-9 * size)


def test_gradients_are_differences():
    inputs = arguments(*system(2, dim=1, state=2))
    assert torch.autograd.gradcheck(lambda *x: low_rank_kernel(*x, 5), inputs)


@pytest.mark.parametrize("length", LENGTHS)
def test_float32_loses_little(length):
    made = system(1)
    expected = powers_of_the_dense_matrix(*made, length)
    single = [x.detach().float() for x in arguments(*made)]
    error = low_rank_kernel(*single, length) - expected
    assert error.abs().max() < 2e-4 * expected.abs().max()


def test_an_empty_kernel_gets_a_sentence():
    with pytest.raises(ValueError, match="length 1 or more, not 0"):
        low_rank_kernel(*arguments(*system(1)), 0)
