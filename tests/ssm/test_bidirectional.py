"""Two directions at once are two explicit scans, and a mirror image of each other."""

import pytest
import torch
from recurrence import scan, scan_from_the_end

from diffussm.ssm.bidirectional import Bidirectional
from diffussm.ssm.discretization import DISCRETIZATIONS
from diffussm.ssm.s4d import S4D


def both(method="zoh"):
    return Bidirectional(
        S4D(3, d_state=4, discretization=method), S4D(3, d_state=4, discretization=method)
    ).double()


@pytest.mark.parametrize("method", DISCRETIZATIONS)
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 257])
@torch.no_grad()
def test_is_two_scans_side_by_side(method, length):
    layer, u = both(method), torch.randn(2, length, 3, dtype=torch.float64)
    expected = torch.cat(
        [
            scan(layer.forward_ssm, u, method),
            scan_from_the_end(layer.backward_ssm, u, method),
        ],
        dim=-1,
    )
    torch.testing.assert_close(layer(u), expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_both_see_the_present_each_through_its_own_d():
    layer, u = both(), torch.zeros(1, 9, 3, dtype=torch.float64)
    u[0, 4] = 1.0
    ahead, behind = layer(u)[0].chunk(2, dim=-1)
    kernels = [ssm.kernel(1)[:, 0] + ssm.D for ssm in (layer.forward_ssm, layer.backward_ssm)]
    torch.testing.assert_close([ahead[4], behind[4]], kernels)
    assert ahead[:4].abs().max() < 1e-12 < ahead[5:].abs().min()
    assert behind[5:].abs().max() < 1e-12 < behind[:4].abs().min()


@torch.no_grad()
def test_a_flip_exchanges_the_two_systems():
    layer, u = both(), torch.randn(2, 10, 3, dtype=torch.float64)
    mirror = Bidirectional(layer.backward_ssm, layer.forward_ssm)
    ahead, behind = layer(u).chunk(2, dim=-1)
    expected = torch.cat([behind, ahead], dim=-1).flip(1)
    torch.testing.assert_close(mirror(u.flip(1)), expected, rtol=1e-12, atol=1e-12)


def test_bfloat16_goes_in_and_comes_out():
    layer = both().float()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.randn(2, 5, 3).bfloat16())
    assert y.dtype == torch.bfloat16
