"""Two directions are two explicit scans, both seeing the present."""

import torch

from diffussm.ssm.bidirectional import Bidirectional
from diffussm.ssm.s4d import S4D


def test_equals_two_explicit_scans():
    forward, backward = S4D(3, d_state=4).double(), S4D(3, d_state=4).double()
    u = torch.randn(2, 13, 3, dtype=torch.float64)

    def scan(layer, positions):
        outputs, state = [None] * len(positions), layer.initial_state(2)
        for position in positions:
            outputs[position], state = layer.step(u[:, position], state)
        return torch.stack(outputs, dim=1)

    expected = torch.cat([scan(forward, range(13)), scan(backward, range(12, -1, -1))], dim=-1)
    torch.testing.assert_close(Bidirectional(forward, backward)(u), expected)


def test_flipping_the_sequence_exchanges_the_directions():
    one, other = S4D(3), S4D(3)
    u = torch.randn(2, 10, 3)
    y = Bidirectional(one, other)(u)
    mirrored = Bidirectional(other, one)(u.flip(1)).flip(1)
    torch.testing.assert_close(y, mirrored.roll(3, dims=-1))
