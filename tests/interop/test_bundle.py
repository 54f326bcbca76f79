"""One file that stands alone: what is in it, and that it does what the package does."""

import ast
import subprocess
import sys

import pytest
import torch

from diffussm.interop.bundle import bundle
from diffussm.models import DiffuSSM, DiffuSSMConfig
from diffussm.ssm.choices import SSMS

HIDE = "import sys\nfor name in ('diffussm', 'einops', 'jaxtyping'): sys.modules[name] = None\n"


def run_alone(folder, code):
    """Standard output of `code` in a process that has none of our packages."""
    done = subprocess.run(
        [sys.executable, "-c", HIDE + code], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def network():
    return bundle("diffussm.models.diffussm", "DiffuSSM")


def test_it_names_none_of_what_it_stands_without(network):
    statements = list(ast.walk(ast.parse(network.source)))
    imported = {each.module or "" for each in statements if isinstance(each, ast.ImportFrom)}
    for each in statements:
        if isinstance(each, ast.Import):
            imported |= {alias.name for alias in each.names}
    # Triton's kernels stay behind, and are used where the package is installed
    imported = {(name or "").split(".")[0] for name in imported if "_triton" not in name}
    assert "torch" in imported
    assert not imported & {"diffussm", "einops", "jaxtyping"}
    assert "register_flop_formula" not in network.source
    for name in ("long_conv_reference", "long_conv_flops", "resample", "from_dict"):
        assert f"def {name}(" not in network.source  # only what is needed


def test_docstrings_and_comments_come_along(network):
    assert "U_l = act(W_k^up act(W^0 h_j))" in network.source
    assert "# The adjoint of a convolution is the same convolution" in network.source


def test_its_fingerprint_changes_with_what_is_in_it(network):
    assert bundle("diffussm.models.diffussm", "DiffuSSM") == network
    other = bundle("diffussm.ssm.s4d", "S4D")
    assert other.fingerprint != network.fingerprint
    assert f'"diffussm_{network.fingerprint}::long_conv"' in network.source
    assert '"diffussm::' not in network.source


def test_equal_names_are_told_apart(network):
    for name in ("legs_s4d", "legs_hippo", "zoh_dense", "zoh_discretization"):
        assert f"def {name}(" in network.source
    assert '"legs": legs_s4d' in network.source
    assert '"legs": legs_hippo' in network.source


@pytest.mark.parametrize("ssm", SSMS)
def test_alone_it_answers_and_learns_as_the_package_does(network, ssm, tmp_path):
    options = {"input_size": 8, "in_channels": 1, "num_classes": 2, "d_model": 8, "depth": 2}
    options |= {"ssm": ssm, "d_state": 4, "scan": "alternating"}
    ours = DiffuSSM(DiffuSSMConfig(**options))
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, t, y = torch.randn(2, 1, 8, 8), torch.tensor([3, 900]), torch.tensor([0, 2])
    answer = ours(x, t, y)
    answer.square().sum().backward()
    torch.save((ours.state_dict(), (x, t, y)), tmp_path / "given.pt")
    (tmp_path / "alone.py").write_text(network.source)
    code = f"""
import torch
import alone
network = alone.DiffuSSM(alone.DiffuSSMConfig(**{options!r}))
weights, inputs = torch.load("given.pt")
network.load_state_dict(weights)
answer = network(*inputs)
answer.square().sum().backward()
gradients = {{name: parameter.grad for name, parameter in network.named_parameters()}}
torch.save((answer.detach(), gradients), "made.pt")
"""
    run_alone(tmp_path, code)
    made, gradients = torch.load(tmp_path / "made.pt")
    assert torch.equal(made, answer)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, msg=name)


def test_it_lives_beside_the_package_and_beside_itself(network):
    """diffusers runs the file anew at every load, in the same module."""
    space = {"__name__": "again"}
    exec(compile(network.source, "again", "exec"), space)
    first = space["DiffuSSM"]
    exec(compile(network.source, "again", "exec"), space)
    assert space["DiffuSSM"] is first
    options = {"input_size": 4, "in_channels": 1, "num_classes": 0, "d_model": 8, "d_state": 4}
    theirs, ours = first(space["DiffuSSMConfig"](**options)), DiffuSSM(DiffuSSMConfig(**options))
    theirs.load_state_dict(ours.state_dict())
    x, t = torch.randn(1, 1, 4, 4), torch.tensor([1])
    assert torch.equal(theirs(x, t), ours(x, t))
