"""A tiny autoencoder on the disk, and opened."""

import pytest
from tiny_latents import write_autoencoder

from diffussm.autoencoder import find_autoencoder


@pytest.fixture(scope="session")
def network_folder(tmp_path_factory):
    return write_autoencoder(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="session")
def autoencoder(network_folder):
    return find_autoencoder(str(network_folder))
