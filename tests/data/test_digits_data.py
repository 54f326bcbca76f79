"""The bundled digits: what they are, counted."""

import torch

from diffussm.data import DATASETS, DataConfig


def test_digits_are_all_there():
    data = DATASETS["digits"](DataConfig())
    assert data.images.shape == (len(data), *data.shape) == (1797, 1, 8, 8)
    assert (data.images.min(), data.images.max()) == (-1, 1)
    assert data.images.unique().tolist() == [level / 8 - 1 for level in range(17)]
    assert data.class_names == tuple("0123456789")
    # counts of the UCI set's test part
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert data.labels.bincount().tolist() == counts


def test_labels_are_those_of_the_images():
    # a zero is hollow, a one is not
    data = DATASETS["digits"](DataConfig())
    middle = data.images[:, 0, 3:5, 3:5].mean(dim=(1, 2))
    assert middle[data.labels == 0].median() < -0.5
    assert middle[data.labels == 1].median() > 0.5


def test_a_batch_is_chosen_by_number():
    data = DATASETS["digits"](DataConfig())
    images, labels, _ = data.batch(torch.tensor([5, 5, 0]), [1, 2, 3])
    torch.testing.assert_close(images, torch.stack([data.images[n] for n in (5, 5, 0)]))
    assert labels.tolist() == [5, 5, 0]
