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
# buffer, lanes: one group; many of one chunk; of several chunks; a last one that does not fit
SPLITS = [(2**21, 2**14), (64, 1), (300, 2**7), (1000, 100)]


def inputs(length, batch=2, dim=3, state=4, kind=torch.float64):
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
    buffer, lanes = request.param
    monkeypatch.setattr(module, "BUFFER", {"cpu": buffer})
    monkeypatch.setattr(module, "LANES", {"cpu": lanes})
    monkeypatch.setattr(module, "FEWEST", 1)


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


@pytest.mark.parametrize("length", LENGTHS)
def test_half_precision_is_only_stored(length):
    exact = inputs(length)
    kinds = (torch.bfloat16, torch.float32, torch.float32, torch.bfloat16, torch.bfloat16)
    rough = [x.detach().to(k).requires_grad_() for x, k in zip(exact, kinds, strict=True)]
    same = [x.detach().double().requires_grad_() for x in rough]
    y = selective_scan(*rough)
    cotangent = torch.cos(torch.arange(y.numel()).float()).reshape(y.shape).bfloat16()
    gradients = torch.autograd.grad(y, rough, cotangent)
    truth = selective_scan_reference(*same)
    expected = [truth, *torch.autograd.grad(truth, same, cotangent.double())]
    for actual, true, kind in zip((y, *gradients), expected, (kinds[0], *kinds), strict=True):
        assert actual.dtype == kind
        rounding = torch.finfo(kind).eps
        noise = 1e-5 * true.abs().max().item()
        torch.testing.assert_close(actual.double(), true, rtol=rounding, atol=noise)


@pytest.mark.parametrize("dt", [0.0, 1e-8, 1.0, 1e4])
def test_no_step_size_overflows(dt):
    u, _, a, b, c = inputs(65, kind=torch.float32)
    arguments = [u, torch.full_like(u, dt).requires_grad_(), a, b, c]
    assert all(x.isfinite().all() for x in values_and_gradients(selective_scan, arguments))


def test_the_operators_keep_torch_s_contract(split):
    arguments = inputs(7)
    torch.library.opcheck(OPERATORS.selective_scan.default, arguments)
    y, begins = OPERATORS.selective_scan(*arguments)
    backward = [x.detach() for x in (*arguments, begins, y)]
    torch.library.opcheck(OPERATORS.selective_scan_backward.default, backward)


def test_memory_that_was_dirty_does_not_show(monkeypatch, split):
    arguments = inputs(65)
    clean = values_and_gradients(selective_scan, arguments)
    empty = torch.empty_like

    def poisoned(*args, **kwargs):
        return empty(*args, **kwargs).fill_(math.nan)

    monkeypatch.setattr(torch, "empty_like", poisoned)
    torch.testing.assert_close(
        values_and_gradients(selective_scan, arguments), clean, rtol=0, atol=0
    )


class PeakMemory(TorchDispatchMode):
    """The most bytes that tensors made inside held at once."""

    def __init__(self):
        super().__init__()
        self.live, self.peak, self._seen = 0, 0, weakref.WeakSet()

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


@pytest.mark.parametrize("length", [256, 1024])
def test_memory_stays_below_three_times_inputs_and_outputs(length):
    arguments = inputs(length, batch=2, dim=96, state=16, kind=torch.float32)
    needed = 2 * sum(x.nbytes for x in arguments)  # and their gradients
    arguments = [x.detach() for x in arguments]
    with PeakMemory() as memory:  # the operators' own functions: a mode does not see into them
        y, begins = module._selective_scan._init_fn(*arguments)
        module._selective_scan_backward._init_fn(*arguments, begins, y)
    needed += 2 * y.nbytes
    whole = y.nbytes * 16  # one number for each position, channel and state
    assert needed / 2 < memory.peak + sum(x.nbytes for x in arguments) < 3 * needed
    assert memory.peak < whole


def test_flops_are_counted():
    arguments = inputs(64)
    with FlopCounterMode(display=False) as counter:
        y = selective_scan(*arguments)
    forward = selective_scan_flops(2, 64, 3, 4)
    assert counter.get_total_flops() == forward == 2 * 4 * (2 * 64 * 3 * 4)
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == 3 * forward


def test_wrong_arguments_get_a_sentence(unchecked_shapes):
    u, dt, a, b, c = inputs(5)
    with pytest.raises(ValueError, match="length 1 or more, not 0"):
        selective_scan(u[:, :0], dt[:, :0], a, b[:, :0], c[:, :0])
    with pytest.raises(ValueError, match=r"dt is \(2, 4, 3\), but u .* need \(2, 5, 3\)"):
        selective_scan(u, dt[:, :4], a, b, c)
    with pytest.raises(ValueError, match=r"A is \(2, 4\), but u \(2, 5, 3\)"):
        selective_scan(u, dt, a[:2], b, c)
    with pytest.raises(ValueError, match=r"C is \(1, 5, 4\), but"):
        selective_scan(u, dt, a, b, c[:1])
