"""U-ViT: published sizes, tokens that tell, long skips, any size, bad input."""

import pytest
import torch
from torch import nn

from diffussm.models.uvit import UVIT_PRESETS, UViT, UViTConfig

TINY = {
    "input_size": 8,
    "in_channels": 2,
    "num_classes": 5,
    "d_model": 16,
    "depth": 5,
    "num_heads": 2,
}
T, Y = torch.tensor([0, 999]), torch.tensor([3, 5])


def tiny(**options):
    """A small model whose weights are large enough to matter."""
    model = UViT(UViTConfig(**(TINY | options)))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize(
    ("name", "millions"), [("U-ViT-M/2", 131), ("U-ViT-L/2", 287), ("U-ViT-H/2", 501)]
)
def test_sizes_are_the_published_ones(name, millions):
    with torch.device("meta"):
        model = UViT(UViTConfig(**UVIT_PRESETS[name]))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions


def test_the_small_size_is_published_for_pixels():
    with torch.device("meta"):
        model = UViT(UViTConfig(**UVIT_PRESETS["U-ViT-S/2"], in_channels=3, num_classes=0))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 44


@pytest.mark.parametrize(
    ("options", "channels"),
    [({}, 2), ({"learned_variance": True}, 4), ({"patch_size": 1}, 2), ({"patch_size": 4}, 2)],
)
@pytest.mark.parametrize("size", [(8, 8), (8, 12), (16, 4)])
def test_any_size_that_the_patch_divides(options, channels, size):
    assert tiny(**options)(torch.randn(2, 2, *size), T, Y).shape == (2, channels, *size)


def test_what_it_is_told_matters_and_images_do_not_mix():
    model, image = tiny(), torch.randn(2, 2, 8, 8)
    answer = model(image, T, Y)
    for t, y in ((T.flip(0), Y), (T, Y.flip(0))):
        assert (model(image, t, y) - answer).abs().mean() > 1e-4
    torch.testing.assert_close(model(image[:1], T[:1], Y[:1]), answer[:1])


def test_without_classes():
    model = tiny(num_classes=0)
    assert model.pos_embed.shape == (1, 17, 16)
    model(torch.randn(2, 2, 8, 8), T)
    with pytest.raises(ValueError, match="give no labels"):
        model(torch.randn(2, 2, 8, 8), T, Y)
    with pytest.raises(ValueError, match=r"needs labels 0\.\.4"):
        tiny()(torch.randn(2, 2, 8, 8), T)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.4.*not 6"):
        tiny()(torch.randn(2, 2, 8, 8), T, torch.tensor([0, 6]))


def test_labels_are_born_as_wide_as_published():
    table = UViT(UViTConfig(**(TINY | {"num_classes": 999}))).label.table.weight
    assert table.std().item() == pytest.approx(1.0, rel=0.03)


def test_each_late_block_reads_its_mirror_image():
    """Blocks that only add their number; skips that take what was kept alone."""
    model = tiny()
    for number, block in enumerate([*model.in_blocks, *model.mid_block, *model.out_blocks]):
        for parameter in block.parameters():
            nn.init.zeros_(parameter)
        nn.init.constant_(block.mlp.fc2.bias, 10.0**number)
    seen = []
    for block in model.out_blocks:
        block.skip_linear.weight.data[:, 16:] = torch.eye(16)
        block.register_forward_hook(lambda _, inputs, x: seen.append(x))
    starts = []
    model.in_blocks[0].register_forward_hook(lambda _, inputs, x: starts.append(inputs[0]))
    model(torch.randn(2, 2, 8, 8), T, Y)
    torch.testing.assert_close(seen[0] - starts[0], torch.full_like(seen[0], 1 + 10 + 10**3))
    torch.testing.assert_close(seen[1] - starts[0], torch.full_like(seen[1], 1 + 10**4))


def test_positions_at_another_size_lie_between_the_trained_ones():
    model = tiny()
    model.pos_embed.data[:, 2:] = torch.arange(4.0).repeat_interleave(4)[:, None]  # its row
    told, rows = model._positions(8, 4).split([2, 32], dim=1)
    assert torch.equal(told, model.pos_embed[:, :2])
    down = rows.unflatten(1, (8, 4))[0, :, 0, 0]
    torch.testing.assert_close(down[1:-1], torch.arange(6) / 2 + 0.25)
    assert (down[0], down[-1]) == (0, 3)


@pytest.mark.parametrize("size", [(8, 8), (4, 12)])
def test_compiles_whole(size, unchecked_shapes):
    model, image = tiny(), torch.randn(2, 2, *size)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image, T, Y), model(image, T, Y))
    torch._dynamo.reset()


@pytest.mark.parametrize("options", [{}, {"learned_variance": True}, {"num_classes": 0}], ids=str)
def test_every_weight_learns(options):
    model = tiny(**options)
    labels = Y if model.config.num_classes else None
    model(torch.randn(2, 2, 8, 8), T, labels).square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"depth": 4}, "depth must be odd"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"num_heads": 3}, "num_heads must be at least 1 and divide"),
        ({"d_model": 15, "num_heads": 3}, "d_model must be even"),
        ({"mlp_ratio": 0}, "mlp_ratio must leave"),
        ({"num_classes": -1}, "num_classes must be 0"),
        ({"label_std": -1.0}, "label_std must be 0 or more"),
        ({"input_size": 9}, "height 9 must be a positive multiple of patch_size 2"),
    ],
)
def test_wrong_settings(option, sentence):
    with pytest.raises(ValueError, match=sentence):
        UViTConfig(**(TINY | option))
