"""In which form a diagonal state space model is applied to a sequence.

    fft        a kernel as long as the sequence (`vandermonde`), and FFTs (`long_conv`)
    chunked    products of matrices, linear in the length (`chunked_conv`)
    triton     the same in one kernel of the GPU (`chunked_conv_triton`)

The rule follows measurements, docs/performance.md; `diffussm.ops.forms.use_form` overrides it.
"""

from torch import Tensor

from diffussm.ops.forms import asked_form

LONG = 256
"""Positions a mode from which chunks are faster than FFTs, where there is no Triton."""


def diagonal_form(u: Tensor, modes: int) -> str:
    """The form for the signal `u`, (batch, length, dim), and systems of `modes` pairs.

    Raises ValueError where Triton is asked for and cannot be used.
    """
    form = asked_form("diagonal_conv")
    if form in ("fft", "chunked"):
        return form
    if form == "triton" or u.is_cuda:
        reason = no_triton(u, modes)
        if reason is None:
            return "triton"
        if form == "triton":
            raise ValueError(f"diagonal_conv has no Triton form here: {reason}; use another form")
    return "chunked" if u.shape[1] >= LONG * modes else "fft"


def no_triton(u: Tensor, modes: int) -> str | None:
    """Why Triton's form cannot take these arguments; None where it can."""
    try:
        from diffussm.ops.chunked_conv_triton import unsupported
    except ImportError:
        return "triton is not installed"
    return unsupported(u, modes)
