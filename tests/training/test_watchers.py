"""Who watches a run: TensorBoard and Weights & Biases by name, told what metrics.jsonl is told."""

import sys
from types import SimpleNamespace

import pytest
from tiny import CPU, metric_lines, tiny_recipe, train

from diffussm.training import Run
from diffussm.training.watchers import WATCHERS, scalars


class Recorder:
    """Stands for either program: it writes down what it is told."""

    def __init__(self, *places, **options):
        self.options, self.told, self.closed = options, [], False
        self.places = places

    def add_scalar(self, name, value, images):
        self.told.append((images, name, value))

    def log(self, values):
        self.told += [(values["images"], name, values[name]) for name in values if name != "images"]

    def flush(self):
        pass

    def close(self):
        self.closed = True

    finish = close


@pytest.fixture
def programs(monkeypatch):
    """The recorders that runs have opened."""
    opened = []

    def open_one(*places, **options):
        opened.append(Recorder(*places, **options))
        return opened[-1]

    board = SimpleNamespace(SummaryWriter=open_one)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=open_one))
    return opened


@pytest.mark.parametrize("name", WATCHERS)
def test_it_is_told_every_line(tmp_path, programs, name):
    train(tiny_recipe(), tmp_path, watch=(name,))
    (program,) = programs
    assert program.closed
    for line in metric_lines(tmp_path):
        told = {key: value for images, key, value in program.told if images == line["images"]}
        assert told.items() >= {key: line[key] for key in ("loss", "simple", "lr")}.items()
        assert told["quarter_1"] == line["quarters"][0] or line["quarters"][0] is None


def test_wandb_goes_on_with_the_same_run(tmp_path, programs):
    for until in (30, None):
        train(tiny_recipe(), tmp_path / "one", watch=("wandb",), until=until)
    train(tiny_recipe(), tmp_path / "two", watch=("wandb",))
    first, again, other = (program.options for program in programs)
    assert first["id"] == again["id"] != other["id"]
    assert (first["resume"], first["name"], other["name"]) == ("allow", "one", "two")
    assert first["config"]["training"]["images"] == 60


def test_tensorboard_takes_back_what_is_trained_again(tmp_path, programs):
    train(tiny_recipe(), tmp_path, until=30)
    train(tiny_recipe(), tmp_path, watch=("tensorboard",))
    assert programs[0].options == {"purge_step": 31}


MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}


@pytest.mark.parametrize("name", WATCHERS)
def test_one_that_is_missing_gets_a_sentence(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, MODULES[name], None)
    with pytest.raises(ValueError, match=f"{name} is not installed; pip install {name}"):
        Run(tiny_recipe(), tmp_path, CPU, watch=(name,))


def test_an_unknown_one_gets_the_nearest_name(tmp_path):
    with pytest.raises(
        ValueError, match="unknown watcher 'tensorbord'; did you mean 'tensorboard'"
    ):
        Run(tiny_recipe(), tmp_path, CPU, watch=("tensorbord",))


def test_numbers_of_a_line():
    line = {"images": 3, "loss": 1.5, "quarters": (0.5, None, 2.0, None), "skipped": False}
    expected = {"loss": 1.5, "quarter_1": 0.5, "quarter_3": 2.0, "skipped": 0.0}
    assert dict(scalars(line)) == expected
