"""The kernels, in Triton's interpreter where there is no GPU, against float64 and other routes."""

import math

import pytest
import torch

from diffussm.ops.chunked_conv import Matrices, chunk_matrices, chunked_conv_reference, convolve
from diffussm.ops.reading_order import reading_order

pytest.importorskip("triton")

from diffussm.ops import chunked_conv_triton as module
from diffussm.ops import chunked_conv_triton_backward as backward_module
from diffussm.ops.chunked_conv_triton import Cut, forward, plan, unsupported
from diffussm.ops.chunked_conv_triton_backward import backward

pytestmark = pytest.mark.triton
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
NAMES = ("y", "u", "kernel", "enter", "leave", "jump")
both_ways = pytest.mark.parametrize("directions", [1, 2])
all_types = pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: str(dtype)[6:])


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Memory comes full of NaN, so that what a kernel leaves out shows."""
    new_empty = torch.Tensor.new_empty
    monkeypatch.setattr(
        torch.Tensor,
        "new_empty",
        lambda *args, **options: new_empty(*args, **options).fill_(math.nan),
    )


@pytest.fixture
def few_programs(monkeypatch):
    """As if the GPU were small: sequences are cut no further than needed to fill a tile."""
    monkeypatch.setattr(module, "PROGRAMS", 1)


def system(directions, dim, modes):
    """Modes that remember between 1 and 1000 positions."""
    dt = torch.exp(torch.empty(directions, dim, 1).uniform_(-7, -1))
    decay = -0.5 * dt * torch.rand(modes)
    w = torch.randn(2, directions, dim, modes)
    return [x.to(DEVICE) for x in (decay, dt * 3 * torch.arange(modes), *w)]


def signals(batch, length, dim, directions, dtype=torch.float32):
    """u and the gradient of its response."""
    u, dy = torch.randn(batch, length, dim), torch.randn(batch, length, directions, dim)
    return u.to(DEVICE, dtype), dy.to(DEVICE, dtype)


def found(u, dy, matrices, rows=1):
    """Value and gradients."""
    return forward(u, *matrices, rows), *backward(u, *matrices, dy, rows)


def truth(u, dy, matrices, rows=1):
    """The same in float64, by PyTorch."""
    leaves = [x.detach().double().requires_grad_() for x in (u, *matrices)]
    y = convolve(leaves[0], Matrices(*leaves[1:]), rows)
    return y.detach(), *torch.autograd.grad(y, leaves, dy.double())


def assert_near(actual, expected, tolerance):
    for name, ours, true in zip(NAMES, actual, expected, strict=True):
        error, scale = (ours.double() - true).abs().max(), true.abs().max()
        assert error <= tolerance * scale, (name, (error / scale).item())


# batch, length, dim, modes
CASES = [
    (1, 1, 1, 1),
    (3, 63, 1, 3),
    (1, 64, 3, 1),
    (3, 65, 1, 3),
    (1, 130, 3, 32),
    (3, 1100, 1, 3),
]


@pytest.mark.usefixtures("few_programs")
@both_ways
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case, directions):
    batch, length, dim, modes = case
    u, dy = signals(batch, length, dim, directions)
    matrices = chunk_matrices(*system(directions, dim, modes))
    assert_near(found(u, dy, matrices), truth(u, dy, matrices), 1e-5)


@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", [(3, 65, 1, 3), (3, 1100, 1, 32)], ids=str)
def test_half_precision(case, dtype):
    # the interpreter rounds to bfloat16 towards zero: twice a GPU's error
    batch, length, dim, modes = case
    u, dy = signals(batch, length, dim, 2, dtype)
    matrices = chunk_matrices(*system(2, dim, modes))
    ours = found(u, dy, matrices)
    assert [x.dtype for x in ours] == [dtype, dtype, *[torch.float32] * 4]
    assert_near(ours, truth(u, dy, matrices), TOLERANCE[dtype])


@pytest.mark.usefixtures("few_programs")
@all_types
def test_gradients_of_the_modes_are_those_of_the_kernel_written_out(dtype):
    u, dy = signals(3, 300, 2, 2, dtype)
    weights = [x.requires_grad_() for x in system(2, 2, 5)]
    matrices = chunk_matrices(*weights)
    with torch.no_grad():
        y, du, *gradients = found(u, dy, matrices)
    ours = torch.autograd.grad(matrices, weights, gradients)

    exact = [x.detach().double().requires_grad_() for x in (u, *weights)]
    expected = chunked_conv_reference(*exact)
    theirs = torch.autograd.grad(expected, exact, dy.double())
    assert_near((y, du, *ours), (expected, *theirs), TOLERANCE[dtype])


@pytest.mark.parametrize("segments", [1, 2, 4, 16])
def test_any_cut_gives_the_same(monkeypatch, segments):
    # 19 chunks of 16 in 1 to 16 segments; the tile's 16 rows in 1 to 5 programs
    cut = Cut(segments, -(-19 // segments), -(-5 * segments // 16))
    for one in (module, backward_module):
        monkeypatch.setattr(one, "plan", lambda *_: cut)
    u, dy = signals(5, 300, 1, 2)
    matrices = chunk_matrices(*system(2, 1, 3), 16)
    assert_near(found(u, dy, matrices), truth(u, dy, matrices), 1e-5)


@pytest.mark.parametrize("shape", [(32, 1024), (8, 4096), (2, 16384)], ids=str)
def test_no_row_is_idle_at_the_sizes_that_matter(shape):
    u = torch.empty(*shape, 1152, dtype=torch.bfloat16, device="meta")
    cut = plan(u, 1152, 64)
    assert cut.groups == 1
    assert cut.segments * len(u) == 64
    assert cut.segments * cut.steps * 64 == u.shape[1]


def test_a_small_system_is_shared_out_among_many_programs():
    u = torch.empty(16, 4096, 8, dtype=torch.bfloat16, device="meta")
    cut = plan(u, 8, 64)
    assert cut.groups * 8 >= 128  # all that 64 segments a sequence give
    assert cut.segments * cut.steps * 64 == 4096


LAYOUTS = {
    "channels first": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "every other channel": lambda x: (
        x.repeat_interleave(2, -1).movedim(1, -1).contiguous().movedim(-1, 1)[..., ::2]
    ),
    "batch last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "every other position": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "one image for all": lambda x: x[:1].expand_as(x),
    "one position for all": lambda x: x[:, :1].expand_as(x),
}


@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize("layout", ["channels first", "batch last"])
@pytest.mark.parametrize("rows", [4, 120])
def test_a_grid_is_read_column_by_column(rows, layout):
    u, dy = (LAYOUTS[layout](x) for x in signals(2, 120, 2, 2))
    matrices = chunk_matrices(*system(2, 2, 3), 16)
    order = reading_order(120, rows).to(DEVICE)
    expected = truth(u[:, order], dy[:, order], matrices)
    y, du = (x[:, order.argsort()] for x in expected[:2])
    assert_near(found(u, dy, matrices, rows), (y, du, *expected[2:]), 1e-5)


@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout(layout):
    u, dy = (LAYOUTS[layout](x) for x in signals(2, 90, 3, 2))
    matrices = chunk_matrices(*system(2, 3, 2), 16)
    turned = [x.mT.contiguous().mT for x in matrices[1:3]]
    ours = found(u, dy, (matrices[0], *turned, matrices[3]))
    assert_near(ours, truth(u, dy, matrices), 1e-5)


@pytest.mark.usefixtures("few_programs")
def test_channels_first_is_read_and_written_in_place(monkeypatch):
    for copies in ("channels_first", "channels_last"):
        monkeypatch.setattr(module, copies, lambda *_: pytest.fail("a copy"))
    u, dy = (LAYOUTS["channels first"](x) for x in signals(2, 20, 3, 2))
    y, du, *_ = found(u, dy, chunk_matrices(*system(2, 3, 2), 16))
    assert y.stride() == dy.stride()
    assert du.stride() == u.stride()


def test_the_result_for_other_layouts_is_contiguous():
    u, dy = signals(2, 20, 3, 2)
    y, du, *_ = found(u, dy, chunk_matrices(*system(2, 3, 2), 16))
    assert y.is_contiguous()
    assert du.is_contiguous()


@all_types
def test_the_same_numbers_each_time(monkeypatch, dtype):
    segments = module.PRODUCTS[dtype].block // 4
    u, dy = signals(5, 16 * segments, 1, 2, dtype)
    monkeypatch.setattr(backward_module, "plan", lambda *_: Cut(segments, 1, 2))  # two sums to add
    matrices = chunk_matrices(*system(2, 1, 3), 16)
    for first, second in zip(found(u, dy, matrices), found(u, dy, matrices), strict=True):
        assert torch.equal(first, second)


@pytest.mark.usefixtures("few_programs")
@all_types
def test_finite_at_the_ends_of_the_parameters_range(dtype):
    decay, angle = (
        x.flatten().to(DEVICE)
        for x in torch.meshgrid(
            torch.tensor([0.0, -1e-4, -50.0]), torch.tensor([0.0, math.pi, 1e4]), indexing="ij"
        )
    )
    w = torch.full_like(decay, 1e-2)
    weights = [x.expand(2, 1, -1) for x in (decay, angle, w, w)]
    matrices = chunk_matrices(*weights)
    u, dy = torch.full((1, 2000, 1), 50.0), torch.full((1, 2000, 2, 1), 50.0)
    ours = found(u.to(DEVICE, dtype), dy.to(DEVICE, dtype), matrices)
    assert all(x.isfinite().all() for x in ours)
    assert_near(ours, truth(u.to(DEVICE), dy.to(DEVICE), matrices), TOLERANCE[dtype])


def test_says_what_it_cannot_take(monkeypatch):
    u = torch.empty(1, 4, 1)
    assert unsupported(u.double(), 32) == "it takes bfloat16, float16, float32, not float64"
    assert unsupported(u, 65) == "it takes at most 64 modes a channel, not 65"
    monkeypatch.setattr(module.INTERPRETED, "value", True)
    assert unsupported(u, 64) is None
    monkeypatch.setattr(module.INTERPRETED, "value", False)
    assert unsupported(u, 64) == "it runs on a CUDA device, not on cpu"


@pytest.mark.parametrize(
    ("capability", "reason"),
    [((7, 5), "it needs a GPU of compute capability 8.0 or more, not 7.5"), ((9, 0), None)],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_needs_a_new_enough_gpu(monkeypatch, capability, reason):
    class Elsewhere:
        dtype, device = torch.bfloat16, torch.device("cuda")

    monkeypatch.setattr(module.INTERPRETED, "value", False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert unsupported(Elsewhere, 32) == reason


@pytest.mark.gpu
@all_types
@pytest.mark.parametrize("shape", [(32, 1024), (8, 4096), (2, 16384)], ids=str)
def test_at_the_sizes_that_matter(shape, dtype):
    batch, length = shape
    u, dy = (LAYOUTS["channels first"](x) for x in signals(batch, length, 1152, 2, dtype))
    matrices = chunk_matrices(*system(2, 1152, 32))
    ours = found(u, dy, matrices)
    for part in torch.arange(1152).split(128):  # what float64 needs of memory
        some = [x[part] for x in matrices]
        expected = truth(u[..., part], dy[..., part], some)
        mine = [x[..., part] for x in ours[:2]] + [x[part] for x in ours[2:]]
        assert_near(mine, expected, TOLERANCE[dtype])
