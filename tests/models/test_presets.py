"""The published sizes, counted by hand and by the models themselves."""

import pytest
import torch

from diffussm.models import (
    MODELS,
    PRESETS,
    DiffuSSMConfig,
    build,
    create_model,
    model_config,
)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def by_hand(config):
    """Weights and biases of the table of the block, and of what stands around it, at M = 2."""
    d, pairs = config.d_model, config.d_state // 2
    # (inputs, outputs) of each matrix; W^up and W^down once for each of the two places
    down = (2 * d, d)
    rows = {
        "totals": [(d, 2 * d), *2 * [(2 * d, d)], *2 * [down], (d, d), (2 * d, d), (d, d)],
        "figure": [(d, d), *2 * [(d, d)], *2 * [down], (d, 2 * d), (2 * d, 2 * d), (2 * d, d)],
    }[config.matrices]
    s4d = d * (1 + 1 + 6 * pairs)  # dt and D; A, B and C, complex
    block = sum((inputs + 1) * outputs for inputs, outputs in rows) + 2 * s4d + (d + 1) * 3 * d
    embed, decode = (2 * 4 + 1) * d, (d + 1) * 2 * 8
    time, labels, final = (256 + 1) * d + (d + 1) * d, 1001 * d, (d + 1) * 2 * d
    return config.depth * block + embed + time + labels + final + decode


@pytest.mark.parametrize("matrices", ["totals", "figure"])
@pytest.mark.parametrize("name", ["DiffuSSM-S", "DiffuSSM-L", "DiffuSSM-XL"])
def test_sizes_are_those_of_the_table(name, matrices):
    with torch.device("meta"):
        model = create_model(name, matrices=matrices)
    assert parameters(model) == by_hand(model.config)


@pytest.mark.parametrize(("matrices", "count"), [("totals", 673_088_272), ("figure", 711_607_696)])
def test_xl_has_the_published_size(matrices, count):
    with torch.device("meta"):
        assert parameters(create_model("DiffuSSM-XL", matrices=matrices)) == count


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_runs(name):
    with torch.device("meta"):
        assert type(build(model_config(name, {}))) is MODELS[PRESETS[name][0]][0]
    width = (
        {"base_channels": 64, "blocks": 1}
        if PRESETS[name][0] == "U-Net"
        else {"d_model": 48, "depth": 1}
    )
    options = {"input_size": 32, "in_channels": 4, "num_classes": 10, "learned_variance": True}
    small = create_model(name, **options, **width)
    t, y = torch.tensor([0, 999]), torch.tensor([0, 10])
    assert small(torch.randn(2, 4, 32, 32), t, y).shape == (2, 8, 32, 32)


def test_published_widths_and_depths():
    sizes = {name: model_config(name, {}) for name in PRESETS if "DiffuSSM" in name}
    assert (sizes["DiffuSSM-S"].d_model, sizes["DiffuSSM-L"].d_model) == (384, 768)
    assert (sizes["DiffuSSM-XL"].d_model, sizes["DiffuSSM-XL"].depth) == (1152, 29)


def test_options_go_over_the_preset():
    config = model_config("DiffuSSM-S", {"depth": 2, "input_size": [8, 4]})
    assert config == DiffuSSMConfig(d_model=384, depth=2, input_size=(8, 4))


def test_wrong_names_get_a_sentence():
    with pytest.raises(ValueError, match="unknown model 'DifuSSM-XL'; did you mean 'DiffuSSM-XL'"):
        create_model("DifuSSM-XL")
    with pytest.raises(ValueError, match=r"unknown key 'model\.dept'; did you mean 'model\.depth'"):
        model_config("DiffuSSM-S", {"dept": 2}, "model.")
    with pytest.raises(ValueError, match="unknown model config 'dict'"):
        build({})
