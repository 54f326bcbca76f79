"""Every test runs on one thread, from the same seed, without a network."""

import os
from tempfile import TemporaryDirectory

# Read when torch, matplotlib and huggingface_hub are first imported; subprocesses inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "agg"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["XDG_CACHE_HOME"] = (cache := TemporaryDirectory(prefix="diffussm-tests-")).name

import jaxtyping
import pytest
import torch

if not torch.cuda.is_available():  # Triton's kernels run in its interpreter
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def unchecked_shapes():
    """Shapes go unchecked, as they do for users: what they see is our own sentence."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
