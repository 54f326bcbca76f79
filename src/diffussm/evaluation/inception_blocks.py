"""The blocks of Inception-v3: branches side by side, each a list of what it does in turn.

The names of convolutions are those that published weights bear.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016, section 6 and
figures 5 to 7.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv(nn.Module):
    """Convolution, batch normalisation, ReLU; half the size where `stride` is 2."""

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1, padded=True
    ):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Step(NamedTuple):
    """One convolution of a branch; those of stride 2 are not padded."""

    name: str
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


class Fork(NamedTuple):
    """Two convolutions of the same input, joined."""

    left: Step
    right: Step


Pool = Callable[[Tensor], Tensor]
Branch = list[Step | Fork | Pool]


def mean_pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


def halving_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)


class Mixed(nn.Module):
    """Branches side by side, joined along the channels; `inputs` and `outputs` count those."""

    def __init__(self, inputs: int, branches: list[Branch]):
        super().__init__()
        self.branches = branches
        self.outputs = 0
        for branch in branches:
            channels = inputs
            for part in branch:
                if isinstance(part, Fork):
                    channels = sum(self._add(channels, step) for step in part)
                elif isinstance(part, Step):
                    channels = self._add(channels, part)
            self.outputs += channels

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._run(branch, x) for branch in self.branches], dim=1)

    def _add(self, inputs: int, step: Step) -> int:
        conv = Conv(inputs, step.outputs, step.kernel, step.stride, padded=step.stride == 1)
        self.add_module(step.name, conv)
        return step.outputs

    def _run(self, branch: Branch, x: Tensor) -> Tensor:
        for part in branch:
            if isinstance(part, Fork):
                x = torch.cat([self.get_submodule(step.name)(x) for step in part], dim=1)
            elif isinstance(part, Step):
                x = self.get_submodule(part.name)(x)
            else:
                x = part(x)
        return x


def large(pooled: int) -> list[Branch]:
    """At 35 x 35; figure 5."""
    return [
        [Step("branch1x1", 64)],
        [Step("branch5x5_1", 48), Step("branch5x5_2", 64, (5, 5))],
        [
            Step("branch3x3dbl_1", 64),
            Step("branch3x3dbl_2", 96, (3, 3)),
            Step("branch3x3dbl_3", 96, (3, 3)),
        ],
        [mean_pool, Step("branch_pool", pooled)],
    ]


def large_to_middle() -> list[Branch]:
    """From 35 x 35 to 17 x 17."""
    return [
        [Step("branch3x3", 384, (3, 3), stride=2)],
        [
            Step("branch3x3dbl_1", 64),
            Step("branch3x3dbl_2", 96, (3, 3)),
            Step("branch3x3dbl_3", 96, (3, 3), stride=2),
        ],
        [halving_pool],
    ]


def middle(inner: int) -> list[Branch]:
    """At 17 x 17; figure 6 with n = 7."""
    across, down = (1, 7), (7, 1)
    return [
        [Step("branch1x1", 192)],
        [
            Step("branch7x7_1", inner),
            Step("branch7x7_2", inner, across),
            Step("branch7x7_3", 192, down),
        ],
        [
            Step("branch7x7dbl_1", inner),
            Step("branch7x7dbl_2", inner, down),
            Step("branch7x7dbl_3", inner, across),
            Step("branch7x7dbl_4", inner, down),
            Step("branch7x7dbl_5", 192, across),
        ],
        [mean_pool, Step("branch_pool", 192)],
    ]


def middle_to_small() -> list[Branch]:
    """From 17 x 17 to 8 x 8."""
    return [
        [Step("branch3x3_1", 192), Step("branch3x3_2", 320, (3, 3), stride=2)],
        [
            Step("branch7x7x3_1", 192),
            Step("branch7x7x3_2", 192, (1, 7)),
            Step("branch7x7x3_3", 192, (7, 1)),
            Step("branch7x7x3_4", 192, (3, 3), stride=2),
        ],
        [halving_pool],
    ]


def small(pool: Pool) -> list[Branch]:
    """At 8 x 8; figure 7."""
    across, down = (1, 3), (3, 1)
    return [
        [Step("branch1x1", 320)],
        [
            Step("branch3x3_1", 384),
            Fork(Step("branch3x3_2a", 384, across), Step("branch3x3_2b", 384, down)),
        ],
        [
            Step("branch3x3dbl_1", 448),
            Step("branch3x3dbl_2", 384, (3, 3)),
            Fork(Step("branch3x3dbl_3a", 384, across), Step("branch3x3dbl_3b", 384, down)),
        ],
        [pool, Step("branch_pool", 192)],
    ]
