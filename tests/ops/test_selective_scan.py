"""The grouped scan equals the recurrence, in values, every gradient, memory and manners."""

import math
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from diffussm.ops import selective_scan as module
from diffussm.ops.selective_scan import (
    selective_scan,
    selective_scan_flops,
    selective_scan_reference,
)

LENGTHS = [1, 2, 63, 64, 65, 257]
OPERATORS = torch.ops.diffussm
# BUFFER, CACHE, LANES: one group; many; in chunks; a sequence at a time; two, then the third
SPLITS = [(2**20, 2**20, 1), (1, 2**20, 1), (2000, 2**20, 400), (1, 1, 100), (400, 300, 40)]


def inputs(length, batch=3, dim=3, state=4, kind=torch.float64):
    """u, dt, A, B and C, none of the long ones contiguous; some steps are 0."""
    u, dt = torch.randn(2, dim, length, batch, dtype=kind).permute(0, 3, 2, 1)
    dt = torch.nn.functional.relu(dt)
    b, c = torch.randn(2, length, state, batch, dtype=kind).permute(0, 3, 1, 2)
    a = -torch.logspace(-2, 1, dim * state, dtype=kind).reshape(dim, state)
    return [x.detach().requires_grad_() for x in (u, dt, a, b, c)]


def values_and_gradients(function, arguments):
    y = function(*arguments)
    cotangent = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)
    return y, *torch.autograd.grad(y, arguments, cotangent)


@pytest.fixture(params=SPLITS, ids=str)
def split(request, monkeypatch):
    buffer, cache, lanes = request.param
    monkeypatch.setattr(module, "BUFFER", {"cpu": buffer})
    monkeypatch.setattr(module, "CACHE", cache)
    monkeypatch.setattr(module, "LANES", {"cpu": lanes})


@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_recurrence(length, split):
    arguments = inputs(length)
    actual = values_and_gradients(selective_scan, arguments)
    expected = values_and_gradients(selective_scan_reference, arguments)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


def test_gradients_are_differences(split):
    arguments = [x.detach().abs().requires_grad_() for x in inputs(5, 1, 2, 2)]
    arguments[1] = (arguments[1] + 0.1).detach().requires_grad_()  # away from dt = 0
    arguments[2] = (-arguments[2]).detach().requires_grad_()
    assert torch.autograd.gradcheck(selective_scan, arguments)


def test_a_constant_system_is_a_geometric_series():
    # one state, dt A = log 1/2, dt u B = 1, C = 1: 1, 3/2, 7/4, ...
    ones = torch.ones(1, 6, 1, dtype=torch.float64)
    a = torch.tensor([[-math.log(2)]], dtype=torch.float64)
    y = selective_scan(ones, ones, a, ones, ones)[0, :, 0]
    expected = 2 - 0.5 ** torch.arange(6, dtype=torch.float64)
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_half_precision_is_only_stored(length, kind):
    exact = inputs(length)
    kinds = (torch.bfloat16, kind, kind, torch.bfloat16, torch.bfloat16)
    rough = [x.detach().to(k).requires_grad_() for x, k in zip(exact, kinds, strict=True)]
    same = [x.detach().double().requires_grad_() for x in rough]
    y = selective_scan(*rough)
    cotangent = torch.cos(torch.arange(y.numel()).float()).reshape(y.shape).bfloat16()
    gradients = torch.autograd.grad(y, rough, cotangent)
    truth = selective_scan_reference(*same)
    expected = [truth, *torch.autograd.grad(truth, same, cotangent.double())]
    for actual, true, stored in zip((y, *gradients), expected, (kinds[0], *kinds), strict=True):
        assert actual.dtype == stored
        rounding = torch.finfo(stored).eps
        noise = 1e-5 * true.abs().max().item()
        torch.testing.assert_close(actual.double(), true, rtol=rounding, atol=noise)


def test_autocast_does_not_reach_inside():
    arguments = inputs(65, kind=torch.float32)
    expected = values_and_gradients(selective_scan, arguments)
    with torch.autocast("cpu", torch.bfloat16):
        actual = values_and_gradients(selective_scan, arguments)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dt", [0.0, 1e-8, 1.0, 1e4])
def test_no_step_size_overflows(dt, split):
    u, _, a, b, c = inputs(65, kind=torch.float32)
    arguments = [u, torch.full_like(u, dt).requires_grad_(), a, b, c]
    assert all(x.isfinite().all() for x in values_and_gradients(selective_scan, arguments))


@pytest.mark.parametrize("batch", [1, 3])
def test_the_operators_keep_torch_s_contract(batch, split):
    arguments = [x.detach().contiguous().requires_grad_() for x in inputs(7, batch)]
    torch.library.opcheck(OPERATORS.selective_scan.default, arguments)
    y, begins = OPERATORS.selective_scan(*arguments)
    backward = [x.detach() for x in (*arguments, begins, y)]
    torch.library.opcheck(OPERATORS.selective_scan_backward.default, backward)


def test_a_compiler_sees_one_differentiable_node():
    arguments = inputs(65)

    def scan(*arguments):  # without the tests' checks of shapes, which do not compile
        return OPERATORS.selective_scan(*arguments)[0]

    compiled = torch.compile(scan, backend="aot_eager", fullgraph=True)
    actual = values_and_gradients(compiled, arguments)
    expected = values_and_gradients(selective_scan, arguments)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.fixture
def memory_of_nan():
    """Freshly allocated memory holds NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def test_memory_that_was_dirty_does_not_show(memory_of_nan, split):
    arguments = inputs(65)
    actual = values_and_gradients(selective_scan, arguments)
    expected = values_and_gradients(selective_scan_reference, arguments)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


class PeakMemory(TorchDispatchMode):
    """The most bytes that `given` and tensors made inside held at once."""

    def __init__(self, given):
        super().__init__()
        self.live, self.peak, self._seen = 0, 0, weakref.WeakSet()
        for tensor in given:
            self._count(tensor.untyped_storage())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage):
        if storage not in self._seen:
            self._seen.add(storage)
            size = storage.nbytes()
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, size)

    def _free(self, size):
        self.live -= size


def peak_memory(arguments):
    """Bytes held at once in the forward pass, and in both."""
    with PeakMemory(arguments) as memory:  # a mode does not see into operators: their functions
        y, begins = module._selective_scan._init_fn(*arguments)
        forward = memory.peak
        module._selective_scan_backward._init_fn(*arguments, begins, y)
    return forward, memory.peak


@pytest.mark.parametrize("shape", [(256, 2, 96, 16), (1024, 2, 384, 16), (1024, 1, 384, 64)])
def test_memory_stays_below_three_times_inputs_and_outputs(shape):
    arguments = [x.detach().clone() for x in inputs(*shape, kind=torch.float32)]
    needed = 2 * sum(x.nbytes for x in (*arguments, arguments[0]))  # y is like u; gradients
    _, peak = peak_memory(arguments)
    assert needed - arguments[0].nbytes < peak < 3 * needed  # y and dy were one


def test_memory_beside_inputs_and_outputs_grows_with_the_root_of_the_length():
    def held(length):
        arguments = [x.detach().clone() for x in inputs(length, 1, 128, 16, torch.float32)]
        forward, _ = peak_memory(arguments)
        return forward - sum(x.nbytes for x in (*arguments, arguments[0]))

    assert held(16384) < 2.1 * held(4096)


def test_flops_are_counted():
    arguments = inputs(64)
    with FlopCounterMode(display=False) as counter:
        y = selective_scan(*arguments)
    forward = selective_scan_flops(3, 64, 3, 4)
    assert counter.get_total_flops() == forward == 2 * 4 * (3 * 64 * 3 * 4)
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == 3 * forward


def test_wrong_arguments_get_a_sentence(unchecked_shapes):
    u, dt, a, b, c = inputs(5)
    with pytest.raises(ValueError, match="length 1 or more, not 0"):
        selective_scan(u[:, :0], dt[:, :0], a, b[:, :0], c[:, :0])
    with pytest.raises(ValueError, match=r"dt is \(3, 4, 3\), but u .* need \(3, 5, 3\)"):
        selective_scan(u, dt[:, :4], a, b, c)
    with pytest.raises(ValueError, match=r"A is \(2, 4\), but u \(3, 5, 3\)"):
        selective_scan(u, dt, a[:2], b, c)
    with pytest.raises(ValueError, match=r"C is \(1, 5, 4\), but"):
        selective_scan(u, dt, a, b, c[:1])
