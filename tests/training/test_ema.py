"""The average of the weights against its closed form."""

import torch
from torch import nn

from diffussm.training.ema import EMA


def follow(decay, weights, dtype=torch.float32):
    """The average after a one-weight model was seen at each of `weights`, the first its birth."""
    model = nn.Linear(1, 1, bias=False).to(dtype)
    nn.init.constant_(model.weight, weights[0])
    ema = EMA(model, decay)
    for updates, weight in enumerate(weights[1:]):
        nn.init.constant_(model.weight, weight)
        ema.update(model, updates)
    (average,) = ema.model.parameters()
    return average


def test_a_small_decay_is_a_geometric_sum():
    weights, d = [1.0, -2.0, 4.0, 0.5, 3.0], 0.05  # below 1/10: no warm-up
    n = len(weights) - 1
    expected = d**n * weights[0]
    expected += sum((1 - d) * d ** (n - k) * weights[k] for k in range(1, n + 1))
    torch.testing.assert_close(follow(d, weights).item(), expected, rtol=1e-6, atol=0)


def test_a_large_decay_forgets_the_initial_weights():
    # the first decays are 1/10, 2/11, 3/12, ...: their product is (1/10) (2/11) (3/12) = 1/220
    trace = follow(0.9999, [1.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(trace.item(), 1 / 220, rtol=1e-6, atol=0)


def test_it_stays_float32_beside_a_bfloat16_model():
    average = follow(0.999, [0.0, 1.0, 1.0], torch.bfloat16)
    assert average.dtype == torch.float32
    torch.testing.assert_close(average.item(), 1 - 0.1 * 2 / 11, rtol=1e-6, atol=0)


def test_it_needs_no_gradient_and_is_a_copy():
    model = nn.Linear(2, 2)
    ema = EMA(model, 0.9)
    nn.init.zeros_(model.weight)
    assert ema.model.weight.any()
    assert not any(p.requires_grad for p in ema.model.parameters())


def test_distances_are_those_of_all_weights_together():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    ema = EMA(model, 0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)
    flat = [nn.utils.parameters_to_vector(each.parameters()) for each in (ema.model, model)]
    expected = torch.stack([(flat[0] - flat[1]).square().sum(), flat[1].square().sum()])
    torch.testing.assert_close(ema.distances(model), expected)
