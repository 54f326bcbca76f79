"""HiPPO-LegS as published."""

import torch

from diffussm.ssm.hippo import legs, legs_normal_eigenvalues


def test_legs_matrix_of_size_four():
    a, b = legs(4)
    published = torch.tensor(
        [
            [-1, 0, 0, 0],
            [-1.732051, -2, 0, 0],
            [-2.236068, -3.872983, -3, 0],
            [-2.645751, -4.582576, -5.91608, -4],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(a, published, rtol=0, atol=1e-6)
    expected_b = torch.tensor([1, 1.732051, 2.236068, 2.645751], dtype=torch.float64)
    torch.testing.assert_close(b, expected_b, rtol=0, atol=1e-6)


def test_eigenvalues_of_the_normal_part():
    expected = torch.tensor([19.857410, 5.354209, 1.957794, 0.427489], dtype=torch.float64)
    torch.testing.assert_close(legs_normal_eigenvalues(8), expected, rtol=0, atol=1e-6)
