"""The order of images is a pure function of how many were seen."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffussm.data import image_order, seeded

sizes = st.integers(1, 7)


@settings(max_examples=50, deadline=None)
@given(size=sizes, seed=st.integers(0, 3), counts=st.lists(st.integers(1, 9), min_size=1))
def test_any_split_gives_the_same_sequence(size, seed, counts):
    parts, start = [], 0
    for count in counts:
        parts.append(image_order(size, seed, start, count))
        start += count
    assert torch.cat(parts).tolist() == image_order(size, seed, 0, start).tolist()


@settings(max_examples=50, deadline=None)
@given(size=sizes, seed=st.integers(0, 3), epochs=st.integers(1, 4))
def test_each_epoch_shows_every_image_once(size, seed, epochs):
    order = image_order(size, seed, 0, epochs * size).reshape(epochs, size)
    for epoch in order:
        assert sorted(epoch.tolist()) == list(range(size))


def test_epochs_and_seeds_differ():
    first, second = image_order(1000, 0, 0, 2000).chunk(2)
    other = image_order(1000, 1, 0, 1000)
    # two random orders of 1000 agree at about one place
    for order in (second, other):
        assert (first == order).sum() < 10


def test_an_empty_data_set_is_an_error():
    with pytest.raises(ValueError, match="no images"):
        image_order(0, 0, 0, 1)


def test_seeds_tell_purposes_apart():
    def draw(*numbers):
        return torch.randn(1000, generator=seeded(*numbers))

    assert torch.equal(draw(1, 2), draw(1, 2))
    for other in ((2, 1), (1, 3), (1,), (1, 2, 1)):
        correlation = torch.corrcoef(torch.stack([draw(1, 2), draw(*other)]))[0, 1]
        assert correlation.abs() < 0.15  # 4.7 standard deviations of independent draws


def test_drawing_leaves_the_callers_numbers_alone():
    before = torch.get_rng_state()
    image_order(10, 0, 3, 30)
    seeded(4).seed()
    assert torch.equal(torch.get_rng_state(), before)
