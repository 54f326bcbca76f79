"""One system, several ways: recurrence = convolution = step, and the published kernels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffussm.ssm.discretization import DISCRETIZATIONS
from diffussm.ssm.s4d import INITS, S4D

PUBLISHED = {  # N = 8, C = 1, dt = 0.01
    ("lin", "zoh"): [
        0.079754463,
        0.0790829888,
        0.0781456626,
        0.076950229,
        0.0755061352,
        0.0738244433,
    ],
    ("lin", "bilinear"): [
        0.0797320447,
        0.0790617136,
        0.0781259657,
        0.0769325184,
        0.0754907865,
        0.0738117951,
    ],
    ("inv", "zoh"): [
        0.079688182,
        0.0786246296,
        0.0769264307,
        0.0746419155,
        0.0718363074,
        0.0685895198,
    ],
    ("inv", "bilinear"): [
        0.0796338901,
        0.0785768524,
        0.076889606,
        0.0746198338,
        0.071831913,
        0.0686047525,
    ],
}


@pytest.mark.parametrize(("init", "discretization"), PUBLISHED)
def test_kernels_are_the_published_ones(init, discretization):
    layer = S4D(1, d_state=8, init=init, discretization=discretization)
    a_re, a_im = INITS[init](8)
    layer = layer.double()
    with torch.no_grad():
        layer.log_dt.fill_(0.01).log_()
        layer.log_decay.copy_((-a_re).log())
        layer.frequency.copy_(a_im)
        layer.C.copy_(torch.tensor([1.0, 0.0]))
    expected = torch.tensor([PUBLISHED[init, discretization]], dtype=torch.float64)
    torch.testing.assert_close(layer.kernel(6), expected, rtol=1e-8, atol=0)


def recurrence(layer, u):
    """The discrete system written out with complex numbers, mode by mode."""
    dt = layer.log_dt.exp()[:, None]
    a = torch.complex(-layer.log_decay.exp(), layer.frequency)
    b, c = torch.view_as_complex(layer.B), torch.view_as_complex(layer.C)
    if layer._discretize is DISCRETIZATIONS["zoh"]:
        a_bar = torch.exp(dt * a)
        b_bar = (a_bar - 1) / a * b
    else:
        a_bar = (1 + dt * a / 2) / (1 - dt * a / 2)
        b_bar = dt / (1 - dt * a / 2) * b
    state, outputs = torch.zeros_like(a), []
    for u_t in u.unbind(1):
        state = a_bar * state + b_bar * u_t[..., None]
        outputs.append(2 * (c * state).sum(-1).real + layer.D * u_t)
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
@pytest.mark.parametrize("length", [1, 2, 65])
def test_three_views_agree(init, discretization, length):
    layer = S4D(3, d_state=8, init=init, discretization=discretization).double()
    u = torch.randn(2, length, 3, dtype=torch.float64)
    expected = recurrence(layer, u)
    torch.testing.assert_close(layer(u), expected, rtol=1e-9, atol=1e-9)

    state, outputs = layer.initial_state(2), []
    for u_t in u.unbind(1):
        y_t, state = layer.step(u_t, state)
        outputs.append(y_t)
    torch.testing.assert_close(torch.stack(outputs, dim=1), expected, rtol=1e-9, atol=1e-9)


def test_gradients_of_every_parameter():
    layer = S4D(2, d_state=4).double()
    u = torch.randn(1, 9, 2, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def run(u, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), u)

    assert torch.autograd.gradcheck(run, (u, *layer.parameters()))
    assert len(names) == 6


def test_parameters_say_how_to_train_them():
    layer = S4D(2)
    tagged = {n for n, p in layer.named_parameters() if hasattr(p, "optimizer_tags")}
    assert tagged == {"log_dt", "log_decay", "frequency", "B"}
    assert layer.B.optimizer_tags == {"weight_decay": 0.0, "max_lr": 1e-3}


def test_step_sizes_are_log_uniform_in_their_range():
    dt = S4D(4000, d_state=2, dt_min=1e-3, dt_max=1e-1).log_dt.exp()
    assert dt.min() >= 1e-3
    assert dt.max() <= 1e-1
    assert 0.45 < (dt < 1e-2).float().mean() < 0.55


@settings(max_examples=25, deadline=None)
@given(
    log_dt=st.floats(-9, 1),
    log_decay=st.floats(-7, 5),
    frequency=st.floats(-300, 300),
    rule=st.sampled_from(sorted(DISCRETIZATIONS)),
)
def test_finite_anywhere_under_autocast(log_dt, log_decay, frequency, rule):
    layer = S4D(2, d_state=4, discretization=rule)
    with torch.no_grad():
        layer.log_dt.fill_(log_dt)
        layer.log_decay.fill_(log_decay)
        layer.frequency.fill_(frequency)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.randn(1, 33, 2).bfloat16())
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert torch.isfinite(y).all()
    for parameter in layer.parameters():
        assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 5}, "even and at least 2.*not 5"),
        ({"d_state": 0}, "even and at least 2.*not 0"),
        ({"dt_min": 0.1, "dt_max": 0.01}, "dt_min <= dt_max, not 0.1 and 0.01"),
        ({"dt_min": 0.0}, "not 0.0"),
        ({"init": "lim"}, "'lim'; did you mean 'lin'"),
        ({"discretization": "zho"}, "'zho'; did you mean 'zoh'"),
    ],
)
def test_wrong_settings_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        S4D(2, **options)


def test_a_state_of_another_batch_is_told():
    layer = S4D(2, d_state=4)
    with pytest.raises(ValueError, match="batch of 3, the input has 2"):
        layer.step(torch.zeros(2, 2), layer.initial_state(3))
