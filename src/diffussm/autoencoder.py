"""Images to latents and back: what stands between a latent model and the pictures it draws.

    mean, std = encode(image)                the posterior, a Gaussian for each of its numbers
    latent = scale * (mean + std * noise)    what a network learns from
    image = decode(latent / scale)

A model of pixels has none ("identity"). The scale lives here and nowhere else: latents that a
network sees have about unit variance.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022, section 3.1
and appendix G; the networks themselves are diffusers'.
"""

import hashlib
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from diffussm.shapes import Image

Picture = Float[Tensor, "batch colours image_height image_width"]

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
    identity: str = ""
    """SHA-256 of its weights and architecture, whatever its name; empty where it is not known."""

    def __post_init__(self):
        if not self.scale > 0:
            raise ValueError(f"an autoencoder's scale must be above 0, not {self.scale}")
        if self.factor < 1:
            raise ValueError(f"an autoencoder's factor must be at least 1, not {self.factor}")
        if self.is_identity and (self.scale, self.factor) != (1, 1):
            raise ValueError(
                f"pixels are their own latents: scale and factor of {IDENTITY!r} are 1 and 1, "
                f"not {self.scale} and {self.factor}"
            )

    @property
    def is_identity(self) -> bool:
        """Whether the model works on pixels."""
        return self.name == IDENTITY


PIXELS = AutoencoderConfig()
"""None: the model draws what is seen."""

STABLE_DIFFUSION = AutoencoderConfig(name="stabilityai/sd-vae-ft-mse", scale=0.18215, factor=8)
"""What DiT's published checkpoints were trained on, and DiffuSSM's."""


NOTES = ("scaling_factor", "shift_factor", "latents_mean", "latents_std", "sample_size")
NOTES += ("force_upcast",)
"""Options of an AutoencoderKL that its own encoder and decoder do not read."""


class Posterior(NamedTuple):
    """What an autoencoder knows of an image's latent: a Gaussian, not scaled yet."""

    mean: Image
    std: Image

    def latents(self, noise: Image, scale: int | float) -> Image:
        """The latent that standard normal `noise` picks, as a network sees it."""
        return scale * (self.mean + self.std * noise)


class Autoencoder:
    """Encoder and decoder with their scale; `find_autoencoder` and `load_autoencoder` make one.

    network    diffusers' AutoencoderKL, in float32; None for pixels
    """

    def __init__(self, config: AutoencoderConfig, network: Any = None):
        self.config = config
        self.network = network

    @property
    def colours(self) -> int | None:
        """Channels of the images it takes; None for any."""
        return None if self.network is None else self.network.config["in_channels"]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device("cpu") if self.network is None else self.network.device

    @torch.no_grad()
    def encode(self, images: Picture) -> Posterior:
        """The posteriors of images in [-1, 1]; those of pixels are the pixels, with std 0.

        Raises ValueError for sides that are no multiples of `factor`, or other colours.
        """
        if self.network is None:
            return Posterior(images, torch.zeros_like(images))
        _, channels, height, width = images.shape
        self.latent_shape(channels, height, width)
        posterior = self.network.encode(images).latent_dist
        return Posterior(posterior.mean, posterior.std)

    @torch.no_grad()
    def decode(self, latents: Image) -> Picture:
        """Images in [-1, 1], `factor` times as high and wide as the latents."""
        if self.network is None:
            return latents.clamp(-1, 1)
        return self.network.decode(latents / self.config.scale).sample.clamp(-1, 1)

    def latent_shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """Channels, height and width of the latents of such images.

        Raises ValueError for sides that are no multiples of `factor`, or other colours.
        """
        if self.network is None:
            return channels, height, width
        factor = self.config.factor
        if channels != self.colours:
            raise ValueError(
                f"the autoencoder {self.config.name} takes images of {self.colours} channels, "
                f"not {channels}; give other images or another autoencoder"
            )
        if height % factor or width % factor:
            raise ValueError(
                f"{height}x{width} pixels have no latent: sides must be multiples of {factor}"
            )
        return self.network.config["latent_channels"], height // factor, width // factor


def find_autoencoder(
    name: str, scale: int | float | None = None, device: torch.device | str = "cpu"
) -> Autoencoder:
    """The autoencoder of that name, whatever its latents, in float32.

    name     a folder, or a name on the Hub: looked for among what its library has downloaded
             before, then there; "identity" for pixels
    scale    its own `scaling_factor` unless given
    Raises ValueError where it cannot be found or read.
    """
    if name == IDENTITY:
        return Autoencoder(AutoencoderConfig(scale=1 if scale is None else scale))
    network = _load(name)
    config = AutoencoderConfig(
        name=name,
        scale=network.config["scaling_factor"] if scale is None else scale,
        factor=_factor(network),
        identity=fingerprint(network),
    )
    return Autoencoder(config, network.to(device=device))


def load_autoencoder(
    config: AutoencoderConfig, channels: int, device: torch.device | str = "cpu"
) -> Autoencoder:
    """The autoencoder of latents with `channels` channels, found as by `find_autoencoder`.

    Raises ValueError where it cannot be found, does not fit, or is not the one that `config` means.
    """
    if config.is_identity:
        return Autoencoder(config)
    network = _load(config.name)
    factor, found = _factor(network), network.config["latent_channels"]
    if (found, factor) != (channels, config.factor):
        raise ValueError(
            f"the autoencoder {config.name} makes {found} channels at 1/{factor} of the side; "
            f"this model's latents have {channels} at 1/{config.factor}"
        )
    if config.identity and config.identity != fingerprint(network):
        raise ValueError(
            f"{config.name} holds another autoencoder than the one that made this model's latents; "
            "give that one, by name or folder"
        )
    return Autoencoder(config, network.to(device=device))


def fingerprint(network: Any) -> str:
    """SHA-256 of what an AutoencoderKL computes: its weights, and options that are not the usual.

    Where it lies, which version of diffusers reads it, and notes such as its scale do not count.
    """
    usual = inspect.signature(type(network).__init__).parameters
    options = {
        name: value
        for name, value in network.config.items()
        if name in usual and name not in NOTES and not _same(value, usual[name].default)
    }
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _same(value: Any, default: Any) -> bool:
    return json.dumps(value) == json.dumps(default)  # where a list is a tuple


def _factor(network: Any) -> int:
    return 2 ** (len(network.config["block_out_channels"]) - 1)


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
            f"cannot load the autoencoder {name} ({reason}); give the folder of an AutoencoderKL, "
            "or a name on the Hub while there is a network"
        ) from None


def _download(name: str) -> str:
    from huggingface_hub import snapshot_download

    files = ["config.json", "diffusion_pytorch_model.safetensors"]
    try:
        return snapshot_download(name, allow_patterns=files, local_files_only=True)
    except OSError:  # not downloaded before
        return snapshot_download(name, allow_patterns=files)
