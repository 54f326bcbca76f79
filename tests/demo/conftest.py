"""Two small models on a shelf, a DiffuSSM and a DiT that can be compared."""

import pytest
from tiny import tiny_generator

from diffussm.checkpoint import MODEL_FILE, Header, save_model
from diffussm.demo.request import read_request
from diffussm.demo.shelf import Shelf
from diffussm.diffusion import DiffusionConfig, Guidance, Sampling
from diffussm.models import build
from diffussm.models.dit import DiTConfig


def save(model, folder):
    """A run folder with just a model."""
    folder.mkdir(parents=True)
    save_model(folder / MODEL_FILE, model.model, model.config)
    return str(folder)


def a_request(*paths, **fields):
    """What a person might ask of `paths`."""
    usual = {"classes": (), "seed": 0, "number": 2, "sampler": "ddim", "steps": 3}
    usual |= {"guidance": 1.0, "low": 0, "high": 1}
    return read_request(paths, **usual | fields)


@pytest.fixture
def ask():
    return a_request


@pytest.fixture(scope="session")
def paths(tmp_path_factory):
    """Run folders by family."""
    folder = tmp_path_factory.mktemp("shelf")
    ours = tiny_generator()
    dit = DiTConfig(
        input_size=8, in_channels=1, num_classes=3, patch_size=2, d_model=8, depth=1, num_heads=2
    )
    header = Header(
        model=dit,
        diffusion=DiffusionConfig(prediction="v", clip_x0=True),
        class_names=("a", "b", "c"),
        sampling=Sampling(sampler="ddim", steps=3),
        guidance=Guidance(),
        images=7,
    )
    dit_folder = folder / "dit"
    dit_folder.mkdir()
    save_model(dit_folder / MODEL_FILE, build(dit), header)
    return {"ours": save(ours, folder / "ours"), "dit": str(dit_folder)}


@pytest.fixture
def shelf(paths):
    return Shelf(paths.values())


@pytest.fixture
def saved(tmp_path):
    """Save a model made of options of `tiny_generator`; gives its path."""
    return lambda name, **options: save(tiny_generator(**options), tmp_path / name)
