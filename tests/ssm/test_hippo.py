"""HiPPO's matrices against the printed ones, their normal forms, and what they are for."""

import pytest
import torch

from diffussm.ssm.hippo import HIPPO, legs, legs_normal_eigenvalues, normal_plus_low_rank

PUBLISHED = {
    "legs": (
        [
            [-1, 0, 0, 0],
            [-1.732051, -2, 0, 0],
            [-2.236068, -3.872983, -3, 0],
            [-2.645751, -4.582576, -5.91608, -4],
        ],
        [1, 1.732051, 2.236068, 2.645751],
    ),
    "legt": (
        [
            [-0.5, 0.866025, -1.118034, 1.322876],
            [-0.866025, -1.5, 1.936492, -2.291288],
            [-1.118034, -1.936492, -2.5, 2.95804],
            [-1.322876, -2.291288, -2.95804, -3.5],
        ],
        [0.5, 0.866025, 1.118034, 1.322876],
    ),
    "lagt": (
        [[-0.5, 0, 0, 0], [-1, -0.5, 0, 0], [-1, -1, -0.5, 0], [-1, -1, -1, -0.5]],
        [1, 1, 1, 1],
    ),
    "fourier": (
        [
            [-1, 0, -1.414214, 0],
            [0, 0, 0, 0],
            [-1.414214, 0, -2, -3.141593],
            [0, 0, 3.141593, 0],
        ],
        [1, 0, 1.414214, 0],
    ),
}
PUBLISHED_NORMAL = {
    # real part, imaginary parts, |P_r|^2 over one of each conjugate pair, all at N = 8
    "legs": (-0.5, [19.857410, 5.354209, 1.957794, 0.427489], [16]),
    "legt": (0, [12.065829, 9.243683, 4.336314, 1.471894], [9, 7]),
    "fourier": (0, [9.424778, 6.283185, 3.141593, 0], [3.5]),
}
EVERY_FORM = [(name, state) for name in HIPPO for state in (2, 4, 8, 64, 256)]


@pytest.mark.parametrize("name", HIPPO)
def test_matrices_are_the_published_ones(name):
    for actual, published in zip(HIPPO[name](4), PUBLISHED[name], strict=True):
        expected = torch.tensor(published, dtype=torch.float64)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PUBLISHED_NORMAL)
def test_normal_eigenvalues_are_the_published_ones(name):
    real, imaginary, squares = PUBLISHED_NORMAL[name]
    form = normal_plus_low_rank(name, 8)
    expected = torch.tensor([complex(real, turn) for turn in imaginary], dtype=torch.complex128)
    torch.testing.assert_close(form.eigenvalues[:4], expected, rtol=0, atol=1e-6)
    assert form.P[:, :4].abs().square().sum(1).sort(descending=True)[0].tolist() == pytest.approx(
        squares
    )


def test_lagt_turns_by_cotangents():
    # its skew part is circulant but for a sign: i/2 cot(pi (2j+1) / 2N)
    angle = torch.pi * (2 * torch.arange(32, dtype=torch.float64) + 1) / 128
    expected = torch.complex(torch.zeros_like(angle), 0.5 / torch.tan(angle))
    actual = normal_plus_low_rank("lagt", 64).eigenvalues[:32]
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "state"), EVERY_FORM)
def test_normal_and_low_rank_parts_make_the_system(name, state):
    a, b = HIPPO[name](state)
    form = normal_plus_low_rank(name, state)
    assert form.P.shape == (2 if name == "legt" else 1, state)
    inner = torch.diag(form.eigenvalues)
    for p in form.P:
        inner = inner - torch.outer(p, p.conj())
    assert torch.linalg.norm(form.V @ inner @ form.V.mH - a) <= 1e-12 * torch.linalg.norm(a)
    assert torch.linalg.norm(form.V @ form.B - b) <= 1e-12 * torch.linalg.norm(b)
    unit = torch.eye(state, dtype=torch.complex128)
    torch.testing.assert_close(form.V.mH @ form.V, unit, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("name", "state"), EVERY_FORM)
def test_pairs_are_conjugate_and_the_fastest_first(name, state):
    form, half = normal_plus_low_rank(name, state), state // 2
    for part in form:
        assert torch.equal(part[..., half:], part[..., :half].conj())
    turns = form.eigenvalues.imag[:half]
    assert turns[-1] >= 0
    assert (turns.diff() < 0).all()


@pytest.mark.parametrize(("name", "state"), EVERY_FORM)
def test_energy_never_grows(name, state):
    a, _ = HIPPO[name](state)
    largest = torch.linalg.eigvalsh(a + a.T)[-1]
    assert largest <= 1e-12 * torch.linalg.norm(a)


@pytest.mark.parametrize("state", [2, 6, 64])
def test_normal_part_of_legs_by_a_general_solver(state):
    a, b = legs(state)
    eigenvalues = torch.linalg.eigvals(a + torch.outer(b, b) / 2)
    torch.testing.assert_close(eigenvalues.real, torch.full_like(b, -0.5), rtol=0, atol=1e-8)
    positive = eigenvalues.imag.sort(descending=True).values[: state // 2]
    torch.testing.assert_close(legs_normal_eigenvalues(state), positive, rtol=1e-8, atol=1e-8)


def test_legs_remembers_the_mean_of_its_past():
    # h' = (A h + B u) / t keeps Legendre coefficients of u on [0, t]: of u = t^2 these are
    # t^2 (1/3, sqrt(3)/6, sqrt(5)/30, 0, ...), so that A c + B = 2 c.
    a, b = legs(5)
    c = torch.tensor([1 / 3, 3**0.5 / 6, 5**0.5 / 30, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(a @ c + b, 2 * c)


def test_lagt_remembers_in_laguerre_functions():
    # the impulse response of state n is L_n(t) exp(-t / 2)
    a, b = HIPPO["lagt"](4)
    t = 1.7
    laguerre = torch.tensor(
        [1, 1 - t, 1 - 2 * t + t**2 / 2, 1 - 3 * t + 3 * t**2 / 2 - t**3 / 6], dtype=torch.float64
    )
    response = torch.matrix_exp(a * t) @ b
    torch.testing.assert_close(response, laguerre * torch.exp(torch.tensor(-t / 2).double()))


@pytest.mark.parametrize("name", HIPPO)
@pytest.mark.parametrize("state", [0, -2])
def test_a_state_of_nothing_is_refused(name, state):
    with pytest.raises(ValueError, match=f"not {state}"):
        HIPPO[name](state)


@pytest.mark.parametrize("name", HIPPO)
@pytest.mark.parametrize("state", [-2, 0, 1, 7])
def test_a_normal_form_is_made_of_pairs(name, state):
    with pytest.raises(ValueError, match=f"even state of at least 2.*not {state}"):
        normal_plus_low_rank(name, state)


def test_other_refusals():
    with pytest.raises(ValueError, match=r"fourier needs an even state.*not 5"):
        HIPPO["fourier"](5)
    with pytest.raises(ValueError, match="did you mean 'fourier'"):
        normal_plus_low_rank("furier", 4)
