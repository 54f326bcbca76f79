"""HiPPO: the systems whose state is the best polynomial summary of their past.

Gu et al., "HiPPO: Recurrent Memory with Optimal Polynomial Projections", 2020.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def legs(state: int) -> tuple[Float[Tensor, "state state"], Float[Tensor, " state"]]:
    """A and B of HiPPO-LegS, float64: the whole past, scaled to [0, 1], in Legendre polynomials.

    A_nk = -sqrt((2n+1)(2k+1)) below the diagonal, -(n+1) on it; B_n = sqrt(2n+1). Theorem 2.
    """
    n = torch.arange(state, dtype=torch.float64)
    b = torch.sqrt(2 * n + 1)
    a = -torch.tril(torch.outer(b, b), diagonal=-1) - torch.diag(n + 1)
    return a, b


def legs_normal_eigenvalues(state: int) -> Float[Tensor, " half"]:
    """Imaginary parts, positive and descending, of the eigenvalues of LegS's normal part.

    A + P P^T with P_n = sqrt(n + 1/2) is -1/2 I plus a skew-symmetric matrix, so the real parts
    are all -1/2. Gu et al., 2022 (S4D), section 4.1.
    """
    a, b = legs(state)
    p = b / 2**0.5
    skew = a + torch.outer(p, p) + torch.eye(state, dtype=a.dtype) / 2
    return torch.linalg.eigvalsh(-1j * skew).flip(0)[: state // 2]
