"""A small network that sees handwritten digits: what FD-digits is measured in.

Trained on the spot on the 1797 real digits, in float64 and on draws that are exact everywhere; its
weights are then rounded to multiples of 2^-16. What rounding differs by between two machines grows
to 1e-13 in training, so that both end at the same weights, to the bit, and at the same identity:
distances measured on either may be compared.

For scale, FD-digits of all 1797 real digits and

    1000 of them                      0.08
    300 of them                       0.7      (and of two halves: 0.3 to 0.5)
    all, with noise of 16/255         0.2
    all but the threes                1.1
    bytes drawn at random             36
    the threes alone                  44
    the mean image                    48
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diffussm.checkpoint import make_folder, write_safely
from diffussm.data import ImageDataset, digits, seeded
from diffussm.data.index import cache_folder

WIDTH = 64
GRID = 2.0**-16
"""What weights are multiples of; those below 256 then lie in float32 exactly."""
RECIPE = {"version": 1, "epochs": 20, "batch_size": 128, "lr": 0.05, "seed": 0x666466}
DECAY, MOMENTUM, SMOOTHING = 5e-4, 0.9, 0.1


class DigitsFeatures:
    """Sees uint8 images of 1 x 8 x 8: 64 features and the logits of the ten classes."""

    name = "digits"

    def __init__(self, network: nn.Sequential):
        self.network = network.float().eval().requires_grad_(False)
        self.identity = identity_of(self.network)
        self.spaces: Mapping[str, int] = {"pool": WIDTH, "logits": 10}

    @torch.no_grad()
    def __call__(
        self, images: UInt8[Tensor, "batch channels height width"]
    ) -> dict[str, Float[Tensor, "batch _"]]:
        """Features by space; ValueError for images that are no 8 x 8 grey pixels."""
        if images.shape[1:] != (1, 8, 8):
            channels, height, width = images.shape[1:]
            raise ValueError(
                f"the digits features see 1 x 8 x 8 pixels, not {channels} x {height} x {width}; "
                "take other features"
            )
        device = next(self.network.parameters()).device
        pool = self.network[:-1](images.to(device).float() / 127.5 - 1)
        return {"pool": pool, "logits": self.network[-1](pool)}

    def to(self, device: torch.device) -> "DigitsFeatures":
        """The same network on a device."""
        self.network.to(device)
        return self


def digits_features() -> DigitsFeatures:
    """The network, from the cache folder or trained in seconds and kept there."""
    key = hashlib.sha256(json.dumps([RECIPE, DECAY, MOMENTUM, SMOOTHING]).encode()).hexdigest()
    path = cache_folder() / f"digits-features-{key[:16]}.safetensors"
    found = _cached(path)
    if found is None:
        with _one_thread():
            found = DigitsFeatures(train(digits()))
        with suppress(OSError):  # no place to keep it: it is trained again next time
            make_folder(path.parent)
            _keep(path, found)
    return found


def train(data: ImageDataset) -> nn.Sequential:
    """The network, trained on these digits: the same bits on any machine."""
    chance = seeded(RECIPE["seed"])
    network = _born(chance)
    weights = list(network.parameters())
    speeds = [torch.zeros_like(weight) for weight in weights]
    size, images = RECIPE["batch_size"], data.images.double()
    batches = len(images) // size
    total = RECIPE["epochs"] * batches
    for step in range(total):
        if step % batches == 0:
            order = torch.randperm(len(images), generator=chance)
        lr = RECIPE["lr"] * (1 - step / total)
        chosen = order[step % batches * size :][:size]
        answers = network(images[chosen])
        loss = F.cross_entropy(answers, data.labels[chosen], label_smoothing=SMOOTHING)
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():  # momentum as Nesterov's
            for weight, speed, gradient in zip(weights, speeds, gradients, strict=True):
                gradient = gradient + DECAY * weight
                speed.mul_(MOMENTUM).add_(gradient)
                weight -= lr * (gradient + MOMENTUM * speed)
    with torch.no_grad():
        for weight in weights:
            weight.copy_((weight / GRID).round() * GRID)
    return network


def identity_of(network: nn.Module) -> str:
    """SHA-256 of the names, shapes and values of a network's weights."""
    found = hashlib.sha256()
    for name, weight in network.state_dict().items():
        found.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        found.update(weight.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Such small sums take several threads longer, and on a busy machine much longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):  # weights to be replaced must not use up numbers
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(512, WIDTH),
            nn.SiLU(),
            nn.Linear(WIDTH, 10),
        )


def _born(chance: torch.Generator) -> nn.Sequential:
    """Uniform weights of variance 1 / inputs: uniform draws, unlike normal ones, are exact."""
    network = _network().double()
    with torch.no_grad():
        for weight in network.parameters():
            draws = torch.rand(weight.shape, generator=chance, dtype=weight.dtype)
            inputs = weight[0].numel()
            weight.copy_((2 * draws - 1) * (3 / inputs) ** 0.5 if weight.dim() > 1 else 0 * draws)
    return network


def _keep(path: Path, features: DigitsFeatures) -> None:
    weights, identity = features.network.state_dict(), {"identity": features.identity}
    write_safely(path, lambda temporary: save_file(weights, temporary, metadata=identity))


def _cached(path: Path) -> DigitsFeatures | None:
    """The network in a file, if it is there and has the weights that it says."""
    network = _network()
    try:
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get("identity")
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError):
        return None
    found = DigitsFeatures(network)
    return found if found.identity == said else None
