"""Feature networks from ONNX files, and files that are none."""

import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from diffussm.evaluation.onnx_features import OnnxFeatures

WEIGHT = np.random.default_rng(0).normal(size=(192, 5)).astype(np.float32)


def write(path, image=("batch", 3, 8, 8), kind=TensorProto.UINT8, gives="features", inputs=1):
    """A network that multiplies the pixels with WEIGHT, with an interface as told."""
    given = [helper.make_tensor_value_info(f"in{n}", kind, image) for n in range(inputs)]
    nodes = [
        helper.make_node("Cast", ["in0"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["numbers"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["features"]),
    ]
    target = helper.make_tensor_value_info(gives, TensorProto.FLOAT, None)
    weight = numpy_helper.from_array(WEIGHT, "weight")
    graph = helper.make_graph(nodes, "features", given, [target], [weight])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="test"
    )
    return model, path


@pytest.fixture
def network(tmp_path):
    onnx.save(*write(tmp_path / "lines.onnx"))
    return OnnxFeatures(tmp_path / "lines.onnx")


def test_it_gives_what_its_graph_computes(network):
    assert (network.name, network.spaces) == ("lines", {"pool": 5})
    images = torch.randint(0, 256, (7, 3, 8, 8), dtype=torch.uint8)
    expected = images.flatten(1).numpy().astype(np.float32) @ WEIGHT
    np.testing.assert_allclose(network(images)["pool"], expected, rtol=1e-4, atol=1e-2)


def test_grey_images_are_shown_in_three_colours(network):
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    grey, colour = network(images)["pool"], network(images.repeat(1, 3, 1, 1))["pool"]
    assert torch.equal(grey, colour)


def test_its_identity_is_that_of_the_file(tmp_path, network):
    import hashlib

    content = (tmp_path / "lines.onnx").read_bytes()
    assert network.identity == hashlib.sha256(content).hexdigest()


def test_images_that_it_does_not_take_get_a_sentence(network):
    with pytest.raises(ValueError, match="lines sees images of 3 x 8 x 8, not of 3 x 9 x 8"):
        network(torch.zeros(2, 3, 9, 8, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kind": TensorProto.FLOAT}, r"must have one input, uint8 \(batch"),
        ({"image": ("batch", 192)}, r"must have one input, uint8 \(batch"),
        ({"inputs": 2}, r"must have one input, uint8 \(batch"),
        ({"image": (4, 3, 8, 8)}, "takes 4 images at a time"),
        ({"gives": "flat", "image": ("batch", 3, "height", "width")}, "with a known dim"),
        ({"gives": "numbers"}, r"must give float32 \(batch, dim\)"),
    ],
)
def test_other_networks_get_a_sentence(tmp_path, options, sentence):
    onnx.save(*write(tmp_path / "a.onnx", **options))
    with pytest.raises(ValueError, match=sentence):
        OnnxFeatures(tmp_path / "a.onnx")


def test_weights_outside_the_file_are_refused(tmp_path, monkeypatch):
    model, path = write(tmp_path / "a.onnx")
    onnx.save(model, path, save_as_external_data=True, size_threshold=0, location="weights")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="has weights outside it"):
        OnnxFeatures(path)


@pytest.mark.parametrize("content", [b"", b"no graph at all", None])
def test_damaged_files_get_a_sentence(tmp_path, content):
    model, path = write(tmp_path / "a.onnx")
    path.write_bytes(model.SerializeToString()[:500] if content is None else content)
    with pytest.raises(ValueError, match=r"a\.onnx is damaged, no ONNX file"):
        OnnxFeatures(path)


def test_a_file_that_is_not_there_gets_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="there is no feature network"):
        OnnxFeatures(tmp_path / "a.onnx")


def test_without_onnxruntime_it_says_how_to_get_it(tmp_path, monkeypatch):
    onnx.save(*write(tmp_path / "a.onnx"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"pip install 'diffussm\[export\]'"):
        OnnxFeatures(tmp_path / "a.onnx")
