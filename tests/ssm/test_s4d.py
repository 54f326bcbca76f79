"""One system, seen as dense recurrence, convolution, step and closed form."""

import math

import pytest
import torch
from recurrence import scan

from diffussm.ssm.discretization import DISCRETIZATIONS
from diffussm.ssm.layer import resample
from diffussm.ssm.s4d import INITS, S4D

EVERY_SYSTEM = [(init, method) for init in INITS for method in DISCRETIZATIONS]

# K[0..5] for N = 8, B = C = 1, dt = 0.01, by published implementations
PUBLISHED = {
    ("lin", "zoh"): (
        [0.079754463, 0.0790829888, 0.0781456626, 0.076950229, 0.0755061352, 0.0738244433]
    ),
    ("lin", "bilinear"): (
        [0.0797320447, 0.0790617136, 0.0781259657, 0.0769325184, 0.0754907865, 0.0738117951]
    ),
    ("inv", "zoh"): (
        [0.079688182, 0.0786246296, 0.0769264307, 0.0746419155, 0.0718363074, 0.0685895198]
    ),
    ("inv", "bilinear"): (
        [0.0796338901, 0.0785768524, 0.076889606, 0.0746198338, 0.071831913, 0.0686047525]
    ),
}


def system(init="lin", method="zoh", dim=3, d_state=8):
    """A layer in float64, B trained away from its 1."""
    layer = S4D(dim, d_state=d_state, init=init, discretization=method).double()
    torch.nn.init.normal_(layer.B)
    return layer


def steps(layer, u):
    state, answers = layer.initial_state(len(u)), []
    for u_t in u.unbind(1):
        y_t, state = layer.step(u_t, state)
        answers.append(y_t)
    return torch.stack(answers, dim=1)


@pytest.mark.parametrize(("init", "method"), EVERY_SYSTEM)
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 257])
@torch.no_grad()
def test_recurrence_convolution_and_step_agree(init, method, length):
    layer = system(init, method)
    u = torch.randn(2, length, 3, dtype=torch.float64)
    expected = scan(layer, u, method)
    size = 1e-9 * expected.abs().max().item()
    torch.testing.assert_close(layer(u), expected, rtol=1e-9, atol=size)
    torch.testing.assert_close(steps(layer, u), expected, rtol=1e-9, atol=size)


@pytest.mark.parametrize(("init", "method"), PUBLISHED)
def test_kernels_are_the_published_ones(init, method):
    layer = S4D(1, d_state=8, init=init, discretization=method).double()
    decay, frequency = INITS[init](8)
    layer.log_dt.data.fill_(math.log(0.01))
    layer.log_decay.data[0] = torch.log(-decay)
    layer.frequency.data[0] = frequency
    layer.C.data[:] = torch.tensor([1.0, 0.0])
    expected = torch.tensor([PUBLISHED[init, method]], dtype=torch.float64)
    torch.testing.assert_close(layer.kernel(6), expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("init", INITS)
def test_two_half_steps_are_one(init):
    # with zero-order hold K_l is the integral of the response over a step
    layer, halved = system(init), system(init)
    halved.load_state_dict(layer.state_dict())
    resample(halved, 0.5)
    pairs = halved.kernel(130).unflatten(1, (65, 2)).sum(-1)
    torch.testing.assert_close(pairs, layer.kernel(65), rtol=1e-9, atol=1e-12)


def test_inits_are_the_printed_ones():
    imaginary = {
        "lin": [0, math.pi, 2 * math.pi, 3 * math.pi],
        "inv": [17.825350, 4.244130, 1.527890, 0.363780],
        "legs": [19.857410, 5.354209, 1.957794, 0.427489],
        "real": [0, 0, 0, 0],
    }
    real = {name: [-0.5] * 4 for name in INITS} | {"real": [-1, -2, -3, -4]}
    for name in INITS:
        layer = S4D(2, d_state=8, init=name)
        for channel in range(2):
            decay, frequency = -layer.log_decay[channel].exp(), layer.frequency[channel]
            torch.testing.assert_close(decay, torch.tensor(real[name], dtype=torch.float32))
            expected = torch.tensor(imaginary[name], dtype=torch.float32)
            torch.testing.assert_close(frequency, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_one_state_answers_a_step_as_its_differential_equation_does():
    # h' = A h + b u, y = 2 c h + D u with u = 1: y(t) = 2 c b (exp(A t) - 1) / A + D
    layer = S4D(1, d_state=2, init="real").double()
    a, b, c, d, dt = -0.7, 1.3, -0.4, 0.25, 0.05
    layer.log_dt.fill_(math.log(dt))
    layer.log_decay.fill_(math.log(-a))
    layer.B.copy_(torch.tensor([b, 0.0]))
    layer.C.copy_(torch.tensor([c, 0.0]))
    layer.D.fill_(d)
    y = layer(torch.ones(1, 100, 1, dtype=torch.float64)).flatten()
    expected = [2 * c * b * math.expm1(a * dt * (l + 1)) / a + d for l in range(100)]
    torch.testing.assert_close(y, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("init", "method"), EVERY_SYSTEM)
def test_every_parameter_is_trained_by_its_true_gradient(init, method):
    layer = system(init, method, dim=1, d_state=4)
    names, values = zip(*layer.named_parameters(), strict=True)
    u = torch.randn(1, 9, 1, dtype=torch.float64)

    def answer(*values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (u,))

    assert set(names) == {"log_dt", "log_decay", "frequency", "B", "C", "D"}
    assert torch.autograd.gradcheck(answer, values)


@pytest.mark.parametrize("method", DISCRETIZATIONS)
def test_autocast_leaves_the_kernel_in_float32(method):
    layer, length = S4D(4, discretization=method), 257
    u = torch.randn(2, length, 4)
    with torch.autocast("cpu", torch.bfloat16):
        kernel, y = layer.kernel(length), layer(u.bfloat16())
    assert (kernel.dtype, y.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(kernel, layer.kernel(length))
    torch.testing.assert_close(y.float(), layer(u), rtol=0.02, atol=0.02 * y.abs().max().item())


@pytest.mark.parametrize("method", DISCRETIZATIONS)
def test_all_that_training_may_reach_stays_finite(method):
    layer = S4D(64, d_state=128, discretization=method)
    with torch.no_grad():
        layer.log_dt.copy_(torch.linspace(math.log(1e-5), math.log(10), 64))
        layer.log_decay.copy_(torch.linspace(math.log(1e-4), math.log(1e3), 64))
        layer.frequency[:, :8] = torch.tensor([-1e3, -10, -1, -1e-3, 0, 1e-3, 10, 1e3])
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.randn(1, 300, 64).bfloat16())
        y.float().square().mean().backward()
    assert y.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_the_optimiser_is_told_which_parameters_are_special():
    tags = {
        name: parameter.optimizer_tags
        for name, parameter in S4D(2).named_parameters()
        if hasattr(parameter, "optimizer_tags")
    }
    special = {"weight_decay": 0.0, "max_lr": 1e-3}
    assert tags == dict.fromkeys(["log_dt", "log_decay", "frequency", "B"], special)


def test_b_is_one_and_c_complex_normal_of_unit_variance_at_birth():
    layer = S4D(500, d_state=32)
    assert torch.equal(torch.view_as_complex(layer.B.detach()), torch.ones(500, 16) + 0j)
    assert layer.C.square().sum(-1).mean().item() == pytest.approx(1, rel=0.05)
    assert layer.D.std().item() == pytest.approx(1, rel=0.1)


def test_step_sizes_are_spread_evenly_on_a_logarithmic_scale():
    layer = S4D(4000, d_state=2, dt_min=1e-3, dt_max=1e-1)
    decades = layer.log_dt.detach() / math.log(10)
    assert -3 <= decades.min() < -2.99
    assert -1.01 < decades.max() <= -1
    quarters = torch.histc(decades, 4, -3, -1) / 4000
    torch.testing.assert_close(quarters, torch.full((4,), 0.25), rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"d_state": 7}, "d_state must be even and at least 2 .*not 7"),
        ({"d_state": 0}, "d_state must be even and at least 2 .*not 0"),
        ({"dt_min": 0.0}, "0 < dt_min <= dt_max, not 0.0 and 0.1"),
        ({"dt_min": 0.2}, "0 < dt_min <= dt_max, not 0.2 and 0.1"),
        ({"init": "line"}, "S4D init 'line'; did you mean 'lin'"),
        ({"discretization": "biliner"}, "'biliner'; did you mean 'bilinear'"),
    ],
    ids=str,
)
def test_wrong_options_get_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        S4D(4, **options)


def test_a_state_of_another_batch_gets_a_sentence(unchecked_shapes):
    layer = S4D(4)
    with pytest.raises(ValueError, match="belongs to a batch of 2, the input has 3"):
        layer.step(torch.zeros(3, 4), layer.initial_state(2))


def test_an_empty_sequence_gets_a_sentence():
    with pytest.raises(ValueError, match="length 1 or more, not 0"):
        S4D(4)(torch.zeros(1, 0, 4))
