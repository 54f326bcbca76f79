"""DiT and diffusers' DiT hold the same weights and, once its constants are right, answer alike."""

import pytest
import torch
from torch import nn

from diffussm.models.dit import DiT, DiTConfig

dit_diffusers = pytest.importorskip("diffussm.interop.dit_diffusers")
diffusers = pytest.importorskip("diffusers")

SMALL = {"input_size": 8, "in_channels": 2, "num_classes": 5, "depth": 2, "d_model": 16}
TIMES, LABELS = torch.tensor([0, 999]), torch.tensor([3, 5])


def drawn(**options):
    """A small DiT of which no weight is zero."""
    dit = DiT(DiTConfig(**SMALL, num_heads=2, **options)).eval().requires_grad_(False)
    for parameter in dit.parameters():
        nn.init.normal_(parameter, std=0.3)
    return dit


@pytest.fixture
def image():
    return torch.randn(2, 2, 8, 8)


@pytest.mark.parametrize(
    "options", [{}, {"patch_size": 1}, {"patch_size": 4}, {"learned_variance": False}], ids=str
)
def test_there_it_answers_alike_and_back_it_is_the_same(image, options):
    dit = drawn(**options)
    theirs = dit_diffusers.to_diffusers(dit)
    expected = dit(image, TIMES, LABELS)
    assert expected.std() > 0.1
    answer = theirs(image, TIMES, LABELS).sample
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-5)
    back = dit_diffusers.from_diffusers(theirs)
    assert back.config == dit.config
    weights = back.state_dict()
    assert weights.keys() == dit.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in dit.state_dict().items())


def test_what_diffusers_saves_has_to_be_corrected_again(image, tmp_path):
    dit = drawn()
    dit_diffusers.to_diffusers(dit).save_pretrained(tmp_path)
    loaded = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path).eval().requires_grad_(False)
    assert loaded.transformer_blocks[0].norm3.eps == 1e-6  # of the two constants, this one is kept
    expected = dit(image, TIMES, LABELS)
    off = (loaded(image, TIMES, LABELS).sample - expected).flatten(1).norm(dim=1)
    off = off / expected.flatten(1).norm(dim=1)
    assert off[0] < 1e-4  # at time 0 all angles are 0
    assert 0.1 < off[1] < 1
    answer = dit_diffusers.corrected(loaded)(image, TIMES, LABELS).sample
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-5)


def test_what_the_uncorrected_constants_cost(tmp_path):
    """Over all times: 28 % with the published weights; so much with these random ones."""
    dit = drawn()
    dit_diffusers.to_diffusers(dit).save_pretrained(tmp_path)
    options = {"norm_eps": 1e-5, "low_cpu_mem_usage": False}
    plain = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path, **options).eval()
    times = torch.arange(0, 1000, 20)
    images, labels = torch.randn(len(times), 2, 8, 8), torch.zeros_like(times)
    expected = dit(images, times, labels)
    with torch.no_grad():
        off = (plain(images, times, labels).sample - expected).norm() / expected.norm()
    assert off == pytest.approx(0.83, abs=0.02)


@pytest.mark.parametrize("silent", [False, True])
def test_faint_tokens_show_the_eps_of_the_norms(silent):
    dit = drawn()
    if silent:  # then the second norm's input is as faint as the first one's
        for parameter in dit.blocks[0].attn.proj.parameters():
            parameter.zero_()
    told = (dit.t_embedder(TIMES) + dit.y_embedder(LABELS))[:, None]
    x = 1e-3 * torch.randn(2, 16, 16)  # of variance 1e-6, as eps is
    block = dit_diffusers.to_diffusers(dit).transformer_blocks[0]
    expected = block(x, timestep=TIMES, class_labels=LABELS)
    torch.testing.assert_close(dit.blocks[0](x, told), expected, rtol=1e-5, atol=1e-5)


OTHERS = {
    "adaln blocks": {"conditioning": "adaln"},
    "no classes": {"num_classes": 0},
    "images of 8x4": {"input_size": (8, 4)},
    "mlp_ratio 3": {"mlp_ratio": 3},
}


@pytest.mark.parametrize(("what", "options"), OTHERS.items())
def test_a_dit_that_diffusers_has_not(what, options):
    dit = DiT(DiTConfig(**(SMALL | {"num_heads": 2} | options)))
    with pytest.raises(ValueError, match=what):
        dit_diffusers.to_diffusers(dit)


def test_embedders_that_differ_between_blocks():
    theirs = dit_diffusers.to_diffusers(drawn())
    theirs.transformer_blocks[1].norm1.emb.class_embedder.embedding_table.weight[2, 3] += 1e-3
    with pytest.raises(ValueError, match=r"transformer_blocks\.1.*embedding_table.*one embedder"):
        dit_diffusers.from_diffusers(theirs)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"attention_bias": False}, "attention_bias is False"),
        ({"activation_fn": "geglu"}, "activation_fn is 'geglu'"),
        ({"out_channels": 3}, "out_channels is 3"),
    ],
)
def test_a_model_of_diffusers_that_is_no_dit(options, sentence):
    small = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "sample_size": 8}
    theirs = diffusers.DiTTransformer2DModel(**small, **options)
    with pytest.raises(ValueError, match=sentence):
        dit_diffusers.from_diffusers(theirs)


def test_another_model():
    with pytest.raises(ValueError, match="this is a Linear, not a DiTTransformer2DModel"):
        dit_diffusers.from_diffusers(nn.Linear(2, 2))
