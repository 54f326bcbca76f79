"""A user's mistake: one sentence on standard error, exit code 2, nothing written or lost."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def assert_refused(said, sentence):
    """Exit code 2 and one sentence, which holds `sentence`."""
    assert said.code == 2
    assert sentence in said.err
    assert said.err.startswith("diffussm: ")
    assert said.err.strip().count("\n") == 0
    assert "Traceback" not in said.err


TRAIN = [
    ("training.batchsize=3", "did you mean 'training.batch_size'"),
    ("trainings.lr=3", "did you mean 'training'"),
    ("training.lr", "a setting looks like training.batch_size=64"),
    ("training.images=many", "must be a whole number, not 'many'"),
    ("training.images=0", "must be at least 1, not 0"),
    ("training.images=-5", "must be at least 1, not -5"),
    ("sampling.steps=0", "at least 1 step, not 0"),
    ("sampling.steps=-2", "at least 1 step, not -2"),
    ("sampling.steps=2000", "has only 1000"),
    ("diffusion.steps=0", "at least 1 step, not 0"),
    ("diffusion.steps=10", "betas must lie strictly between 0 and 1"),
    ("model.name=DiffuSM-S", "did you mean 'DiffuSSM-S'"),
    ("model.hourglass_ratio=3", "must be a positive multiple of 3"),
    ("model.patch_size=3", "must be a positive multiple of patch_size 3"),
    ("model.d_model=9", "d_model must be divisible by 4"),
    ("model.d_state=5", "d_state must be even"),
    ("model.dt_min=1.0", "need 0 < dt_min <= dt_max"),
    ("model.ssm_init=line", "did you mean 'lin'"),
    ("model.discretization=zho", "did you mean 'zoh'"),
    ("model.num_classes=5", "the data have 10"),
    ("guidance.channels=3", "images have only 1"),
    ("data.name=didgits", "did you mean 'digits'"),
]


@pytest.mark.parametrize(("setting", "sentence"), TRAIN)
def test_train_settings(tmp_path, tiny_train, setting, sentence):
    assert_refused(tiny_train(tmp_path / "run", setting), sentence)
    assert not (tmp_path / "run").exists()


def test_train_recipes(tmp_path, diffussm):
    (tmp_path / "bad.toml").write_text("[model")
    for recipe, sentence in (
        ("digit", "unknown recipe 'digit'; did you mean 'digits'?"),
        (tmp_path / "absent.toml", "there is no recipe file"),
        (tmp_path / "bad.toml", "is not a TOML recipe"),
    ):
        assert_refused(diffussm("train", recipe, "--out", tmp_path / "run"), sentence)


def test_train_needs_a_folder(diffussm):
    assert_refused(diffussm("train", "digits"), "--out needs the name of a folder")


def test_train_folders(tmp_path, tiny_train):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes").write_text("mine")
    for out, sentence in (
        ("", "--out needs the name of a folder"),
        (".", "--out needs the name of a folder"),
        (tmp_path / "file", "is a file; give a folder"),
        (tmp_path / "file" / "run", "cannot make the folder"),
        ("/proc/run", "cannot make the folder"),
        (tmp_path / "folder", "is not empty and holds no run"),
    ):
        assert_refused(tiny_train(out), sentence)
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["notes"]


@pytest.mark.parametrize("device", ["gpu", "cpux", "", "cuda:99", "meta", "xla", "mps:7"])
def test_devices(tmp_path, trained, tiny_train, diffussm, device):
    said = tiny_train(tmp_path / "run", options=["--device", device])
    assert_refused(said, f"cannot run on device {device!r}")
    said = diffussm("sample", trained, "--out", tmp_path / "a.png", "--device", device)
    assert_refused(said, f"cannot run on device {device!r}")
    assert not list(tmp_path.iterdir())


def test_a_changed_recipe(tmp_path, tiny_train):
    tiny_train(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    said = tiny_train(tmp_path, "training.lr=0.5", "model.depth=2")
    assert_refused(said, "training.lr was 0.01, now 0.5")
    assert "model.depth was 1, now 2" in said.err
    assert "--accept-changes" in said.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_that_diverges(tmp_path, tiny_train, monkeypatch):
    from diffussm.training import loop

    true_loss = loop.diffusion_loss
    tiny_train(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def loss(*args, **options):
        found = true_loss(*args, **options)
        return found._replace(total=found.total * torch.nan)

    monkeypatch.setattr(loop, "diffusion_loss", loss)
    said = tiny_train(tmp_path, "training.images=900", options=["--accept-changes"])
    assert said.code == 2
    *skipped, last = [line for line in said.err.splitlines() if line.strip()]
    assert len(skipped) == 3
    assert last.startswith("diffussm: the loss was not finite 3 times in a row")
    assert (tmp_path / "model.safetensors").read_bytes() == before


SAMPLE = [
    (["--seeds", "5-3"], "ranges go upwards"),
    (["--seeds", "1,5-3"], "ranges go upwards"),
    (["--seeds", "a"], "--seeds takes numbers like 0-63"),
    (["--seeds=-1"], "--seeds takes numbers like 0-63"),
    (["--seeds", ""], "--seeds takes numbers like 0-63"),
    (["--seeds", "9223372036854775808"], "must lie in [0, 2^63)"),
    (["--classes", "10"], "class 10 does not exist; this model has 0 to 9"),
    (["--classes", "3,x"], "--classes takes numbers like"),
    (["--classes", ""], "--classes takes numbers like"),
    (["--steps", "0"], "at least 1 step, not 0"),
    (["--steps=-4"], "at least 1 step, not -4"),
    (["--steps", "1001"], "1001"),
    (["--sampler", "dpm"], "unknown sampler 'dpm'"),
    (["--eta", "2"], "eta must lie in [0, 1]"),
    (["--sampler", "ddpm", "--eta", "0.5"], "eta 0.5 is for 'ddim'"),
    (["--guidance=-1"], "at least 0, not -1"),
    (["--guidance", "nan"], "must be finite"),
    (["--guidance", "2", "--guidance-channels", "3"], "3 channels of an image with 1"),
    (["--guidance-channels", "0"], "at least 1 channel, not 0"),
    (["--interval", "0.5"], "--interval takes two numbers like 0.1,0.8"),
    (["--interval", "a,b"], "--interval takes two numbers like 0.1,0.8"),
    (["--interval", "0.8,0.1"], "low <= high"),
    (["--size", "8"], "--size takes two numbers like 8x16"),
    (["--size", "8x"], "--size takes two numbers like 8x16"),
    (["--size", "8x9"], "width 9 must be a positive multiple of 2"),
    (["--size", "0x8"], "height 0 must be a positive multiple"),
    (["--rate", "0"], "rate must be positive and finite, not 0"),
    (["--rate=-0.5"], "rate must be positive and finite, not -0.5"),
    (["--rate", "nan"], "rate must be positive and finite, not nan"),
    (["--batch-size", "0"], "batch_size must be at least 1"),
]


@pytest.mark.parametrize(("options", "sentence"), SAMPLE, ids=str)
def test_sample_options(tmp_path, trained, diffussm, options, sentence):
    said = diffussm("sample", trained, "--out", tmp_path / "a.png", *options)
    assert_refused(said, sentence)
    assert not list(tmp_path.iterdir())


def test_sample_places(tmp_path, trained, diffussm):
    (tmp_path / "file").write_text("mine")
    for options, sentence in (
        ([], "nothing to write"),
        (["--out", ""], "need the name of a file"),
        (["--out", tmp_path], "need the name of a file"),
        (["--npz", tmp_path], "need the name of a file"),
        (["--out", tmp_path / "file" / "a.png"], "cannot make the folder"),
        (["--images", tmp_path / "file"], "cannot make the folder"),
        (["--out", "/proc/a/b.png"], "cannot make the folder"),
    ):
        assert_refused(diffussm("sample", trained, *options), sentence)
    said = diffussm("sample", trained, "--out", "/proc/a.png", "--seeds", "0")
    assert (said.code, "Traceback" in said.err) == (2, False)
    assert "diffussm: could not write /proc/a.png" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_sample_without_classes(tmp_path, diffussm, tiny_train):
    tiny_train(tmp_path / "run", "model.num_classes=0", "guidance.scale=1.0")
    for options in (["--classes", "1"], ["--guidance", "2"]):
        said = diffussm("sample", tmp_path / "run", "--out", tmp_path / "a.png", *options)
        assert_refused(said, "this model is unconditional")


def newer(path):
    weights = load_file(path)
    header = {"format": 99, "version": "9.0"}
    save_file(weights, path, metadata={"diffussm": json.dumps(header)})


def not_finite(path):
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    weights = load_file(path)
    weights["blocks.0.ssm.forward_ssm.log_dt"][3] = float("nan")
    save_file(weights, path, metadata=metadata)


BAD_FILES = {
    "damaged": (lambda path: path.write_bytes(path.read_bytes()[:-10]), "is damaged"),
    "garbage": (lambda path: path.write_text("hello"), "is damaged"),
    "foreign": (lambda path: save_file({"a": torch.zeros(1)}, path), "not written by diffussm"),
    "newer": (newer, "written by diffussm 9.0"),
    "not finite": (not_finite, "log_dt holds nan; these weights cannot be used"),
    "absent": (lambda path: path.unlink(), "there is no checkpoint"),
}


@pytest.mark.parametrize(("damage", "sentence"), BAD_FILES.values(), ids=BAD_FILES)
def test_checkpoints(tmp_path, trained, diffussm, damage, sentence):
    path = tmp_path / "model.safetensors"
    shutil.copy(trained / path.name, path)
    damage(path)
    assert_refused(diffussm("sample", path, "--out", tmp_path / "a.png"), sentence)
    if path.exists():
        assert_refused(diffussm("info", path), sentence)
        assert_refused(diffussm("info", tmp_path), sentence)
    assert not (tmp_path / "a.png").exists()


def test_a_folder_without_a_model(tmp_path, diffussm):
    said = diffussm("sample", tmp_path, "--out", tmp_path / "a.png")
    assert_refused(said, "has no model.safetensors")


INFO = [
    (["DiffuSSM-X"], "did you mean 'DiffuSSM-XL'"),
    (["runs/absent"], "unknown model 'runs/absent'"),
    (["DiffuSSM-S", "--ssm", "s5"], "unknown ssm 's5'; did you mean 's4'"),
    (["U-ViT-S/2", "--ssm", "s4"], "U-ViT-S/2 has no state space layer"),
    (["DiffuSSM-S", "--size", "100"], "a height that is a multiple of 8"),
    (["DiffuSSM-S", "--size", "8"], "and a width that is one of 16"),
    (["DiffuSSM-S", "--size", "0"], "--size takes sizes like"),
    (["DiffuSSM-S", "--size", "256x0"], "width 0"),
    (["DiffuSSM-S", "--size", "big"], "--size takes sizes like"),
    (["DiffuSSM-S", "--size", "256,"], "--size takes sizes like"),
    (["DiffuSSM-S", "--size=-8"], "--size takes sizes like"),
]


@pytest.mark.parametrize(("options", "sentence"), INFO, ids=str)
def test_info(diffussm, options, sentence):
    assert_refused(diffussm("info", *options), sentence)


USAGE = [
    (["train"], "recipe"),
    (["sample"], "checkpoint"),
    (["info"], "model"),
    (["trian"], "trian"),
    (["sample", "x", "--out", "a.png", "--steps", "many"], "--steps"),
    (["sample", "x", "--stepz", "3"], "--stepz"),
]


@pytest.mark.parametrize(("words", "named"), USAGE, ids=str)
def test_usage(diffussm, words, named):
    said = diffussm(*words)
    assert said.code == 2
    assert named in said.err.lower()  # typer's own words differ between its versions
    assert "Usage:" in said.err
    assert "Traceback" not in said.err
