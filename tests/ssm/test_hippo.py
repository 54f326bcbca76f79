"""HiPPO's matrices against the printed ones, and against what they are for."""

import pytest
import torch

from diffussm.ssm.hippo import legs, legs_normal_eigenvalues


def test_legs_is_the_published_matrix():
    a, b = legs(4)
    published = [
        [-1, 0, 0, 0],
        [-1.732051, -2, 0, 0],
        [-2.236068, -3.872983, -3, 0],
        [-2.645751, -4.582576, -5.91608, -4],
    ]
    expected = torch.tensor(published, dtype=torch.float64)
    torch.testing.assert_close(a, expected, rtol=0, atol=1e-6)
    expected = torch.tensor([1, 1.732051, 2.236068, 2.645751], dtype=torch.float64)
    torch.testing.assert_close(b, expected, rtol=0, atol=1e-6)


def test_normal_eigenvalues_are_the_published_ones():
    published = torch.tensor([19.857410, 5.354209, 1.957794, 0.427489], dtype=torch.float64)
    torch.testing.assert_close(legs_normal_eigenvalues(8), published, rtol=0, atol=1e-6)


@pytest.mark.parametrize("state", [2, 6, 64])
def test_normal_part_and_rank_one_part_make_legs(state):
    a, b = legs(state)
    eigenvalues = torch.linalg.eigvals(a + torch.outer(b, b) / 2)
    torch.testing.assert_close(eigenvalues.real, torch.full_like(b, -0.5), rtol=0, atol=1e-8)
    positive = eigenvalues.imag.sort(descending=True).values[: state // 2]
    torch.testing.assert_close(legs_normal_eigenvalues(state), positive, rtol=1e-8, atol=1e-8)


def test_legs_remembers_the_mean_of_its_past():
    # h' = (A h + B u) / t keeps Legendre coefficients of u on [0, t]: of u = t^2 these are
    # t^2 (1/3, sqrt(3)/6, sqrt(5)/30, 0, ...), so that A c + B = 2 c.
    a, b = legs(5)
    c = torch.tensor([1 / 3, 3**0.5 / 6, 5**0.5 / 30, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(a @ c + b, 2 * c)
