"""Images to features: the same numbers however the images come."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffussm.evaluation.features import BLOCK, blocks, extract, merge, numbers_of


class Network:
    """Features that tell which images were seen together: what a network must not be judged by."""

    name, identity = "mixer", "0" * 64

    def __init__(self):
        self.spaces = {"pixel": 2, "block": 1}
        self.seen = []

    def __call__(self, images):
        self.seen.append(len(images))
        x = images.float().flatten(1)
        return {"pixel": x[:, :2] / 255, "block": (x[:, :1] * x.sum()).double()}


def pictures(count, channels=1):
    return torch.randint(0, 256, (count, channels, 4, 4), dtype=torch.uint8)


def cut(images, sizes):
    """The stream of `images` in batches of `sizes`, over and over."""
    batches, start = [], 0
    while start < len(images):
        size = sizes[len(batches) % len(sizes)]
        batches.append(images[start : start + size])
        start += size
    return batches


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 3 * BLOCK + 1),
    sizes=st.lists(st.integers(0, 2 * BLOCK), max_size=4).map(lambda sizes: [*sizes, 7]),
)
def test_features_are_the_same_to_the_bit_for_any_batches(count, sizes):
    images = pictures(count)
    network = Network()
    whole, parts = extract(network, [images]), extract(network, iter(cut(images, sizes)))
    assert all(torch.equal(whole[space], parts[space]) for space in network.spaces)
    assert torch.equal(whole["pixel"], images.flatten(1)[:, :2] / 255)
    full, rest = divmod(count, BLOCK)
    assert network.seen == 2 * ([BLOCK] * full + [rest] * (rest > 0))


def test_where_an_image_lies_in_memory_does_not_matter():
    # arrays with channels last are seen as channels first without a copy
    images = pictures(BLOCK + 3, channels=3)
    turned = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert all(block.is_contiguous() for block in blocks([turned]))
    assert all(torch.equal(a, b) for a, b in zip(blocks([turned]), blocks([images]), strict=True))


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, BLOCK, BLOCK + 1, 4 * BLOCK, 5 * BLOCK - 1])
def test_ranks_together_give_what_one_process_gives(ranks, count):
    images, network, parts = pictures(count), Network(), []
    owned = [numbers_of(rank, ranks, count) for rank in range(ranks)]
    assert sorted(n for ranges in owned for numbers in ranges for n in numbers) == [*range(count)]
    for ranges in owned:
        own = [images[number][None] for numbers in ranges for number in numbers]
        parts.append(extract(network, own) if own else {})
    whole, merged = extract(network, [images]), merge(parts, count)
    assert whole.keys() == merged.keys()
    assert all(torch.equal(whole[space], merged[space]) for space in whole)


def test_features_are_float32_and_need_no_gradient():
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)

    class Trained(Network):
        def __call__(self, images):
            return {space: x * weight[:1] for space, x in super().__call__(images).items()}

    for features in extract(Trained(), [pictures(3)]).values():
        assert features.dtype == torch.float32
        assert not features.requires_grad


@pytest.mark.usefixtures("unchecked_shapes")
class TestBadInput:
    @pytest.mark.parametrize("images", [[], [pictures(0)], [pictures(0), pictures(0)]])
    def test_no_images(self, images):
        with pytest.raises(ValueError, match="no images"):
            extract(Network(), images)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.int8])
    def test_other_types_than_bytes(self, dtype):
        with pytest.raises(ValueError, match=f"uint8.*not {dtype}.*to_uint8"):
            extract(Network(), [pictures(3).to(dtype)])

    def test_arrays(self):
        with pytest.raises(ValueError, match="must be tensors of bytes"):
            extract(Network(), [[1, 2, 3]])

    def test_other_axes(self):
        with pytest.raises(ValueError, match=r"\(batch, channels, height, width\), not \(4, 4\)"):
            extract(Network(), [pictures(1)[0, 0]])

    def test_two_sizes(self):
        with pytest.raises(ValueError, match=r"\(3, 4, 4\) follow images of \(1, 4, 4\)"):
            extract(Network(), [pictures(BLOCK), pictures(1, channels=3)])

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf])
    def test_features_that_are_not_finite(self, bad):
        class Broken(Network):
            def __call__(self, images):
                features = super().__call__(images)
                features["pixel"][images[:, 0, 0, 0] == 7, 1] = bad
                return features

        images = pictures(2 * BLOCK).clamp(min=8)
        images[BLOCK + 5, 0, 0, 0] = 7
        with pytest.raises(ValueError, match=f"mixer gave NaN .* 'pixel' of image {BLOCK + 5}"):
            extract(Broken(), [images])

    def test_a_network_of_other_widths_than_it_says(self):
        network = Network()
        network.spaces = {"pixel": 3}
        with pytest.raises(ValueError, match=r"gave \(2, 2\) numbers as 'pixel'.*not \(2, 3\)"):
            extract(network, [pictures(2)])
