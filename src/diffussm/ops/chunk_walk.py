"""The walk of diagonal states from chunk to chunk: s <- z^c s + e."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

ONE_BY_ONE = 24
"""Chunks up to which they are walked one after another."""


class Cut(NamedTuple):
    """How sequences are laid out in chunks, and chunks in groups that are walked side by side."""

    batch: int
    groups: int
    span: int
    """Chunks a group; as many as there are groups, about."""

    @classmethod
    def of(cls, batch: int, length: int, chunk: int) -> "Cut":
        count = math.ceil(length / chunk)
        span = count if count <= ONE_BY_ONE else 2 ** round(math.log2(count) / 2)
        return cls(batch, math.ceil(count / span), span)


def walk(entered: Tensor, jump: Tensor, cut: Cut, way: int) -> Tensor:
    """What enters in each chunk is replaced by the state before it; way -1: from the end.

    entered    (dim, batch groups span, 2 modes), parts of a mode adjacent; overwritten
    jump       (dim, modes), complex; its precision is that of the walk
    Returns the states, complex, (span, dim, batch, groups, modes).

    First all groups walk side by side, each from nothing; then what groups hand on walks from group
    to group, and is added.
    """
    dim, modes = jump.shape
    z = jump.new_empty(cut.span, dim, cut.batch, cut.groups, modes)
    states = entered.unflatten(1, cut).permute(3, 0, 1, 2, 4)
    _shifted(torch.view_as_real(z).flatten(-2), states, way)
    steps = z.unbind()[::way]
    for near, far in pairwise(steps):
        far.addcmul_(jump[:, None, None], near)

    if cut.groups > 1:
        powers = torch.stack([torch.ones_like(jump), *[jump] * cut.span]).cumprod(0)[:, :, None]
        last, (handing, taking) = steps[-1], (slice(None, -1), slice(1, None))[::way]
        handed = last[:, :, handing] * jump[:, None, None]
        for near, far in pairwise(handed.unbind(2)[::way]):
            far.addcmul_(powers[-1], near)
        since = powers[:-1] if way == 1 else powers[:-1].flip(0)
        z[:, :, :, taking].addcmul_(since[:, :, None], handed)
    states.copy_(torch.view_as_real(z).flatten(-2))
    return z


def _shifted(to: Tensor, what: Tensor, way: int) -> None:
    """`what` one chunk further on, (span, dim, batch, groups, parts), nothing in the first."""
    first, last = (0, -1)[::way]
    near, far = (slice(None, -1), slice(1, None))[::way]
    to[far] = what[near]
    to[first, :, :, far] = what[last, :, :, near]
    to[first, :, :, first] = 0


def jump_gradient(states: Tensor, due: Tensor) -> Tensor:
    """The gradient of z^c, (dim, modes): states before chunks times cotangents of those after.

    What `walk` returned, of what entered and, with conj(z^c) and the other way, of cotangents.
    """
    return torch.conj_physical(states).mul_(due).sum(0).sum((1, 2))
