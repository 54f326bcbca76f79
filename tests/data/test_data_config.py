"""The table [data] of a recipe: every name loads, and what makes no sense is refused."""

import pytest
import torch
from pictures import in_folder, tree

from diffussm.config import from_dict, to_dict
from diffussm.data import DATASETS, DataConfig, Dataset, load_data, read_ahead


@pytest.fixture
def configs(tmp_path):
    path = str(in_folder(tree(), tmp_path / "it"))
    return {
        "digits": DataConfig(),
        "images": DataConfig(name="images", path=path, size=8),
        "textures": DataConfig(name="textures", size=8),
    }


def test_every_data_set_loads(configs):
    assert configs.keys() | {"latents"} == DATASETS.keys()  # latents have a test of their own
    for config in configs.values():
        data = load_data(config)
        assert isinstance(data, Dataset)
        (batch,) = read_ahead(data, 0, [range(5)], config.workers)
        assert batch.images.shape == (5, *data.shape)
        assert batch.images.abs().max() <= 1
        assert batch.labels.max() < max(len(data.class_names), 1)  # 0 where there are no classes
        assert from_dict(DataConfig, to_dict(config)) == config


def test_a_relative_path_begins_at_the_working_directory(configs, tmp_path, monkeypatch):
    whole = load_data(configs["images"])
    monkeypatch.chdir(tmp_path)
    data = load_data(DataConfig(name="images", path="it", size=8))
    monkeypatch.chdir("/")
    index, seeds = torch.arange(8), range(8)
    assert torch.equal(data.batch(index, seeds).images, whole.batch(index, seeds).images)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"name": "image"}, "unknown data set 'image'; did you mean 'images'"),
        ({"name": "images"}, "data.name is images: set data.path"),
        ({"size": 0}, "data.size must be at least 1 pixel, not 0"),
        ({"channels": 4}, r"must be 3 \(colour\) or 1 \(grey\), not 4"),
        ({"workers": -1}, "data.workers must be at least 0, not -1"),
        ({"max_corrupt": 1.5}, r"a share in \[0, 1\], not 1.5"),
        ({"hold_out": -1}, "a whole number of images or a share below 1, not -1"),
        ({"hold_out": 1.0}, "a whole number of images or a share below 1, not 1.0"),
        ({"name": "images", "path": "no/where"}, "there is no .*no/where"),
    ],
)
def test_mistakes(options, problem):
    with pytest.raises(ValueError, match=problem):
        load_data(DataConfig(**options))
