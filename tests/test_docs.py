"""The pages tell the truth: their code runs, their names exist, their links lead somewhere."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from diffussm.data import DATASETS, DataConfig
from diffussm.diffusion import SAMPLERS, SCHEDULES
from diffussm.interop.diffusers_folder import export_folder
from diffussm.nn.scan_order import SCANS
from diffussm.ssm.choices import SSMS
from diffussm.ssm.discretization import DISCRETIZATIONS
from diffussm.ssm.hippo import HIPPO
from diffussm.ssm.s4d import INITS

CHOICES = [DISCRETIZATIONS, INITS, HIPPO, SCANS, SAMPLERS, SCHEDULES]
CHOICES += [{name: choice.layer for name, choice in SSMS.items()}]

ROOT = Path(__file__).parents[1]
MATHEMATICS = ROOT / "docs" / "mathematics.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"`(diffussm(?:\.\w+)+)")
LINK = re.compile(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def resolve(name):
    """What a dotted name means: attributes of the longest part that is a module."""
    parts = name.split(".")
    found = import_module(parts[0])
    for number, part in enumerate(parts[1:], start=2):
        if not hasattr(found, part):
            import_module(".".join(parts[:number]))
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", ["mathematics", "extending", "performance"])
def test_the_code_of_a_page_runs(name, monkeypatch):
    for key in ("stripes", "noise"):  # what a page adds goes again
        monkeypatch.setitem(DATASETS, key, None)
    path = ROOT / "docs" / f"{name}.md"
    text = path.read_text()
    blocks = [match for match in FENCED.finditer(text) if match[1] == "python"]
    assert blocks
    namespace = {}
    for block in blocks:
        lines_above = text.count("\n", 0, block.start(2))  # errors then name the page's own line
        exec(compile("\n" * lines_above + block[2], str(path), "exec"), namespace)


def test_no_page_has_code_that_nothing_runs():
    run = {"mathematics.md", "extending.md", "performance.md", "README.md"}
    assert {page.name for page in PAGES if "```python" in page.read_text()} == run


def test_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("diffussm.data.DATASETS", dict(DATASETS))
    namespace = {}
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    for _, code in FENCED.findall((ROOT / "README.md").read_text()):
        if "DiffusionPipeline" in code:
            export_folder("runs/tour", "digits-hub")
            subprocess.run([sys.executable, "-c", code], check=True)
        elif "import" in code:
            exec(code, namespace)
    assert namespace["images"].shape == (10, 1, 8, 8)
    assert namespace["DATASETS"]["mine"](DataConfig()).shape == (3, 16, 16)


@pytest.mark.parametrize("choices", CHOICES)
def test_the_mathematics_page_names_every_choice(choices):
    named = [resolve(name) for name in NAME.findall(MATHEMATICS.read_text())]
    assert [name for name, choice in choices.items() if choice not in named] == []


@each_page
def test_names_exist(page):
    for name in NAME.findall(page.read_text()):
        resolve(name)


@each_page
def test_links_lead_somewhere(page):
    prose = FENCED.sub("", page.read_text())
    targets = [link or picture for link, picture in LINK.findall(prose)]
    inside = [target for target in targets if not re.match(r"#|\w+:", target)]
    missing = [target for target in inside if not (page.parent / target.split("#")[0]).exists()]
    assert not missing


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_floors_drawn_are_the_floors_checked(page):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = settings["tool"]["importlinter"]["contracts"][0]
    drawing = next(block[2] for block in FENCED.finditer((ROOT / page).read_text()))
    drawn = [re.split(r"\s{2,}", line)[0] for line in drawing.splitlines()]
    assert drawn == contract["layers"]


def test_the_site_has_every_page():
    named = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(page.name for page in ROOT.glob("docs/*.md"))
