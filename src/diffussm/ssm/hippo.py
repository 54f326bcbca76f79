"""HiPPO: the systems whose state is the best summary of their past, h' = A h + B u.

Each pair (A, B) belongs to a measure on the past and an orthonormal basis under it; the state holds
the signal's coefficients in that basis. In every one of them A + A^T is -(a multiple of I) minus
a matrix of rank 1 or 2, so A is normal minus low rank.

Gu et al., "HiPPO: Recurrent Memory with Optimal Polynomial Projections", 2020 (LegS, LegT, LagT);
Gu et al., "How to Train Your HiPPO", 2022 (Fourier); Gu et al., "Efficiently Modeling Long
Sequences with Structured State Spaces", 2022, section 3.1 and appendix C.1 (the decomposition).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from diffussm.config import choose

System = tuple[Float[Tensor, "state state"], Float[Tensor, " state"]]


def legs(state: int) -> System:
    """HiPPO-LegS: the whole past, scaled to [0, 1], in Legendre polynomials.

    A_nk = -sqrt((2n+1)(2k+1)) below the diagonal, -(n+1) on it; B_n = sqrt(2n+1). Theorem 2.
    """
    b = _legendre(state)
    n = torch.arange(state, dtype=torch.float64)
    a = -torch.tril(torch.outer(b, b), diagonal=-1) - torch.diag(n + 1)
    return a, b


def legt(state: int) -> System:
    """HiPPO-LegT: a sliding window of length 2, in Legendre polynomials.

    A_nk = -1/2 sqrt((2n+1)(2k+1)), with the sign (-1)^(n-k) above the diagonal; B_n = 1/2
    sqrt(2n+1). Theorem 1, with the time unit halved.
    """
    b = _legendre(state)
    n = torch.arange(state)
    sign = 1 - 2 * ((n[:, None] - n) % 2) * (n[:, None] < n)
    return -sign * torch.outer(b, b) / 2, b / 2


def lagt(state: int) -> System:
    """HiPPO-LagT: the whole past, fading exponentially, in Laguerre polynomials.

    A_nk = -1 below the diagonal, -1/2 on it; B = 1. Appendix D.2, with the tilt 1/2.
    """
    _check_state(state)
    ones = torch.ones(state, state, dtype=torch.float64)
    return -torch.tril(ones, diagonal=-1) - torch.diag(ones[0]) / 2, ones[0]


def fourier(state: int) -> System:
    """HiPPO-FouT: a sliding window of length 2, in cosines and sines of whole periods.

    The state is 1, an idle entry, then cosine and sine of pi j t; A is -B B^T plus a rotation of
    each pair by pi j. "How to Train Your HiPPO", theorem 6.
    """
    if state < 2 or state % 2:
        raise ValueError(f"fourier needs an even state of at least 2 (pairs), not {state}")
    b = torch.zeros(state, dtype=torch.float64)
    b[0::2] = math.sqrt(2)
    b[0] = 1
    turn = math.pi * torch.arange(state // 2, dtype=torch.float64)
    rotation = torch.zeros(state, state, dtype=torch.float64)
    cosine = torch.arange(0, state, 2)
    rotation[cosine, cosine + 1] = -turn
    rotation[cosine + 1, cosine] = turn
    return rotation - torch.outer(b, b), b


HIPPO: dict[str, Callable[[int], System]] = {
    "legs": legs,
    "legt": legt,
    "lagt": lagt,
    "fourier": fourier,
}


class NormalPlusLowRank(NamedTuple):
    """A = V (diag(eigenvalues) - sum_r P_r P_r^*) V^*, and B in the same basis.

    The state must be even. Conjugate pairs: entries n and n + state / 2 of eigenvalues, P and B,
    and columns of V, are each other's conjugates; the first half turns forward, fastest first.
    """

    eigenvalues: Complex[Tensor, " state"]
    V: Complex[Tensor, "state state"]
    P: Complex[Tensor, "rank state"]
    B: Complex[Tensor, " state"]


def normal_plus_low_rank(name: str, state: int) -> NormalPlusLowRank:
    """The decomposition of one of HIPPO, in complex128; rank 2 for legt, else 1.

    Raises ValueError for an unknown name or a state that is not made of pairs.
    """
    if state < 2 or state % 2:
        raise ValueError(f"a normal form needs an even state of at least 2 (pairs), not {state}")
    with torch.device("cpu"):  # values decide below, also where a model is only sized up
        a, b = choose("HiPPO matrix", name, HIPPO)(state)
        decay, p = _low_rank_part(name, b)
    normal = a + p.T @ p  # -decay I plus a skew-symmetric matrix
    turns, vectors = torch.linalg.eigh(-1j * (normal - normal.T) / 2)
    half = state // 2
    turns, vectors = turns[half:].flip(0), vectors[:, half:].flip(1)
    if turns[-1] < 1e-9:
        # a double eigenvalue 0: its real plane has no preferred vector, so make a conjugate pair
        real, imaginary = torch.linalg.svd(normal)[2][-2:]
        turns[-1], vectors[:, -1] = 0, torch.complex(real, imaginary) / math.sqrt(2)
    v = torch.cat([vectors, vectors.conj()], dim=1).resolve_conj()
    eigenvalues = torch.complex(torch.full_like(b, -decay), torch.cat([turns, -turns]))
    coordinates = v.mH.resolve_conj()
    return NormalPlusLowRank(eigenvalues, v, (p + 0j) @ coordinates.T, coordinates @ (b + 0j))


def legs_normal_eigenvalues(state: int) -> Float[Tensor, " half"]:
    """Imaginary parts, positive and descending, of the eigenvalues of LegS's normal part.

    The real parts are all -1/2. Gu et al., 2022 (S4D), section 4.1.
    """
    return normal_plus_low_rank("legs", state).eigenvalues.imag[: state // 2]


def _low_rank_part(name: str, b: Tensor) -> tuple[float, Tensor]:
    """c and P (rank x state) with A + A^T = -2 c I - 2 P^T P."""
    if name == "legs":
        return 0.5, b[None] / math.sqrt(2)
    if name == "legt":  # entries of equal parity add up, the others cancel
        even = torch.arange(len(b)) % 2 == 0
        return 0.0, math.sqrt(2) * torch.stack([b * even, b * ~even])
    if name == "lagt":
        return 0.0, b[None] / math.sqrt(2)
    assert name == "fourier"
    return 0.0, b[None]


def _legendre(state: int) -> Tensor:
    _check_state(state)
    return torch.sqrt(2 * torch.arange(state, dtype=torch.float64) + 1)


def _check_state(state: int) -> None:
    if state < 1:
        raise ValueError(f"the state needs at least 1 number, not {state}")
