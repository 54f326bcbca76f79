"""Whole networks to time: none of their weights is zero, and one call is one step."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from timing import agree
from torch import Tensor, nn

from diffussm.models import create_model
from diffussm.ops.forms import use_form
from diffussm.ssm.kernel_layer import reusing_kernels

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


def alive(name: str, device: str = "cpu", **options: int) -> nn.Module:
    """A fresh model in which what is zero at birth is not: it would hide the rest."""
    torch.manual_seed(0)
    network = create_model(name, **options)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return network.to(device)


def arguments(network: nn.Module, batch: int, latent: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy images, time steps and labels, on the network's device."""
    device = next(network.parameters()).device
    x = torch.randn(batch, network.config.in_channels, latent, latent, device=device)
    steps = torch.arange(batch, device=device)
    return x, steps * 1000 // batch, steps % network.config.num_classes


def precision(device: str, dtype: torch.dtype) -> AbstractContextManager:
    return torch.autocast(device, dtype, enabled=dtype != torch.float32)


def training_step(network: nn.Module, inputs: tuple[Tensor, ...], dtype: torch.dtype) -> Callable:
    """Forward and backward."""

    def step() -> None:
        network.zero_grad(set_to_none=True)
        with precision(inputs[0].device.type, dtype):
            answer = network(*inputs)
        answer.float().square().mean().backward()

    return step


def denoising_step(network: nn.Module, inputs: tuple[Tensor, ...], dtype: torch.dtype) -> Callable:
    """Forward, the kernels made before."""
    denoise = reusing_kernels(network)

    def step() -> None:
        with torch.no_grad(), precision(inputs[0].device.type, dtype):
            denoise(*inputs)

    return step


def check(name: str, network: nn.Module, inputs: tuple[Tensor, ...], dtype: torch.dtype) -> None:
    """Stop unless the network answers what it does with plain FFTs in float32."""
    with torch.no_grad():
        with use_form("diagonal_conv", "fft"):
            expected = network(*inputs)
        with precision(inputs[0].device.type, dtype):
            answer = network(*inputs).float()
    agree(name, [answer], [expected], TOLERANCES[dtype])
