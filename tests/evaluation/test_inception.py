"""Inception-v3 against its published sizes, and its peculiarities against plain loops."""

import math

import pytest
import torch

from diffussm.evaluation.features import FeatureNetwork, extract
from diffussm.evaluation.inception import Inception, resize
from diffussm.evaluation.inception_blocks import Conv, max_pool, mean_pool

CONVOLUTIONS = {
    # inputs and outputs, height and width of the kernel
    "Conv2d_1a_3x3": (32, 3, 3, 3),
    "Conv2d_2a_3x3": (32, 32, 3, 3),
    "Conv2d_2b_3x3": (64, 32, 3, 3),
    "Conv2d_3b_1x1": (80, 64, 1, 1),
    "Conv2d_4a_3x3": (192, 80, 3, 3),
    "Mixed_5b.branch1x1": (64, 192, 1, 1),
    "Mixed_5b.branch5x5_1": (48, 192, 1, 1),
    "Mixed_5b.branch5x5_2": (64, 48, 5, 5),
    "Mixed_5b.branch3x3dbl_2": (96, 64, 3, 3),
    "Mixed_5b.branch3x3dbl_3": (96, 96, 3, 3),
    "Mixed_5b.branch_pool": (32, 192, 1, 1),
    "Mixed_5c.branch_pool": (64, 256, 1, 1),
    "Mixed_5d.branch_pool": (64, 288, 1, 1),
    "Mixed_6a.branch3x3": (384, 288, 3, 3),
    "Mixed_6a.branch3x3dbl_3": (96, 96, 3, 3),
    "Mixed_6b.branch7x7_2": (128, 128, 1, 7),
    "Mixed_6b.branch7x7_3": (192, 128, 7, 1),
    "Mixed_6c.branch7x7dbl_2": (160, 160, 7, 1),
    "Mixed_6d.branch1x1": (192, 768, 1, 1),
    "Mixed_6e.branch7x7dbl_5": (192, 192, 1, 7),
    "Mixed_7a.branch3x3_2": (320, 192, 3, 3),
    "Mixed_7a.branch7x7x3_4": (192, 192, 3, 3),
    "Mixed_7b.branch1x1": (320, 1280, 1, 1),
    "Mixed_7b.branch3x3_2a": (384, 384, 1, 3),
    "Mixed_7c.branch3x3_2b": (384, 384, 3, 1),
    "Mixed_7c.branch3x3dbl_1": (448, 2048, 1, 1),
    "Mixed_7c.branch3x3dbl_3b": (384, 384, 3, 1),
    "Mixed_7c.branch_pool": (192, 2048, 1, 1),
}

MAPS = {
    # channels and side of what the parts give; table 1 of the paper for the sides
    "Conv2d_1a_3x3": (32, 149),
    "Conv2d_2a_3x3": (32, 147),
    "Conv2d_2b_3x3": (64, 147),
    "Conv2d_3b_1x1": (80, 73),
    "Conv2d_4a_3x3": (192, 71),
    "Mixed_5b": (256, 35),
    "Mixed_5d": (288, 35),
    "Mixed_6a": (768, 17),
    "Mixed_6e": (768, 17),
    "Mixed_7a": (1280, 8),
    "Mixed_7b": (2048, 8),
    "Mixed_7c": (2048, 8),
}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = Inception("0" * 64).eval().requires_grad_(False)
    for part in network.modules():
        if isinstance(part, Conv):  # else signals die out on the way
            torch.nn.init.kaiming_normal_(part.conv.weight, nonlinearity="relu")
    return network


@pytest.fixture(scope="module")
def run(network):
    """What every part took and gave, for two images."""
    seen = {}

    def watch(module, taken, given, name):
        seen[name] = (taken[0], given)

    hooks = [
        part.register_forward_hook(lambda *all, name=name: watch(*all, name))
        for name, part in network.named_modules()
    ]
    images = torch.randint(0, 256, (2, 3, 40, 64), dtype=torch.uint8)
    images[0, :, 20:], images[1, :, 20:] = 128, 0
    seen["images"], seen["features"] = images, extract(network, [images])
    for hook in hooks:
        hook.remove()
    return seen


def test_parameters(network):
    # published for 1000 classes: 27,161,264 with auxiliary logits, which are two convolutions with
    # normalisation and a linear layer
    auxiliary = (768 * 128 + 2 * 128) + (128 * 768 * 25 + 2 * 768) + 769 * 1000
    # and 23,817,352 where normalisation has no scale
    scales = sum(part.bn.weight.numel() for part in network.modules() if isinstance(part, Conv))
    eight_more_classes = 8 * 2049
    found = sum(weight.numel() for weight in network.parameters())
    assert found == 27_161_264 - auxiliary + eight_more_classes
    assert found == 23_817_352 + scales + eight_more_classes


def test_names_and_shapes_of_weights(network):
    weights = network.state_dict()
    for name, shape in CONVOLUTIONS.items():
        assert weights[f"{name}.conv.weight"].shape == shape, name
        for part in ("weight", "bias", "running_mean", "running_var"):
            assert weights[f"{name}.bn.{part}"].shape == shape[:1], name
        assert f"{name}.conv.bias" not in weights
    assert weights["fc.weight"].shape == (1008, 2048)
    assert weights["fc.bias"].shape == (1008,)
    assert sum(name.endswith("conv.weight") for name in weights) == 94


def test_sizes_of_maps(run):
    for name, (channels, side) in MAPS.items():
        assert run[name][1].shape == (2, channels, side, side), name


def test_pixels_are_scaled_about_128(run):
    taken, _ = run["Conv2d_1a_3x3"]
    assert taken.shape == (2, 3, 299, 299)
    assert (taken[0, :, 160:] == 0).all()
    assert (taken[1, :, 160:] == -1).all()
    assert taken[1, :, 0, 0].tolist() == ((run["images"][1, :, 0, 0].float() - 128) / 128).tolist()


def test_features_are_means_and_a_corner_of_channels(run, network):
    features = run["features"]
    assert {space: x.shape[1] for space, x in features.items()} == network.spaces
    last = run["Mixed_7c"][1]
    torch.testing.assert_close(features["pool"], last.flatten(2).mean(2))
    branch = run["Mixed_6d.branch1x1"][1]
    spatial = features["spatial"].view(2, 17, 17, 7)
    for channel in range(7):
        assert torch.equal(spatial[..., channel], branch[:, channel])
    assert (features["pool"].diff(dim=0) != 0).float().mean() > 0.5  # two images, two answers


def test_logits_with_and_without_their_bias(run, network, monkeypatch):
    pool, logits = run["features"]["pool"], run["features"]["logits"]
    torch.testing.assert_close(logits, pool @ network.fc.weight.T + network.fc.bias)
    monkeypatch.setattr(network, "biased", False)
    found = extract(network, [run["images"]])
    assert torch.equal(found["pool"], pool)
    torch.testing.assert_close(found["logits"], pool @ network.fc.weight.T)


def test_branches_are_joined_in_the_published_order(run):
    orders = {
        "Mixed_5b": ["branch1x1", "branch5x5_2", "branch3x3dbl_3", "branch_pool"],
        "Mixed_6a": ["branch3x3", "branch3x3dbl_3", None],
        "Mixed_6d": ["branch1x1", "branch7x7_3", "branch7x7dbl_5", "branch_pool"],
        "Mixed_7a": ["branch3x3_2", "branch7x7x3_4", None],
        "Mixed_7c": [
            "branch1x1",
            "branch3x3_2a",
            "branch3x3_2b",
            "branch3x3dbl_3a",
            "branch3x3dbl_3b",
            "branch_pool",
        ],
    }
    for block, branches in orders.items():
        taken, given = run[block]
        strided = torch.nn.functional.max_pool2d(taken, 3, 2)
        parts = [run[f"{block}.{name}"][1] if name else strided for name in branches]
        assert torch.equal(given, torch.cat(parts, 1)), block


def test_which_pooling_each_block_has(run):
    for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b", "7c"):
        block = f"Mixed_{name}"
        pooled = run[f"{block}.branch_pool"][0]
        pool = max_pool if name == "7c" else mean_pool
        assert torch.equal(pooled, pool(run[block][0])), block


def test_mean_pooling_does_not_count_what_lies_outside():
    x = torch.rand(2, 3, 5, 4)
    for row in range(5):
        for column in range(4):
            window = x[:, :, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            found = mean_pool(x)[:, :, row, column]
            torch.testing.assert_close(found, window.flatten(2).mean(2))


def test_normalisation_adds_a_thousandth_to_the_variance():
    conv = Conv(1, 1, (1, 1)).eval()
    conv.bn.running_var.fill_(0.008)
    weight = conv.conv.weight.item()
    x = torch.rand(1, 1, 3, 3) * math.copysign(1, weight)
    torch.testing.assert_close(conv(x), x * weight / math.sqrt(0.009))
    assert (conv(-x) == 0).all()


def test_grey_images_are_repeated(network):
    grey = torch.randint(0, 256, (1, 1, 8, 8), dtype=torch.uint8)
    one, three = extract(network, [grey]), extract(network, [grey.repeat(1, 3, 1, 1)])
    assert all(torch.equal(one[space], three[space]) for space in one)


def test_other_channels(network):
    with pytest.raises(ValueError, match=r"3 channels, or of 1 \(grey\), not of 4"):
        network(torch.zeros(1, 4, 8, 8, dtype=torch.uint8))


def test_it_is_a_feature_network(network):
    assert isinstance(network, FeatureNetwork)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 31), (40, 17), (13, 1)])
def test_resizing_against_a_loop(height, width):
    # TensorFlow 1: from the upper left corner, the last row and column repeated
    images, side = torch.randint(0, 256, (1, 1, height, width)).float(), 13
    found = resize(images, side)
    v = images[0, 0].tolist()
    for i in range(side):
        for j in range(side):
            y, x = i * height / side, j * width / side
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = v[top][left] * (1 - (x - left)) + v[top][right] * (x - left)
            lower = v[bottom][left] * (1 - (x - left)) + v[bottom][right] * (x - left)
            expected = upper * (1 - (y - top)) + lower * (y - top)
            assert found[0, 0, i, j].item() == pytest.approx(expected, abs=2e-3)


def test_resizing_to_the_same_size_changes_nothing():
    images = torch.rand(2, 3, 299, 299)
    assert torch.equal(resize(images, 299), images)


def test_resizing_by_whole_numbers_repeats_and_skips():
    images = torch.rand(1, 1, 6, 6)
    assert torch.equal(resize(images, 12)[:, :, ::2, ::2], images)
    assert torch.equal(resize(images, 3), images[:, :, ::2, ::2])
