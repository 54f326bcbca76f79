"""Convolution with a kernel as long as the sequence, by FFT, in one or both directions.

    forward    y_l = sum_{m >= 0} K_m u_{l-m}
    backward   y_l = sum_{m >= 0} K_m u_{l+m}        both see the present, lag 0

`long_conv` is what layers call: an operator of its own, so that compilers and flop counters see
one opaque, differentiable node and no complex numbers. `long_conv_reference` is the same sums
written out, the truth it is tested against.

A sequence may be an image, `rows` rows laid one after another, and be read column by column. The
FFT wants each channel's numbers adjacent, so signals are copied into that order anyway; the same
copies take them there and back. What lies between is done for a group of channels at a time.

Gu et al., "Efficiently Modeling Long Sequences with Structured State Spaces", 2022, equation 5.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from diffussm.ops.reading_order import channels_first, channels_last, check_rows, reading_order
from diffussm.shapes import Signal

Kernels = Float[Tensor, "directions dim lags"]
Responses = Float[Tensor, "batch length directions dim"]

AT_ONCE = 2**19
"""Numbers that are transformed together: what a processor's cache holds."""


def long_conv(u: Signal, kernels: Kernels, rows: int = 1) -> Responses:
    """`u` through one kernel (forward) or two (forward, backward); differentiable in both.

    rows    above 1, `u` is a grid of that many rows and is read column by column; the response
            lies as `u` does
    Computed in float32 (float64 for float64 input, which tests use) whatever autocast says;
    the result has the type of `u`.
    """
    _check(u, kernels, rows)
    return _long_conv(u, kernels, rows)


def long_conv_reference(u: Signal, kernels: Kernels, rows: int = 1) -> Responses:
    _check(u, kernels, rows)
    length = u.shape[1]
    order = reading_order(length, rows)
    u = u[:, order]
    lag = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    causal = torch.where(lag >= 0, kernels[0][:, lag.clamp(min=0)], 0)
    responses = [torch.einsum("dlm,bmd->bld", causal, u)]
    if len(kernels) == 2:
        anticausal = torch.where(lag <= 0, kernels[1][:, (-lag).clamp(min=0)], 0)
        responses.append(torch.einsum("dlm,bmd->bld", anticausal, u))
    return torch.stack(responses, dim=2)[:, order.argsort()]


def fft_length(length: int) -> int:
    """The smallest even 2^a 3^b 5^c at which a circular convolution does not wrap around."""
    size = 2 * length
    while not _is_smooth(size):
        size += 2
    return size


def _is_smooth(size: int) -> bool:
    for factor in (2, 3, 5):
        while size % factor == 0:
            size //= factor
    return size == 1


def _check(u: Tensor, kernels: Tensor, rows: int) -> None:
    if len(kernels) not in (1, 2):
        raise ValueError(f"long_conv takes one kernel or two (two directions), not {len(kernels)}")
    if u.shape[1] == 0:
        raise ValueError("long_conv needs a sequence of length 1 or more, not 0")
    if kernels.shape[2] != u.shape[1]:
        raise ValueError(
            f"the kernels are {kernels.shape[2]} long and the sequence {u.shape[1]}; "
            "make kernels of the sequence's length"
        )
    check_rows(u.shape[1], rows)


def _groups(batch: int, size: int, dim: int) -> list[slice]:
    """The channels, in groups whose spectra stay in a processor's cache."""
    count = max(1, AT_ONCE // (batch * size))
    return [slice(first, first + count) for first in range(0, dim, count)]


def _spectrum(x: Tensor, size: int) -> Tensor:
    """FFT along the last axis, in at least float32: there is none for bfloat16."""
    return torch.fft.rfft(x.to(torch.promote_types(x.dtype, torch.float32)), n=size)


def _reverse(spectra: Tensor) -> Tensor:
    """In place, the spectra of what is read from its end."""
    torch.view_as_real(spectra)[..., 1].neg_()
    return spectra


@torch.library.custom_op("diffussm::long_conv", mutates_args=())
def _long_conv(u: Tensor, kernels: Tensor, rows: int) -> Tensor:
    return channels_last(_responses(channels_first(u, rows), kernels), rows)


def _responses(x: Tensor, kernels: Tensor) -> Tensor:
    """(directions, dim, batch, length)."""
    dim, batch, length = x.shape
    size = fft_length(length)
    y = x.new_empty(len(kernels), *x.shape)
    for part in _groups(batch, size, dim):
        signal = _spectrum(x[part], size)
        spectra = _spectrum(kernels[:, part, None], size)
        _reverse(spectra[1:])
        for response, spectrum in zip(y, spectra, strict=True):
            response[part] = torch.fft.irfft(signal * spectrum, n=size)[..., :length]
    return y


@_long_conv.register_fake
def _(u: Tensor, kernels: Tensor, rows: int) -> Tensor:
    batch, length, dim = u.shape
    return u.new_empty(batch, length, kernels.shape[0], dim)


@torch.library.custom_op("diffussm::long_conv_backward", mutates_args=())
def _long_conv_backward(u: Tensor, kernels: Tensor, dy: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    # The adjoint of a convolution is the same convolution in the other direction.
    du, dkernels = _gradients(channels_first(u, rows), kernels, channels_first(dy, rows))
    return channels_last(du, rows), dkernels


def _gradients(x: Tensor, kernels: Tensor, cotangents: Tensor) -> tuple[Tensor, Tensor]:
    dim, batch, length = x.shape
    size = fft_length(length)
    du, dkernels = torch.empty_like(x), kernels.new_empty(kernels.shape)
    for part in _groups(batch, size, dim):
        signal = _reverse(_spectrum(x[part], size))
        spectra = _spectrum(kernels[:, part, None], size)
        cotangent = _spectrum(cotangents[:, part], size)
        _reverse(spectra[:1])
        through_signal = (cotangent * spectra).sum(0)
        du[part] = torch.fft.irfft(through_signal, n=size)[..., :length]
        through_kernels = (cotangent * signal).sum(2)
        _reverse(through_kernels[1:])
        dkernels[:, part] = torch.fft.irfft(through_kernels, n=size)[..., :length]
    return du, dkernels


@_long_conv_backward.register_fake
def _(u: Tensor, kernels: Tensor, dy: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    return u.new_empty(u.shape), kernels.new_empty(kernels.shape)


def _setup_context(ctx, inputs, output) -> None:
    u, kernels, ctx.rows = inputs
    ctx.save_for_backward(u, kernels)


def _backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, None]:
    u, kernels = ctx.saved_tensors
    return *_long_conv_backward(u, kernels, dy, ctx.rows), None


_long_conv.register_autograd(_backward, setup_context=_setup_context)


def long_conv_flops(batch: int, length: int, dim: int, directions: int) -> int:
    """Floating point operations of one convolution: FFTs at 2.5 n log2 n, and their products.

    The kernels' own FFTs are counted: they are made anew at each call.
    """
    size = fft_length(length)
    transforms = batch * dim * (1 + directions) + directions * dim
    products = batch * dim * directions * (size // 2 + 1)
    return round(transforms * 2.5 * size * math.log2(size)) + 6 * products


@register_flop_formula(torch.ops.diffussm.long_conv)
def _(u_shape, kernels_shape, rows, **_) -> int:
    batch, length, dim = u_shape
    return long_conv_flops(batch, length, dim, kernels_shape[0])


@register_flop_formula(torch.ops.diffussm.long_conv_backward)
def _(u_shape, kernels_shape, dy_shape, rows, **_) -> int:
    batch, length, dim = u_shape
    directions, size = kernels_shape[0], fft_length(length)
    # spectra of u, dy and the kernels; inverses of du and the kernels' gradients
    transforms = batch * dim * (2 + directions) + 2 * directions * dim
    products = 2 * batch * dim * directions * (size // 2 + 1)
    return round(transforms * 2.5 * size * math.log2(size)) + 8 * products
