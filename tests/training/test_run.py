"""A run in a folder: stopping anywhere and going on gives the same bytes as never stopping."""

import pytest
import torch
from PIL import Image
from tiny import CPU, TRAINING, metric_lines, newest_state, tiny_recipe, train

from diffussm import load
from diffussm.models.diffussm import SSMS
from diffussm.training import Run, read_tables, recipe

MODEL = "model.safetensors"
SETTINGS = {"images": 84, "save_every": 25, "warmup_images": 30, "lr_schedule": "cosine"}
WANTED = tiny_recipe(training=SETTINGS)  # the last batch has 4 images, saves fall between batches


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    train(WANTED, folder)
    return folder


def assert_same_run(folder, reference):
    assert (folder / MODEL).read_bytes() == (reference / MODEL).read_bytes()
    assert metric_lines(folder) == metric_lines(reference)
    (old,), (new,) = newest_state(reference), newest_state(folder)
    assert new.read_bytes() == old.read_bytes()


@pytest.mark.parametrize("stops", [[40], [30, 60], list(range(10, 90, 10))], ids=str)
def test_stopped_and_resumed_is_undisturbed(tmp_path, undisturbed, stops):
    for images in stops:
        assert train(WANTED, tmp_path, until=images).trainer.images == images
    torch.manual_seed(99)  # nothing depends on the caller's random numbers
    train(WANTED, tmp_path)
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize("ssm", SSMS)
def test_every_layer_resumes(tmp_path, ssm):
    wanted = tiny_recipe(model={"ssm": ssm, "scan": "alternating"})
    train(wanted, tmp_path / "once")
    train(wanted, tmp_path / "twice", until=30)
    train(wanted, tmp_path / "twice")
    assert_same_run(tmp_path / "twice", tmp_path / "once")


@pytest.mark.parametrize(("stop", "resumes_at"), [(10, 0), (40, 30), (70, 50), (80, 80)])
def test_steps_after_the_last_save_are_trained_again(tmp_path, undisturbed, stop, resumes_at):
    train(WANTED, tmp_path, until=stop, save=False)
    assert metric_lines(tmp_path)[-1]["images"] == stop
    run = train(WANTED, tmp_path)
    assert run.resumed_at == resumes_at
    assert_same_run(tmp_path, undisturbed)


def test_a_line_cut_short_is_dropped(tmp_path, undisturbed):
    train(WANTED, tmp_path, until=50)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"images": 60, "lo')
    train(WANTED, tmp_path)
    assert_same_run(tmp_path, undisturbed)


def test_a_finished_run_stays_finished(tmp_path, undisturbed):
    train(WANTED, tmp_path)
    (tmp_path / MODEL).unlink()
    train(WANTED, tmp_path)
    assert_same_run(tmp_path, undisturbed)
    before = (tmp_path / MODEL).stat().st_mtime_ns
    run = train(WANTED, tmp_path)
    assert (run.resumed_at, run.trainer.images) == (84, 84)
    assert (tmp_path / MODEL).stat().st_mtime_ns == before


def test_the_folder_says_what_it_is(tmp_path):
    train(WANTED, tmp_path)
    assert recipe(read_tables(tmp_path / "recipe.toml")) == WANTED
    header = load(tmp_path).config
    assert header.images == 84
    assert header.model == WANTED.model
    assert header.class_names == tuple("0123456789")
    assert not list(tmp_path.rglob("*.part"))


def test_previews_are_drawn_on_the_way(tmp_path):
    settings = {"preview_every": 20, "images": 40}
    train(tiny_recipe(training=settings, guidance={"scale": 2}), tmp_path / "classes")
    train(tiny_recipe(training=settings, model={"num_classes": 0}), tmp_path / "none")
    for folder in (tmp_path / "classes", tmp_path / "none"):
        pictures = sorted(path.name for path in (folder / "previews").iterdir())
        assert pictures == ["000000000020.png", "000000000040.png"]
        with Image.open(folder / "previews" / pictures[0]) as picture:
            assert picture.width > picture.height  # 4 rows of 10


def test_previews_do_not_change_the_training(tmp_path):
    train(tiny_recipe(training={"preview_every": 20}), tmp_path / "with")
    train(tiny_recipe(), tmp_path / "without")
    assert metric_lines(tmp_path / "with") == metric_lines(tmp_path / "without")
    models = [load(tmp_path / name).model.state_dict() for name in ("with", "without")]
    torch.testing.assert_close(*models, rtol=0, atol=0)


def test_a_changed_recipe_is_refused_unless_accepted(tmp_path):
    train(WANTED, tmp_path, until=40)
    before = (tmp_path / "recipe.toml").read_bytes()
    changed = tiny_recipe(training=SETTINGS | {"lr": 0.005, "weight_decay": 0.25, "images": 100})
    with pytest.raises(ValueError, match="accept-changes") as caught:
        Run(changed, tmp_path, CPU)
    assert "training.lr was 0.01, now 0.005" in str(caught.value)
    assert "training.images was 84, now 100" in str(caught.value)
    assert (tmp_path / "recipe.toml").read_bytes() == before

    run = train(changed, tmp_path, accept_changes=True)
    assert (run.resumed_at, run.trainer.images) == (40, 100)
    group = run.trainer.optimizer.param_groups[0]
    assert (group["peak_lr"], group["weight_decay"]) == (0.005, 0.25)
    assert recipe(read_tables(tmp_path / "recipe.toml")) == changed


def test_another_model_is_refused_even_if_accepted(tmp_path):
    train(WANTED, tmp_path, until=40)
    before = (tmp_path / "recipe.toml").read_bytes()
    with pytest.raises(ValueError, match="does not fit the recipe's model"):
        Run(tiny_recipe(model={"d_model": 12}), tmp_path, CPU, accept_changes=True)
    assert (tmp_path / "recipe.toml").read_bytes() == before


def test_folders_that_are_no_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty and holds no run"):
        Run(WANTED, tmp_path, CPU)
    with pytest.raises(ValueError, match="is a file; give a folder"):
        Run(WANTED, tmp_path / "notes.txt", CPU)
    with pytest.raises(OSError, match="cannot make the folder"):
        Run(WANTED, tmp_path / "notes.txt" / "run", CPU)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / "empty").mkdir()
    Run(WANTED, tmp_path / "empty", CPU).close()


def test_a_mistake_in_the_model_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="d_state must be even"):
        Run(tiny_recipe(model={"d_state": 3}), tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()


def test_one_line_a_step(tmp_path):
    train(WANTED, tmp_path)
    lines = metric_lines(tmp_path)
    assert [line["images"] for line in lines] == [*range(10, 90, TRAINING["batch_size"]), 84]
    assert not any(line["skipped"] for line in lines)
    for line in lines:
        assert line["loss"] == pytest.approx(line["simple"] + line["bound"], rel=1e-5)


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    first = Run(WANTED, tmp_path / "run", CPU)
    steps = first.steps()
    next(steps)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match="another process trains in"):
        Run(WANTED, tmp_path / "run", CPU)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    first.close()
    Run(WANTED, tmp_path / "run", CPU).close()


def test_a_folder_that_could_not_be_opened_is_let_go(tmp_path):
    train(WANTED, tmp_path, until=30)
    (state,) = newest_state(tmp_path)
    content = state.read_bytes()
    state.write_bytes(content[:100])
    with pytest.raises(ValueError, match="is damaged"):
        Run(WANTED, tmp_path, CPU)
    state.write_bytes(content)
    Run(WANTED, tmp_path, CPU).close()
