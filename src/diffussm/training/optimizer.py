"""AdamW over groups of parameters that agree on how they wish to be trained, and its schedules.

Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.
"""

import math
from collections import defaultdict

import torch
from torch import nn

BETAS = (0.9, 0.999)
MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of each parameter, by its own names."""


def constant(progress: float) -> float:
    """The full learning rate to the end."""
    return 1.0


def cosine(progress: float) -> float:
    """Half a cosine, from the full learning rate at progress 0 to none at 1."""
    return (1 + math.cos(math.pi * progress)) / 2


LR_SCHEDULES = {"constant": constant, "cosine": cosine}


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW in which a parameter's own tags (no decay, a highest rate) come first.

    Its moments are there from the start, so that a saved state has where to go.
    """
    members = defaultdict(list)  # by tags alone: a saved state fits whatever the settings are
    for parameter in model.parameters():
        tags = getattr(parameter, "optimizer_tags", {})
        members[tags.get("weight_decay"), tags.get("max_lr")].append(parameter)
    groups = []
    for (decay, max_lr), parameters in members.items():
        decay = weight_decay if decay is None else decay
        rate = lr if max_lr is None else min(lr, max_lr)
        groups.append({"params": parameters, "weight_decay": decay, "lr": rate, "peak_lr": rate})
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=BETAS, fused=True)
    for parameter in model.parameters():
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            **{name: torch.zeros_like(parameter) for name in MOMENTS},
        }
    return optimizer


def set_lr(optimizer: torch.optim.Optimizer, scale: float) -> None:
    """Give each group `scale` times its highest learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = scale * group["peak_lr"]


def lr_scale(schedule: str, seen: int, total: int, warmup: int) -> float:
    """The share of the highest learning rate after `seen` of `total` images."""
    rise = min(1.0, seen / warmup) if warmup else 1.0
    return rise * LR_SCHEDULES[schedule](seen / total)
