"""LSSL against its recurrence written out, and its trained A against instability."""

import pytest
import torch

from diffussm.ssm import lssl
from diffussm.ssm.dense import DENSE_DISCRETIZATIONS
from diffussm.ssm.hippo import HIPPO
from diffussm.ssm.lssl import LSSL


def layer_of(init, method="bilinear", train_A=False, dim=3, d_state=8):
    options = {"d_state": d_state, "init": init, "discretization": method, "train_A": train_A}
    return LSSL(dim, **options).double().requires_grad_(False)


def recurrence(layer, u, method):
    """The layer on `u`, by linear algebra on its continuous matrices."""
    a, b, state = layer.A, layer.B, layer.A.shape[0]
    y = torch.empty_like(u)
    for channel, dt in enumerate(layer.log_dt.exp()):
        if method == "zoh":
            held = torch.zeros(2, state + 1, state + 1, dtype=a.dtype)
            held[:, :-1] = dt * torch.cat([a, b[:, None]], dim=1)
            exponential = torch.matrix_exp(held)[0]
            a_bar, b_bar = exponential[:-1, :-1], exponential[:-1, -1]
        else:
            share = {"bilinear": 0.5, "backward_euler": 1.0}[method]
            implicit = torch.linalg.inv(torch.eye(state, dtype=a.dtype) - share * dt * a)
            a_bar = implicit @ (torch.eye(state, dtype=a.dtype) + (1 - share) * dt * a)
            b_bar = dt * implicit @ b
        h = torch.zeros(len(u), state, dtype=a.dtype)
        for l in range(u.shape[1]):
            h = h @ a_bar.T + u[:, l, channel, None] * b_bar
            y[:, l, channel] = h @ layer.C[channel] + layer.D[channel] * u[:, l, channel]
    return y


@pytest.mark.parametrize("train_A", [False, True])
@pytest.mark.parametrize("method", DENSE_DISCRETIZATIONS)
@pytest.mark.parametrize("init", lssl.INITS)
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 257])
def test_equals_its_recurrence(init, method, train_A, length):
    layer = layer_of(init, method, train_A)
    u = torch.randn(2, length, 3, dtype=torch.float64)
    expected = recurrence(layer, u, method)
    size = expected.abs().max().item()
    torch.testing.assert_close(layer(u), expected, rtol=1e-9, atol=1e-9 * size)


@pytest.mark.parametrize("train_A", [False, True])
@pytest.mark.parametrize("init", HIPPO)
def test_a_is_hippo_s_at_birth_fixed_or_trained(init, train_A):
    expected = HIPPO[init](16)[0].float()
    a = LSSL(2, d_state=16, init=init, train_A=train_A).A.detach()
    torch.testing.assert_close(a, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("train_A", [False, True])
def test_only_a_trained_a_is_trained(train_A):
    names = set(dict(LSSL(2, d_state=4, train_A=train_A).named_parameters()))
    assert names == {"log_dt", "C", "D"} | ({"skew", "factor", "B"} if train_A else set())
    fixed = set(LSSL(2, d_state=4).state_dict()) - names
    assert train_A or fixed == {"fixed_A", "B"}


@pytest.mark.parametrize("init", lssl.INITS)
def test_a_trained_a_cannot_become_unstable(init):
    layer = layer_of(init, train_A=True)
    for parameter in (layer.skew, layer.factor):
        parameter += 3 * torch.randn_like(parameter)
    symmetric = (layer.A + layer.A.T) / 2
    assert torch.linalg.eigvalsh(symmetric).max() < 1e-10
    assert layer(torch.randn(1, 500, 3).double()).abs().max() < 1e3


@pytest.mark.parametrize("state", [1, 8, 64])
def test_a_random_a_fades_at_least_as_fast_as_half(state):
    a, b = lssl.random(state)
    assert torch.linalg.eigvalsh((a + a.T) / 2).max().item() == pytest.approx(-0.5)
    assert (a.shape, b.shape) == ((state, state), (state,))


@pytest.mark.parametrize("method", DENSE_DISCRETIZATIONS)
@pytest.mark.parametrize("init", lssl.INITS)
def test_float32_loses_little(init, method):
    layer = LSSL(16, d_state=64, init=init, discretization=method)
    single = layer.kernel(300)
    double = layer.double().kernel(300)
    assert (single - double).abs().max() < 1e-3 * double.abs().max()


def growing(state):
    a, b = HIPPO["legs"](state)
    return a + 2 * torch.eye(state).double(), b


@pytest.mark.parametrize("train_A", [False, True])
def test_an_unstable_a_gets_a_sentence(train_A, monkeypatch):
    monkeypatch.setitem(lssl.INITS, "growing", growing)
    with pytest.raises(ValueError, match=r"A of init 'growing' is unstable: .* eigenvalue 1\.5"):
        LSSL(2, d_state=8, init="growing", train_A=train_A)


def test_a_fixed_a_that_is_not_finite_is_refused():
    layer = LSSL(2, d_state=4)
    state = layer.state_dict()
    state["fixed_A"] = state["fixed_A"] * float("inf")
    with pytest.raises(ValueError, match=r"fixed_A holds -?inf"):
        layer.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"d_state": 0}, "d_state must be at least 1, not 0"),
        ({"init": "leg"}, "LSSL init 'leg'"),
        ({"init": "fourier", "d_state": 7}, "fourier needs an even state .*not 7"),
        ({"discretization": "forward_euler"}, "unknown discretization 'forward_euler'"),
    ],
    ids=str,
)
def test_wrong_options_get_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        LSSL(4, **options)
