"""The impulse response of a dense state space model.

    K_l = C A_bar^l B_bar

The exponent is split, l = i + w j, so that K_{i + w j} = (C A_bar^(w j)) (A_bar^i B_bar): about
2 sqrt(length) vectors a channel in place of `length`, each set of them made by doubling,

    [X, A X, ..., A^(2n-1) X] = [block, A^n block],    block = [X, ..., A^(n-1) X].

Gu et al., "Combining Recurrent, Convolutional, and Continuous-time Models with Linear State-Space
Layers", 2021, section 2 (the Krylov function); the split is ours.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

Matrices = Float[Tensor, "dim state state"]
Vectors = Float[Tensor, "dim state"]
Kernel = Float[Tensor, "dim length"]


def krylov(a_bar: Matrices, b_bar: Vectors, c: Vectors, length: int) -> Kernel:
    """The kernel of `length` values; differentiable, never dim x state x length in memory.

    Raises ValueError for a length below 1.
    """
    if length < 1:
        raise ValueError(f"a kernel needs a sequence of length 1 or more, not {length}")
    doublings = math.ceil(math.log2(length) / 2)
    rows = math.ceil(length / 2**doublings)
    with torch.autocast(a_bar.device.type, enabled=False):
        columns, power = b_bar[..., None], a_bar
        for _ in range(doublings):
            columns = torch.cat([columns, power @ columns], dim=-1)
            power = power @ power
        # `power` is now A_bar^w: the step from one row of K to the next
        left = c[:, None]
        while left.shape[1] < rows:
            left = torch.cat([left, left @ power], dim=1)
            if left.shape[1] < rows:
                power = power @ power
        kernel = left[:, :rows] @ columns
    return kernel.flatten(1)[:, :length]


def krylov_reference(a_bar: Matrices, b_bar: Vectors, c: Vectors, length: int) -> Kernel:
    h, kernel = b_bar, []
    for _ in range(length):
        kernel.append((c * h).sum(-1))
        h = torch.einsum("dnm,dm->dn", a_bar, h)
    return torch.stack(kernel, dim=1)
