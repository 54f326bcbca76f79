"""Mamba against its recurrence written out, its published form, and another implementation."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from diffussm.ssm.layer import resample
from diffussm.ssm.mamba import Mamba, MambaState


def layer_of(dim=3, **options):
    layer = Mamba(dim, **({"d_state": 4} | options)).double().requires_grad_(False)
    for parameter in layer.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    return layer


def recurrence(layer, u):
    """The block on one sequence (length, dim), position by position, from its state dict."""
    w = layer.state_dict()
    inner, state = w["A_log"].shape
    rank, taps = w["dt_proj.weight"].shape[1], w["conv1d.weight"].shape[2]
    h, past, answers = torch.zeros(inner, state).double(), [], []
    for u_t in u:
        projected = w["in_proj.weight"] @ u_t
        past.append(projected[:inner])
        x = w["conv1d.bias"].clone()
        for back in range(min(taps, len(past))):
            x += w["conv1d.weight"][:, 0, taps - 1 - back] * past[-1 - back]
        x = x * torch.sigmoid(x)
        selected = w["x_proj.weight"] @ x
        dt = w["dt_proj.weight"] @ selected[:rank] + w["dt_proj.bias"]
        dt = torch.log1p(torch.exp(dt))
        b, c = selected[rank : rank + state], selected[rank + state :]
        a_bar = torch.exp(-dt[:, None] * torch.exp(w["A_log"]))
        h = a_bar * h + dt[:, None] * b * x[:, None]
        y, z = h @ c + w["D"] * x, projected[inner:]
        answers.append(w["out_proj.weight"] @ (y * z * torch.sigmoid(z)))
    return torch.stack(answers)


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 257])
@pytest.mark.parametrize("options", [{}, {"d_conv": 1}, {"expand": 1, "dt_rank": 3, "d_conv": 2}])
def test_equals_its_recurrence(length, options):
    layer, u = layer_of(**options), torch.randn(2, length, 3).double()
    expected = torch.stack([recurrence(layer, sequence) for sequence in u])
    close = {"rtol": 1e-9, "atol": 1e-9 * expected.abs().max().item()}
    torch.testing.assert_close(layer(u), expected, **close)
    state, answers = layer.initial_state(2), []
    for u_t in u.unbind(1):
        y_t, state = layer.step(u_t, state)
        answers.append(y_t)
    torch.testing.assert_close(torch.stack(answers, dim=1), expected, **close)


def test_a_change_leaves_earlier_answers_exactly_as_they_were():
    layer, u = layer_of(), torch.randn(2, 70, 3).double()
    before = layer(u)
    for position in (1, 8, 9, 69):
        other = u.clone()
        other[:, position] += 1
        assert torch.equal(layer(other)[:, :position], before[:, :position])


def test_names_and_shapes_are_the_published_ones():
    dim, state = 40, 16
    inner, rank = 80, 3
    published = {
        "in_proj.weight": (2 * inner, dim),
        "conv1d.weight": (inner, 1, 4),
        "conv1d.bias": (inner,),
        "x_proj.weight": (rank + 2 * state, inner),
        "dt_proj.weight": (inner, rank),
        "dt_proj.bias": (inner,),
        "A_log": (inner, state),
        "D": (inner,),
        "out_proj.weight": (dim, inner),
    }
    layer = Mamba(dim)
    assert {name: tuple(value.shape) for name, value in layer.state_dict().items()} == published
    layer.load_state_dict({name: torch.zeros(shape) for name, shape in published.items()})


def test_values_at_birth_are_the_published_ones():
    layer = Mamba(400, d_state=8)
    expected = torch.arange(1.0, 9).log().expand(800, 8)
    assert torch.equal(layer.A_log, expected)
    assert torch.equal(layer.D, torch.ones(800))
    dt = functional.softplus(layer.dt_proj.bias.detach())
    assert dt.min() * 1.0001 >= 1e-3
    assert dt.max() <= 1e-1 * 1.0001
    quarters = torch.histc(dt.log10(), 4, -3, -1) / 800
    torch.testing.assert_close(quarters, torch.full((4,), 0.25), rtol=0, atol=0.06)
    bound = layer.dt_proj.in_features**-0.5
    assert 0.98 * bound < layer.dt_proj.weight.abs().max() <= bound


def test_the_smallest_step_has_a_floor():
    layer = Mamba(50, dt_min=1e-6, dt_max=1e-5)
    dt = functional.softplus(layer.dt_proj.bias)
    torch.testing.assert_close(dt, torch.full((100,), 1e-4), rtol=1e-2, atol=0)


def test_transformers_mixer_gives_the_same():
    mamba = pytest.importorskip("transformers.models.mamba.modeling_mamba")
    from transformers import MambaConfig

    config = MambaConfig(hidden_size=24, state_size=8, conv_kernel=4, expand=2)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        mixer, ours = mamba.MambaMixer(config, 0), Mamba(24, d_state=8)
        for parameter in mixer.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        ours.load_state_dict(mixer.state_dict())
        for length in (1, 2, 65):
            u = torch.randn(2, length, 24)
            expected = mixer(u)
            size = expected.abs().max().item()
            torch.testing.assert_close(ours(u), expected, rtol=1e-6, atol=1e-6 * size)


def test_half_the_rate_halves_every_step():
    layer = layer_of()
    x = torch.randn(2, 5, 6).double()
    dt = layer._selected(x)[0]
    resample(layer, 0.5)
    torch.testing.assert_close(layer._selected(x)[0], dt / 2)


def test_the_optimiser_is_told_which_parameters_are_special():
    tags = {
        name: parameter.optimizer_tags
        for name, parameter in Mamba(4).named_parameters()
        if hasattr(parameter, "optimizer_tags")
    }
    special = {"weight_decay": 0.0, "max_lr": 1e-3}
    assert tags == dict.fromkeys(["A_log", "D", "dt_proj.bias"], special)


def test_under_autocast_steps_and_states_stay_float32():
    layer = Mamba(8)
    with torch.autocast("cpu", torch.bfloat16):
        dt, b, _ = layer._selected(torch.randn(1, 5, 16).bfloat16())
        _, state = layer.step(torch.randn(2, 8), layer.initial_state(2))
    assert (dt.dtype, b.dtype) == (torch.float32, torch.bfloat16)
    assert (state.conv.dtype, state.ssm.dtype) == (torch.float32, torch.float32)


@settings(max_examples=40, deadline=None)
@given(
    log_dt=st.floats(math.log(1e-5), math.log(1e2)),
    log_rate=st.floats(math.log(1e-4), math.log(1e3)),
    length=st.integers(1, 70),
    seed=st.integers(0, 100),
)
def test_no_step_and_no_decay_overflow_under_autocast(log_dt, log_rate, length, seed):
    torch.manual_seed(seed)
    layer = Mamba(4)
    with torch.no_grad():
        dt = torch.tensor(log_dt, dtype=torch.float64).exp()
        layer.dt_proj.bias.fill_((dt + torch.log(-torch.expm1(-dt))).item())  # softplus^-1
        layer.A_log.fill_(log_rate)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.randn(2, length, 4))
        y.float().square().mean().backward()
    assert y.isfinite().all()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("part", MambaState._fields)
def test_each_part_of_a_state_must_fit(part, unchecked_shapes):
    layer = layer_of()
    state = layer.initial_state(2)
    wrong = state._replace(**{part: getattr(state, part)[:1]})
    with pytest.raises(ValueError, match="belongs to a batch of 1, the input has 2"):
        layer.step(torch.zeros(2, 3).double(), wrong)


@pytest.mark.parametrize("name", ["d_state", "d_conv", "expand", "dt_rank"])
def test_wrong_sizes_get_a_sentence(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        Mamba(4, **{name: 0})


def test_an_odd_state_is_fine():
    assert Mamba(4, d_state=5)(torch.randn(1, 3, 4)).shape == (1, 3, 4)
    assert math.prod(Mamba(4, d_state=5).A_log.shape) == 40
