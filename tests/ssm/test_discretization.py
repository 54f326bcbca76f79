"""One step of length dt against dense linear algebra on real matrices."""

import pytest
import torch

from diffussm.ssm.discretization import (
    DISCRETIZATIONS,
    Discrete,
    backward_euler,
    bilinear,
    forward_euler,
    zoh,
)

BILINEAR_FAMILY = [(forward_euler, 0.0), (bilinear, 0.5), (backward_euler, 1.0)]
FUNCTIONS = DISCRETIZATIONS | {"forward_euler": forward_euler}


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


@pytest.mark.parametrize(("function", "alpha"), BILINEAR_FAMILY)
def test_the_bilinear_family_is_a_partly_implicit_step(function, alpha):
    dt, a_re, a_im = systems()
    a_bar, gain = as_complex(function(dt, a_re, a_im))
    identity = torch.eye(2, dtype=dt.dtype).expand(3, 5, 2, 2)
    z = dt[:, None, None, None] * rotations(a_re, a_im)
    step = torch.linalg.solve(identity - alpha * z, identity + (1 - alpha) * z)
    torch.testing.assert_close(a_bar, first_column(step), rtol=1e-10, atol=1e-13)
    response = torch.linalg.solve(identity - alpha * z, dt[:, None, None, None] * identity)
    torch.testing.assert_close(gain, first_column(response), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_an_integrator_needs_no_inverse_of_a(name, dtype):
    dt, zero = torch.tensor([0.5], dtype=dtype), torch.zeros(1, 1, dtype=dtype, requires_grad=True)
    step = FUNCTIONS[name](dt, zero, torch.zeros(1, 1, dtype=dtype))
    assert [x.item() for x in step] == [0, 0, 0.5, 0]
    # d gain / dA: dt^2 / 2 for what is of second order, else alpha dt^2
    slope = {"forward_euler": 0.0, "backward_euler": 0.25}.get(name, 0.125)
    (gradient,) = torch.autograd.grad(step.gain_re.sum(), zero)
    assert gradient.item() == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("size", [1e-8, 1e-5, 1e-3, 0.03, 0.0313, 0.1])
def test_zoh_s_gradient_keeps_its_digits_in_float32(size):
    def gradients(dtype):
        dt = torch.tensor([0.1], dtype=dtype)
        a = [torch.tensor([[x]], dtype=dtype, requires_grad=True) for x in (-6 * size, 8 * size)]
        step = zoh(dt, *a)
        return torch.autograd.grad((step.gain_re + 2 * step.gain_im).sum(), a)

    for single, double in zip(gradients(torch.float32), gradients(torch.float64), strict=True):
        assert single.item() == pytest.approx(double.item(), rel=3e-5)


@pytest.mark.parametrize("name", DISCRETIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("a", [-1.0, -0.5 + 1j, -1e-3 - 5j])
def test_nothing_cancels_in_a_tiny_step(name, dtype, a):
    # To first order gain / dt = 1 + z/2 (for alpha: 1 + alpha z) and log A_bar = z, for z = dt A
    # of size 1e-8.
    part = 1.0 if name == "backward_euler" else 0.5
    dt = 1e-8 / abs(a)
    a_re, a_im = (torch.tensor([[x]], dtype=dtype) for x in (complex(a).real, complex(a).imag))
    step = DISCRETIZATIONS[name](torch.tensor([dt], dtype=dtype), a_re, a_im)
    tolerance = 8 * torch.finfo(dtype).eps
    assert step.decay.item() == pytest.approx(dt * complex(a).real, rel=tolerance)
    assert step.angle.item() == pytest.approx(dt * complex(a).imag, rel=tolerance)
    assert step.gain_re.item() / dt == pytest.approx(1 + dt * complex(a).real * part, rel=tolerance)
    error = abs(step.gain_im.item() / dt - dt * complex(a).imag * part)
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
