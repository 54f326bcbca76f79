"""`diffussm figures`: each figure from the command line, and what it says to mistakes."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from diffussm.analysis.figures import FIGURES
from diffussm.analysis.records import read_record
from diffussm.checkpoint import Header, save_model
from diffussm.cli.figures import figures
from diffussm.diffusion import DiffusionConfig, Guidance, Sampling
from diffussm.models import DiffuSSMConfig, build
from diffussm.models.dit import DiTConfig


@pytest.fixture
def figure(tmp_path, monkeypatch):
    """Call it with words; it gives what was said and the path of the figure."""
    monkeypatch.chdir(tmp_path)

    def command(*words):
        done = CliRunner().invoke(figures, [*map(str, words), "--out", "figure.svg"])
        if done.exception:
            raise done.exception
        return done.stdout, (tmp_path / "figure.svg").read_text()

    return command


def refused(sentence):
    return pytest.raises(ValueError, match=sentence)


def test_every_figure_has_a_command():
    assert {
        command.name or command.callback.__name__ for command in figures.registered_commands
    } == (FIGURES.keys())


def test_cost(figure, tmp_path):
    said, drawn = figure("cost", "--sizes", "256,512", "--models", "DiffuSSM-S,DiT-S/2")
    assert said == "multiply-adds of 2 models in figure.svg\n"
    for word in ("DiffuSSM-S", "DiT-S/2", "multiply-adds of an image, G"):
        assert word in drawn
    times = {"conditions": "here", "seconds": {"DiT-S/4": {"256": 1.0}, "DiffuSSM-S:4": {}}}
    (tmp_path / "times.json").write_text(json.dumps(times))
    _, drawn = figure("cost", "--measured", "times.json", "--sizes", "256")
    for word in ("DiT-S/4", "DiffuSSM-S, M = 4", "here", "seconds"):
        assert word in drawn


def test_training(figure, trained):
    said, drawn = figure("training", trained)
    assert said == "the training of 1 runs in figure.svg\n"
    assert trained.name in drawn
    assert read_record(trained).loss


def test_same_noise(figure, trained, tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "model.safetensors").symlink_to(trained / "model.safetensors")
    words = ["--seeds", "3,4", "--steps", "2", "--device", "cpu"]
    said, drawn = figure("same-noise", trained, tmp_path / "copy", *words)
    assert said == "2 seeds through 2 models in figure.svg\n"
    for word in ("seed 3", "seed 4", "class 0", "class 1", "copy", trained.name):
        assert word in drawn
    assert drawn.count("<image") == 4
    others = [["--guidance", "20"], ["--sampler", "ddpm"], ["--classes", "7"], []]
    again = [figure("same-noise", trained, tmp_path / "copy", *words, *more)[1] for more in others]
    assert [text == drawn for text in again] == [False, False, False, True]


def test_kernels(figure, trained):
    said, drawn = figure("kernels", trained)
    assert "forward: half of the channels of block 0 remember" in said
    assert "memory length, positions" in drawn


def test_hippo(figure):
    said, drawn = figure("hippo", "--states", "2,8", "--length", "40", "--periods", "3")
    assert [line.split()[0] for line in said.splitlines()[:3]] == ["legs", "legt", "fourier"]
    assert "N = 8" in drawn


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Models that do not fit: another size, no kernels, no state space layer."""
    folder, drawn = tmp_path_factory.mktemp("others"), {"in_channels": 1, "num_classes": 0}
    configs = {
        "mamba": DiffuSSMConfig(d_model=8, depth=1, ssm="mamba", input_size=8, **drawn),
        "dit": DiTConfig(d_model=12, depth=1, num_heads=2, input_size=8, **drawn),
    }
    for name, config in configs.items():
        (folder / name).mkdir()
        save_model(folder / name / "model.safetensors", build(config), header(config))
    return folder


def header(config):
    return Header(
        model=config,
        diffusion=DiffusionConfig(),
        class_names=(),
        sampling=Sampling(sampler="ddim", steps=2),
        guidance=Guidance(),
        images=0,
    )


def test_mistakes(figure, trained, others, tmp_path):
    with refused(r"unknown figure 'costs'; did you mean 'cost'\? \(allowed: 'cost', 'training'"):
        figure("costs")
    with refused("has no metrics.jsonl"):
        figure("training", others / "dit")
    with refused("is given twice"):
        figure("training", trained, trained)
    with refused("tiny draws 1 x 8 x 8, 10 classes; mamba draws 1 x 8 x 8, no classes"):
        figure("same-noise", trained, others / "mamba", "--device", "cpu")
    with refused("unconditional: it draws without classes"):
        figure("same-noise", others / "mamba", "--classes", "3", "--device", "cpu")
    with refused("at most 32 seeds"):  # before anything is read or drawn
        figure("same-noise", "absent", "--seeds", "0-99", "--device", "cpu")
    with refused("DiT has no state space layers"):
        figure("kernels", others / "dit")
    with refused("no fixed kernel"):
        figure("kernels", others / "mamba")
    with refused("block 1 does not exist"):
        figure("kernels", trained, "--layer", "1")
    with refused("there is no checkpoint absent"):
        figure("kernels", "absent")
    with refused("unknown model 'DiT-S/3'; did you mean"):
        figure("cost", "--models", "DiT-S/3")
    with refused("comes an hourglass ratio"):
        figure("cost", "--models", "DiffuSSM-S:x")
    with refused(":4 is an hourglass ratio, and DiT-XL/2 has none"):
        figure("cost", "--models", "DiT-XL/2:4")
    with refused("sizes must be multiples of 8"):
        figure("cost", "--sizes", "100")
    with refused("even state"):
        figure("hippo", "--states", "3")
    with refused("a state has at most 1,024 numbers, not 4,000,000"):
        figure("hippo", "--states", "4,4000000")
    with refused("a signal has at most 100,000 samples, not 1,000,000,000,000"):
        figure("hippo", "--length", 10**12)
    for seed in (-1, 2**63):
        with refused(f"a seed lies between 0 and 2\\^63 - 1, and {seed} does not"):
            figure("hippo", f"--seed={seed}")
    assert not (tmp_path / "figure.svg").exists()


@pytest.mark.parametrize("name", FIGURES)
def test_the_ending_is_checked_first(name):
    words = {"training": ["absent"], "same-noise": ["absent"], "kernels": ["absent"]}
    done = CliRunner().invoke(figures, [name, *words.get(name, []), "--out", "figure.jpg"])
    assert "a figure is a .png, .svg or .pdf file, not 'figure.jpg'" in str(done.exception)


def test_runs_of_one_name_are_told_apart(figure, tmp_path):
    line = json.dumps({"images": 1, "simple": 1.0, "skipped": False}) + "\n"
    for name in ("a/run", "b/run"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "metrics.jsonl").write_text(line)
    _, drawn = figure("training", "a/run", "b/run")
    assert "a/run" in drawn
    assert "b/run" in drawn


def test_help_waits_for_nothing():
    code = """
import sys
from diffussm.cli.figures import figures
try:
    figures(["kernels", "--help"])
except SystemExit as stop:
    assert not stop.code
print("slow:", {"torch", "numpy", "matplotlib"} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "diffussm figures kernels runs/digits --layer 3" in done.stdout
    assert done.stdout.endswith("slow: set()\n")
