"""The chunked form against the kernel written out: values, every gradient, awkward lengths."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from diffussm.ops import chunked_conv as module
from diffussm.ops.chunk_system import Matrices, chunk_matrices
from diffussm.ops.chunked_conv import chunked_conv, chunked_conv_reference, convolve
from diffussm.ops.long_conv import long_conv
from diffussm.ops.vandermonde import vandermonde

LENGTHS = [1, 2, 63, 64, 65, 257, 1000]
both_ways = pytest.mark.parametrize("directions", [1, 2])


def system(directions, dim=5, modes=3, dtype=torch.float64):
    """Modes that remember between 1 and 1000 positions."""
    dt = torch.exp(torch.empty(directions, dim, 1, dtype=dtype).uniform_(-7, -1))
    decay = -0.5 * dt * torch.rand(modes, dtype=dtype)
    angle = dt * 3 * torch.arange(modes)
    w = torch.randn(2, directions, dim, modes, dtype=dtype)
    return [x.requires_grad_() for x in (decay, angle, *w.clone())]


def relative(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-30)).item()


@both_ways
@pytest.mark.parametrize("length", LENGTHS)
def test_values_and_gradients(monkeypatch, directions, length):
    # two channels at a time, of five
    monkeypatch.setattr(module, "AT_ONCE", 2 * (3 * -(-length // 64) * 64 + 4 * 64**2))
    inputs = [torch.randn(3, length, 5, dtype=torch.float64).requires_grad_(), *system(directions)]
    y, expected = chunked_conv(*inputs), chunked_conv_reference(*inputs)
    assert relative(y, expected) < 1e-9
    dy = torch.randn_like(y)
    ours = torch.autograd.grad(y, inputs, dy)
    theirs = torch.autograd.grad(expected, inputs, dy)
    for actual, true in zip(ours, theirs, strict=True):
        torch.testing.assert_close(actual, true, rtol=1e-9, atol=1e-9)


@both_ways
def test_gradcheck(directions):
    u = torch.randn(2, 11, 2, dtype=torch.float64).requires_grad_()

    def in_fours(u, *weights):
        return convolve(u, chunk_matrices(*weights, chunk=4))

    torch.autograd.gradcheck(in_fours, (u, *system(directions, dim=2, modes=2)))


@pytest.mark.parametrize("length", [1, 65, 1000, 4097])
def test_float32_is_as_exact_as_the_fft(length):
    exact = system(2)
    u = torch.randn(2, length, 5, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([vandermonde(*x, length) for x in zip(*exact, strict=True)])
        expected = long_conv(u, expected)
        y = chunked_conv(u.float(), *(x.float() for x in exact))
    assert relative(y, expected) < 1e-5


@both_ways
def test_float16_signals_are_computed_in_single(directions):
    weights = [x.detach().float() for x in system(directions)]
    u = torch.randn(2, 130, 5).half()
    y = chunked_conv(u, *weights)
    assert y.dtype == torch.float16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(chunked_conv(u, *weights), y, rtol=0, atol=0)
    torch.testing.assert_close(y.float(), chunked_conv(u.float(), *weights), rtol=1e-3, atol=1e-3)


@both_ways
@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000, 4097])
def test_bfloat16_signals_keep_their_two_digits(directions, length):
    u = torch.randn(2, length, 5).bfloat16().requires_grad_()
    weights = [x.detach().float().requires_grad_() for x in system(directions)]
    exact = [x.detach().double().requires_grad_() for x in (u, *weights)]
    kernels = [vandermonde(*x, length) for x in zip(*exact[1:], strict=True)]
    y, expected = chunked_conv(u, *weights), long_conv(exact[0], torch.stack(kernels))
    assert y.dtype == torch.bfloat16
    assert relative(y, expected) < 2e-2
    dy = torch.randn_like(y)
    ours = torch.autograd.grad(y, (u, *weights), dy)
    theirs = torch.autograd.grad(expected, exact, dy.double())
    for actual, true in zip(ours, theirs, strict=True):
        assert relative(actual, true) < 2e-2


def test_each_direction_sees_its_own_side():
    u = torch.zeros(1, 200, 1, dtype=torch.float64)
    u[0, 100] = 1
    y = chunked_conv(u, *system(2, dim=1)).detach()[0, :, :, 0]
    assert not y[:100, 0].any()
    assert not y[101:, 1].any()
    assert y[100:, 0].all()
    assert y[:101, 1].all()


def test_any_layout_of_the_signal():
    weights = system(2)
    u = torch.randn(5, 90, 3, dtype=torch.float64).mT.transpose(0, 2)  # (90, 3, 5), strided
    u = u.transpose(0, 1)
    torch.testing.assert_close(chunked_conv(u, *weights), chunked_conv(u.contiguous(), *weights))


def test_modes_that_never_fade_or_are_gone_at_once():
    decay = torch.tensor([[[0.0, -200.0]]], requires_grad=True)
    angle, w = torch.tensor([[[0.5, 0.0]]]), torch.ones(1, 1, 2)
    u = torch.randn(1, 5000, 1)
    y = chunked_conv(u, decay, angle, w, w)
    (gradient,) = torch.autograd.grad(y.square().mean(), decay)
    assert y.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("triton", [False, True])
def test_the_operator_is_registered_as_torch_wants_it(triton, channels_first):
    if triton:
        pytest.importorskip("triton")
    u = torch.randn(2, 70, 3)
    u = (u.mT.contiguous().mT if channels_first else u).requires_grad_()
    matrices = chunk_matrices(*system(2, dim=3, dtype=torch.float32), 16)
    inputs = [x.detach().requires_grad_() for x in matrices]
    torch.library.opcheck(module._chunked_conv, (u, *inputs, 1, triton), atol=1e-4, rtol=1e-4)


def test_compiles_whole():
    inputs = [torch.randn(2, 70, 5), *chunk_matrices(*system(2, dtype=torch.float32))]
    inputs = [x.detach().requires_grad_() for x in inputs]
    operator = module._chunked_conv
    compiled = torch.compile(lambda *x: 2 * operator(*x), fullgraph=True, backend="aot_eager")
    y, expected = compiled(*inputs), 2 * operator(*inputs)
    torch.testing.assert_close(y, expected)
    dy = torch.randn_like(y)
    torch.testing.assert_close(
        torch.autograd.grad(y, inputs, dy), torch.autograd.grad(expected, inputs, dy)
    )


@both_ways
def test_an_image_is_read_by_columns(directions):
    u = torch.randn(2, 6 * 35, 5, dtype=torch.float64).requires_grad_()
    inputs = [u, *system(directions)]
    y, expected = chunked_conv(*inputs, rows=6), chunked_conv_reference(*inputs, rows=6)
    dy = torch.randn_like(y)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(
        torch.autograd.grad(y, inputs, dy), torch.autograd.grad(expected, inputs, dy)
    )


def test_flops_are_those_of_the_products():
    # 2 x 65 positions make 2 x 2 chunks of 64; two flops a multiply-add
    matrices = [x.detach() for x in chunk_matrices(*system(2))]
    u = torch.randn(2, 65, 5, dtype=torch.float64).requires_grad_()
    products = 2 * (2 * 2 * 64) * 5 * 2
    with FlopCounterMode(display=False) as counter:
        y = convolve(u, Matrices(*matrices))
    assert counter.get_total_flops() == products * (64 + 2 * 3 + 2 * 3)
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == products * (2 * 64 + 5 * 2 * 3)


def test_what_is_kept_for_the_way_back_does_not_grow_with_the_state():
    def kept(modes):
        numbers = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda x: numbers.append(x.numel() if x.shape[:2] == (1, 4096) else 0) or x, lambda x: x
        )
        with hooks:
            chunked_conv(torch.randn(1, 4096, 2).requires_grad_(), *small(modes))
        return sum(numbers)

    def small(modes):
        return system(2, dim=2, modes=modes, dtype=torch.float32)

    assert kept(2) == kept(64) == 4096 * 2


def test_mistakes(unchecked_shapes):
    with pytest.raises(ValueError, match="length 1 or more, not 0"):
        chunked_conv(torch.randn(1, 0, 5), *system(1))
    with pytest.raises(ValueError, match=r"one system or two \(directions\), not 3"):
        chunked_conv(torch.randn(1, 4, 5), *system(3))
