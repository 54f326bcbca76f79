"""The U-Net: published size, an independent implementation, attention or none, bad input."""

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from diffussm.models.unet import UNET_PRESETS, UNet, UNetConfig
from diffussm.nn.attention import Attention

TINY = {
    "input_size": 16,
    "in_channels": 2,
    "num_classes": 5,
    "base_channels": 8,
    "multipliers": (1, 2, 2),
    "blocks": 2,
    "attention_levels": (1,),
    "head_width": 4,
    "norm_groups": 4,
}
T, Y = torch.tensor([0, 999]), torch.tensor([3, 5])


def tiny(**options):
    """A small model of which no weight is zero."""
    model = UNet(UNetConfig(**(TINY | options)))
    for parameter in model.parameters():
        if parameter.dim() == 1 or not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize(("name", "published"), [("ADM-256", 553_838_086), ("ADM-64", 295_904_454)])
def test_adm_has_the_published_size(name, published):
    with torch.device("meta"):
        model = UNet(UNetConfig(**UNET_PRESETS[name]))
    no_label = model.config.told  # our table's last row
    assert sum(p.numel() for p in model.parameters()) == published + no_label


def copied_residual(theirs, ours):
    theirs.norm1, theirs.conv1 = ours.norm_in, ours.conv_in
    theirs.time_emb_proj, theirs.norm2, theirs.conv2 = ours.modulation, ours.norm_out, ours.conv_out
    if theirs.conv_shortcut is not None:
        theirs.conv_shortcut = ours.shortcut


def copied_attention(theirs, ours):
    theirs.group_norm, theirs.to_out[0] = ours.norm, ours.attention.proj
    weights, biases = ours.attention.qkv.weight.chunk(3), ours.attention.qkv.bias.chunk(3)
    for linear, weight, bias in zip(
        (theirs.to_q, theirs.to_k, theirs.to_v), weights, biases, strict=True
    ):
        linear.weight.data, linear.bias.data = weight.data, bias.data


def as_diffusers(ours, levels):
    """The same network made of diffusers' parts, with our weights."""
    config = ours.config
    theirs = UNet2DModel(
        in_channels=config.in_channels,
        out_channels=2 * config.in_channels,
        layers_per_block=config.blocks,
        block_out_channels=tuple(config.base_channels * times for times in config.multipliers),
        down_block_types=["AttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in levels],
        up_block_types=["AttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in levels[::-1]],
        downsample_type="resnet",
        upsample_type="resnet",
        attention_head_dim=config.head_width,
        norm_num_groups=config.norm_groups,
        resnet_time_scale_shift="scale_shift",
        num_class_embeds=config.num_classes + 1,
        add_attention=any(levels),
        flip_sin_to_cos=True,
        freq_shift=0,
    )
    theirs.conv_in, theirs.conv_out, theirs.conv_norm_out = ours.enter, ours.leave, ours.norm
    theirs.time_embedding.linear_1, theirs.time_embedding.linear_2 = ours.time[0], ours.time[2]
    theirs.class_embedding = ours.label.table

    def copied(theirs, stages):
        for number, residual in enumerate(theirs.resnets):
            stage = next(stages)
            copied_residual(residual, stage.residual)
            if stage.attention is not None:
                copied_attention(theirs.attentions[number], stage.attention)

    down, up = iter(ours.down), iter(ours.up)
    for block in theirs.down_blocks:
        copied(block, down)
        for resampler in block.downsamplers or ():
            copied_residual(resampler, next(down).residual)
    copied(theirs.mid_block, iter(ours.middle))
    for block in theirs.up_blocks:
        copied(block, up)
        for resampler in block.upsamplers or ():
            copied_residual(resampler, next(up).residual)
    assert next(down, None) is None
    assert next(up, None) is None
    return theirs


@pytest.mark.parametrize("levels", [(False, True, False), (False, True, True), (False,) * 3])
def test_it_is_what_diffusers_parts_make(levels):
    attends = tuple(level for level, yes in enumerate(levels) if yes)
    ours = tiny(attention_levels=attends)
    theirs, image = as_diffusers(ours, levels), torch.randn(2, 2, 16, 8)
    torch.testing.assert_close(ours(image, T, Y), theirs(image, T, Y).sample, rtol=0, atol=1e-5)


def test_without_attention_there_is_none():
    assert any(isinstance(part, Attention) for part in tiny().modules())
    model = tiny(attention_levels=())
    assert not any(isinstance(part, Attention) for part in model.modules())
    assert model(torch.randn(2, 2, 16, 16), T, Y).shape == (2, 4, 16, 16)


@pytest.mark.parametrize("levels", [(), (1,)])
def test_heads_need_to_fit_only_where_there_is_attention(levels):
    model = tiny(multipliers=(1, 2), attention_levels=levels, base_channels=12, head_width=8)
    assert model(torch.randn(2, 2, 8, 8), T, Y).shape == (2, 4, 8, 8)


def test_heads_must_fit_in_the_middle_too():
    attends_wide_ends_narrow = {"multipliers": (2, 1), "attention_levels": (0,)}
    with pytest.raises(ValueError, match="head_width 8 must divide the 12 channels that attend"):
        tiny(**attends_wide_ends_narrow, base_channels=12, head_width=8)


def test_a_new_model_answers_0_and_its_blocks_begin_as_shortcuts():
    model, image = UNet(UNetConfig(**TINY)), torch.randn(2, 2, 16, 16)
    assert not model(image, T, Y).any()
    x, condition = torch.randn(2, 8, 4, 4), torch.randn(2, 32)
    assert torch.equal(model.down[0](x, condition), x)


@pytest.mark.parametrize("size", [(16, 16), (4, 12), (20, 8)])
@pytest.mark.parametrize("variance", [True, False])
def test_any_size_that_its_levels_halve(size, variance):
    model = tiny(learned_variance=variance)
    assert model(torch.randn(2, 2, *size), T, Y).shape == (2, 4 if variance else 2, *size)


def test_what_it_is_told_matters_and_images_do_not_mix():
    model, image = tiny(), torch.randn(2, 2, 16, 16)
    answer = model(image, T, Y)
    for t, y in ((T.flip(0), Y), (T, Y.flip(0))):
        assert (model(image, t, y) - answer).abs().mean() > 1e-3
    torch.testing.assert_close(model(image[:1], T[:1], Y[:1]), answer[:1])


@pytest.mark.parametrize("levels", [(), (1,)])
def test_compiles_whole(levels, unchecked_shapes):
    model, image = tiny(attention_levels=levels), torch.randn(2, 2, 16, 8)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image, T, Y), model(image, T, Y))
    torch._dynamo.reset()


@pytest.mark.parametrize("options", [{}, {"attention_levels": ()}, {"num_classes": 0}], ids=str)
def test_every_weight_learns(options):
    model = tiny(**options)
    labels = Y if model.config.num_classes else None
    model(torch.randn(2, 2, 16, 16), T, labels).square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"blocks": 0}, "blocks must be at least 1"),
        ({"multipliers": ()}, "multipliers must be numbers above 0"),
        ({"multipliers": (1, 0)}, "multipliers must be numbers above 0"),
        ({"base_channels": 7}, "base_channels must be even and divisible"),
        ({"base_channels": 10}, "divisible by norm_groups 4, not 10"),
        ({"attention_levels": (3,)}, r"attention_levels must lie in 0\.\.2"),
        ({"head_width": 6}, "head_width 6 must divide the 16 channels that attend"),
        ({"input_size": 18}, "height 18 must be a positive multiple of 4, which 3 levels halve"),
        ({"num_classes": -1}, "num_classes must be 0"),
        ({"label_std": -1.0}, "label_std must be 0 or more"),
    ],
)
def test_wrong_settings(option, sentence):
    with pytest.raises(ValueError, match=sentence):
        UNetConfig(**(TINY | option))


def test_wrong_images_and_labels():
    model = tiny()
    with pytest.raises(ValueError, match="width 6 must be a positive multiple of 4"):
        model(torch.randn(2, 2, 8, 6), T, Y)
    with pytest.raises(ValueError, match="needs labels"):
        model(torch.randn(2, 2, 8, 8), T)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.4.*not 6"):
        model(torch.randn(2, 2, 8, 8), T, torch.tensor([0, 6]))
    with pytest.raises(ValueError, match="give no labels"):
        tiny(num_classes=0)(torch.randn(2, 2, 8, 8), T, Y)
