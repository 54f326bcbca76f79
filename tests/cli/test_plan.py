"""`diffussm train RECIPE --dry-run`: the plan, with and without the images."""

import json


def plan(diffussm, *words):
    said = diffussm("train", *words, "--dry-run")
    assert said.code == 0, said.err
    return dict(line.split(maxsplit=1) for line in said.out.splitlines())


def test_the_paper_s_main_run(diffussm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no latents lie
    said = plan(diffussm, "imagenet256", "--ranks", "8", "--rate", "300")
    assert said["model"] == "DiffuSSM-XL: 673,088,272 parameters"
    assert said["data"] == "latents in data/imagenet256: not there yet"
    assert said["training"] == "660,000,000 images in 2,578,125 steps of 256"
    assert said["work"].startswith("1.85e+11 G multiply-adds forward, 100.2% of the paper's")
    assert "12.5 of state, 32 images of" in said["memory"]
    # mean and deviation, image and mirror image: 16 K numbers of two bytes
    assert said["disk"] == "31 GiB a million images"
    assert said["time"] == "25.46 days at 300.0 images a second"
    assert list(tmp_path.iterdir()) == []


def test_sliced_state_and_blocks_computed_again(diffussm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "--set", "training.parallel=fsdp", "--set", "training.accumulate=4"
    said = plan(diffussm, "imagenet512", "--ranks", "8", *words)
    assert "1.6 of state, 8 images of" in said["memory"]
    assert "blocks computed again" in said["memory"]
    assert said["time"] == "unknown; --rate 300 tells it for 300 images a second"


def test_the_speed_of_a_run(diffussm, tmp_path):
    steps = [{"speed": speed} for speed in (5.0, 100.0, 200.0)]
    lines = [json.dumps(step) + "\n" for step in steps] + ['{"speed": 1']
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    said = plan(diffussm, "digits", "--out", tmp_path)
    assert said["data"] == "digits: 1,797 images, 10 classes, seen 42.7 times"
    assert said["time"] == "0.01 days at 100.0 images a second"


def test_mistakes(diffussm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, sentence in (
        (["imagenet256", "--ranks", "0"], "--ranks and --rate must be above 0, not 0"),
        (["imagenet256", "--rate", "0"], "not 1 and 0"),
        (["imagenet265"], "did you mean 'imagenet256'?"),
    ):
        said = diffussm("train", *words, "--dry-run")
        assert said.code == 2
        assert sentence in said.err
    (tmp_path / "mine.toml").write_text(
        '[data]\nname = "latents"\npath = "nowhere"\n[training]\nimages = 5\n'
    )
    said = diffussm("train", "mine.toml", "--dry-run")
    assert said.code == 2
    assert "the data are not there, and the recipe does not set model.input_size" in said.err
