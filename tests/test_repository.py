"""The rules that hold for the repository as a whole: floors, lazy imports, sizes, versions."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import diffussm

ROOT = Path(__file__).parents[1]
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(home|root|Users|work)/\w")
HEAVY = {"diffusers", "transformers", "gradio", "lmdb", "pyarrow"}
HEAVY |= {"sklearn", "matplotlib", "tensorboard", "typer"}


def run_python(code):
    """Standard output of `code` in a fresh interpreter, which must say nothing on stderr."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def repository_files():
    """What git tracks or would track: everything but the ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def test_every_import_goes_down_the_floors():
    code = "from importlinter.cli import lint_imports; print(lint_imports(no_cache=True))"
    report = run_python(code)
    assert report.splitlines()[-1] == "0", report


def test_import_loads_nothing_heavy_and_prints_nothing():
    # the star touches every public name, those that are imported on first use too
    code = f"from diffussm import *; import sys; print({HEAVY} & sys.modules.keys())"
    assert run_python(code) == "set()\n"


def test_help_does_not_wait_for_torch():
    code = """
import sys
from diffussm.cli import main
sys.argv = ["diffussm", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code
print("slow:", {"torch", "numpy", "sklearn", "matplotlib"} & sys.modules.keys())
"""
    *page, last = run_python(code).splitlines()
    assert "train" in "".join(page)
    assert last == "slow: set()"


def test_no_file_names_a_place_on_someones_machine():
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in repository_files()
        for line in path.read_text(errors="ignore").splitlines()
        if MACHINE_PATH.search(line)
    ]
    assert not found


def test_files_stay_short():
    """A kernel for a GPU may take 400 lines: it is told nowhere else."""
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in (ROOT / "src").rglob("*.py")
    }
    allowed = {name: 400 if "_triton" in name else 300 for name in lengths}
    assert {name: length for name, length in lengths.items() if length > allowed[name]} == {}


def test_one_version_everywhere():
    latest = re.search(r"^## \[(\d.*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert latest is not None
    assert cited is not None
    assert latest[1] == cited[1] == diffussm.__version__
