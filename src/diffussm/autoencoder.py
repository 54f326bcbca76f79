"""Latents to images: what stands between a latent model and the pictures it draws.

    image = decode(latent / scale)

A model of pixels has none ("identity"). The scale lives here and nowhere else: latents that a
network sees have about unit variance.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022; the networks
themselves are diffusers'.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffussm.shapes import Image

IDENTITY = "identity"


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Which autoencoder made the latents of a model."""

    name: str = IDENTITY
    """"identity" for pixels; else the folder or Hub name of an AutoencoderKL of diffusers."""
    scale: int | float = 1.0
    """What its latents are multiplied by before the network sees them, above 0."""
    factor: int = 1
    """Pixels along one side of a latent's pixel, at least 1."""

    def __post_init__(self):
        if not self.scale > 0:
            raise ValueError(f"an autoencoder's scale must be above 0, not {self.scale}")
        if self.factor < 1:
            raise ValueError(f"an autoencoder's factor must be at least 1, not {self.factor}")

    @property
    def is_identity(self) -> bool:
        """Whether the model works on pixels."""
        return self.name == IDENTITY


PIXELS = AutoencoderConfig()
"""None: the model draws what is seen."""

STABLE_DIFFUSION = AutoencoderConfig(name="stabilityai/sd-vae-ft-mse", scale=0.18215, factor=8)
"""What DiT's published checkpoints were trained on, and DiffuSSM's."""


class Autoencoder:
    """A decoder with its scale; `load_autoencoder` makes one."""

    def __init__(self, config: AutoencoderConfig, decoder: Callable[[Tensor], Any] | None):
        self.config = config
        self._decoder = decoder

    @torch.no_grad()
    def decode(self, latents: Image) -> Float[Tensor, "batch colours image_height image_width"]:
        """Images in [-1, 1], `factor` times as high and wide as the latents."""
        if self._decoder is None:
            return latents.clamp(-1, 1)
        return self._decoder(latents / self.config.scale).sample.clamp(-1, 1)


def load_autoencoder(
    config: AutoencoderConfig, channels: int, device: torch.device | str = "cpu"
) -> Autoencoder:
    """The autoencoder of latents with `channels` channels, in float32.

    Looked for as a folder, among what the Hub's library has downloaded before, then on the Hub.
    Raises ValueError where it cannot be found or does not fit.
    """
    if config.is_identity:
        return Autoencoder(config, None)
    network = _load(config.name)
    factor = 2 ** (len(network.config["block_out_channels"]) - 1)
    found = network.config["latent_channels"]
    if (found, factor) != (channels, config.factor):
        raise ValueError(
            f"the autoencoder {config.name} makes {found} channels at 1/{factor} of the side; "
            f"this model's latents have {channels} at 1/{config.factor}"
        )
    return Autoencoder(config, network.to(device=device).decode)


def _load(name: str) -> Any:
    try:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    except ImportError:
        raise ValueError(
            f"the autoencoder {name} needs diffusers: pip install 'diffussm[latent]'"
        ) from None
    try:
        network = AutoencoderKL.from_pretrained(
            name if Path(name).is_dir() else _download(name),
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,  # which would want accelerate
        )
        return network.eval().requires_grad_(False)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"cannot load the autoencoder {name} ({reason}); give the folder of an AutoencoderKL"
        ) from None


def _download(name: str) -> str:
    from huggingface_hub import snapshot_download

    files = ["config.json", "diffusion_pytorch_model.safetensors"]
    try:
        return snapshot_download(name, allow_patterns=files, local_files_only=True)
    except OSError:  # not downloaded before
        return snapshot_download(name, allow_patterns=files)
