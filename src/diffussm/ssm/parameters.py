"""How a state space layer's own parameters wish to be trained.

A, B and dt say how a layer remembers. Weight decay would pull them to an arbitrary memory and a
large learning rate out of the stable range, so S4 trains them without decay and at most at 1e-3.

Gu et al., "Efficiently Modeling Long Sequences with Structured State Spaces", 2022, appendix D.
"""

from torch import Tensor, nn

MAX_LR = 1e-3


def ssm_parameter(value: Tensor) -> nn.Parameter:
    """A parameter tagged for the optimiser: no weight decay, learning rate at most `MAX_LR`."""
    parameter = nn.Parameter(value)
    parameter.optimizer_tags = {"weight_decay": 0.0, "max_lr": MAX_LR}  # pyright: ignore
    return parameter
