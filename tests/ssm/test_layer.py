"""What holds for every state space layer, alone and in both directions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffussm.ops.reading_order import reading_order
from diffussm.ssm.bidirectional import Bidirectional
from diffussm.ssm.choices import SSMS, ssm_options
from diffussm.ssm.layer import resample

SMALL = {"d_state": 4, "init": None, "discretization": None, "dt_min": 1e-3, "dt_max": 1e-1}
LAYERS = [
    *((name, init, None) for name, choice in SSMS.items() for init in choice.inits or [None]),
    *((name, None, method) for name, choice in SSMS.items() for method in choice.discretizations),
]
LENGTHS = [1, 2, 63, 64, 65, 257]

each_layer = pytest.mark.parametrize(("name", "init", "discretization"), LAYERS)
each_name = pytest.mark.parametrize("name", SSMS)


def layer_of(name, init=None, discretization=None, dim=3, **options):
    """A layer in float64; what is the same for all at birth has been trained away from it."""
    given = SMALL | {"init": init, "discretization": discretization} | options
    layer = SSMS[name].layer(dim, **ssm_options(name, **given)).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return layer.requires_grad_(False)


def walk(layer, u):
    """The layer on `u`, step by step."""
    state, answers = layer.initial_state(len(u)), []
    for u_t in u.unbind(1):
        y_t, state = layer.step(u_t, state)
        answers.append(y_t)
    return torch.stack(answers, dim=1)


def assert_agree(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())


@each_layer
@pytest.mark.parametrize("length", LENGTHS)
def test_all_at_once_is_one_step_after_another(name, init, discretization, length):
    layer = layer_of(name, init, discretization)
    u = torch.randn(2, length, 3, dtype=torch.float64)
    assert_agree(layer(u), walk(layer, u))


@each_layer
@pytest.mark.parametrize("length", LENGTHS)
def test_both_directions_are_two_walks(name, init, discretization, length):
    ahead, behind = (layer_of(name, init, discretization) for _ in range(2))
    u = torch.randn(2, length, 3, dtype=torch.float64)
    expected = torch.cat([walk(ahead, u), walk(behind, u.flip(1)).flip(1)], dim=-1)
    assert_agree(Bidirectional(ahead, behind)(u), expected)


@each_name
def test_a_flip_exchanges_the_two_directions(name):
    ahead, behind = layer_of(name), layer_of(name)
    u = torch.randn(2, 10, 3, dtype=torch.float64)
    y, mirrored = Bidirectional(ahead, behind)(u), Bidirectional(behind, ahead)(u.flip(1))
    first, second = y.chunk(2, dim=-1)
    assert_agree(mirrored, torch.cat([second, first], dim=-1).flip(1))


@each_name
@pytest.mark.parametrize(("rows", "columns"), [(1, 6), (6, 1), (2, 3), (5, 3), (4, 4)])
def test_columns_first_is_a_permutation_there_and_back(name, rows, columns):
    ahead, behind = layer_of(name), layer_of(name)
    u = torch.randn(2, rows * columns, 3, dtype=torch.float64)
    order = reading_order(rows * columns, rows)
    for layer in (ahead, Bidirectional(ahead, behind)):
        assert_agree(layer(u, rows), layer(u[:, order])[:, order.argsort()])


@each_name
def test_the_present_reaches_no_earlier_answer(name):
    layer = layer_of(name)
    u = torch.randn(1, 20, 3, dtype=torch.float64)
    other = u.clone()
    other[:, 12] += 1
    before, after = layer(u), layer(other)
    torch.testing.assert_close(after[:, :12], before[:, :12], rtol=1e-10, atol=1e-10)
    assert (after[:, 12] != before[:, 12]).all()


@each_layer
def test_gradients_are_differences(name, init, discretization):
    layer = layer_of(name, init, discretization, dim=2, d_state=2)
    names, values = zip(*layer.named_parameters(), strict=True)
    u = torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True)

    def answer(u, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (u,))

    values = [value.detach().clone().requires_grad_() for value in values]
    assert torch.autograd.gradcheck(answer, (u, *values), atol=1e-6)


@each_name
def test_bfloat16_goes_in_and_comes_out(name):
    layer = layer_of(name).float()
    u = torch.randn(2, 9, 3)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(u.bfloat16())
        y_t, _ = layer.step(u[:, 0].bfloat16(), layer.initial_state(2))
    assert (y.dtype, y_t.dtype) == (torch.bfloat16, torch.bfloat16)
    torch.testing.assert_close(y.float(), layer(u), rtol=0.1, atol=0.1)


@each_layer
@settings(max_examples=25, deadline=None)
@given(
    log_dt=st.floats(math.log(1e-5), math.log(10)),
    log_decay=st.floats(math.log(1e-4), math.log(1e3)),
    length=st.integers(1, 70),
    seed=st.integers(0, 100),
)
def test_nothing_overflows_under_autocast(
    name, init, discretization, log_dt, log_decay, length, seed
):
    torch.manual_seed(seed)
    options = SMALL | {"init": init, "discretization": discretization, "d_state": 16}
    layer = SSMS[name].layer(4, **ssm_options(name, **options))
    with torch.no_grad():
        for part, parameter in layer.named_parameters():
            if part == "log_dt":
                parameter.fill_(log_dt)
            elif part == "dt_proj.bias":  # dt = softplus(bias) and a little
                parameter.fill_(math.log(math.expm1(math.exp(log_dt))))
            elif part in ("log_decay", "A_log"):
                parameter.fill_(log_decay)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.randn(1, length, 4).bfloat16())
        y.float().square().mean().backward()
    assert y.isfinite().all()
    for part, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), part


@each_name
def test_half_the_rate_is_half_the_step(name):
    layer, slow = layer_of(name), layer_of(name)
    slow.load_state_dict(layer.state_dict())
    resample(slow, 0.5)
    u = torch.randn(2, 9, 3, dtype=torch.float64)
    assert not torch.allclose(slow(u), layer(u))
    assert_agree(slow(u), walk(slow, u))
    if "log_dt" in dict(layer.named_parameters()):
        layer.log_dt += math.log(0.5)
        assert_agree(slow(u), layer(u))


@each_name
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(name, value):
    layer = layer_of(name)
    state = layer.state_dict()
    part = next(iter(dict(layer.named_parameters())))
    state[part] = state[part].clone()
    state[part].view(-1)[0] = value
    with pytest.raises(ValueError, match=f"{part} holds {value}"):
        layer_of(name).load_state_dict(state)


@each_name
def test_a_state_of_another_batch_or_device_gets_a_sentence(name, unchecked_shapes):
    layer = layer_of(name)
    with pytest.raises(ValueError, match="belongs to a batch of 2, the input has 3"):
        layer.step(torch.zeros(3, 3).double(), layer.initial_state(2))
    elsewhere = layer_of(name).to("meta").initial_state(2)
    with pytest.raises(ValueError, match="the state is on meta, the input on cpu"):
        layer.step(torch.zeros(2, 3).double(), elsewhere)


@each_name
def test_an_empty_sequence_gets_a_sentence(name):
    with pytest.raises(ValueError, match="length 1 or more, not 0"):
        layer_of(name)(torch.zeros(1, 0, 3, dtype=torch.float64))


@each_name
@pytest.mark.parametrize(("dt_min", "dt_max"), [(0.0, 0.1), (-1.0, 0.1), (0.2, 0.1)])
def test_step_sizes_that_are_no_range_get_a_sentence(name, dt_min, dt_max):
    with pytest.raises(ValueError, match=f"0 < dt_min <= dt_max, not {dt_min} and {dt_max}"):
        layer_of(name, dt_min=dt_min, dt_max=dt_max)


@each_name
def test_no_state_gets_a_sentence(name):
    with pytest.raises(ValueError, match=r"d_state must .* not 0"):
        layer_of(name, d_state=0)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_a_rate_that_is_no_step_gets_a_sentence(rate):
    with pytest.raises(ValueError, match=f"rate must be positive and finite, not {rate}"):
        resample(layer_of("s4d"), rate)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("s5", {}), "ssm 's5'; did you mean 's4'"),
        (("mamba", {"init": "lin"}), "mamba has no choice of init: leave 'lin' out"),
        (("s4", {"discretization": "zoh"}), "s4 has no choice of discretization"),
        (("s4", {"init": "leggs"}), "init of s4 'leggs'; did you mean 'legs'"),
        (("lssl", {"discretization": "forward_euler"}), "discretization of lssl 'forward_euler'"),
    ],
    ids=str,
)
def test_options_that_a_layer_does_not_have_get_a_sentence(options, sentence):
    name, asked = options
    with pytest.raises(ValueError, match=sentence):
        ssm_options(name, **(SMALL | asked))
