"""The bidirectional S4D operator in its forms, beside attention and Mamba's scan.

    python benchmarks/operators.py [--device cpu|cuda] [--dtype float32|bfloat16]
        [--shapes 4x1024x384,1x16384x384] [--repeats 5] [--out benchmarks/results/FILE.md]

Forms: ours (docs/performance.md); "torch.fft", the convolution as one writes it with torch.fft and
our kernel; "naive", that with the kernel as one writes it. Making the kernel is counted. Attention
is softmax attention by `scaled_dot_product_attention`, heads of 64. Fractions are of what this
machine reaches in the same run: copying (bytes read and written) and a matrix product.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import timing
import torch
import torch.nn.functional as F
from memory import PeakMemory
from timing import agree, columns, device_conditions, device_parser, in_turn, put, seconds
from torch import Tensor

from diffussm.cli.process import prepare
from diffussm.ops.chunk_system import chunk_matrices
from diffussm.ops.chunked_conv import _chunked_conv, _chunked_conv_backward, chunked_conv_flops
from diffussm.ops.diagonal_conv import no_triton
from diffussm.ops.forms import use_form
from diffussm.ops.long_conv import _long_conv, _long_conv_backward, fft_length, long_conv_flops
from diffussm.ops.selective_scan import selective_scan, selective_scan_flops
from diffussm.ops.vandermonde import vandermonde, vandermonde_reference
from diffussm.ssm.kernel_layer import respond
from diffussm.ssm.s4d import S4D

STATE = 64
NAIVE_NUMBERS = 2**30
"""Bytes beyond which the naive kernel, dim x state / 2 x length complex numbers, is left out."""
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
SHAPES = {
    "cpu": "4x1024x384,1x4096x384,1x16384x384",
    "cuda": "32x1024x1152,8x4096x1152,2x16384x1152",
}
LENGTHS = [1024, 4096, 16384, 65536]


@dataclass(frozen=True)
class Form:
    """Something to time: a function of its inputs, and the flops of its forward pass."""

    apply: Callable[..., Tensor]
    inputs: list[Tensor]
    flops: int
    checked: bool = True
    """Whether it computes the operator, rather than something beside it."""


def plain_conv(u: Tensor, kernels: Tensor) -> Tensor:
    """The convolution as one writes it: for each direction a product of spectra."""
    size = fft_length(u.shape[1])
    signal = torch.fft.rfft(u.float().mT, n=size)
    ahead, behind = torch.fft.rfft(kernels, n=size)
    spectra = signal * ahead, signal * behind.conj()
    responses = [torch.fft.irfft(x, n=size)[..., : u.shape[1]].mT for x in spectra]
    return torch.stack(responses, dim=2).to(u.dtype)


def plain(layers: list[S4D], kernel: Callable[..., Tensor], u: Tensor, *_: Tensor) -> Tensor:
    kernels = torch.stack([kernel(*layer.modes(), u.shape[1]) for layer in layers])
    skip = torch.stack([layer.D for layer in layers]).to(u.dtype)
    return plain_conv(u, kernels) + skip * u[:, :, None]


def in_form(form: str, layers: list[S4D], u: Tensor, *_: Tensor) -> Tensor:
    with use_form("diagonal_conv", form):
        return respond(layers, u)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def forms(batch: int, length: int, dim: int, device: str, dtype: torch.dtype) -> dict[str, Form]:
    """All that is compared at one shape."""
    layers = [S4D(dim, d_state=STATE).to(device) for _ in range(2)]
    u = torch.randn(batch, length, dim, device=device).to(dtype).requires_grad_()
    inputs = [u, *(p for layer in layers for p in layer.parameters())]
    fft = long_conv_flops(batch, length, dim, 2)
    chunks = chunked_conv_flops(batch, length, dim, 2, STATE // 2)
    found = {"fft": Form(partial(in_form, "fft", layers), inputs, fft)}
    found["chunked"] = Form(partial(in_form, "chunked", layers), inputs, chunks)
    if no_triton(u, STATE // 2) is None:
        found["triton"] = Form(partial(in_form, "triton", layers), inputs, chunks)
    found["torch.fft"] = Form(partial(plain, layers, vandermonde), inputs, fft)
    if 8 * dim * STATE // 2 * length <= NAIVE_NUMBERS:
        found["naive"] = Form(partial(plain, layers, vandermonde_reference), inputs, fft)
    heads = dim // min(dim, 64)
    qkv = torch.randn(3, batch, heads, length, dim // heads, device=device).to(dtype)
    qkv = [x.requires_grad_() for x in qkv.unbind()]
    found["attention"] = Form(attention, qkv, 4 * batch * length**2 * dim, checked=False)
    found |= selective(u, device)
    return found


def selective(u: Tensor, device: str) -> dict[str, Form]:
    """Mamba's scan, one direction, 16 states a channel."""
    batch, length, dim = u.shape
    dt = torch.exp(torch.empty(u.shape, device=device).uniform_(-7, -2.3))
    a = -torch.arange(1.0, 17.0, device=device).repeat(dim, 1)
    b, c = torch.randn(2, batch, length, 16, device=device).to(u.dtype)
    inputs = [x.requires_grad_() for x in (u, dt, a, b, c)]
    flops = selective_scan_flops(batch, length, dim, 16)
    return {"Mamba's scan": Form(selective_scan, inputs, flops, checked=False)}


def forward(form: Form) -> Tensor:
    with torch.no_grad():
        return form.apply(*form.inputs)


def both_ways(form: Form, cotangent: Tensor) -> list[Tensor]:
    y = form.apply(*form.inputs)
    return [y, *torch.autograd.grad(y, form.inputs, cotangent.expand_as(y))]


def check(found: dict[str, Form], what: str, dtype: torch.dtype) -> None:
    """Values and gradients of every form are those of torch.fft."""
    expected = timing.both_ways(found["torch.fft"].apply, found["torch.fft"].inputs)
    for name, form in found.items():
        if form.checked and name != "torch.fft":
            results = timing.both_ways(form.apply, form.inputs)
            agree(f"{what}, {name}", results, expected, TOLERANCES[dtype])


def rates(device: str, dtype: torch.dtype, repeats: int) -> tuple[float, float]:
    """Bytes a second that copying moves, flops a second of a matrix product."""
    x = torch.empty(2**26 if device == "cpu" else 2**30, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    side = 2048 if device == "cpu" else 8192
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    times = in_turn({"copy": lambda: y.copy_(x), "product": lambda: a @ b}, max(repeats, 5))
    return 2 * x.nbytes / times["copy"], 2 * side**3 / times["product"]


def shape_table(shape: str, device: str, dtype: torch.dtype, repeats: int) -> str:
    batch, length, dim = (int(size) for size in shape.split("x"))
    found = forms(batch, length, dim, device, dtype)
    check(found, shape, dtype)
    cotangent = torch.ones((), dtype=dtype, device=device)
    copied, multiplied = rates(device, dtype, repeats)
    once = in_turn({name: partial(forward, form) for name, form in found.items()}, repeats)
    twice = {name: partial(both_ways, form, cotangent) for name, form in found.items()}
    both = in_turn(twice, repeats)
    number = batch * length * dim * found["fft"].inputs[0].element_size()
    rows = []
    for name, form in found.items():
        row = [name, f"{1e3 * once[name]:.2f}", f"{1e3 * both[name]:.2f}"]
        row += [f"{both[name] / both['fft']:.2f}"]
        # u in, both responses out; on the way back u and their gradients in, u's gradient out
        floors = [3 * number / once[name] / copied, 7 * number / both[name] / copied]
        row += [f"{100 * floor:.1f}" for floor in floors] if form.checked else ["", ""]
        row += [f"{form.flops / 1e9:.2f}", f"{100 * form.flops / once[name] / multiplied:.1f}"]
        rows.append(row)
    names = ["", "forward, ms", "both ways, ms", "of fft's", "forward, % of copying"]
    names += ["both ways, % of copying", "forward, Gflop", "% of a product"]
    head = f"batch {batch}, L = {length}, D = {dim}, N = {STATE}"
    said = f"copying {copied / 1e9:.0f} GB/s, products {multiplied / 1e12:.2f} Tflop/s"
    return f"{head}; {said}\n\n{columns(names, rows)}"


def chunked_inputs(batch: int, length: int, dim: int, device: str) -> list[Tensor]:
    layers = [S4D(dim, d_state=STATE).to(device) for _ in range(2)]
    systems = zip(*(layer.modes() for layer in layers), strict=True)
    matrices = chunk_matrices(*(torch.stack(x).detach() for x in systems))
    return [torch.randn(batch, length, dim, device=device), *matrices]


def line_table(device: str, repeats: int, dim: int = 96) -> str:
    """The same work at every length: time of the chunked form, and memory of both."""
    rows = []
    first = None
    for length in LENGTHS:
        u, *matrices = chunked_inputs(LENGTHS[-1] // length, length, dim, device)
        kernels = [torch.randn(2, dim, length, device=device)]
        y = u.new_ones(*u.shape[:2], 2, dim)
        time = min(seconds(partial(_chunked_conv, u, *matrices)) for _ in range(3 * repeats + 1))
        first = first or time
        row = [f"{len(u)} x {length}", f"{1e3 * time:.1f}", f"{time / first:.2f}"]
        for operator, constants, rest in (
            (_chunked_conv, matrices, []),
            (_chunked_conv_backward, matrices, [y]),
            (_long_conv, kernels, [1]),
            (_long_conv_backward, kernels, [y, 1]),
        ):
            row.append(f"{held(operator._init_fn, u, *constants, *rest):.2f}")
        rows.append(row)
    names = ["batch x L", "chunked, ms", "of the first", "chunked, forward"]
    names += ["chunked, backward", "fft, forward", "fft, backward"]
    head = f"D = {dim}, N = {STATE}, float32: time of the chunked form, forward, matrices given;\n"
    head += "peak memory of one call over its inputs and outputs, of both forms\n\n"
    return head + columns(names, rows)


def held(operator: Callable[..., Tensor | tuple[Tensor, ...]], *inputs: Tensor | int) -> float:
    """The most bytes held at once, inputs included, over inputs and outputs."""
    given = [x for x in inputs if isinstance(x, Tensor)]
    with PeakMemory(*given) as memory:
        result = operator(*inputs)
    results = [result] if isinstance(result, Tensor) else [*result]
    return memory.peak / sum(x.nbytes for x in [*given, *results])


def main() -> None:
    prepare()
    words = device_parser(__doc__.splitlines()[0])
    words.add_argument("--shapes", help="batch x length x dim, as 4x1024x384,1x16384x384")
    arguments = words.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    dtype = getattr(torch, arguments.dtype)
    shapes = (arguments.shapes or SHAPES[arguments.device]).split(",")
    options = arguments.device, dtype, arguments.repeats
    parts = [device_conditions(*options)]
    parts += [shape_table(shape, *options) for shape in shapes]
    parts.append(line_table(arguments.device, arguments.repeats))
    put("\n".join(parts), arguments.out)


if __name__ == "__main__":
    main()
