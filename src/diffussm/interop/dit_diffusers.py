"""DiT as diffusers' DiTTransformer2DModel, and back: the same weights, the same answers.

What diffusers has otherwise: queries, keys and values are three layers, every block has embedders
of its own (here: copies), and two constants are not those of the published model,

    time frequencies    diffusers' end at 1 / 10000, the published ones a step short of it
    eps of norm3        diffusers' is 1e-5 unless told, the published one 1e-6

The second is written to a model's config, the first to none: `corrected` sets both, and is to be
called again on what `from_pretrained` has loaded. Embedders that were trained apart, as diffusers
would train them, have no place in our DiT.

Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023, and its published code.
"""

# pyright: reportPrivateImportUsage=false
from typing import Any

import torch

from diffussm.models.dit import DiT, DiTConfig
from diffussm.nn.embeddings import FREQUENCIES

EMBEDDERS = {
    "t_embedder.mlp.0": "timestep_embedder.linear_1",
    "t_embedder.mlp.2": "timestep_embedder.linear_2",
    "y_embedder.embedding_table": "class_embedder.embedding_table",
}
"""Ours, once; theirs, in each block's norm1.emb."""

OUTSIDE = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
INSIDE = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
SPLIT = ("attn1.to_q", "attn1.to_k", "attn1.to_v")
"""What attn.qkv holds one after another."""

EXPECTED = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
}
"""What the config of a DiTTransformer2DModel must say to be a DiT."""


def to_diffusers(dit: DiT) -> Any:
    """A DiTTransformer2DModel that answers as `dit` does, ready to denoise.

    Raises ValueError for what diffusers has not: blocks other than adaln-zero, no classes, images
    that are no squares, perceptrons of another width than 4.
    """
    config, (height, width) = dit.config, dit.config.size
    problems = {
        f"{config.conditioning} blocks": config.conditioning != "adaln-zero",
        "no classes": config.num_classes == 0,
        f"images of {height}x{width}": height != width,
        f"mlp_ratio {config.mlp_ratio}": config.mlp_width != 4 * config.d_model,
    }
    for what, wrong in problems.items():
        if wrong:
            raise ValueError(
                f"this DiT has {what}; that of diffusers has adaln-zero blocks, classes, square "
                "images and mlp_ratio 4"
            )
    theirs = _their_class()(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.d_model // config.num_heads,
        in_channels=config.in_channels,
        out_channels=config.in_channels * (2 if config.learned_variance else 1),
        num_layers=config.depth,
        sample_size=height,
        patch_size=config.patch_size,
        num_embeds_ada_norm=config.num_classes,
        norm_eps=1e-6,
    )
    ours, weights = dit.state_dict(), {}
    for name, places in _places(config.depth).items():
        for kind in _kinds(name):
            pieces = [ours[f"{name}.{kind}"]] * len(places)
            if name.endswith("qkv"):
                pieces = ours[f"{name}.{kind}"].chunk(3)
            for place, piece in zip(places, pieces, strict=True):
                weights[f"{place}.{kind}"] = piece
    theirs.load_state_dict(weights)
    return corrected(theirs).eval().requires_grad_(False)


def from_diffusers(model: Any) -> DiT:
    """The DiT with the weights of a DiTTransformer2DModel, ready to denoise.

    It answers as the `corrected` model does. Raises ValueError for a model of another kind or
    shape, and where its blocks' embedders differ from each other.
    """
    if not isinstance(model, _their_class()):
        raise ValueError(f"this is a {type(model).__name__}, not a DiTTransformer2DModel")
    config = _config(model)
    theirs, weights = model.state_dict(), {}
    for name, places in _places(config.depth).items():
        for kind in _kinds(name):
            pieces = [theirs[f"{place}.{kind}"] for place in places]
            if name.endswith("qkv"):
                weights[f"{name}.{kind}"] = torch.cat(pieces)
                continue
            for place, piece in zip(places, pieces, strict=True):
                if not torch.equal(piece, pieces[0]):
                    raise ValueError(
                        f"{place}.{kind} differs from that of the first block: a DiT has one "
                        "embedder for all blocks, so this model cannot be one"
                    )
            weights[f"{name}.{kind}"] = pieces[0]
    dit = DiT(config).to(next(model.parameters()).dtype)
    weights["pos_embed"] = dit.pos_embed
    dit.load_state_dict(weights)
    return dit.eval().requires_grad_(False)


def corrected(model: Any) -> Any:
    """A DiTTransformer2DModel, itself, with the constants of the published DiT."""
    from diffusers.models.embeddings import Timesteps

    for block in model.transformer_blocks:
        block.norm1.emb.time_proj = Timesteps(
            FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=0
        )
        block.norm3.eps = 1e-6
    return model


def _places(depth: int) -> dict[str, list[str]]:
    """Where each of our layers is in theirs: parts of one (qkv), or copies."""
    blocks = [f"transformer_blocks.{number}" for number in range(depth)]
    places = {ours: [theirs] for ours, theirs in OUTSIDE.items()}
    for ours, theirs in EMBEDDERS.items():
        places[ours] = [f"{block}.norm1.emb.{theirs}" for block in blocks]
    for number, block in enumerate(blocks):
        for ours, theirs in INSIDE.items():
            places[f"blocks.{number}.{ours}"] = [f"{block}.{theirs}"]
        places[f"blocks.{number}.attn.qkv"] = [f"{block}.{part}" for part in SPLIT]
    return places


def _kinds(name: str) -> tuple[str, ...]:
    return ("weight",) if name == "y_embedder.embedding_table" else ("weight", "bias")


def _config(model: Any) -> DiTConfig:
    said = model.config
    for name, value in EXPECTED.items():
        if said[name] != value:
            raise ValueError(f"{name} is {said[name]!r}: a DiT has {value!r}")
    outputs = said["out_channels"] or said["in_channels"]
    if outputs not in (said["in_channels"], 2 * said["in_channels"]):
        raise ValueError(
            f"out_channels is {outputs}: a DiT of {said['in_channels']} channels answers with as "
            "many, or twice as many"
        )
    return DiTConfig(
        input_size=said["sample_size"],
        in_channels=said["in_channels"],
        num_classes=said["num_embeds_ada_norm"],
        patch_size=said["patch_size"],
        d_model=said["num_attention_heads"] * said["attention_head_dim"],
        depth=said["num_layers"],
        num_heads=said["num_attention_heads"],
        learned_variance=outputs != said["in_channels"],
    )


def _their_class() -> Any:
    try:
        from diffusers import DiTTransformer2DModel
    except ImportError:
        raise ValueError("this needs diffusers: pip install 'diffussm[latent]'") from None
    return DiTTransformer2DModel
