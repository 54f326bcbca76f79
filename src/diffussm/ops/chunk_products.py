"""What stands to the right of rows of chunks, made from the modes of a few channels, and back.

The scheme is told in `diffussm.ops.chunked_conv`. For a chunk u of c positions, one product with

    inner = [T | T' | P | P']       T_ji = K_(i-j), P_jn = z_n^(c-1-j); primed: from the end

gives what the chunk makes of itself, and what enters the states; `leave`, Q_in = 2 w_n z_n^(i+1),
makes of a state what it adds to the chunk. Read from the end, exponents are turned over: P'_jn =
z_n^j, Q'_in = 2 w_n z_n^(c-i). A complex number is two adjacent real ones; Q is conjugated, so that
a real product is the real part.

Of the c powers of z only about 2 sqrt(c) are computed, z^(i + s j) = z^i z^(s j), from either end.
The way back needs the same powers: with v = 2 w z z^i and dv its gradient, that of log z is the sum
of (i + 1) conj(v) dv, that of w the sum of 2 conj(z z^i) dv.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Powers(NamedTuple):
    """z^0 to z^(c-1), or from z^(c-1) down: factors z^i and z^(s j), complex."""

    fine: Tensor  # dim, directions, s, modes
    coarse: Tensor  # dim, directions, c / s, modes

    def all(self) -> Tensor:
        """(dim, directions, chunk, modes)."""
        return (self.coarse[:, :, :, None] * self.fine[:, :, None]).flatten(2, 3)

    def part(self, channels: slice) -> "Powers":
        return Powers(self.fine[channels], self.coarse[channels])

    def beside(self, other: "Powers") -> "Powers":
        """Of the first direction these, of the second the other's."""
        return Powers(
            *(torch.cat([x[:, :1], y[:, 1:]], dim=1) for x, y in zip(self, other, strict=True))
        )


class Modes(NamedTuple):
    """Modes of some channels, complex, (dim, directions, modes), and what is made of them once."""

    z: Tensor
    jump: Tensor
    """z^c"""
    weight: Tensor
    """2 w z"""
    enter: Powers
    """Exponents of P and P'."""
    leave: Powers
    """Exponents of Q and Q', less 1."""
    kernel: Tensor
    """Over lags 1 - c to c - 1, (dim, directions, 2 c - 1), zero on the side not seen."""

    @classmethod
    def of(cls, decay: Tensor, angle: Tensor, w: Tensor, skip: Tensor, chunk: int) -> "Modes":
        """From (directions, dim, modes), `w` complex, and (directions, dim)."""
        decay, angle, w, skip = (x.transpose(0, 1) for x in (decay, angle, w, skip))
        width = 2 ** (chunk.bit_length() // 2)
        fine, coarse = torch.arange(width), torch.arange(0, chunk, width)
        exponents = torch.cat([fine, coarse, torch.tensor([1, chunk])]).to(decay)[:, None]
        decay, angle = decay[:, :, None], angle[:, :, None]
        size, turn = torch.exp(decay * exponents), angle * exponents
        table = torch.complex(size * torch.cos(turn), size * torch.sin(turn))
        rising = Powers(*table[:, :, :-2].split([width, chunk // width], dim=2))
        turned = Powers(*(x.flip(2) for x in rising))
        enter, leave = turned.beside(rising), rising.beside(turned)
        z, jump = table[:, :, -2], table[:, :, -1]
        weight = 2 * w * z
        # K_1 to K_c as Q has them: Re(2 w z z^(s j) z^i), summed over modes
        factor = torch.conj_physical(leave.fine * weight[:, :, None])
        later = (pairs(leave.coarse) @ pairs(factor).mT).flatten(2)
        kernel = later.new_zeros(*later.shape[:2], 2 * chunk - 1)
        kernel[:, :, chunk - 1] = 2 * w.real.sum(-1) + skip
        kernel[:, 0, chunk:] = later[:, 0, :-1]
        kernel[:, 1:, : chunk - 1] = later[:, 1:, 1:]
        return cls(z, jump, weight, enter, leave, kernel)


class Products(NamedTuple):
    """The matrices of some channels."""

    inner: Tensor  # dim, chunk, directions (chunk + 2 modes)
    leave: Tensor  # dim, directions, chunk, 2 modes
    jump: Tensor  # dim, directions, modes: z^c, complex

    @classmethod
    def of(cls, modes: Modes, part: slice, dtype: torch.dtype) -> "Products":
        """Those of the channels `part`. Matrices are of `dtype`; z^c stays as it is."""
        kernel, jump = modes.kernel[part], modes.jump[part]
        dim, directions, count = jump.shape
        chunk = (kernel.shape[2] + 1) // 2
        inner = kernel.new_empty(dim, chunk, directions * (chunk + 2 * count), dtype=dtype)
        within, enter = sides(inner, directions, chunk)
        within.copy_(toeplitz(kernel.to(dtype)))
        enter.copy_(pairs(modes.enter.part(part).all()).transpose(1, 2))
        fine, coarse = (torch.conj_physical(x) for x in modes.leave.part(part))
        weight = torch.conj_physical(modes.weight[part])
        leave = Powers(fine * weight[:, :, None], coarse).all()
        return cls(inner, pairs(leave).to(dtype), jump)

    @property
    def enter(self) -> Tensor:
        """P and P', beside each other."""
        return self.inner[..., -self.leave.shape[1] * self.leave.shape[3] :]

    def side(self, made: Tensor, direction: int) -> tuple[Tensor, Tensor]:
        """Columns of one direction in what has the width of `inner`: chunks', and states'."""
        within, enter = sides(made, *self.leave.shape[1:3])
        return within[..., direction, :], enter[..., direction, :]


def pairs(z: Tensor) -> Tensor:
    """(..., modes) -> (..., 2 modes), real and imaginary parts side by side; a view."""
    return torch.view_as_real(z).flatten(-2)


def complexes(x: Tensor) -> Tensor:
    """The way back from `pairs`, a view."""
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def sides(inner: Tensor, directions: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Columns of chunks, (..., directions, chunk), and of states, (..., directions, 2 modes)."""
    within, enter = inner[..., : directions * chunk], inner[..., directions * chunk :]
    return within.unflatten(-1, (directions, chunk)), enter.unflatten(-1, (directions, -1))


def toeplitz(kernel: Tensor) -> Tensor:
    """(dim, directions, 2 c - 1) -> (dim, c, directions, c), row j being lags -j to c - 1 - j.

    A kernel after itself, c times, read with one number less a row.
    """
    return _slanted(kernel[:, :, None].repeat(1, 1, (kernel.shape[-1] + 1) // 2, 1))


def _slanted(repeated: Tensor) -> Tensor:
    dim, directions, chunk, width = repeated.shape
    strides = (directions * chunk * width, width - 1, chunk * width, 1)
    return repeated.as_strided((dim, chunk, directions, chunk), strides, chunk - 1)


class ModesGradient:
    """Gathers the gradients of decay, angle, w and skip, group by group of channels."""

    def __init__(self, modes: Modes):
        self.modes = modes
        # conjugated
        self.log_z, self.weight = (torch.zeros_like(modes.weight) for _ in range(2))
        self.at_once = modes.kernel.new_zeros(modes.weight.shape[:2])
        self._diagonals = modes.kernel.new_zeros(0)

    def add(self, part: slice, inner: Tensor, leave: Tensor, jump: Tensor) -> None:
        """What is handed back for the matrices of `part`; `leave` is used up."""
        modes, real = self.modes, leave.dtype
        directions, chunk = leave.shape[1:3]
        within, enter = sides(inner, directions, chunk)
        kernel = self._along_diagonals(within)
        self.at_once[part] = kernel[:, :, chunk - 1]
        leave[:, 0, :-1, ::2] += kernel[:, 0, chunk:, None]
        leave[:, 1:, 1:, ::2] += kernel[:, 1:, : chunk - 1, None]

        up = torch.arange(chunk, dtype=real, device=leave.device)
        exponents = torch.stack([chunk - 1 - up, up])[:directions, None]
        table = modes.enter.part(part).all()
        entered = complexes(enter.transpose(1, 2).to(real, memory_format=torch.contiguous_format))
        table.mul_(entered.conj_physical_())
        self.log_z[part] = complexes((exponents @ pairs(table)).squeeze(2))

        exponents = torch.stack([up, chunk - 1 - up])[:directions, None]
        table = modes.leave.part(part).all().mul_(complexes(leave))
        both = torch.cat([torch.ones_like(exponents), 1 + exponents], dim=1)
        weight, moment = complexes(both @ pairs(table)).unbind(2)
        self.weight[part] = weight
        self.log_z[part] += modes.weight[part] * moment
        self.log_z[part] += chunk * modes.jump[part] * torch.conj_physical(jump)

    def _along_diagonals(self, gradient: Tensor) -> Tensor:
        """The gradient of kernels from that of their `toeplitz`."""
        dim, chunk, directions, _ = gradient.shape
        if len(self._diagonals) < dim:  # made once: what is not written stays zero
            self._diagonals = self.at_once.new_zeros(dim, directions, chunk, 2 * chunk - 1)
        repeated = self._diagonals[:dim]
        _slanted(repeated).copy_(gradient)
        return repeated.sum(2)

    def result(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of decay, angle, w and skip, each as it came, (directions, dim, ...)."""
        w = torch.conj_physical(2 * self.modes.z * self.weight) + 2 * self.at_once[..., None]
        found = (self.log_z.real, -self.log_z.imag, w, self.at_once)
        return tuple(x.transpose(0, 1).contiguous() for x in found)  # pyright: ignore
