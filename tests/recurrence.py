"""S4D written out as a recurrence of full matrices: slow, and nothing in common with ours."""

import torch


def discrete_matrices(layer, method):
    """Complex A_bar (dim, state, state) and B_bar (dim, state), both halves of each pair."""
    half = torch.complex(-torch.exp(layer.log_decay), layer.frequency)
    a = torch.diag_embed(torch.cat([half, half.conj()], dim=1))
    half = torch.view_as_complex(layer.B.detach().clone())
    b = torch.cat([half, half.conj()], dim=1)[..., None]
    dt = layer.rate * torch.exp(layer.log_dt)[:, None, None]
    if method != "zoh":
        alpha = {"bilinear": 0.5, "backward_euler": 1.0}[method]
        identity = torch.eye(a.shape[-1], dtype=a.dtype)
        implicit = identity - alpha * dt * a
        a_bar = torch.linalg.solve(implicit, identity + (1 - alpha) * dt * a)
        return a_bar, torch.linalg.solve(implicit, dt * b)[..., 0]
    # a constant input is one more state, that never changes
    held = torch.cat([a, b], dim=2)
    held = torch.cat([held, torch.zeros_like(held[:, :1])], dim=1)
    exponential = torch.matrix_exp(dt * held)
    return exponential[:, :-1, :-1], exponential[:, :-1, -1]


@torch.no_grad()
def scan(layer, u, method="zoh"):
    """`layer` on `u` (batch, length, dim), one position after the other."""
    a_bar, b_bar = discrete_matrices(layer, method)
    half = torch.view_as_complex(layer.C.clone())
    c = torch.cat([half, half.conj()], dim=1)
    h = torch.zeros(u.shape[0], *b_bar.shape, dtype=b_bar.dtype)
    y = torch.empty_like(u)
    for l in range(u.shape[1]):
        h = torch.einsum("dnm,bdm->bdn", a_bar, h) + b_bar * u[:, l, :, None]
        y[:, l] = (c * h).sum(-1).real + layer.D * u[:, l]
    return y


@torch.no_grad()
def scan_from_the_end(layer, u, method="zoh"):
    """The same, beginning at the last position."""
    return scan(layer, u.flip(1), method).flip(1)
