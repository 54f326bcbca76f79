"""One diagonal system cut into chunks: its matrices, and the walk of its states.

What these are is told in `diffussm.ops.chunked_conv`, which puts them together.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffussm.ops.powers import powers, times

Modes = Float[Tensor, "directions dim modes"]

CHUNK = 64
"""Positions a chunk."""


class Matrices(NamedTuple):
    """A system cut into chunks; each direction in the order of a forward one."""

    kernel: Float[Tensor, "dim directions chunk"]
    """K_0 to K_(c-1), of which T is made."""
    enter: Float[Tensor, "dim directions parts chunk"]
    """P, real parts of the modes above imaginary ones."""
    leave: Float[Tensor, "dim directions chunk parts"]
    """Q, doubled, the imaginary parts' sign turned: y = Q s is real."""
    jump: Float[Tensor, "dim directions 2 modes"]
    """z^c, real part and imaginary part."""


def chunk_matrices(
    decay: Modes, angle: Modes, w_re: Modes, w_im: Modes, chunk: int = CHUNK
) -> Matrices:
    """The matrices of one system or two; arguments as in `chunked_conv`."""
    decay, angle, w_re, w_im = (x.transpose(0, 1) for x in (decay, angle, w_re, w_im))
    re, im = powers(decay, angle, chunk + 1)
    enter = torch.cat([re[..., :-1, :], im[..., :-1, :]], dim=-1).flip(-2).mT
    out_re, out_im = times((2 * w_re[..., None, :], 2 * w_im[..., None, :]), (re, im))
    leave = torch.cat([out_re[..., 1:, :], -out_im[..., 1:, :]], dim=-1)
    jump = torch.stack([re[..., -1, :], im[..., -1, :]], dim=-2)
    return Matrices(out_re[..., :-1, :].sum(-1), enter, leave, jump)


def toeplitz(kernel: Tensor) -> Tensor:
    """T turned over, (..., chunk) -> (..., chunk, chunk): K_(i-j) in row j and column i."""
    chunk = kernel.shape[-1]
    return F.pad(kernel, (chunk - 1, 0)).unfold(-1, chunk, 1).flip(-2)


def from_toeplitz(grad: Tensor) -> Tensor:
    """The gradient of a kernel from that of its `toeplitz`: sums along the diagonals."""
    chunk = grad.shape[-1]
    skewed = F.pad(grad.mT.flip(-1), (0, chunk)).flatten(-2)[..., : chunk * (2 * chunk - 1)]
    return skewed.unflatten(-1, (chunk, -1)).sum(-2)[..., chunk - 1 :]


def paired(parts: Tensor, from_end: bool) -> Tensor:
    """(dim, parts, chunk), each mode's two parts side by side; reversed for a walk from the end."""
    pairs = parts.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
    return pairs.flip(-1) if from_end else pairs


def unpaired(pairs: Tensor, from_end: bool) -> Tensor:
    """The way back from `paired`."""
    pairs = pairs.flip(-1) if from_end else pairs
    return pairs.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)


def walk(entered: Tensor, jump: Tensor, batch: int, way: int) -> Tensor:
    """States before each chunk, of what enters in each (used up); way -1: from the end.

    entered    (dim, batch chunks, modes 2), and so is the result, of its type
    jump       (dim, modes), complex; its precision is that of the walk

    The chunks are grouped, about as many in a group as there are groups: first all groups walk
    side by side, each from nothing; then the states walk from group to group, and are added.
    """
    exact = entered.to(jump.real.dtype)
    z = torch.view_as_complex(exact.unflatten(-1, (-1, 2))).unflatten(1, (batch, -1))
    count = z.shape[2]
    span = 2 ** math.ceil(math.log2(count) / 2)
    missing = (0, -count % span)
    z = F.pad(z, (0, 0, *missing[::way])) if any(missing) else z
    z = z.unflatten(2, (-1, span))  # dim, batch, groups, span, modes
    for near, far in pairwise(range(span)[::way]):
        z[:, :, :, far].addcmul_(jump[:, None, None], z[:, :, :, near])

    powers = jump[:, None].expand(-1, span, -1).cumprod(1)[:, None, None]
    before = torch.zeros_like(z[:, :, :, 0])
    first, last = range(span)[::way][0], range(span)[::way][-1]
    for near, far in pairwise(range(z.shape[2])[::way]):
        reached = torch.addcmul(z[:, :, near, last], powers[:, 0, :, -1], before[:, :, near])
        before[:, :, far] = reached
    ahead, behind = (slice(1, None), slice(None, -1))[::way]
    powers = powers[:, :, :, :-1] if way == 1 else powers[:, :, :, :-1].flip(3)
    state = torch.empty_like(z)
    state[:, :, :, first] = before
    state[:, :, :, ahead] = torch.addcmul(z[:, :, :, behind], powers, before[:, :, :, None])
    state = state.flatten(2, 3)
    state = state[:, :, :count] if way == 1 else state[:, :, -count:]
    return torch.view_as_real(state.contiguous()).flatten(-2).flatten(1, 2).to(entered.dtype)


class System(NamedTuple):
    """One direction of a few channels, as what stands to the right of rows of chunks."""

    within: Tensor
    into: Tensor
    out: Tensor
    jump: Tensor
    way: int

    @classmethod
    def of(cls, direction: int, dtype: torch.dtype, *matrices: Tensor) -> "System":
        """`dtype` is that of the products; states jump in the matrices' own."""
        *products, jump = (x[:, direction] for x in matrices)
        kernel, enter, leave = (x.to(dtype) for x in products)
        within = toeplitz(kernel)
        return cls(
            within.mT if direction else within,
            paired(enter, direction == 1).mT,
            paired(leave.mT, direction == 1),
            torch.complex(jump[:, 0], jump[:, 1]),
            -1 if direction else 1,
        )


def jump_gradient(dentered: Tensor, state: Tensor) -> Tensor:
    """The gradient of z^c: that of what it gives times what it is given, over all chunks."""
    pairs = (x.float() if x.dtype == torch.bfloat16 else x for x in (state, dentered))
    product = torch.linalg.vecdot(
        *(torch.view_as_complex(x.unflatten(-1, (-1, 2))) for x in pairs), dim=1
    )
    return torch.stack([product.real, product.imag], dim=1)
