"""The whole DiT: published sizes and names, birth, geometry, every conditioning, bad input."""

import re

import pytest
import torch
from torch import nn

from diffussm.models.dit import DIT_PRESETS, DiT, DiTConfig
from diffussm.models.dit_blocks import CONDITIONINGS
from diffussm.nn.embeddings import grid_positions

TINY = {
    "input_size": 8,
    "in_channels": 2,
    "num_classes": 5,
    "d_model": 16,
    "depth": 2,
    "num_heads": 2,
}
T, Y = torch.tensor([0, 999]), torch.tensor([3, 5])


def tiny(awake=True, **options):
    """A small model; awake, every weight of it is drawn anew, so that none is zero."""
    model = DiT(DiTConfig(**(TINY | options)))
    if awake:
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("DiT-S/2", 32_963_360),
        ("DiT-B/2", 130_512_416),
        ("DiT-L/2", 458_102_816),
        ("DiT-XL/2", 675_129_632),
        ("DiT-XL/4", 675_074_432),
        ("DiT-XL/8", 675_683_072),
    ],
)
def test_sizes_are_the_published_ones(name, count):
    with torch.device("meta"):
        model = DiT(DiTConfig(**DIT_PRESETS[name]))
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == count


def test_names_and_shapes_are_those_of_the_published_checkpoints():
    with torch.device("meta"):
        model = DiT(DiTConfig(**DIT_PRESETS["DiT-S/2"]))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert len(shapes) == 132
    assert sum(p.numel() for p in model.parameters()) == 32_865_056  # positions are not trained
    published = {
        "x_embedder.proj": (384, 4, 2, 2),
        "t_embedder.mlp.0": (384, 256),
        "t_embedder.mlp.2": (384, 384),
        "final_layer.linear": (32, 384),
        "final_layer.adaLN_modulation.1": (768, 384),
    }
    for i in range(12):
        published |= {
            f"blocks.{i}.attn.qkv": (1152, 384),
            f"blocks.{i}.attn.proj": (384, 384),
            f"blocks.{i}.mlp.fc1": (1536, 384),
            f"blocks.{i}.mlp.fc2": (384, 1536),
            f"blocks.{i}.adaLN_modulation.1": (2304, 384),
        }
    expected = {"pos_embed": (1, 256, 384), "y_embedder.embedding_table.weight": (1001, 384)}
    for name, shape in published.items():
        expected |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    assert shapes == expected


@pytest.mark.parametrize("name", DIT_PRESETS)
def test_every_preset_builds_and_runs(name):
    with torch.device("meta"):
        model = DiT(DiTConfig(**DIT_PRESETS[name]))
        answer = model(
            torch.empty(1, 4, 32, 32), torch.zeros(1, dtype=int), torch.zeros(1, dtype=int)
        )
    assert answer.shape == (1, 8, 32, 32)


def test_trained_positions_are_the_fixed_ones():
    torch.testing.assert_close(tiny(awake=False).pos_embed[0], grid_positions(4, 4, 16))


def test_in_context_tokens_stand_in_front_and_are_removed():
    model, image = tiny(conditioning="in-context"), torch.randn(2, 2, 8, 8)
    seen = []
    for part in (*model.blocks, model.final_layer):
        part.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    model(image, T, Y)
    assert [x.shape[1] for x in seen] == [18, 18, 16]
    told = torch.stack([model.t_embedder(T), model.y_embedder(Y)], dim=1)
    assert torch.equal(seen[0][:, :2], told)
    after = model.blocks[1](seen[1], told)
    torch.testing.assert_close(seen[2], after[:, 2:])


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_a_new_model_answers_zero(conditioning):
    model = tiny(awake=False, conditioning=conditioning)
    assert torch.equal(model(torch.randn(2, 2, 8, 8), T, Y), torch.zeros(2, 4, 8, 8))


def test_a_new_adaln_zero_block_changes_nothing():
    x, told = torch.randn(2, 16, 16), torch.randn(2, 1, 16)
    for block in tiny(awake=False).blocks:
        assert torch.equal(block(x, told), x)
    for block in tiny(awake=False, conditioning="adaln").blocks:
        assert not torch.allclose(block(x, told), block(x, torch.zeros_like(told)))


def test_initial_values_have_their_spread():
    model = DiT(DiTConfig(depth=1, d_model=256, num_heads=4, label_std=0.5))
    spread = {
        "x_embedder.proj.weight": (2 / (4 * 4 + 256)) ** 0.5,  # Xavier of the flattened squares
        "t_embedder.mlp.0.weight": 0.02,
        "t_embedder.mlp.2.weight": 0.02,
        "y_embedder.embedding_table.weight": 0.5,
        "blocks.0.attn.qkv.weight": (2 / (256 + 768)) ** 0.5,
        "blocks.0.mlp.fc1.weight": (2 / (256 + 1024)) ** 0.5,
    }
    weights = model.state_dict()
    for name, expected in spread.items():
        assert weights[name].std().item() == pytest.approx(expected, rel=0.05), name
    assert not any(weights[name].any() for name in weights if name.endswith("bias"))


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("num_classes", [0, 5])
def test_every_conditioning_is_trained_through_and_through(conditioning, num_classes):
    model = tiny(conditioning=conditioning, num_classes=num_classes)
    with torch.autocast("cpu", torch.bfloat16):
        answer = model(torch.randn(2, 2, 8, 8), T, Y if num_classes else None)
        answer.float().square().mean().backward()
    # who reads a sequence of one has nothing to choose: its queries do not matter
    idle = () if num_classes else ("norm_cross", "cross_attn.q.")
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or any(part in name for part in idle), name


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_time_and_label_matter(conditioning):
    model, image = tiny(conditioning=conditioning), torch.randn(2, 2, 8, 8)
    answers = [model(image, T, Y), model(image, T + 1, Y), model(image, T, Y - 1)]
    for i in range(3):
        assert not torch.allclose(answers[i], answers[i - 1], rtol=1e-3)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("size", [(8, 8), (2, 2), (4, 16), (6, 10)], ids=str)
def test_one_set_of_weights_takes_any_size(conditioning, size):
    model, image = tiny(conditioning=conditioning), torch.randn(2, 2, *size)
    answer = model(image, T, Y)
    assert answer.shape == (2, 4, *size)
    alone = torch.cat([model(image[i : i + 1], T[i : i + 1], Y[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(answer, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (4, 16)], ids=str)
def test_weights_do_not_depend_on_the_size_trained_on(size):
    # (4, 16) has as many tokens as (8, 8), in another grid
    here, elsewhere = tiny(input_size=size), tiny(input_size=(2, 6))
    elsewhere.load_state_dict(
        {name: tensor for name, tensor in here.state_dict().items() if name != "pos_embed"},
        strict=False,
    )
    image = torch.randn(2, 2, 4, 16)
    torch.testing.assert_close(here(image, T, Y), elsewhere(image, T, Y))


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_every_pixel_returns_to_its_place(patch):
    # Tokens hold their pixels and the negatives of these. Pixels are +-1, so that the norm leaves
    # them alone, and large enough in the stream to drown the positions.
    pixels = 2 * patch**2
    model = tiny(awake=False, patch_size=patch, d_model=2 * pixels)
    identity = torch.eye(pixels)
    with torch.no_grad():
        squares = torch.cat([identity, -identity]).reshape(-1, 2, patch, patch)
        model.x_embedder.proj.weight.copy_(1e6 * squares)
        noise = identity.reshape(2, patch, patch, pixels)
        rows = torch.cat([noise, -2 * noise]).permute(1, 2, 0, 3).flatten(0, 2)  # places, channels
        model.final_layer.linear.weight.copy_(torch.cat([rows, torch.zeros_like(rows)], dim=1))
    image = torch.randn(2, 2, 8, 16).sign()
    expected = torch.cat([image, -2 * image], dim=1)
    torch.testing.assert_close(model(image, T, Y), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_embedding_patches_is_the_convolution_it_is_named_after(patch):
    embed, image = tiny(patch_size=patch).x_embedder, torch.randn(2, 2, 8, 12)
    expected = embed.proj(image).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(image), expected)


def test_without_learned_variance_there_are_as_many_channels():
    assert tiny(learned_variance=False)(torch.randn(2, 2, 8, 8), T, Y).shape == (2, 2, 8, 8)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_unconditional(conditioning):
    model, image = tiny(num_classes=0, conditioning=conditioning), torch.randn(2, 2, 8, 8)
    assert not any("y_embedder" in name for name in model.state_dict())
    assert model(image, T).shape == (2, 4, 8, 8)
    assert not torch.allclose(model(image, T), model(image, T + 1), rtol=1e-3)
    with pytest.raises(ValueError, match=r"unconditional .*give no labels"):
        model(image, T, Y)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_autocast_changes_little_and_the_stream_stays_float32(conditioning):
    model, image = tiny(conditioning=conditioning), torch.randn(2, 2, 8, 8)
    exact = model(image, T, Y)
    model.final_layer.register_forward_pre_hook(lambda _, inputs: dtypes.append(inputs[0].dtype))
    dtypes = []
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(image, T, Y)
    assert dtypes == [torch.float32]
    assert (rough.float() - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_compiles_whole(conditioning, unchecked_shapes):
    model, image = tiny(conditioning=conditioning), torch.randn(2, 2, 8, 8)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image, T, Y), model(image, T, Y))
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"input_size": 7}, "height 7 must be a positive multiple of patch_size 2"),
        ({"input_size": (8, 6), "patch_size": 4}, "width 6 must be a positive multiple"),
        ({"input_size": 0}, "height 0 must be a positive multiple"),
        ({"d_model": 18}, "d_model must be divisible by 4 .* not 18"),
        ({"num_heads": 3}, "num_heads must be at least 1 and divide the width 16, not 3"),
        ({"depth": 0}, "depth must be at least 1, not 0"),
        ({"patch_size": 0}, "patch_size must be at least 1, not 0"),
        ({"num_classes": -1}, "num_classes must be 0 .* or more, not -1"),
        ({"mlp_ratio": 0.01}, "mlp_ratio must leave .* at least one unit, not 0.01"),
        ({"label_std": -1.0}, "label_std must be 0 or more, not -1.0"),
        ({"conditioning": "adaln-one"}, "conditioning 'adaln-one'; did you mean 'adaln-zero'"),
    ],
    ids=str,
)
def test_wrong_options_get_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny(**options)


def test_wrong_input_gets_a_sentence():
    model, image = tiny(), torch.randn(2, 2, 8, 8)
    with pytest.raises(ValueError, match="width 7 must be a positive multiple of patch_size 2"):
        model(image[..., :7], T, Y)
    with pytest.raises(ValueError, match=re.escape("needs labels 0..4 (5 for no label)")):
        model(image, T)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.4, or be 5 for no label, not 6"):
        model(image, T, Y + 1)
