"""What every data set is, parts of one, and images that cannot be read."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, in_folder, noise, stored

from diffussm.autoencoder import PIXELS
from diffussm.data import Batch, CorruptCount, Dataset, ImageDataset, Subset, digits, hold_out


def numbered(count):
    """Images whose values and labels are their numbers."""
    labels = torch.arange(count)
    images = labels.float()[:, None, None, None]
    return ImageDataset(images=images, labels=labels, class_names=tuple(map(str, range(count))))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.one_of(st.integers(1, 59), st.floats(0.001, 0.9)))
def test_what_is_held_out_is_not_trained_on(count, amount):
    data = numbered(count)
    kept = amount if isinstance(amount, int) else max(1, round(amount * count))
    if kept >= count:
        with pytest.raises(ValueError, match=f"keeps {kept} of {count} images for validation"):
            hold_out(data, amount)
        return
    training, held = hold_out(data, amount)
    assert (len(training), len(held)) == (count - kept, kept)
    numbers = torch.cat(
        [part.batch(torch.arange(len(part)), []).labels for part in (training, held)]
    )
    assert sorted(numbers.tolist()) == list(range(count))
    again = hold_out(data, amount)[1]
    assert torch.equal(held.numbers, again.numbers)


def test_nothing_is_held_out_unless_asked():
    data = numbered(3)
    assert hold_out(data, 0) == (data, None)
    assert hold_out(data, 0.0) == (data, None)


def test_a_held_out_part_is_drawn_from_everywhere():
    held = hold_out(numbered(10_000), 1000)[1].numbers
    assert abs(held.float().mean() - 5000) < 400  # 4.4 standard deviations


def test_a_part_is_a_data_set_like_the_whole():
    whole = digits()
    part = Subset(whole, torch.tensor([7, 3]))
    for data in (whole, part):
        assert isinstance(data, Dataset)
        assert (data.shape, data.class_names) == ((1, 8, 8), tuple("0123456789"))
        assert data.autoencoder == PIXELS
    assert torch.equal(part.batch(torch.tensor([1, 0]), []).images, whole.images[[3, 7]])


def test_a_part_hands_seeds_on(tmp_path):
    path = in_folder({b"1.png": encoded(noise(1)), b"2.png": encoded(noise(2))}, tmp_path / "it")
    whole = stored(path, "none")
    part = Subset(whole, torch.tensor([1]))
    for seed in range(10):  # some of which mirror
        found = part.batch(torch.tensor([0]), [seed]).images
        assert torch.equal(found, whole.batch(torch.tensor([1]), [seed]).images)


def batch(*corrupt):
    return Batch(torch.zeros(2, 1, 1, 1), torch.zeros(2, dtype=torch.long), corrupt)


def test_unreadable_images_are_counted_once_and_named():
    count = CorruptCount(1000, 0.002)
    count.add(batch())
    assert count.summary() == ""
    for corrupt in (["a (cut)"], ["b (empty)", "a (cut)"]):
        count.add(batch(*corrupt))
        count.check()
    assert count.summary() == "2 of 1,000 images could not be read: a (cut), b (empty)"
    assert count.names == {"a (cut)": 2, "b (empty)": 1}
    count.add(batch("c (gone)"))
    with pytest.raises(
        ValueError, match=r"^3 of 1,000 .* c \(gone\)\. That is more than .* 0\.002"
    ):
        count.check()


def test_a_sentence_names_ten():
    count = CorruptCount(100, 1)
    count.add(batch(*map(str, range(25))))
    count.check()
    assert count.summary().endswith("read: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 15 more")


def test_none_may_be_borne():
    count = CorruptCount(10, 0)
    count.check()
    count.add(batch("a"))
    with pytest.raises(ValueError, match=r"data\.max_corrupt"):
        count.check()
