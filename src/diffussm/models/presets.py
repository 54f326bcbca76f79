"""Models by name: the families, and the sizes the papers train."""

from typing import Any

from torch import nn

from diffussm.config import choose, from_dict, unknown
from diffussm.models.diffussm import DiffuSSM, DiffuSSMConfig
from diffussm.models.dit import DIT_PRESETS, DiT, DiTConfig
from diffussm.models.unet import UNET_PRESETS, UNet, UNetConfig
from diffussm.models.uvissm import UViSSM, UViSSMConfig
from diffussm.models.uvit import UVIT_PRESETS, UViT, UViTConfig

MODELS: dict[str, tuple[type[nn.Module], type]] = {
    "DiffuSSM": (DiffuSSM, DiffuSSMConfig),
    "UViSSM": (UViSSM, UViSSMConfig),
    "DiT": (DiT, DiTConfig),
    "U-ViT": (UViT, UViTConfig),
    "U-Net": (UNet, UNetConfig),
}

# Widths of S and XL and the depth of XL are the paper's; its L is a misprint (786), and the other
# depths are DiT's plus the one layer that XL has over DiT-XL.
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "DiffuSSM": ("DiffuSSM", {}),
    "DiffuSSM-S": ("DiffuSSM", {"d_model": 384, "depth": 13}),
    "DiffuSSM-L": ("DiffuSSM", {"d_model": 768, "depth": 25}),
    "DiffuSSM-XL": ("DiffuSSM", {"d_model": 1152, "depth": 29}),
    "UViSSM": ("UViSSM", {}),
    "DiT": ("DiT", {}),
    "U-ViT": ("U-ViT", {}),
    "U-Net": ("U-Net", {}),
}
for _family, _sizes in (("DiT", DIT_PRESETS), ("U-ViT", UVIT_PRESETS), ("U-Net", UNET_PRESETS)):
    PRESETS |= {name: (_family, options) for name, options in _sizes.items()}


def model_config(name: str, options: dict[str, Any], where: str = "") -> Any:
    """The full config of the preset `name` with `options` over it; ValueError for wrong ones."""
    family, defaults = choose("model", name, PRESETS)
    return from_dict(MODELS[family][1], defaults | options, where)


def build(config: Any) -> nn.Module:
    """The network of a config, with fresh weights."""
    for network, kind in MODELS.values():
        if type(config) is kind:
            return network(config)
    raise ValueError(unknown("model config", type(config).__name__, MODELS))


def create_model(name: str, **options: Any) -> nn.Module:
    """A fresh model: `create_model("DiffuSSM-XL", input_size=32, num_classes=1000)`.

    Options are the fields of the model's config (`diffussm.models.DiffuSSMConfig`). Raises
    ValueError, naming the nearest right one, for an unknown name or option.
    """
    return build(model_config(name, options))
