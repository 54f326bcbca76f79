"""Initial values of a diffusion network, as in DiT: Xavier linears, a small time embedding.

Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023; Yan, Gu and Rush, 2024,
section 5.1 ("the standard layer initializations approach from ViT").
"""

from torch import nn

from diffussm.nn.adaln import Modulation
from diffussm.nn.embeddings import TimestepEmbedding
from diffussm.nn.hourglass import Contract, Expand
from diffussm.ssm.layer import Layer

TIME_STD = 0.02


def initialize(network: nn.Module) -> None:
    """Give every linear of `network` its value at birth; labels and SSMs keep their own."""
    layers = [module for module in network.modules() if isinstance(module, Layer)]
    inside = {part for layer in layers for part in layer.modules()}
    for module in network.modules():
        if module in inside:
            continue
        if isinstance(module, Expand):
            for piece in module.weight.data.split(module.dim_out):
                nn.init.xavier_uniform_(piece)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, Contract):
            for piece in module.weight.data:
                nn.init.xavier_uniform_(piece)
    for module in network.modules():
        if isinstance(module, TimestepEmbedding):
            for linear in module.mlp:
                if isinstance(linear, nn.Linear):
                    nn.init.normal_(linear.weight, std=TIME_STD)
        elif isinstance(module, Modulation):
            zero(module.linear)


def zero(layer: nn.Linear | nn.Conv2d) -> None:
    """Make a layer output 0 whatever its input."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
