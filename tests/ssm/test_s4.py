"""S4 against the dense HiPPO system that it stands for, by linear algebra on real matrices."""

import math

import pytest
import torch

from diffussm.ssm.hippo import HIPPO, normal_plus_low_rank
from diffussm.ssm.layer import resample
from diffussm.ssm.s4 import S4

STATE, DT = 8, 0.05


def hippo_layer(init, c):
    """An S4 of one channel whose output is c h for HiPPO's own h; float64 of float32 parameters."""
    layer = S4(1, d_state=STATE, init=init).double().requires_grad_(False)
    basis = normal_plus_low_rank(init, STATE).V
    layer.log_dt.fill_(math.log(DT))
    layer.C[0] = torch.view_as_real((c.to(basis.dtype) @ basis)[: STATE // 2].resolve_conj())
    return layer


def dense_kernel(init, c, length, dt=DT):
    """c A_bar^l B_bar for the bilinear step of HiPPO's matrices."""
    a, b = HIPPO[init](STATE)
    identity = torch.eye(STATE, dtype=a.dtype)
    a_bar = torch.linalg.solve(identity - dt / 2 * a, identity + dt / 2 * a)
    h = torch.linalg.solve(identity - dt / 2 * a, dt * b)
    kernel = []
    for _ in range(length):
        kernel.append(c @ h)
        h = a_bar @ h
    return torch.stack(kernel)


@pytest.mark.parametrize("init", HIPPO)
def test_at_birth_it_is_hippo(init):
    c = torch.randn(STATE, dtype=torch.float64)
    expected = dense_kernel(init, c, 100)
    kernel = hippo_layer(init, c).kernel(100)[0]
    # the others' normal parts do not decay: theirs here do, by 1e-4 a unit of time, 5 in all
    tolerance = 1e-6 if init == "legs" else 1e-3
    torch.testing.assert_close(kernel, expected, rtol=0, atol=tolerance * expected.abs().max())


def test_ranks_are_hippo_s():
    ranks = {init: S4(2, d_state=STATE, init=init).P.shape[1] for init in HIPPO}
    assert ranks == {"legs": 1, "legt": 2, "lagt": 1, "fourier": 1}


@pytest.mark.parametrize("init", HIPPO)
def test_one_set_of_weights_serves_every_length(init):
    layer = S4(3, d_state=16, init=init).double()
    longest = layer.kernel(300)
    for length in (1, 2, 63, 64, 65, 257):
        shorter = layer.kernel(length)
        size = longest.abs().max().item()
        torch.testing.assert_close(shorter, longest[:, :length], rtol=0, atol=1e-9 * size)


def test_another_rate_is_another_step():
    c = torch.randn(STATE, dtype=torch.float64)
    layer = hippo_layer("legs", c)
    resample(layer, 0.5)
    expected = dense_kernel("legs", c, 50, DT / 2)
    torch.testing.assert_close(layer.kernel(50)[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("init", HIPPO)
@pytest.mark.parametrize("length", [1, 65, 1024])
def test_float32_loses_little(init, length):
    layer = S4(8, d_state=64, init=init)
    single = layer.kernel(length)
    double = layer.double().kernel(length)
    assert (single - double).abs().max() < 3e-4 * double.abs().max()


def test_the_kernel_never_holds_dim_state_and_length_at_once():
    dim, state, length = 4, 64, 4096
    layer, sizes = S4(dim, d_state=state), []

    def note(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer.kernel(length).sum().backward()
    assert max(sizes) < dim * state * length / 8


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"d_state": 7}, "d_state must be even and at least 2 .*not 7"),
        ({"init": "hippo"}, "S4 init 'hippo'"),
    ],
    ids=str,
)
def test_wrong_options_get_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        S4(4, **options)
