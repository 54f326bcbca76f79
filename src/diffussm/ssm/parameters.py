"""How a state space layer's own parameters wish to be trained.

A, B and dt say how a layer remembers. Weight decay would pull them to an arbitrary memory and a
large learning rate out of the stable range, so S4 trains them without decay and at most at 1e-3.

Gu et al., "Efficiently Modeling Long Sequences with Structured State Spaces", 2022, appendix D.
"""

from torch import Tensor, nn

MAX_LR = 1e-3


class SSMParameter(nn.Parameter):
    """A parameter tagged for the optimiser; by its type, so that every copy is tagged too."""

    optimizer_tags = {"weight_decay": 0.0, "max_lr": MAX_LR}  # noqa: RUF012 (read only)

    def __new__(cls, data: Tensor, requires_grad: bool = True):
        # a parameter's own copy, as deepcopy and accelerate ask for, begins as a plain tensor
        return super().__new__(cls, data.detach(), requires_grad)


def ssm_parameter(value: Tensor) -> nn.Parameter:
    """A parameter tagged for the optimiser: no weight decay, learning rate at most `MAX_LR`."""
    return SSMParameter(value)
