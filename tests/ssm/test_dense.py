"""One step of a dense system against scipy, against closed forms, and by its order of accuracy."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.signal import cont2discrete

from diffussm.ssm import dense, discretization
from diffussm.ssm.dense import DENSE_DISCRETIZATIONS
from diffussm.ssm.hippo import HIPPO

METHODS = DENSE_DISCRETIZATIONS | {"forward_euler": dense.forward_euler}
SCIPY = {"zoh": "zoh", "bilinear": "bilinear", "backward_euler": "backward_diff"}
SCIPY |= {"forward_euler": "euler"}
DT = torch.tensor([1e-3, 0.02, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("init", HIPPO)
def test_scipy_agrees(init, method):
    a, b = HIPPO[init](6)  # Fourier's matrix is singular
    a_bar, b_bar = METHODS[method](DT, a, b)
    for channel, dt in enumerate(DT.tolist()):
        system = a.numpy(), b[:, None].numpy(), np.eye(6), np.zeros((6, 1))
        expected = cont2discrete(system, dt, SCIPY[method])
        np.testing.assert_allclose(a_bar[channel], expected[0], rtol=1e-10, atol=1e-12)
        if method in ("zoh", "forward_euler"):  # scipy shifts the input of the implicit ones
            np.testing.assert_allclose(b_bar[channel], expected[1][:, 0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_an_integrator_needs_no_inverse_of_a(method):
    a_bar, b_bar = METHODS[method](DT, torch.zeros(2, 2).double(), torch.ones(2).double())
    torch.testing.assert_close(a_bar, torch.eye(2).double().expand(3, 2, 2))
    torch.testing.assert_close(b_bar, DT[:, None].expand(3, 2))


@pytest.mark.parametrize("method", METHODS)
def test_a_diagonal_matrix_is_the_diagonal_function(method):
    a = -torch.tensor([0.5, 3.0, 7.0], dtype=torch.float64)
    a_bar, b_bar = METHODS[method](DT, torch.diag(a), torch.ones_like(a))
    function = getattr(discretization, method)
    step = function(DT, a.expand(3, 3), torch.zeros(3, 3).double())
    expected = torch.exp(step.decay) * torch.cos(step.angle)
    torch.testing.assert_close(a_bar, torch.diag_embed(expected), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(b_bar, step.gain_re, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("method", "order"), [("forward_euler", 1), ("bilinear", 2), ("backward_euler", 1)]
)
def test_halving_the_step_shrinks_the_error_by_its_order(method, order):
    # h' = A h from h(0), to time 1; LegS's A is not normal
    a, b = HIPPO["legs"](4)
    start, errors = torch.ones(4).double(), []
    exact = torch.tensor(expm(a.numpy())) @ start
    for steps in (200, 400):
        a_bar, _ = METHODS[method](torch.tensor([1 / steps]).double(), a, b)
        h = torch.linalg.matrix_power(a_bar[0], steps) @ start
        errors.append((h - exact).norm().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_a_rotation_is_exact_for_one_channel_as_for_many(channels, dtype, tolerance):
    # angles at which torch 2.13 errs by 5e-5 and 2e-10 where it exponentiates one matrix alone
    dt = 0.57 if dtype == torch.float32 else 0.0495
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=dtype)
    a_bar, _ = dense.zoh(torch.full((channels,), dt, dtype=dtype), turn, torch.zeros(2).to(dtype))
    cosine, sine = math.cos(dt), math.sin(dt)
    expected = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=dtype)
    torch.testing.assert_close(a_bar, expected.expand(channels, 2, 2), rtol=0, atol=tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_differences(method):
    a, b = HIPPO["legt"](3)
    inputs = [x.clone().requires_grad_() for x in (DT[:2], a, b)]
    assert torch.autograd.gradcheck(METHODS[method], inputs)


def test_forward_euler_is_no_choice_for_a_layer_since_it_explodes():
    assert "forward_euler" not in DENSE_DISCRETIZATIONS
    a, b = HIPPO["legs"](64)
    sizes = {}
    for name, method in METHODS.items():
        a_bar, _ = method(torch.tensor([0.1]).double(), a, b)
        sizes[name] = torch.linalg.eigvals(a_bar).abs().max().item()
    assert sizes.pop("forward_euler") > 5
    assert max(sizes.values()) < 1
