"""Each rule against the dense solution of the same system, also where digits would cancel."""

import pytest
import torch

from diffussm.ssm.discretization import DISCRETIZATIONS, bilinear, zoh


def dense(rule, dt, a, b=1.0):
    """(A_bar, gain) of a 2 x 2 real system, the pair a, conj(a), by matrix functions."""
    matrix = torch.tensor([[a.real, -a.imag], [a.imag, a.real]], dtype=torch.float64)
    vector = torch.tensor([[b], [0.0]], dtype=torch.float64)
    if rule == "zoh":  # the exponential of the system with its constant input as a state
        joint = torch.zeros(3, 3, dtype=torch.float64)
        joint[:2, :2], joint[:2, 2:] = matrix, vector
        joint = torch.matrix_exp(dt * joint)
        return joint[:2, :2], joint[:2, 2]
    eye = torch.eye(2, dtype=torch.float64)
    left = eye - dt / 2 * matrix
    return torch.linalg.solve(left, eye + dt / 2 * matrix), torch.linalg.solve(left, dt * vector)[
        :, 0
    ]


@pytest.mark.parametrize("rule", DISCRETIZATIONS)
@pytest.mark.parametrize("dt", [1e-8, 1e-3, 0.1, 2.0])
@pytest.mark.parametrize("a", [-0.5 + 0j, -0.5 + 3.14j, -3 + 90j, -2e-3 + 0.4j])
def test_equals_the_dense_solution(rule, dt, a):
    a_bar, gain = dense(rule, dt, a)
    tensors = [torch.tensor([[x]], dtype=torch.float64) for x in (a.real, a.imag)]
    step = DISCRETIZATIONS[rule](torch.tensor([dt], dtype=torch.float64), *tensors)
    z = torch.polar(torch.exp(step.decay), step.angle)[0, 0]
    actual = torch.stack([z.real, z.imag, step.gain_re[0, 0], step.gain_im[0, 0]])
    expected = torch.stack([a_bar[0, 0], a_bar[1, 0], gain[0], gain[1]])
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("rule", DISCRETIZATIONS)
def test_tiny_steps_keep_their_digits_in_float32(rule):
    dt, a = torch.tensor([1e-6]), (torch.tensor([[-0.5]]), torch.tensor([[3.0]]))
    step = DISCRETIZATIONS[rule](dt, *a)
    torch.testing.assert_close(step.gain_re, dt[:, None], rtol=2e-6, atol=0)  # gain -> dt
    torch.testing.assert_close(step.decay, torch.tensor([[-0.5e-6]]), rtol=1e-5, atol=0)


def test_bilinear_stays_finite_where_it_forgets_in_one_step():
    dt = torch.tensor([1.0], requires_grad=True)
    a_re = torch.tensor([[-2.0]], requires_grad=True)  # z = -2: A_bar = 0
    a_im = torch.zeros(1, 1, requires_grad=True)
    step = bilinear(dt, a_re, a_im)
    assert torch.exp(step.decay) < 1e-3
    for gradient in torch.autograd.grad(torch.exp(step.decay).sum(), (dt, a_re, a_im)):
        assert torch.isfinite(gradient).all()


def test_zoh_is_exact_for_constant_input():
    # h' = a h + 1 from 0 has h(t) = (exp(a t) - 1) / a; ten steps land on it
    dt, a = torch.tensor([0.3], dtype=torch.float64), torch.tensor([[-0.7]], dtype=torch.float64)
    step = zoh(dt, a, torch.zeros_like(a))
    state = torch.zeros(1, 1, dtype=torch.float64)
    for _ in range(10):
        state = torch.exp(step.decay) * state + step.gain_re
    torch.testing.assert_close(state, torch.expm1(a * 3) / a)
