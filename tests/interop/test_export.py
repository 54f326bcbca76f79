"""Exported programs answer as the network does, without it and without this package."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import awake

from diffussm.interop.export import export_onnx, export_program
from diffussm.interop.plain_layers import FixedConvolution, plain, plain_selective_scan
from diffussm.models import DiffuSSMConfig, build
from diffussm.models.dit import DiTConfig
from diffussm.models.dit_blocks import CONDITIONINGS
from diffussm.models.unet import UNetConfig
from diffussm.models.uvissm import UViSSMConfig
from diffussm.models.uvit import UViTConfig
from diffussm.nn.scan_order import SCANS
from diffussm.ops.selective_scan import selective_scan
from diffussm.ssm.bidirectional import Bidirectional
from diffussm.ssm.choices import SSMS
from diffussm.ssm.layer import resample
from diffussm.ssm.s4d import S4D

onnxruntime = pytest.importorskip("onnxruntime")

EXPORTERS = {".pt2": export_program, ".onnx": export_onnx}

EXACT = 1e-5
"""Largest difference, relative to the largest value."""


def export(model, path, **options):
    EXPORTERS[path.suffix](model, path, **options)


def diffussm(**options):
    defaults = {"input_size": (4, 6), "in_channels": 2, "num_classes": 3, "d_model": 8, "depth": 2}
    return network(DiffuSSMConfig(**(defaults | {"d_state": 4, "label_std": 1.0} | options)))


def dit(**options):
    defaults = {"input_size": 4, "in_channels": 2, "num_classes": 3, "d_model": 8, "num_heads": 2}
    return network(DiTConfig(**(defaults | {"depth": 2, "label_std": 1.0} | options)))


def network(config):
    return awake(build(config)).eval().requires_grad_(False)


def questions(model, batch, size=None):
    height, width = size or model.config.size
    inputs = [torch.randn(batch, model.config.in_channels, height, width)]
    inputs.append(torch.randint(1000, (batch,)))
    if model.config.num_classes:
        inputs.append(torch.randint(model.config.num_classes + 1, (batch,)))
    return inputs


def run(path):
    """The program of a file as a function of tensors."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["prediction"]
    names = [value.name for value in session.get_inputs()]
    assert names == ["x_t", "t", "y"][: len(names)]

    def answer(*inputs):
        values = [value.numpy() for value in inputs]
        return torch.from_numpy(session.run(None, dict(zip(names, values, strict=True)))[0])

    return answer


def difference(actual, expected):
    assert actual.shape == expected.shape
    assert expected.abs().max() > 0.1
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def check(model, path, batches=(1,), size=None, batch: int | None = 1):
    before = [parameter.clone() for parameter in model.parameters()]
    export(model, path, size=size, batch=batch)
    program = run(path)
    for count in batches:
        inputs = questions(model, count, size)
        assert difference(program(*inputs), model(*inputs)) < EXACT
    assert all(map(torch.equal, before, model.parameters()))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.fixture(params=EXPORTERS)
def path(request, tmp_path):
    return tmp_path / f"program{request.param}"


@pytest.mark.slow
@pytest.mark.parametrize("ssm", SSMS)
@pytest.mark.parametrize("scan", SCANS)
def test_every_layer_and_order(path, ssm, scan):
    check(diffussm(ssm=ssm, scan=scan), path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": 0},
        {"learned_variance": False},
        {"hourglass_ratio": 1},
        {"patch_size": 2, "input_size": (4, 8), "scan": "alternating"},
        {"bidirectional": False, "scan": "alternating"},
        {"matrices": "figure", "discretization": "bilinear"},
    ],
    ids=str,
)
def test_every_shape_of_a_diffussm(path, options):
    check(diffussm(**options), path)


@pytest.mark.parametrize(
    "config",
    [
        UViTConfig(input_size=4, num_classes=3, d_model=16, depth=3, num_heads=2),
        UViSSMConfig(input_size=4, num_classes=3, d_model=8, depth=3, d_state=4),
        UNetConfig(
            input_size=4, num_classes=3, base_channels=8, multipliers=(1, 2), blocks=1,
            attention_levels=(1,), head_width=8, norm_groups=4,
        ),
    ],
    ids=lambda config: type(config).__name__,
)  # fmt: skip
def test_every_other_model(path, config):
    check(awake(build(config)).eval(), path)


@pytest.mark.slow
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_every_dit(path, conditioning):
    check(dit(conditioning=conditioning), path)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"num_classes": 0}, {"learned_variance": False}], ids=str)
def test_dit_without(path, options):
    check(dit(**options), path)


@pytest.mark.parametrize(
    "model",
    [
        lambda: diffussm(scan="alternating"),
        lambda: diffussm(ssm="mamba", input_size=(2, 4), depth=1),
        lambda: diffussm(num_classes=0, patch_size=2, hourglass_ratio=1, input_size=4),
        dit,
        lambda: dit(conditioning="in-context"),
    ],
    ids=["diffussm", "mamba", "unconditional", "dit", "in-context"],
)
def test_any_number_of_images(path, model):
    check(model(), path, batches=(1, 2, 5), batch=None)


def test_a_batch_and_a_size_of_its_own(path):
    check(diffussm(), path, batches=(3,), batch=3, size=(6, 8))
    path.unlink()
    check(dit(), path, batches=(3,), batch=3, size=(4, 8))


def test_at_another_rate(path):
    model = diffussm()
    inputs = questions(model, 1)
    usual = model(*inputs)
    resample(model, 0.5)
    assert difference(model(*inputs), usual) > 100 * EXACT
    check(model, path)


def test_a_program_runs_without_this_package(path, tmp_path):
    model = diffussm(scan="alternating")
    export(model, path)
    inputs = questions(model, 1)
    names = ["x_t", "t", "y"]
    arrays = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    np.savez(tmp_path / "inputs.npz", **arrays)
    programs = {
        ".pt2": "import torch; program = torch.export.load(path).module(); "
        "y = program(*(torch.from_numpy(inputs[name]) for name in names)).numpy()",
        ".onnx": "import onnxruntime; y = onnxruntime.InferenceSession(path).run("
        "['prediction'], {name: inputs[name] for name in names})[0]",
    }
    code = (
        "import sys, numpy as np\n"
        "sys.modules['diffussm'] = None\n"  # whatever imports it fails
        f"path, names, folder = {str(path)!r}, {names}, {str(tmp_path)!r}\n"
        "inputs = np.load(folder + '/inputs.npz')\n"
        f"{programs[path.suffix]}\n"
        "np.save(folder + '/y.npy', y)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert difference(torch.from_numpy(np.load(tmp_path / "y.npy")), model(*inputs)) < EXACT


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(
    ("length", "rows"), [(1, 1), (2, 1), (7, 1), (12, 3), (12, 12), (64, 8), (4096, 1)]
)
def test_the_products_are_the_convolution(length, rows, directions):
    layers = [S4D(3, d_state=8) for _ in range(directions)]
    whole = layers[0] if directions == 1 else Bidirectional(*layers)
    u = torch.randn(2, length, 3)
    with torch.no_grad():
        assert difference(FixedConvolution(layers, length)(u, rows), whole(u, rows)) < 1e-6


@pytest.mark.parametrize("length", [1, 2, 7, 36, 60])
def test_the_chunks_are_the_scan(length):
    u, B, C = torch.randn(2, length, 3), torch.randn(2, length, 4), torch.randn(2, length, 4)
    # so large a step that a chunk forgets everything, and none at all
    dt, A = torch.rand(2, length, 3) * torch.tensor([0.0, 1.0, 1e4]), -torch.rand(3, 4)
    inputs = [x.double() for x in (u, dt, A, B, C)]
    torch.testing.assert_close(plain_selective_scan(*inputs), selective_scan(*inputs))


def test_a_plain_network_keeps_nothing_of_its_kernels_parameters():
    model = diffussm()
    copy = plain(model, *questions(model, 1))
    assert not any(isinstance(module, S4D) for module in copy.modules())
    assert any(isinstance(module, S4D) for module in model.modules())


def test_large_weights_lie_beside_an_onnx_file(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 1)
    model, path = diffussm(), tmp_path / "a.onnx"
    export(model, path)
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.onnx", "a.onnx.data"}
    inputs = questions(model, 1)
    assert difference(run(path)(*inputs), model(*inputs)) < EXACT


def test_a_failed_export_leaves_the_earlier_file(path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    path.write_bytes(b"earlier")
    monkeypatch.setattr("torch.export.save", full)
    monkeypatch.setattr("torch.onnx.ONNXProgram.save", full)
    with pytest.raises(OSError, match=r"could not write .*/program\.\w+ \(No space"):
        export(diffussm(), path)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == b"earlier"


def test_mistakes_get_a_sentence(tmp_path, monkeypatch, unchecked_shapes):
    model = diffussm()
    with pytest.raises(ValueError, match=r"must end in .pt2, not a.pt"):
        export_program(model, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere to write a.onnx in"):
        export(model, tmp_path / "nowhere" / "a.onnx")
    for ending in EXPORTERS:
        path = tmp_path / f"a{ending}"
        with pytest.raises(ValueError, match="width 7 must be a positive multiple of 2"):
            export(model, path, size=(6, 7))
        with pytest.raises(ValueError, match=r"batch must be at least 1, or None .* not 0"):
            export(model, path, batch=0)
    monkeypatch.setattr("diffussm.interop.export.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"need onnx and onnxscript: pip install .*\[export\]"):
        export_onnx(model, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
