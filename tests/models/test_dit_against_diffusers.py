"""DiT is diffusers' own, once two of its constants are those of the published model.

diffusers' time frequencies end at 1 / 10000 (published: one step short of it), and the second norm
of its blocks has eps 1e-5 (published: 1e-6).
"""

import pytest
import torch
from diffusers import DiTTransformer2DModel
from diffusers.models.embeddings import Timesteps
from torch import nn

from diffussm.models.dit import DiT, DiTConfig

TIMES, LABELS = torch.tensor([0, 999]), torch.tensor([3, 5])


def drawn(patch=2):
    """A small DiT of which no weight is zero."""
    options = {"input_size": 8, "in_channels": 2, "num_classes": 5, "depth": 2}
    config = DiTConfig(**options, d_model=16, num_heads=2, patch_size=patch)
    model = DiT(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def corrected(theirs):
    """diffusers' DiT with the constants of the published one."""
    for block in theirs.transformer_blocks:
        block.norm1.emb.time_proj = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)
        block.norm3.eps = 1e-6
    return theirs


def in_diffusers(model):
    """diffusers' DiT, as it comes, with our weights; it embeds the condition in every block."""
    config = model.config
    theirs = DiTTransformer2DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.d_model // config.num_heads,
        in_channels=config.in_channels,
        out_channels=2 * config.in_channels,
        num_layers=config.depth,
        sample_size=config.size[0],
        patch_size=config.patch_size,
        num_embeds_ada_norm=config.num_classes,
    )
    names = {
        "x_embedder.proj": "pos_embed.proj",
        "final_layer.adaLN_modulation.1": "proj_out_1",
        "final_layer.linear": "proj_out_2",
    }
    for i in range(config.depth):
        ours, block = f"blocks.{i}", f"transformer_blocks.{i}"
        names |= {
            f"{ours}.adaLN_modulation.1": f"{block}.norm1.linear",
            f"{ours}.attn.proj": f"{block}.attn1.to_out.0",
            f"{ours}.mlp.fc1": f"{block}.ff.net.0.proj",
            f"{ours}.mlp.fc2": f"{block}.ff.net.2",
        }
    weights = {}
    for name, tensor in model.state_dict().items():
        stem, _, kind = name.rpartition(".")
        if stem in names:
            weights[f"{names[stem]}.{kind}"] = tensor
        elif stem.endswith("attn.qkv"):
            block = stem.removesuffix("attn.qkv").replace("blocks", "transformer_blocks")
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                weights[f"{block}attn1.to_{letter}.{kind}"] = part
        for i in range(config.depth):
            embedders = f"transformer_blocks.{i}.norm1.emb"
            for ours, other in (
                ("t_embedder.mlp.0", "timestep_embedder.linear_1"),
                ("t_embedder.mlp.2", "timestep_embedder.linear_2"),
                ("y_embedder", "class_embedder"),
            ):
                if name.startswith(ours):
                    weights[name.replace(ours, f"{embedders}.{other}")] = tensor
    theirs.load_state_dict(weights)
    return theirs.eval().requires_grad_(False)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_equals_diffusers_with_the_published_constants(patch):
    model, image = drawn(patch), torch.randn(2, 2, 8, 8)
    expected = corrected(in_diffusers(model))(image, TIMES, LABELS).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(model(image, TIMES, LABELS), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("silent", [False, True])
def test_faint_tokens_show_the_eps_of_the_norms(silent):
    model = drawn()
    if silent:  # then the second norm's input is as faint as the first one's
        for parameter in model.blocks[0].attn.proj.parameters():
            parameter.zero_()
    told = (model.t_embedder(TIMES) + model.y_embedder(LABELS))[:, None]
    x = 1e-3 * torch.randn(2, 16, 16)  # of variance 1e-6, as eps is
    times = {"timestep": TIMES, "class_labels": LABELS}
    expected = corrected(in_diffusers(model)).transformer_blocks[0](x, **times)
    torch.testing.assert_close(model.blocks[0](x, told), expected, rtol=1e-5, atol=1e-5)


def test_uncorrected_time_frequencies_matter_but_at_time_0():
    model, image = drawn(), torch.randn(2, 2, 8, 8)
    ours, theirs = model(image, TIMES, LABELS), in_diffusers(model)(image, TIMES, LABELS).sample
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-3, atol=1e-3)
    assert (ours[1] - theirs[1]).norm() > 0.1 * ours[1].norm()
