"""What is remembered equals the projection of the past, computed all at once by other means."""

import math

import numpy as np
import pytest
import torch
from numpy.polynomial import Legendre, legendre

from diffussm.ssm.reconstruction import BASES, MEMORIES, recall, remember

WINDOWS = {"legs": None, "legt": 40, "fourier": 40}


def projection(samples, state):
    """Coefficients on sqrt(2n+1) P_n(2x - 1) of what is constant over each of the samples."""
    edges = np.linspace(-1, 1, len(samples) + 1)
    antiderivatives = [Legendre.basis(n).integ()(edges) for n in range(state)]
    scale = np.sqrt(2 * np.arange(state) + 1) / 2
    return torch.from_numpy(scale * (np.diff(antiderivatives) @ samples.numpy()))


def middles(length):
    return (torch.arange(length, dtype=torch.float64) + 0.5) / length


def smooth(length):
    """Three waves, the fastest of 5 periods, over [0, 1]."""
    x = middles(length)
    return sum(torch.sin(2 * math.pi * f * x + f**2) for f in (1.3, 2.9, 5.0))


def error(remembered, past, memory="legs"):
    recalled = recall(remembered, middles(len(past)), memory)
    return float((recalled - past).square().mean().sqrt())


@pytest.mark.parametrize("state", [1, 2, 3, 16, 64])
def test_legs_is_the_projection_of_the_whole_past(state):
    signal = torch.randn(200, dtype=torch.float64)
    remembered = remember(signal, "legs", state)
    for length in (1, 2, 3, 16, 17, 63, 64, 65, 200):
        expected = projection(signal[:length], state)
        torch.testing.assert_close(remembered[length - 1], expected, rtol=0, atol=1e-11)


def test_recall_evaluates_legendre_polynomials():
    # ends included, where P_n is 1 or -1 to the n
    coefficients = torch.randn(3, 2, 20, dtype=torch.float64)
    points = torch.cat([torch.tensor([0.0, 1.0], dtype=torch.float64), torch.rand(9).double()])
    scaled = (coefficients * torch.arange(1, 41, 2, dtype=torch.float64).sqrt()).numpy()
    expected = legendre.legval(2 * points.numpy() - 1, np.moveaxis(scaled, -1, 0))
    torch.testing.assert_close(recall(coefficients, points), torch.from_numpy(expected))
    single = recall(coefficients[..., :1], points)
    torch.testing.assert_close(single, coefficients[..., :1].expand(3, 2, 11))


def test_legs_knows_no_timescale():
    signal = torch.randn(50, dtype=torch.float64)
    stretched = remember(signal.repeat_interleave(3), "legs", 12)[2::3]
    torch.testing.assert_close(stretched, remember(signal, "legs", 12), rtol=0, atol=1e-12)


def test_legt_keeps_a_polynomial_that_slides_by():
    # of degree below the state; what is left is the steps of the signal: two orders of magnitude
    # for ten times as many of them
    errors = []
    for window in (30, 300):
        x = (torch.arange(8 * window, dtype=torch.float64) + 0.5) / window - 8
        signal = 1 - x + 2 * x**2 + x**3
        errors.append(error(remember(signal, "legt", 6, window)[-1], signal[-window:]))
    assert errors[0] < 1e-2
    assert errors[1] < errors[0] / 50


def test_legt_forgets_what_left_its_window():
    signal = torch.ones(400, dtype=torch.float64)
    signal[:100] = torch.randn(100)
    remembered = remember(signal, "legt", 8, 50)
    expected = torch.zeros(8, dtype=torch.float64)
    expected[0] = 1
    torch.testing.assert_close(remembered[-1], expected, rtol=0, atol=1e-5)
    assert (remembered[120] - expected).norm() > 0.1


def test_legt_is_nearly_the_projection_of_its_window():
    signal = smooth(600)
    gaps = []
    for state in (4, 8, 16):
        remembered = remember(signal, "legt", state, 200)
        gaps.append(float((remembered[-1] - projection(signal[-200:], state)).norm()))
    assert gaps[1] < gaps[0] / 10
    assert gaps[2] < gaps[1] / 100


@pytest.mark.parametrize("coefficients", [2, 6, 16])
def test_fourier_keeps_what_repeats(coefficients):
    """A signal whose period is the window: its coefficients are those of a discrete transform."""
    window = 64
    spectrum = torch.zeros(33, 2, dtype=torch.float64)
    spectrum[: coefficients // 2] = torch.randn(coefficients // 2, 2)
    period = torch.fft.irfft(torch.view_as_complex(spectrum), window)
    remembered = remember(period.repeat(12), "fourier", coefficients, window)
    assert error(remembered[-1], period, "fourier") < 0.03 * period.square().mean().sqrt()
    # at any other moment it is the period that ends there
    assert error(remembered[-11], period.roll(10), "fourier") < 0.03 * period.square().mean().sqrt()


@pytest.mark.parametrize("name", BASES)
def test_bases_are_orthonormal(name):
    nodes, weights = np.polynomial.legendre.leggauss(40)
    basis = BASES[name](12, torch.from_numpy((nodes + 1) / 2))
    gram = basis.T @ (torch.from_numpy(weights)[:, None] / 2 * basis)
    expected = torch.eye(12, dtype=torch.float64)
    if name == "fourier":
        expected[1, 1] = 0  # the idle entry
    torch.testing.assert_close(gram, expected)


def test_every_memory_has_a_basis():
    assert MEMORIES.keys() == BASES.keys()


GROWING = {  # window, states, largest error of the last: waves do not fit what does not repeat
    "legs": (None, [4, 8, 16, 20], 0.01),
    "legt": (300, [4, 8, 12, 16], 0.01),
    "fourier": (300, [4, 8, 16, 32], 0.2),
}


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_larger_state_remembers_better(memory):
    # up to where only the steps of the signal are left
    window, states, least = GROWING[memory]
    signal = smooth(600)
    past = signal if window is None else signal[-window:]
    errors = [error(remember(signal, memory, state, window)[-1], past, memory) for state in states]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < least < errors[0] / 2


@pytest.mark.parametrize("memory", MEMORIES)
def test_it_remembers_on_line_and_each_channel_alone(memory):
    signal = torch.randn(70, 2, 3, dtype=torch.float64)
    remembered = remember(signal, memory, 6, WINDOWS[memory])
    assert remembered.shape == (70, 2, 3, 6)
    alone = remember(signal[:31, 1, 2], memory, 6, WINDOWS[memory])
    torch.testing.assert_close(remembered[:31, 1, 2], alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("memory", MEMORIES)
def test_it_is_float64_whatever_comes_in(memory):
    signal = torch.randn(50)
    remembered = remember(signal, memory, 30, WINDOWS[memory])
    assert torch.equal(remembered, remember(signal.double(), memory, 30, WINDOWS[memory]))


@pytest.mark.parametrize(
    ("signal", "arguments", "sentence"),
    [
        ([], {}, "the signal is empty"),
        ([1.0, math.nan, 2.0], {}, "not finite at sample 1"),
        ([1.0, 2.0, -math.inf], {}, "not finite at sample 2"),
        ([[1.0, 2.0], [2.0, math.nan]], {}, "not finite at sample 1"),
        ([1.0], {"memory": "legz"}, "did you mean 'leg"),
        ([1.0], {"window": 5}, "leave out the window of 5"),
        ([1.0], {"state": 0}, "at least 1 number, not 0"),
        ([1.0], {"memory": "legt"}, "window of at least 1 sample, not None"),
        ([1.0], {"memory": "legt", "window": 0}, "window of at least 1 sample, not 0"),
        ([1.0], {"memory": "legt", "window": 9, "state": -3}, "at least 1 number, not -3"),
        ([1.0], {"memory": "fourier"}, "fourier needs a window of at least 1 sample, not None"),
        ([1.0], {"memory": "fourier", "window": 9, "state": 3}, "even state of at least 2"),
    ],
)
def test_what_cannot_be_remembered(signal, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        remember(torch.tensor(signal), **arguments)


@pytest.mark.parametrize("point", [-0.1, 1.5, math.nan])
def test_only_the_past_can_be_recalled(point):
    with pytest.raises(ValueError, match=f"between 0 .oldest. and 1 .now., not at {point}"):
        recall(torch.ones(3, dtype=torch.float64), torch.tensor([0.5, point]))
