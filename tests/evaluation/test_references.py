"""What samples can be compared with, and what they cannot."""

import numpy as np
import pytest
from PIL import Image

from diffussm.data import DataConfig, digits
from diffussm.evaluation.features import numbers_of
from diffussm.evaluation.pictures import as_bytes
from diffussm.evaluation.references import data_reference, open_reference
from diffussm.generation import to_uint8

SHAPE = (1, 8, 8)


def pixels(reference):
    blocks = reference.pictures.blocks(numbers_of(0, 1, reference.pictures.count), lambda n: None)
    return np.concatenate([block.numpy() for block in blocks])


def test_digits_by_name_are_all_of_them():
    reference = open_reference("digits", SHAPE)
    expected = as_bytes(digits().images, "", range(1797)).numpy()
    np.testing.assert_array_equal(pixels(reference), expected)


def test_a_run_is_compared_with_all_its_data():
    reference = data_reference(DataConfig(name="digits", hold_out=0.5), SHAPE)
    assert (reference.name, reference.pictures.count) == ("digits", 1797)


def test_a_folder_is_cropped_to_the_samples_and_never_mirrored(tmp_path):
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    for number, image in enumerate(stored):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    config = DataConfig(name="images", path=str(tmp_path), size=8, labels="none")
    named, own = open_reference(str(tmp_path), (3, 8, 8)), data_reference(config, (3, 8, 8))
    for reference in (named, own):
        np.testing.assert_array_equal(pixels(reference), stored.transpose(0, 3, 1, 2))
    assert pixels(open_reference(str(tmp_path), (1, 4, 4))).shape == (6, 1, 4, 4)


def test_an_npz_is_read_as_it_is(tmp_path):
    images = to_uint8(digits().images[:70])
    np.savez(tmp_path / "a.npz", arr_0=images)
    found = pixels(open_reference(str(tmp_path / "a.npz"), SHAPE))
    np.testing.assert_array_equal(found, images.transpose(0, 3, 1, 2))


def test_other_sizes_get_a_sentence(tmp_path):
    np.savez(tmp_path / "a.npz", arr_0=to_uint8(digits().images[:5]))
    with pytest.raises(ValueError, match="give a reference of that size"):
        open_reference(str(tmp_path / "a.npz"), (3, 8, 8))
    with pytest.raises(ValueError, match="digits are 1 x 8 x 8, and the samples 1 x 16 x 16"):
        open_reference("digits", (1, 16, 16))
    with pytest.raises(ValueError, match="8x16 pixels cannot be compared with"):
        open_reference(str(tmp_path), (3, 8, 16))


def test_latents_are_no_reference():
    with pytest.raises(ValueError, match="holds latents, not images; give the images"):
        data_reference(DataConfig(name="latents", path="somewhere"), SHAPE)


def test_what_is_not_there_or_empty_gets_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="there is no reference 'nowhere': give a folder"):
        open_reference("nowhere", SHAPE)
    with pytest.raises(ValueError, match="there is no reference 'latents'"):
        open_reference("latents", SHAPE)
    with pytest.raises(ValueError, match=r"there is no file .*a\.npz"):
        open_reference(str(tmp_path / "a.npz"), SHAPE)
    with pytest.raises(ValueError, match="there are no images in"):
        open_reference(str(tmp_path), SHAPE)


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", arr_0=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="pickled Python objects"):
        open_reference(str(tmp_path / "a.npz"), SHAPE)
