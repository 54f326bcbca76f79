"""Scores of the averaged weights on the way: when, of what, and that training does not notice."""

import pytest
from tiny import metric_lines, tiny_recipe, train

from diffussm.training.watchers import scalars


class Judge:
    """Gives the number of images seen, and remembers the weights it was shown."""

    def __init__(self):
        self.shown = []

    def __call__(self, generator):
        drawn = generator.sample(seeds=[0, 1])
        self.shown.append((generator.config.images, drawn))
        return {"FD": float(generator.config.images), "KID": 0.5}


EVERY = {"evaluate_every": 20, "log_every": 1000}


def test_it_happens_at_the_counts_asked_for_and_at_the_end(tmp_path):
    judge = Judge()
    train(tiny_recipe(training=EVERY | {"evaluate_every": 25}), tmp_path, evaluate=judge)
    scored = [(line["images"], line.get("evaluation")) for line in metric_lines(tmp_path)]
    assert scored == [(n, {"FD": float(n), "KID": 0.5}) for n in (30, 50, 60)]
    assert [images for images, _ in judge.shown] == [30, 50, 60]


def test_it_sees_the_averaged_weights_that_are_saved(tmp_path):
    from diffussm import load

    judge = Judge()
    train(tiny_recipe(training=EVERY), tmp_path, evaluate=judge)
    assert judge.shown[-1][1].equal(load(tmp_path).sample(seeds=[0, 1]))


def test_it_changes_nothing_in_training(tmp_path):
    settings = {"training": {"evaluate_every": 20}}
    train(tiny_recipe(**settings), tmp_path / "with", evaluate=Judge())
    train(tiny_recipe(), tmp_path / "without")
    lines, plain = (metric_lines(tmp_path / name) for name in ("with", "without"))
    assert [line.pop("evaluation", None) is not None for line in lines] == [False, True] * 3
    assert lines == plain


def test_a_run_that_goes_on_scores_what_was_lost_again(tmp_path):
    wanted = tiny_recipe(training=EVERY | {"save_every": 30})
    train(wanted, tmp_path / "once", evaluate=Judge())
    train(wanted, tmp_path / "killed", evaluate=Judge(), until=50, save=False)
    train(wanted, tmp_path / "killed", evaluate=Judge())
    assert metric_lines(tmp_path / "killed") == metric_lines(tmp_path / "once")


def test_without_anything_that_evaluates_it_says_so(tmp_path):
    with pytest.raises(ValueError, match="evaluate_every is set, but this run was given nothing"):
        train(tiny_recipe(training=EVERY), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_begun_before_there_were_evaluations_goes_on(tmp_path):
    train(tiny_recipe(), tmp_path, until=30)
    path = tmp_path / "recipe.toml"
    text, _, _ = path.read_text().partition("[evaluation]")
    lines = [line for line in text.splitlines() if not line.startswith("evaluate_every")]
    path.write_text("\n".join(lines))
    assert train(tiny_recipe(), tmp_path).resumed_at == 30


def test_those_who_watch_are_told_each_number():
    line = {"images": 3, "loss": 1.5, "evaluation": {"FD-digits": 2.0, "KID-digits": 0.1}}
    assert dict(scalars(line)) == {"loss": 1.5, "FD-digits": 2.0, "KID-digits": 0.1}
