"""What training does about its images: unreadable ones, and those of another kind."""

from dataclasses import dataclass, replace

import pytest
from tiny import CPU, tiny_recipe, train

from diffussm.autoencoder import AutoencoderConfig
from diffussm.data import config, digits
from diffussm.training import Run, Trainer


@dataclass(frozen=True)
class Spoiled:
    """Digits of which some cannot be read."""

    bad: frozenset
    whole: object = digits()

    def __len__(self):
        return len(self.whole)

    def __getattr__(self, name):
        return getattr(self.whole, name)

    def batch(self, index, seeds):
        names = tuple(f"{n}.png: truncated" for n in index.tolist() if n in self.bad)
        return self.whole.batch(index, seeds)._replace(corrupt=names)


def test_few_unreadable_images_are_named_at_the_end():
    data = Spoiled(frozenset(range(1)))
    trainer = Trainer(tiny_recipe(training={"images": 1800, "batch_size": 600}), data, CPU)
    assert len(list(trainer.steps())) == 3
    assert trainer.corrupt.summary() == "1 of 1,797 images could not be read: 0.png: truncated"


def test_many_unreadable_images_stop_the_run():
    trainer = Trainer(tiny_recipe(), Spoiled(frozenset(range(900))), CPU)
    with pytest.raises(ValueError, match=r"images could not be read: .* data\.max_corrupt allows"):
        list(trainer.steps())


def latents(**changes):
    made_by = AutoencoderConfig(name="here", scale=0.5, factor=8, identity="a" * 64)
    return replace(digits(), autoencoder=replace(made_by, **changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"identity": "b" * 64}, "another autoencoder"), ({"scale": 0.25}, r"times 0\.25")],
)
def test_latents_of_another_kind_are_refused_on_resuming(tmp_path, monkeypatch, changes, sentence):
    monkeypatch.setitem(config.DATASETS, "digits", lambda _: latents())
    wanted = tiny_recipe()
    train(wanted, tmp_path, until=30)
    monkeypatch.setitem(config.DATASETS, "digits", lambda _: latents(**changes))
    with pytest.raises(ValueError, match=sentence):
        Run(wanted, tmp_path, CPU)
    monkeypatch.setitem(config.DATASETS, "digits", lambda _: latents(name="moved"))
    assert train(wanted, tmp_path).trainer.images == 60


def test_a_preview_without_its_autoencoder_is_refused_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setitem(config.DATASETS, "digits", lambda _: latents(name="/nowhere"))
    with pytest.raises(ValueError, match="/nowhere"):
        Run(tiny_recipe(training={"preview_every": 20}), tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()
