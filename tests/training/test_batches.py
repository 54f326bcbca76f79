"""How a batch is cut: every image once, whatever the number of ranks and pieces."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import CPU, tiny_recipe

from diffussm.data import CorruptCount, digits
from diffussm.training.batches import batches, cut
from diffussm.training.distributed import World


@given(
    start=st.integers(0, 10**9),
    size=st.integers(1, 70),
    ranks=st.integers(1, 9),
    accumulate=st.integers(1, 9),
)
def test_every_image_counts_once(start, size, ranks, accumulate):
    whole = range(start, start + size)
    cuts = [cut(whole, World(rank=rank, size=ranks), accumulate) for rank in range(ranks)]
    counted = [n for pieces in cuts for numbers, share in pieces if share for n in numbers]
    assert counted == list(whole)
    assert len({len(pieces) for pieces in cuts}) == 1  # ranks call the network together
    assert len(cuts[0]) <= accumulate
    assert sum(share for pieces in cuts for _, share in pieces) == pytest.approx(1)
    sizes = [len(numbers) for pieces in cuts for numbers, _ in pieces]
    assert min(sizes) >= 1
    assert max(sizes) <= -(-size // ranks)
    per_rank = [sum(share > 0 and len(numbers) for numbers, share in pieces) for pieces in cuts]
    assert max(per_rank) - min(per_rank) <= 1


def shown(wanted, world=World(), start=0):  # noqa: B008 (a constant)
    data = digits()
    corrupt = CorruptCount(len(data), 0.0)
    return list(batches(wanted, data, world, CPU, corrupt, start))


def joined(pieces):
    return [torch.cat([getattr(piece, name) for piece in pieces]) for name in ("x_0", "y", "noise")]


@pytest.mark.parametrize(("ranks", "accumulate"), [(2, 1), (3, 2), (4, 5)])
def test_the_parts_are_the_whole(ranks, accumulate):
    (whole, last) = shown(tiny_recipe(training={"images": 22, "batch_size": 20}))
    assert (whole.size, last.size) == (20, 2)
    pieces = []
    for rank in range(ranks):
        training = {"images": 20, "batch_size": 20, "accumulate": accumulate}
        (part,) = shown(tiny_recipe(training=training), World(rank=rank, size=ranks))
        pieces += [piece for piece in part.pieces if piece.share]
    for ours, expected in zip(joined(pieces), joined(whole.pieces), strict=True):
        assert torch.equal(ours, expected)


def test_they_begin_anywhere():
    wanted = tiny_recipe(training={"images": 30})
    assert torch.equal(shown(wanted, start=20)[0].pieces[0].x_0, shown(wanted)[2].pieces[0].x_0)
    assert shown(wanted, start=30) == []
