"""A random autoencoder and a few pictures, for tests of latents: milliseconds in place of hours."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffussm.autoencoder import PIXELS, Autoencoder
from diffussm.data import Batch
from diffussm.data.latent_index import LatentIndex
from diffussm.encoding import Encoder, latents_config

CHANNELS, FACTOR, SCALE = 3, 2, 0.5
SIDE = 8
OPTIONS = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": CHANNELS,
    "norm_num_groups": 4,
    "scaling_factor": SCALE,
}


def write_autoencoder(folder, seed=0, **options):
    """Save a network with random weights, as people get theirs."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # takes seconds

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoencoderKL(**(OPTIONS | options)).save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Pictures:
    """Random images as a data set; some of them cannot be read, and the next one stands in."""

    count: int
    unreadable: frozenset[int] = frozenset()
    side: int = SIDE
    class_names: tuple[str, ...] = ("a", "b", "c")

    @property
    def shape(self):
        return 3, self.side, self.side

    @property
    def autoencoder(self):
        return PIXELS

    def __len__(self):
        return self.count

    def image(self, number: int) -> Float[Tensor, "3 height width"]:
        generator = torch.Generator().manual_seed(number)
        return 2 * torch.rand(self.shape, generator=generator) - 1

    def label(self, number: int) -> int:
        return number % len(self.class_names) if self.class_names else 0

    def batch(self, index: Int[Tensor, " batch"], seeds: Sequence[int]) -> Batch:
        numbers = index.tolist()
        bad = [number for number in numbers if number in self.unreadable]
        numbers = [number + (number in self.unreadable) for number in numbers]
        return Batch(
            torch.stack([self.image(number) for number in numbers]),
            torch.tensor([self.label(number) for number in numbers]),
            tuple(f"image {number} (truncated)" for number in bad),
        )


def encode(
    data: Pictures, autoencoder: Autoencoder, folder, rank=0, ranks=1, **options
) -> LatentIndex | None:
    """Encode four images a shard, in batches of three, unless told otherwise."""
    kept = {"batch_size", "workers", "progress"}
    how = {"shard_images": 4, "source": "pictures"} | {
        name: value for name, value in options.items() if name not in kept
    }
    config = latents_config(data, autoencoder, **how)
    running = {"batch_size": 3} | {name: value for name, value in options.items() if name in kept}
    return Encoder(config, folder, rank, ranks).run(data, autoencoder, **running)


def contents(folder) -> dict[str, bytes]:
    """Every file in a folder, hidden ones too, with its bytes."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
