"""DiffuSSM as a model of diffusers: the same parameters, the same answers, its own files."""

import dataclasses
import inspect
import json

import pytest
import torch
from safetensors.torch import load_file
from tiny import awake

from diffussm.checkpoint import save_model
from diffussm.models import DiffuSSM, DiffuSSMConfig
from diffussm.models.diffussm import CONDITIONINGS, MATRICES
from diffussm.nn.scan_order import SCANS
from diffussm.ssm.choices import SSMS
from diffussm.ssm.s4d import S4D

pytest.importorskip("diffusers")

from diffussm.interop.diffusers_folder import to_diffusers_model
from diffussm.interop.diffusers_model import DiffuSSMTransformer2DModel

SMALL = {"input_size": (8, 4), "in_channels": 2, "num_classes": 3, "d_model": 8, "depth": 2}
OPTIONS = [
    *({"ssm": ssm} for ssm in SSMS),
    *({"scan": scan} for scan in SCANS),
    *({"matrices": matrices} for matrices in MATRICES),
    *({"conditioning": conditioning} for conditioning in CONDITIONINGS),
    {"ssm": "s4", "ssm_init": "legt"},
    {"ssm": "lssl", "discretization": "zoh"},
    {"ssm_init": "legs", "discretization": "bilinear", "dt_min": 0.01, "dt_max": 1.0},
    {"num_classes": 0},
    {"bidirectional": False},
    {"learned_variance": False, "patch_size": 2, "hourglass_ratio": 1},
]


def drawn(**options):
    network = DiffuSSM(DiffuSSMConfig(**({"d_state": 4} | SMALL | options)))
    return awake(network).eval().requires_grad_(False)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_saved_and_loaded_it_is_the_same(options, tmp_path):
    ours = drawn(**options)
    to_diffusers_model(ours).save_pretrained(tmp_path)
    loaded = DiffuSSMTransformer2DModel.from_pretrained(tmp_path)
    weights = loaded.state_dict()
    assert weights.keys() == ours.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in ours.state_dict().items())
    described = json.loads((tmp_path / "config.json").read_text())
    for name, value in dataclasses.asdict(ours.config).items():
        assert described[name] == (list(value) if isinstance(value, tuple) else value), name

    x, t = torch.randn(3, 2, 8, 4), torch.tensor([0, 10, 999])
    y = torch.tensor([0, 2, 3]) if ours.config.num_classes else None
    answer = loaded.eval()(x, t, class_labels=y).sample
    assert answer.std() > 1e-3
    assert torch.equal(answer, ours(x, t, y))


def test_the_file_of_weights_is_that_of_our_model_file(tmp_path):
    from tiny import tiny_generator

    generator = tiny_generator()
    save_model(tmp_path / "model.safetensors", generator.model, generator.config)
    to_diffusers_model(generator.model).save_pretrained(tmp_path)
    ours = load_file(tmp_path / "model.safetensors")
    theirs = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_its_options_are_those_of_the_config():
    fields = {field.name: field.default for field in dataclasses.fields(DiffuSSMConfig)}
    signature = inspect.signature(DiffuSSMTransformer2DModel.__init__).parameters
    options = {name: each.default for name, each in signature.items() if name != "self"}
    assert options == fields


def test_a_wrong_option_gets_the_configs_sentence():
    with pytest.raises(ValueError, match="d_model must be divisible by 4"):
        DiffuSSMTransformer2DModel(d_model=6)
    with pytest.raises(ValueError, match="unknown ssm 's4e'; did you mean"):
        DiffuSSMTransformer2DModel(ssm="s4e")


@pytest.mark.parametrize(
    "timestep", [7, torch.tensor(7), torch.tensor([7]), torch.tensor([7, 7])], ids=str
)
def test_one_time_step_is_that_of_all_images(timestep):
    ours = drawn()
    x, labels = torch.randn(2, 2, 8, 4), torch.tensor([1, 3])
    expected = ours(x, torch.tensor([7, 7]), labels)
    model = to_diffusers_model(ours)
    (answer,) = model(x, timestep, [1, 3], return_dict=False)
    assert torch.equal(answer, expected)


def test_as_a_denoiser_it_computes_its_kernels_once(monkeypatch):
    ours, computed, true_kernel = drawn(), [], S4D.kernel

    def kernel(layer, length):
        computed.append(layer)
        return true_kernel(layer, length)

    x, t, y = torch.randn(2, 2, 8, 4), torch.tensor([7, 8]), torch.tensor([1, 3])
    expected = ours(x, t, y)
    monkeypatch.setattr(S4D, "kernel", kernel)
    denoiser = to_diffusers_model(ours).reusing_kernels()
    for _ in range(3):
        assert torch.equal(denoiser(x, t, y), expected)
    assert len(computed) == 4  # two blocks, two directions


def test_labels_where_there_are_no_classes_and_none_where_there_are():
    x = torch.randn(1, 2, 8, 4)
    with pytest.raises(ValueError, match="unconditional"):
        to_diffusers_model(drawn(num_classes=0))(x, 0, [0])
    with pytest.raises(ValueError, match="needs labels"):
        to_diffusers_model(drawn())(x, 0)


def test_its_config_makes_another():
    model = to_diffusers_model(drawn(ssm="s4"))
    assert (model.config.ssm_init, model.config.input_size) == ("legs", (8, 4))
    other = DiffuSSMTransformer2DModel.from_config(model.config)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in other.state_dict().items()} == shapes


def test_it_trains():
    model = DiffuSSMTransformer2DModel(**SMALL, d_state=4)
    model(torch.randn(2, 2, 8, 4), 5, [0, 1]).sample.square().mean().backward()
    assert model.decode.weight.grad is not None
