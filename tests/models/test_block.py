"""The block against the table that defines it, transcribed place by place."""

import math

import pytest
import torch
from recurrence import scan, scan_from_the_end

from diffussm.models.diffussm import MATRICES, DiffuSSMBlock, DiffuSSMConfig

D = 8


def block_of(**options):
    """A block in float64 with every parameter drawn anew."""
    defaults = {"input_size": 8, "d_model": D, "d_state": 4, "depth": 1}
    block = DiffuSSMBlock(DiffuSSMConfig(**(defaults | options))).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return block.requires_grad_(False)


def sigma(x):
    """GELU in its tanh form."""
    return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def transcription(block, x, condition, ratio, bidirectional):
    """The table of the block, for one image: x (tokens, D), condition (D)."""
    weights = block.state_dict()

    def linear(name, v, k=None):
        matrix, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        if k is not None:  # the k-th of `ratio` matrices
            bias = bias.chunk(ratio)[k]
            matrix = matrix[k] if matrix.dim() == 3 else matrix.chunk(ratio)[k]
        return matrix @ v + bias

    vectors = linear("modulation.linear", condition * torch.sigmoid(condition))
    scale, shift, gate = vectors[:D], vectors[D : 2 * D], vectors[2 * D :]
    tokens = len(x)
    h, u = [], []
    for j in range(tokens):
        centred = x[j] - x[j].mean()
        h.append(centred / torch.sqrt((centred**2).mean() + 1e-6) * (1 + scale) + shift)
    for l in range(ratio * tokens):
        j, k = l // ratio, l % ratio
        u.append(sigma(linear("up", sigma(linear("dense", h[j])), k)))
    u = torch.stack(u)[None]
    if bidirectional:
        ahead, behind = scan(block.ssm.forward_ssm, u), scan_from_the_end(block.ssm.backward_ssm, u)
        y = torch.cat([ahead, behind], dim=-1)[0]
    else:
        y = scan(block.ssm, u)[0]
    result = torch.empty_like(x)
    for j in range(tokens):
        places = [sigma(linear("down", y[ratio * j + k], k)) for k in range(ratio)]
        fused = sigma(linear("value", torch.cat(places))) * sigma(linear("gate", h[j]))
        result[j] = x[j] + gate * linear("out", fused)
    return result


@pytest.mark.parametrize("matrices", MATRICES)
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_equals_its_table(matrices, bidirectional, ratio):
    block = block_of(matrices=matrices, bidirectional=bidirectional, hourglass_ratio=ratio)
    x, condition = torch.randn(2, 5, D).double(), torch.randn(2, D).double()
    actual = block(x, condition)
    for image in range(2):
        expected = transcription(block, x[image], condition[image], ratio, bidirectional)
        torch.testing.assert_close(actual[image], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("matrices", MATRICES)
def test_matrices_have_the_shapes_of_the_reading(matrices):
    shapes = {
        name.removesuffix(".weight"): tuple(value.shape)
        for name, value in block_of(matrices=matrices).state_dict().items()
        if name.endswith("weight")
    }
    published = {
        "totals": {"dense": (2 * D, D), "up": (2 * D, 2 * D)}
        | {"gate": (D, D), "value": (D, 2 * D), "out": (D, D)},
        "figure": {"dense": (D, D), "up": (2 * D, D)}
        | {"gate": (2 * D, D), "value": (2 * D, 2 * D), "out": (D, 2 * D)},
    }[matrices]
    assert shapes == published | {"down": (2, D, 2 * D), "modulation.linear": (3 * D, D)}
