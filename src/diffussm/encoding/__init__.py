"""Images to latents, once for all epochs."""

from diffussm.encoding.encoder import Encoder, latents_config

__all__ = ["Encoder", "latents_config"]
