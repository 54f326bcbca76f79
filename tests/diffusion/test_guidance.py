"""Guidance is a line through two predictions, drawn where and when it is asked for."""

import pytest
import torch

from diffussm.diffusion.gaussian import DiffusionConfig, GaussianDiffusion
from diffussm.diffusion.guidance import DIT_CHANNELS, Guidance, guided
from diffussm.diffusion.prediction import PREDICTIONS

NULL, STEPS = 10, 1000
Y = torch.tensor([3, 7])


class Network:
    """A made-up denoiser whose answer depends on everything; it notes the size of each batch."""

    def __init__(self, learned_variance=True):
        self.batches = []
        self.halves = 2 if learned_variance else 1

    def __call__(self, x_t, t, y):
        self.batches.append(len(x_t))
        answer = torch.sin(x_t.repeat(1, self.halves, 1, 1) + t.reshape(-1, 1, 1, 1))
        number = torch.arange(answer.shape[1]).reshape(1, -1, 1, 1)
        return answer * (1 + number + y.reshape(-1, 1, 1, 1))


def image():
    return torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def answers(t, **settings):
    """(guided, conditional, null) answers at step `t`."""
    network, x_t = Network(), image()
    t = torch.full((2,), t)
    actual = guided(network, Guidance(**settings), NULL, STEPS)(x_t, t, Y)
    return actual, network(x_t, t, Y), network(x_t, t, torch.full_like(Y, NULL))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.1, 4.0])
def test_guidance_is_a_line_and_leaves_the_variance(scale):
    actual, conditional, null = answers(500, scale=scale)
    line = (1 - scale) * null + scale * conditional
    torch.testing.assert_close(actual[:, :4], line[:, :4])
    torch.testing.assert_close(actual[:, 4:], conditional[:, 4:])


def test_only_the_first_channels_are_guided_when_so_asked():
    actual, conditional, null = answers(500, scale=4.0, channels=DIT_CHANNELS)
    line = null + 4 * (conditional - null)
    torch.testing.assert_close(actual[:, :3], line[:, :3])
    torch.testing.assert_close(actual[:, 3:], conditional[:, 3:])


def test_a_prediction_without_variance_is_guided_whole():
    network, x_t, t = Network(learned_variance=False), image(), torch.tensor([5, 500])
    actual = guided(network, Guidance(scale=2.0), NULL, STEPS)(x_t, t, Y)
    expected = 2 * network(x_t, t, Y) - network(x_t, t, torch.full_like(Y, NULL))
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    ("t", "acts"), [(0, False), (299, False), (300, True), (700, True), (701, False)]
)
def test_guidance_acts_inside_its_interval_only(t, acts):
    actual, conditional, _ = answers(t, scale=4.0, interval=(0.3, 0.7))
    assert torch.equal(actual, conditional) is not acts


def test_each_image_of_a_batch_has_its_own_step():
    network, x_t, t = Network(), image(), torch.tensor([100, 500])
    actual = guided(network, Guidance(scale=4.0, interval=(0.3, 0.7)), NULL, STEPS)(x_t, t, Y)
    conditional = network(x_t, t, Y)
    torch.testing.assert_close(actual[0], conditional[0])
    assert not torch.allclose(actual[1, :4], conditional[1, :4])


@pytest.mark.parametrize(
    ("settings", "batches"),
    [
        ({"scale": 1.5}, [4]),
        ({"scale": 0.0}, [4]),
        ({"scale": 1.0}, [2]),
        ({"scale": 1.5, "interval": (0.6, 1.0)}, [2]),
        ({"scale": 1.5, "interval": (0.0, 0.5)}, [4]),
    ],
)
def test_the_network_runs_once_and_doubled_only_where_guidance_acts(settings, batches):
    network = Network()
    guided(network, Guidance(**settings), NULL, STEPS)(image(), torch.full((2,), 500), Y)
    assert network.batches == batches


def test_guided_image_does_not_depend_on_the_prediction_type():
    # two fixed estimates of x_0, spoken in each type, must be guided to the same image
    x_t, t = image(), torch.tensor([40, 600])
    estimates = torch.randn(2, 2, 4, 3, 3, dtype=torch.float64)
    guided_images = []
    for name in PREDICTIONS:
        config = DiffusionConfig(prediction=name, learned_variance=False)
        diffusion = GaussianDiffusion(config)
        alpha, sigma = diffusion.scales(x_t, t)

        def network(x, _, y, prediction=diffusion.prediction, alpha=alpha, sigma=sigma):
            alpha, sigma = alpha.repeat(2, 1, 1, 1), sigma.repeat(2, 1, 1, 1)
            x_0 = torch.cat([estimates[0], estimates[1]])
            return prediction.target(x_0, (x - alpha * x_0) / sigma, alpha, sigma)

        answer = guided(network, Guidance(scale=3.0), NULL, STEPS)(x_t, t, Y)
        guided_images.append(diffusion.denoised(answer, x_t, t).x_0)
    expected = 3 * estimates[0] - 2 * estimates[1]
    for actual in guided_images:
        torch.testing.assert_close(actual, expected)


def test_an_unconditional_network_needs_no_labels_unless_guided():
    network = Network()
    x_t, t = image(), torch.tensor([5, 5])

    def unconditional(x_t, t, y):
        assert y is None
        return network(x_t, t, torch.zeros_like(t))

    unguided = guided(unconditional, Guidance(), NULL, STEPS)(x_t, t, None)
    torch.testing.assert_close(unguided, unconditional(x_t, t, None))
    with pytest.raises(ValueError, match=r"scale 1.5 needs labels"):
        guided(unconditional, Guidance(scale=1.5), NULL, STEPS)(x_t, t, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": -0.5}, "at least 0, not -0.5"),
        ({"scale": float("nan")}, "at least 0, not nan"),
        ({"interval": (0.7, 0.3)}, r"not \(0.7, 0.3\)"),
        ({"interval": (-0.1, 0.3)}, r"not \(-0.1, 0.3\)"),
        ({"interval": (0.0, 1.5)}, r"not \(0.0, 1.5\)"),
        ({"channels": 0}, "at least 1 channel, not 0"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        Guidance(**settings)


def test_more_channels_than_the_image_has_are_refused():
    with pytest.raises(ValueError, match="guidance on 5 channels of an image with 4"):
        answers(500, scale=2.0, channels=5)
