"""The whole denoiser: birth, geometry, any size, conditions, and what it says to bad input."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffussm.models import DiffuSSM, DiffuSSMConfig, create_model
from diffussm.models.diffussm import MATRICES, SSMS
from diffussm.nn.embeddings import grid_positions
from diffussm.nn.scan_order import SCANS

TINY = {
    "input_size": 8,
    "in_channels": 2,
    "num_classes": 5,
    "d_model": 16,
    "depth": 2,
    "d_state": 4,
}
T, Y = torch.tensor([0, 999]), torch.tensor([3, 5])


def tiny(awake=True, **options):
    """A small model; awake, no gate and no decoder of it is zero."""
    model = DiffuSSM(DiffuSSMConfig(**(TINY | options)))
    if awake:
        for name, parameter in model.named_parameters():
            if "modulation" in name or "decode" in name:
                torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_new_model_answers_zero_and_its_blocks_change_nothing(bidirectional):
    model = tiny(awake=False, bidirectional=bidirectional)
    assert torch.equal(model(torch.randn(2, 2, 8, 8), T, Y), torch.zeros(2, 4, 8, 8))
    x = torch.randn(2, 32, 16)
    for block in model.blocks:
        assert torch.equal(block(x, torch.randn(2, 16)), x)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_every_pixel_returns_to_its_place(patch, ratio):
    # Tokens hold their pixels and the negatives of these. Pixels are +-1, so that the norm leaves
    # them alone, and large enough in the stream to drown the positions.
    pixels = 4 * ratio * patch**2
    model = tiny(
        awake=False, in_channels=4, d_model=2 * pixels, patch_size=patch, hourglass_ratio=ratio
    )
    identity = torch.eye(pixels)
    with torch.no_grad():
        model.embed.weight.copy_(1e6 * torch.cat([identity, -identity]))
        noise, v = identity.reshape(-1, 4, pixels), -2 * identity.reshape(-1, 4, pixels)
        rows = torch.cat([noise, v], dim=1).flatten(0, 1)  # each place: noise, then v
        model.decode.weight.copy_(torch.cat([rows, torch.zeros_like(rows)], dim=1))
    image = torch.randn(2, 4, 6, 16).sign()
    expected = torch.cat([image, -2 * image], dim=1)
    torch.testing.assert_close(model(image, T, Y), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_a_token_is_neighbours_along_a_row(patch, ratio):
    # without blocks at work, a pixel of the answer sees the pixels of its own token alone
    model = tiny(awake=False, patch_size=patch, hourglass_ratio=ratio)
    torch.nn.init.normal_(model.decode.weight)
    image = torch.randn(1, 2, 6, 16, requires_grad=True)
    answer = model(image, T[:1], Y[:1])
    (gradient,) = torch.autograd.grad(answer[0, :, 3, 9].sum(), image)
    seen = gradient.abs().amax(dim=(0, 1)) > 0
    across, row, column = patch * ratio, 3 // patch * patch, 9 // (patch * ratio) * patch * ratio
    expected = torch.zeros(6, 16, dtype=torch.bool)
    expected[row : row + patch, column : column + across] = True
    assert torch.equal(seen, expected)


def test_one_direction_sees_the_past_of_the_scan_both_see_everything():
    for bidirectional in (False, True):
        model = tiny(hourglass_ratio=1, bidirectional=bidirectional).double()
        image = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
        answer = model(image, T[:1], Y[:1])
        (gradient,) = torch.autograd.grad(answer[0, :, 1, 1].sum(), image)
        seen = gradient.abs().amax(dim=(0, 1)).flatten() > 1e-10
        expected = torch.arange(12) <= 5  # raster order: row 1, column 1 is position 5
        assert torch.equal(seen, expected | bidirectional)


def test_alternating_blocks_see_the_image_by_rows_then_by_columns():
    seen = {}
    for scan in SCANS:
        model = tiny(hourglass_ratio=1, bidirectional=False, scan=scan, depth=2).double()
        model.blocks[0].modulation = model.blocks[1].modulation
        torch.nn.init.zeros_(model.blocks[0].out.weight)  # only the second block mixes
        torch.nn.init.zeros_(model.blocks[0].out.bias)
        image = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
        answer = model(image, T[:1], Y[:1])
        (gradient,) = torch.autograd.grad(answer[0, :, 1, 1].sum(), image)
        seen[scan] = gradient.abs().amax(dim=(0, 1)) > 1e-10
    position = torch.arange(12).reshape(3, 4)
    assert torch.equal(seen["raster"], position <= 5)
    # by columns: all of column 0, and column 1 down to row 1
    by_columns = torch.arange(12).reshape(4, 3).T <= 4
    assert torch.equal(seen["alternating"], by_columns)


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("size", [(8, 8), (3, 8), (8, 2), (1, 4)], ids=str)
def test_every_scan_order_takes_any_size(scan, size):
    model, image = tiny(scan=scan), torch.randn(2, 2, *size)
    assert model(image, T, Y).isfinite().all()


def test_is_its_parts_in_order():
    model = tiny(patch_size=2)
    image = torch.randn(2, 2, 6, 8)
    tokens = torch.empty(2, 6, 16)  # 3 rows, 2 columns of 2 x 4 pixels
    for j in range(6):
        for place in range(2):
            row, column = 2 * (j // 2), 4 * (j % 2) + 2 * place
            square = image[:, :, row : row + 2, column : column + 2]
            tokens[:, j, 8 * place : 8 * place + 8] = square.permute(0, 2, 3, 1).flatten(1)
    condition = model.time(T) + model.label.table.weight[Y]
    x = model.embed(tokens) + grid_positions(3, 2, 16)
    for block in model.blocks:
        x = block(x, condition)
    vectors = model.final_modulation.linear(torch.nn.functional.silu(condition))[:, None]
    shift, scale = vectors[..., :16], vectors[..., 16:]
    decoded = model.decode(torch.nn.functional.layer_norm(x, (16,), eps=1e-6) * (1 + scale) + shift)
    answer = model(image, T, Y)
    for j in range(6):
        for place in range(2):
            row, column = 2 * (j // 2), 4 * (j % 2) + 2 * place
            square = decoded[:, j, 16 * place : 16 * place + 16].reshape(2, 2, 2, 4)
            actual = answer[:, :, row : row + 2, column : column + 2]
            torch.testing.assert_close(actual, square.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (1, 2), (5, 8), (7, 6), (16, 4)], ids=str)
def test_one_set_of_weights_takes_any_size(size):
    model, image = tiny(), torch.randn(2, 2, *size)
    answer = model(image, T, Y)
    assert answer.shape == (2, 4, *size)
    assert answer.isfinite().all()
    alone = torch.cat([model(image[i : i + 1], T[i : i + 1], Y[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(answer, alone, rtol=1e-4, atol=1e-4)


def test_a_model_made_for_a_rectangle():
    model = tiny(input_size=(3, 8))
    assert model.config.size == (3, 8)
    assert model(torch.randn(2, 2, 3, 8), T, Y).shape == (2, 4, 3, 8)


def test_time_and_label_matter_and_no_label_is_a_label():
    model, image = tiny(label_std=1.0), torch.randn(2, 2, 8, 8)
    answers = [model(image, T, Y), model(image, T + 1, Y), model(image, T, Y - 1)]
    for i in range(3):
        assert not torch.allclose(answers[i], answers[i - 1])


def test_unconditional():
    model, image = tiny(num_classes=0), torch.randn(2, 2, 8, 8)
    assert not any("label" in name for name in model.state_dict())
    assert model(image, T).shape == (2, 4, 8, 8)
    with pytest.raises(ValueError, match=r"unconditional .*give no labels"):
        model(image, T, Y)


def test_without_learned_variance_there_are_as_many_channels():
    assert tiny(learned_variance=False)(torch.randn(2, 2, 8, 8), T, Y).shape == (2, 2, 8, 8)


@pytest.mark.parametrize("matrices", MATRICES)
@pytest.mark.parametrize("ssm", SSMS)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_every_choice_is_trained_through_and_through(matrices, ssm, bidirectional):
    model = tiny(matrices=matrices, ssm=ssm, bidirectional=bidirectional)
    with torch.autocast("cpu", torch.bfloat16):
        answer = model(torch.randn(2, 2, 8, 8), T, Y)
        answer.float().square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_autocast_changes_little():
    model, image = tiny(), torch.randn(2, 2, 8, 8)
    exact = model(image, T, Y)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(image, T, Y)
    assert (rough.float() - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"input_size": 7}, "width 7 must be a positive multiple of 2 .*hourglass_ratio 2"),
        ({"input_size": (7, 8), "patch_size": 2}, "height 7 must be .* multiple of patch_size 2"),
        ({"input_size": (8, 6), "patch_size": 2}, "width 6 must be a positive multiple of 4"),
        ({"input_size": 0}, "height 0 must be a positive multiple"),
        ({"input_size": 9, "hourglass_ratio": 3}, "hourglass_ratio 3 must divide .* width 32"),
        ({"d_model": 18}, "d_model must be divisible by 4 .* not 18"),
        ({"depth": 0}, "depth must be at least 1, not 0"),
        ({"patch_size": 0}, "patch_size must be at least 1, not 0"),
        ({"num_classes": -1}, "num_classes must be 0 .* or more, not -1"),
        ({"label_std": -1.0}, "label_std must be 0 or more, not -1.0"),
        ({"d_state": 7}, "d_state must be even .* not 7"),
        ({"dt_min": 0.0}, "0 < dt_min <= dt_max, not 0.0"),
        ({"matrices": "total"}, "matrices 'total'; did you mean 'totals'"),
        ({"ssm": "s5"}, "ssm 's5'; did you mean 's4'"),
        ({"ssm_init": "leg"}, "'leg'; did you mean 'legs'"),
        ({"ssm": "mamba", "ssm_init": "legs"}, "mamba has no choice of init: leave 'legs' out"),
        ({"scan": "rastre"}, "scan 'rastre'; did you mean 'raster'"),
        ({"discretization": "zohh"}, "'zohh'; did you mean 'zoh'"),
        ({"d_modle": 16}, "unknown key 'd_modle'; did you mean 'd_model'"),
        ({"depth": 1.5}, "depth must be a whole number, not 1.5"),
    ],
    ids=str,
)
def test_wrong_options_get_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        create_model("DiffuSSM", **(TINY | options))


def test_wrong_input_gets_a_sentence():
    model, image = tiny(patch_size=2), torch.randn(2, 2, 8, 8)
    with pytest.raises(ValueError, match="height 7 must be a positive multiple of patch_size 2"):
        model(image[:, :, :7], T, Y)
    with pytest.raises(
        ValueError, match=r"width 6 must be a positive multiple of 4 \(patch_size 2"
    ):
        model(image[..., :6], T, Y)
    with pytest.raises(ValueError, match=r"needs labels 0\.\.4 \(5 for no label\)"):
        model(image, T)
    for wrong in (-1, 6):
        with pytest.raises(ValueError, match=rf"labels must lie in 0\.\.4, .* not {wrong}"):
            model(image, T, torch.tensor([0, wrong]))


COMPILED = """
import warnings
import torch
from test_diffussm import T, Y, tiny

torch.manual_seed(0)
model, image, results = tiny(), torch.randn(2, 2, 8, 8), []
warnings.simplefilter("error")
warnings.filterwarnings("ignore", category=DeprecationWarning)  # inductor's own
for function in (model, torch.compile(model, fullgraph=True)):
    answer = function(image, T, Y)
    gradients = torch.autograd.grad(answer.square().mean(), list(model.parameters()))
    results.append((answer, gradients))
torch.testing.assert_close(*results, rtol=1e-3, atol=1e-4)
"""


@pytest.mark.slow
def test_compiles_whole_without_complex_numbers():
    # in an interpreter of its own: compilers cannot look through the checks of shapes
    here = Path(__file__).parent
    command = [sys.executable, "-c", COMPILED]
    done = subprocess.run(command, capture_output=True, text=True, cwd=here)
    assert done.returncode == 0, done.stderr
