"""The kernels, in Triton's interpreter where there is no GPU, against the recurrence as written."""

import math
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from diffussm.ops.forms import use_form
from diffussm.ops.selective_scan import (
    _form,
    selective_scan,
    selective_scan_flops,
    selective_scan_reference,
)
from diffussm.ssm.mamba import Mamba

pytest.importorskip("triton")

from diffussm.ops import selective_scan_triton as module

pytestmark = pytest.mark.triton
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# batch, length, dim, state, and the WARPS for which the length is one chunk, or two, or many
CASES = [
    (1, 1, 1, 1, 1),
    (3, 1, 33, 16, 1),  # channels in two parts
    (3, 5, 33, 3, 1),  # channels in two blocks of one part
    (1, 5, 2, 100, 1),  # several warps a program
    (1, 63, 3, 3, 1),
    (1, 64, 1, 16, 2),
    (1, 65, 3, 1, 1024),
    (1, 130, 3, 16, 2),
]


def inputs(batch, length, dim, state, kind=torch.float32):
    """u, dt, A, B and C, none of the long ones contiguous, B and C parts of one; some dt are 0."""
    u, dt = torch.randn(2, dim, length, batch, dtype=kind).permute(0, 3, 2, 1)
    b, c = torch.randn(batch, length, 3 * state, dtype=kind)[..., state:].chunk(2, dim=-1)
    a = -torch.logspace(-2, 1, dim * state, dtype=torch.float32).reshape(dim, state)
    return leaves(u, torch.relu(dt).float(), a, b, c)


def leaves(*arguments):
    return [x.detach().to(DEVICE).requires_grad_() for x in arguments]


def values_and_gradients(function, arguments, form="triton"):
    with use_form("selective_scan", form):
        y = function(*arguments)
        cotangent = torch.cos(torch.arange(float(y.numel()))).reshape(y.shape).bfloat16()
        return y, *torch.autograd.grad(y, arguments, cotangent.to(y))


def truth(arguments):
    """The recurrence as written, in float64, of the same numbers."""
    return values_and_gradients(
        selective_scan_reference, [x.detach().cpu().double().requires_grad_() for x in arguments]
    )


def relative(actual, expected):
    scale = expected.abs().max().clamp(min=1e-30)
    return ((actual.to(expected) - expected).abs().max() / scale).item()


@pytest.fixture
def memory_of_nan():
    """Freshly allocated memory holds NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_recurrence(case, monkeypatch, memory_of_nan):
    *sizes, warps = case
    monkeypatch.setattr(module, "WARPS", warps)
    arguments = inputs(*sizes)
    actual, expected = values_and_gradients(selective_scan, arguments), truth(arguments)
    assert all(relative(ours, true) < 1e-5 for ours, true in zip(actual, expected, strict=True))


@pytest.mark.parametrize(("warps", "chunks"), [(1, 1), (4, 2), (1024, 3)])
def test_however_the_length_is_cut(warps, chunks, monkeypatch, memory_of_nan):
    monkeypatch.setattr(module, "MIN_GROUP", 4)
    monkeypatch.setattr(module, "WARPS", warps)
    arguments = inputs(2, 11, 3, 3)
    assert module._cut(arguments[0], arguments[2]).chunks == chunks
    actual, expected = values_and_gradients(selective_scan, arguments), truth(arguments)
    assert all(relative(ours, true) < 1e-5 for ours, true in zip(actual, expected, strict=True))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_only_stored(kind):
    rough = inputs(1, 19, 3, 3, kind)
    actual = values_and_gradients(selective_scan, rough)
    for ours, true, stored in zip(actual, truth(rough), (rough[0], *rough), strict=True):
        assert ours.dtype == stored.dtype
        assert relative(ours, true) < 2e-2


def test_strides_of_zero():
    u, dt, a, b, c = inputs(2, 5, 3, 2)
    arguments = [u, dt[:, :1].expand_as(dt), a, b[:1].expand_as(b), c]
    with use_form("selective_scan", "triton"):
        y = selective_scan(*arguments)
        (du,) = torch.autograd.grad(y.sum(), [u])  # dy is one number, seen everywhere
    expected = selective_scan_reference(*(x.cpu().double() for x in arguments))
    (true,) = torch.autograd.grad(expected.sum(), [u])
    assert relative(y, expected) < 1e-5
    assert relative(du, true) < 1e-5


def test_one_position_by_hand():
    # h = dt u B, y = C h
    u, dt, a, b, c = inputs(2, 1, 3, 2)
    y, du, ddt, da, db, dc = values_and_gradients(selective_scan, [u, dt, a, b, c])
    dy = torch.cos(torch.arange(6.0)).reshape(2, 1, 3).bfloat16().to(u)
    product = (b * c).sum(-1, keepdim=True)
    torch.testing.assert_close(y, dt * u * product)
    torch.testing.assert_close(du, dy * dt * product)
    torch.testing.assert_close(ddt, dy * u * product)
    torch.testing.assert_close(db, c * (dy * dt * u).sum(-1, keepdim=True))
    torch.testing.assert_close(dc, b * (dy * dt * u).sum(-1, keepdim=True))
    assert not da.any()  # nothing has decayed yet


@pytest.mark.parametrize("dt", [0.0, 1e-8, 1e3])
def test_no_step_size_overflows(dt, monkeypatch):
    monkeypatch.setattr(module, "MIN_GROUP", 4)
    u, steps, a, b, c = inputs(1, 9, 3, 4)
    a = 100 * a  # down to -1000
    arguments = leaves(u, torch.full_like(steps, dt), a, b, c)
    assert all(x.isfinite().all() for x in values_and_gradients(selective_scan, arguments))


def test_two_runs_give_the_same_bits():
    arguments = inputs(2, 5, 33, 3, torch.bfloat16)
    first, second = (values_and_gradients(selective_scan, arguments) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_mamba_does_not_care():
    layer = Mamba(8, d_state=5).to(DEVICE)
    u = torch.randn(2, 9, 8, device=DEVICE, requires_grad=True)
    wanted = [u, *layer.parameters()]
    results = []
    for form in ("triton", "torch"):
        with use_form("selective_scan", form):
            y = layer(u)
            results.append([y, *torch.autograd.grad(y.square().sum(), wanted)])
    for ours, true in zip(*results, strict=True):
        torch.testing.assert_close(ours, true, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_compiler_sees_one_differentiable_node(unchecked_shapes):
    arguments = inputs(1, 9, 3, 2)

    def scan(*arguments):
        return torch.ops.diffussm.selective_scan(*arguments, "triton")[0]

    compiled = torch.compile(scan, backend="aot_eager", fullgraph=True)
    actual = values_and_gradients(compiled, arguments)
    expected = values_and_gradients(selective_scan, arguments)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.slow
def test_the_operators_keep_torch_s_contract():
    arguments = [x.detach().contiguous().requires_grad_() for x in inputs(1, 3, 3, 2)]
    operators = torch.ops.diffussm
    torch.library.opcheck(operators.selective_scan.default, (*arguments, "triton"))
    y, begins = operators.selective_scan(*arguments, "triton")
    backward = [x.detach() for x in (*arguments, begins, y)]
    torch.library.opcheck(operators.selective_scan_backward.default, (*backward, "triton"))


def test_flops_are_those_of_the_other_form():
    arguments = inputs(1, 5, 3, 2)
    with FlopCounterMode(display=False) as counter, use_form("selective_scan", "triton"):
        selective_scan(*arguments).sum().backward()
    assert counter.get_total_flops() == 4 * selective_scan_flops(1, 5, 3, 2)


@pytest.mark.parametrize("state", [1, 16, 64, 256])
@pytest.mark.parametrize("length", [1, 31, 64, 1000, 4097])
@pytest.mark.parametrize("batch", [1, 32])
def test_chunks_cover_the_length_once_and_groups_fit_in(batch, length, state):
    u, a = torch.empty(batch, length, 768, device="meta"), torch.empty(768, state, device="meta")
    cut = module._cut(u, a)
    assert (cut.chunks - 1) * cut.size < length <= cut.chunks * cut.size
    assert cut.size % cut.group == 0
    assert cut.programs == batch * 24 * cut.chunks
    kept = math.prod(module.begins_shape(u, a))
    assert kept < batch * 768 * (length + cut.group)  # whatever the number of states


def test_wrong_arguments_get_a_sentence(monkeypatch, unchecked_shapes):
    arguments = inputs(1, 5, 3, 2)
    with use_form("selective_scan", "triton"):
        with pytest.raises(ValueError, match=r"'triton' here: .* u or A is float64; ask for"):
            selective_scan(*(x.double() for x in arguments))
        with pytest.raises(ValueError, match="at most 256 states a channel, not 257"):
            selective_scan(*inputs(1, 5, 1, 257))
        nothing = inputs(1, 0, 3, 2)
        with pytest.raises(ValueError, match="length 1 or more, not 0"):
            selective_scan(*nothing)
        if DEVICE == "cpu":
            monkeypatch.setattr(module, "_INTERPRETED", False)
            with pytest.raises(ValueError, match="needs a CUDA device, and u is on 'cpu'"):
                selective_scan(*arguments)
        monkeypatch.setitem(sys.modules, module.__name__, None)
        with pytest.raises(ValueError, match=r"Triton is not installed .*diffussm\[kernels\]"):
            selective_scan(*arguments)


def test_without_triton_the_other_form_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, module.__name__, None)
    arguments = inputs(1, 5, 3, 2)
    expected = selective_scan_reference(*(x.cpu().double() for x in arguments))
    assert relative(selective_scan(*arguments), expected) < 1e-5


def test_a_gpu_takes_the_kernels_where_they_can():
    with FakeTensorMode():
        u, narrow, wide = (torch.empty(2, 9, size, device="cuda") for size in (3, 256, 257))
        few, many = torch.empty(3, 256, device="cuda"), torch.empty(3, 257, device="cuda")
        assert _form(u, few) == "triton"
        assert _form(u.double(), few) == _form(u, many) == _form(u.cpu(), few.cpu()) == "torch"
        _, begins = torch.ops.diffussm.selective_scan(u, u, few, narrow, narrow, "triton")
        assert begins.shape == module.begins_shape(u, few)
        assert selective_scan(u, u, many, wide, wide).device == u.device


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "sizes", [(32, 1024, 2304, 16), (1, 16384, 768, 16), (2, 4097, 770, 64), (1, 1000, 96, 256)]
)
def test_on_a_gpu(sizes, kind):
    arguments = inputs(*sizes, kind)
    actual = values_and_gradients(selective_scan, arguments)
    same = leaves(*(x.float() for x in arguments))
    expected = values_and_gradients(selective_scan, same, "torch")
    for ours, true in zip(actual, expected, strict=True):
        assert relative(ours, true) < (1e-4 if kind == torch.float32 else 2e-2)
