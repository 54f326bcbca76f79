"""One step of length dt against dense linear algebra on real matrices."""

import pytest
import torch

from diffussm.ssm.discretization import DISCRETIZATIONS, Discrete, bilinear, zoh


def systems(dtype=torch.float64):
    """dt and A from barely moving to forgotten at once, slow and fast."""
    dt = torch.tensor([1e-3, 0.1, 1.0], dtype=dtype)
    a_re = torch.tensor([-1e-3, -0.5, -0.5, -4.0, -0.5], dtype=dtype).expand(3, -1)
    a_im = torch.tensor([0.0, 0.0, 3.0, -200.0, 1e-3], dtype=dtype).expand(3, -1)
    return dt, a_re, a_im


def as_complex(step: Discrete):
    return torch.polar(torch.exp(step.decay), step.angle), torch.complex(step.gain_re, step.gain_im)


def rotations(a_re, a_im):
    """Each complex number as the real 2 x 2 matrix that multiplies by it."""
    return torch.stack([a_re, -a_im, a_im, a_re], dim=-1).unflatten(-1, (2, 2))


def first_column(matrices):
    return torch.complex(matrices[..., 0, 0], matrices[..., 1, 0])


def test_zoh_is_the_exponential_of_system_and_held_input():
    dt, a_re, a_im = systems()
    a_bar, gain = as_complex(zoh(dt, a_re, a_im))
    identity = torch.eye(2, dtype=dt.dtype).expand(3, 5, 2, 2)
    held = torch.cat([rotations(a_re, a_im), identity], dim=-1)
    held = torch.cat([held, torch.zeros_like(held)], dim=-2)
    exponential = torch.matrix_exp(dt[:, None, None, None] * held)
    torch.testing.assert_close(a_bar, first_column(exponential[..., :2]), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(gain, first_column(exponential[..., 2:]), rtol=1e-10, atol=1e-13)


def test_bilinear_is_the_trapezoidal_rule():
    dt, a_re, a_im = systems()
    a_bar, gain = as_complex(bilinear(dt, a_re, a_im))
    identity = torch.eye(2, dtype=dt.dtype).expand(3, 5, 2, 2)
    half = dt[:, None, None, None] / 2 * rotations(a_re, a_im)
    step = torch.linalg.solve(identity - half, identity + half)
    torch.testing.assert_close(a_bar, first_column(step), rtol=1e-10, atol=1e-13)
    response = torch.linalg.solve(identity - half, dt[:, None, None, None] * identity)
    torch.testing.assert_close(gain, first_column(response), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", DISCRETIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("a", [-1.0, -0.5 + 1j, -1e-3 - 5j])
def test_nothing_cancels_in_a_tiny_step(name, dtype, a):
    # To first order gain / dt = 1 + z/2 and log A_bar = z, for z = dt A of size 1e-8.
    dt = 1e-8 / abs(a)
    a_re, a_im = (torch.tensor([[x]], dtype=dtype) for x in (complex(a).real, complex(a).imag))
    step = DISCRETIZATIONS[name](torch.tensor([dt], dtype=dtype), a_re, a_im)
    tolerance = 8 * torch.finfo(dtype).eps
    assert step.decay.item() == pytest.approx(dt * complex(a).real, rel=tolerance)
    assert step.angle.item() == pytest.approx(dt * complex(a).imag, rel=tolerance)
    assert step.gain_re.item() / dt == pytest.approx(1 + dt * complex(a).real / 2, rel=tolerance)
    error = abs(step.gain_im.item() / dt - dt * complex(a).imag / 2)
    assert error <= tolerance  # of |gain| / dt = 1


@pytest.mark.parametrize("name", DISCRETIZATIONS)
def test_gradients_are_differences(name):
    arguments = [x.clone().requires_grad_() for x in systems()]
    assert torch.autograd.gradcheck(DISCRETIZATIONS[name], arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_bilinear_at_minus_two_forgets_at_once_and_can_be_trained(dtype):
    dt, a_re, a_im = (
        torch.tensor(x, dtype=dtype, requires_grad=True) for x in ([0.5], [[-4.0]], [[0.0]])
    )
    step = bilinear(dt, a_re, a_im)
    assert 0 <= torch.exp(step.decay).item() < torch.finfo(dtype).eps ** 0.5
    assert (step.gain_re.item(), step.gain_im.item()) == (0.25, 0.0)
    gradients = torch.autograd.grad(sum(x.sum() for x in step), (dt, a_re, a_im))
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", DISCRETIZATIONS)
def test_a_stable_system_stays_stable_and_finite_in_float32(name):
    dt = torch.logspace(-5, 1, 25)
    a_re = -torch.logspace(-3, 3, 25).repeat_interleave(25).expand(25, -1)
    a_im = torch.cat([torch.zeros(1), torch.logspace(-3, 4, 24)]).repeat(25).expand(25, -1)
    step = DISCRETIZATIONS[name](dt, a_re, a_im)
    assert all(x.isfinite().all() for x in step)
    assert (step.decay <= 0).all()
