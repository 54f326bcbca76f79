"""`diffussm evaluate`: one JSON object, comparisons, and mistakes."""

import json
import shutil

import numpy as np
import pytest
from tiny import metric_lines

FEW = ["--samples", 12]


@pytest.fixture
def score(diffussm):
    """The JSON that the command prints."""

    def command(*words):
        said = diffussm("evaluate", *words)
        assert said.code == 0, said.err
        return json.loads(said.out)

    return command


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """A run that evaluations may be kept in."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    shutil.copytree(trained, folder)
    return folder


def test_a_run_is_compared_with_its_own_data(run, score):
    found = score(run, *FEW)
    assert found["metrics"].keys() == {
        *("FD-digits", "IS-digits", "IS-digits std", "precision-digits", "recall-digits"),
        "KID-digits",
    }
    assert "not meaningful" in found["warnings"][0]
    protocol = found["protocol"]
    expected = {
        "images_seen": 60,
        "weights": "ema",
        "count": 12,
        "seeds": "0-11",
        "labels": "0 to 9 in turn",
        "sampler": "ddim",
        "steps": 2,
        "guidance_scale": 1.5,
        "autoencoder": "identity",
        "image": "1 x 8 x 8",
        "features": "digits",
        "reference": "digits",
        "reference_count": 1797,
        "adm": False,
    }
    assert protocol.items() >= expected.items()
    kept = run / "evaluations" / f"000000000060-{found['hash']}.json"
    assert json.loads(kept.read_text()) == found


def test_progress_is_told_apart_from_the_result(run, diffussm):
    said = diffussm("evaluate", run, *FEW, "--metrics", "fd")
    assert "samples" in said.err
    assert "100%" in said.err
    assert list(json.loads(said.out)["metrics"]) == ["FD-digits"]


def test_kept_samples_score_as_drawn_ones(tmp_path, run, score):
    npz = tmp_path / "deep" / "samples.npz"
    options = ["--guidance", 2, "--seeds", "3-14", "--steps", 3]
    drawn = score(run, "--npz", npz, *options)
    with np.load(npz) as arrays:
        assert arrays["arr_0"].shape == (12, 8, 8, 1)
        assert arrays["arr_1"].tolist() == [*range(10), 0, 1]
    stored = score(npz, "--reference", "digits")
    assert stored["metrics"] == drawn["metrics"]
    assert stored["protocol"]["sampler"] is None
    assert stored["hash"] != drawn["hash"]


def test_the_same_protocol_is_compared(tmp_path, run, score):
    first = score(run, *FEW, "--out", tmp_path / "a.json", "--metrics", "fd,pr")
    other = tmp_path / "other"
    shutil.copytree(run, other)
    again = score(other, *FEW, "--compare", tmp_path / "a.json", "--metrics", "fd")
    assert again["hash"] == first["hash"]
    assert again["compared"]["difference"] == {"FD-digits": 0}
    told = score(tmp_path / "a.json", "--compare", tmp_path / "a.json")
    assert set(told["compared"]["difference"].values()) == {0}


def test_another_protocol_is_refused_before_anything_is_drawn(tmp_path, run, score, diffussm):
    score(run, *FEW, "--out", tmp_path / "a.json", "--metrics", "fd")
    said = diffussm("evaluate", run, "--samples", 10_000, "--steps", 3, "--compare", "a.json")
    assert (said.code, "there is no result a.json" in said.err) == (2, True)
    options = ["--samples", 10_000, "--steps", 3, "--compare", tmp_path / "a.json"]
    said = diffussm("evaluate", run, *options)
    assert (said.code, said.out) == (2, "")
    assert "count is 10000 here and 12 there" in said.err.replace("\n", " ")
    assert "steps is 3 here and 2 there" in said.err
    assert "samples ━" not in said.err


def test_adms_way_is_another_protocol(run, score):
    one, other = score(run, *FEW, "--metrics", "pr"), score(run, *FEW, "--metrics", "pr", "--adm")
    assert one["hash"] != other["hash"]


def test_an_inception_score_needs_no_reference(tmp_path, run, score, diffussm):
    npz = tmp_path / "a.npz"
    score(run, *FEW, "--npz", npz)
    found = score(npz, "--metrics", "is", "--features", "digits")
    assert found["protocol"]["reference"] is None
    said = diffussm("evaluate", npz, "--features", "digits")
    assert (said.code, "say what to compare the images in" in said.err) == (2, True)


MISTAKES = {
    "no samples": (["--samples", 0], "--samples must lie in 1 to 1,000,000, not 0"),
    "one sample": (["--samples", 1], "1 images are too few for fd, which wants 2"),
    "both": (["--seeds", "0-3", "--samples", 4], "leave out --samples"),
    "metric": ([*FEW, "--metrics", "fid"], "unknown metric 'fid'; did you mean 'fd'"),
    "no spatial": ([*FEW, "--metrics", "sfd"], "digits gives no 'spatial' features"),
    "features": ([*FEW, "--features", "inceptoin"], "did you mean 'inception'"),
    "no network": ([*FEW, "--features", "a.onnx"], "there is no feature network a.onnx"),
    "reference": ([*FEW, "--reference", "nowhere"], "there is no reference 'nowhere'"),
    "batch": ([*FEW, "--batch-size", 0], "batch_size must lie in 1 to 50, not 0"),
    "out": ([*FEW, "--out", "."], "need the name of a file"),
    "inception": ([*FEW, "--features", "inception"], "FID needs the Inception weights"),
    "weights": (
        [*FEW, "--features", "inception", "--weights", "a.pth"],
        "there is no file a.pth",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence(run, diffussm, monkeypatch, tmp_path, mistake):
    monkeypatch.chdir(tmp_path)
    words, sentence = MISTAKES[mistake]
    said = diffussm("evaluate", run, *words)
    assert (said.code, said.out) == (2, "")
    assert sentence in said.err
    assert "FID" not in said.err or mistake == "inception"
    assert said.err.count("diffussm: ") == 1
    assert not list(tmp_path.iterdir())


def test_a_model_without_its_recipe_needs_a_reference(tmp_path, run, score, diffussm):
    shutil.copy(run / "model.safetensors", tmp_path)
    for source in (tmp_path, tmp_path / "model.safetensors"):
        said = diffussm("evaluate", source, *FEW)
        assert (said.code, "so the images of its training are not known" in said.err) == (2, True)
    found = score(tmp_path / "model.safetensors", *FEW, "--reference", "digits")
    assert found["protocol"]["features"] == "digits"


def test_files_that_hold_no_good_samples_get_a_sentence(tmp_path, diffussm):
    contents = {
        "objects": np.array([{}], dtype=object),
        "floats": np.zeros((4, 8, 8, 1), np.float32),
        "empty": np.zeros((0, 8, 8, 1), np.uint8),
        "size": np.zeros((4, 9, 9, 1), np.uint8),
    }
    sentences = ["pickled Python objects", "must be uint8", "at least one", "give a reference of"]
    for (name, array), sentence in zip(contents.items(), sentences, strict=True):
        path = tmp_path / f"{name}.npz"
        np.savez(path, arr_0=array)
        said = diffussm("evaluate", path, "--reference", "digits")
        assert (said.code, sentence in said.err) == (2, True), said.err
    np.savez(tmp_path / "moments.npz", mu=np.zeros(3), sigma=np.eye(3))
    said = diffussm("evaluate", tmp_path / "moments.npz", "--reference", "digits")
    assert (said.code, "holds no images (arr_0) to evaluate" in said.err) == (2, True)
    said = diffussm("evaluate", tmp_path / "size.npz", "--reference", "digits", "--steps", 5)
    assert (said.code, "drawn already: leave out --steps" in said.err) == (2, True)


EVALUATED = ["training.evaluate_every=30", "evaluation.samples=12", "training.save_every=30"]


def test_training_scores_as_the_command_does(tmp_path, trained, tiny_train, score):
    said = tiny_train(tmp_path / "run", *EVALUATED, 'evaluation.metrics=["fd","pr"]')
    assert said.code == 0, said.err
    assert "FD-digits" in said.err
    lines = metric_lines(tmp_path / "run")
    measured = {line["images"]: line.pop("evaluation", None) for line in lines}
    assert [images for images, found in measured.items() if found] == [30, 60]
    assert lines == metric_lines(trained)
    last = score(tmp_path / "run", *FEW, "--metrics", "fd,pr")
    assert measured[60] == last["metrics"]


def test_training_finds_mistakes_in_evaluation_before_it_begins(tmp_path, tiny_train):
    for setting, sentence in (
        ("evaluation.features=inception", "FID needs the Inception weights"),
        ('evaluation.metrics=["fid"]', "unknown metric 'fid'"),
        ("evaluation.reference=nowhere", "there is no reference 'nowhere'"),
        ("evaluation.samples=1", "evaluation.samples must be at least 2"),
        ("evaluation.metrics=[]", "evaluation.metrics names none"),
        ("evaluation.sample=9", "did you mean 'evaluation.samples'"),
    ):
        said = tiny_train(tmp_path / "run", *EVALUATED, setting)
        assert (said.code, sentence in said.err) == (2, True), said.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--seeds", "0-99999999999"], "names at most 1,000,000 numbers"),
        (["--samples", "1000000000000"], "must lie in 1 to 1,000,000"),
        (["--samples", "3", "--metrics", "pr"], "3 images are too few for pr, which wants 4"),
        (["--samples", "4", "--steps", "100000"], "100000"),
        (["--samples", "4", "--guidance-channels", "9"], "9 channels"),
        (["--seeds", "18446744073709551616"], "seed 18446744073709551616 must lie in"),
        (["--samples", "4", "--out", "/proc/x.json"], "/proc/x.json cannot be written"),
    ],
)
def test_mistakes_are_found_before_the_reference_is_seen(diffussm, trained, words, sentence):
    said = diffussm("evaluate", trained, *words)
    assert said.code == 2
    assert sentence in said.err
    assert "reference" not in said.err.split("diffussm:")[0]


def test_a_run_is_no_reference(diffussm, trained, tmp_path):
    said = diffussm("evaluate", trained, "--samples", 4, "--reference", trained)
    assert (said.code, "is a run, not a reference" in said.err) == (2, True)
