"""Numbers from two sets of images: which metrics, by how many ranks, with what doubts."""

import threading
from functools import partial

import numpy as np
import pytest
import torch

from diffussm.data import ImageDataset, digits
from diffussm.evaluation import metrics
from diffussm.evaluation.adm_reference import AdmFile
from diffussm.evaluation.evaluator import Evaluator
from diffussm.evaluation.frechet import frechet_distance
from diffussm.evaluation.inception_score import inception_score
from diffussm.evaluation.kid import kid, squared_mmd
from diffussm.evaluation.metrics import METRICS
from diffussm.evaluation.moments import moments
from diffussm.evaluation.networks import PUBLISHED, Seer
from diffussm.evaluation.pictures import DataPictures, FilePictures, as_bytes
from diffussm.evaluation.precision_recall import precision_recall
from diffussm.evaluation.ranks import Alone
from diffussm.evaluation.references import Reference
from diffussm.evaluation.sharing import see
from diffussm.generation import to_uint8


class Lines:
    """Sees linear functions of the pixels, and the parity of blocks: none may be cut otherwise."""

    name, identity = "lines", "0" * 64
    spaces = {"pool": 6, "spatial": 4, "logits": 3}  # noqa: RUF012

    def __call__(self, images):
        flat = images.flatten(1).float() / 255
        directions = torch.linspace(-1, 1, 64 * 13).sin().view(64, 13) * 5
        return dict(zip(self.spaces, (flat @ directions).split([6, 4, 3], dim=1), strict=True))


def seer(published=False):
    called = (lambda plain: PUBLISHED.get(plain, plain)) if published else lambda p: f"{p}-lines"
    return Seer(network=Lines(), called=called, resize="none", published=published)


def pictures(start, end):
    real = digits()
    some = slice(start, end)
    return DataPictures(
        ImageDataset(images=real.images[some], labels=real.labels[some], class_names=())
    )


def reference(start=0, end=300):
    return Reference(name="digits", pictures=pictures(start, end))


def features(start, end):
    real = as_bytes(digits().images[start:end], "", range(end))
    return Lines()(real)


def test_each_metric_is_its_function_of_the_features():
    found, _, _ = Evaluator(seer(), reference()).score(pictures(300, 500))
    real, drawn = features(0, 300), features(300, 500)
    pr = precision_recall(real["pool"], drawn["pool"])
    score = inception_score(drawn["logits"])
    expected = {
        "FD-lines": frechet_distance(moments(real["pool"]), moments(drawn["pool"])),
        "sFD-lines": frechet_distance(moments(real["spatial"]), moments(drawn["spatial"])),
        "IS-lines": score.mean,
        "IS-lines std": score.std,
        "precision-lines": pr.precision,
        "recall-lines": pr.recall,
        "KID-lines": squared_mmd(real["pool"], drawn["pool"]),
    }
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_can_be_asked_for_alone(name):
    every = Evaluator(seer(), reference()).score(pictures(300, 400)).metrics
    alone = Evaluator(seer(), reference(), [name]).score(pictures(300, 400)).metrics
    assert alone
    assert alone.items() <= every.items()


def test_kid_of_many_images_is_a_mean_over_subsets(monkeypatch):
    few = partial(kid, subsets=3, subset=50)
    monkeypatch.setattr(metrics, "SUBSET", 50)
    monkeypatch.setattr(metrics, "kid", few)
    found, _, _ = Evaluator(seer(), reference(0, 50), ["kid"]).score(pictures(300, 400))
    mean, std = few(features(0, 50)["pool"], features(300, 400)["pool"])
    expected = {"KID-lines": mean, "KID-lines std": std}
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_the_same_images_are_at_no_distance():
    found = Evaluator(seer(), reference(0, 200)).score(pictures(0, 200)).metrics
    assert found["FD-lines"] == pytest.approx(0, abs=1e-9)
    assert (found["precision-lines"], found["recall-lines"]) == (1, 1)


def test_only_inception_has_the_published_names():
    found = Evaluator(seer(published=True), reference()).score(pictures(300, 400)).metrics
    assert {"FID", "sFID", "IS", "IS std", "precision", "recall", "KID"} == found.keys()


def test_too_few_images_and_images_all_alike_are_doubted():
    few = Evaluator(seer(), reference(), ["fd", "sfd"]).score(pictures(300, 306))
    assert [doubt[:34] for doubt in few.warnings] == ["FD-lines, samples: 6 images have a"]
    assert "not meaningful" in few.warnings[0]
    (doubt,) = Evaluator(seer(), reference(0, 6), ["fd"]).score(pictures(300, 400)).warnings
    assert doubt.startswith("FD-lines, reference: 6 images")
    same = ImageDataset(
        images=digits().images[:1].expand(40, -1, -1, -1),
        labels=torch.zeros(40).long(),
        class_names=(),
    )
    alike = Evaluator(seer(), reference(), ["fd"]).score(DataPictures(same))
    assert any("all samples look the same to lines" in doubt for doubt in alike.warnings)
    assert Evaluator(seer(), reference()).score(pictures(300, 400)).warnings == ()


def test_the_protocol_tells_references_apart():
    def identity(start, end):
        evaluator = Evaluator(seer(), reference(start, end), ["fd"])
        evaluator.prepare()
        return evaluator.protocol()["reference_identity"]

    assert identity(0, 100) == identity(0, 100)
    assert len({identity(0, 100), identity(0, 99), identity(1, 101)}) == 3


@pytest.fixture
def npz(tmp_path):
    """A reference file whose moments are not those of its images."""
    path = tmp_path / "reference.npz"
    images = to_uint8(digits().images[:200])
    other = moments(features(1000, 1300)["pool"])
    np.savez(path, arr_0=images, mu=other.mean.numpy(), sigma=other.covariance.numpy())
    return path


def file_reference(path):
    file = AdmFile(path)
    return Reference(name=path.name, pictures=FilePictures(file), file=file)


def test_stored_moments_count_for_inception_alone(npz):
    drawn = features(300, 400)["pool"]
    stored = frechet_distance(moments(features(1000, 1300)["pool"]), moments(drawn))
    seen = frechet_distance(moments(features(0, 200)["pool"]), moments(drawn))
    wanted = ["fd", "pr"]
    found = Evaluator(seer(published=True), file_reference(npz), wanted).score(pictures(300, 400))
    assert found.metrics["FID"] == pytest.approx(stored, rel=1e-5)
    pr = precision_recall(features(0, 200)["pool"], drawn)
    assert found.metrics["precision"] == pytest.approx(pr.precision)
    other = Evaluator(seer(), file_reference(npz), wanted).score(pictures(300, 400))
    assert other.metrics["FD-lines"] == pytest.approx(seen, rel=1e-5)


def test_a_file_of_moments_alone_gives_what_it_can(tmp_path):
    known = moments(features(0, 300)["pool"])
    path = tmp_path / "moments.npz"
    np.savez(path, mu=known.mean.numpy(), sigma=known.covariance.numpy())
    judge = Evaluator(seer(published=True), file_reference(path))
    assert judge.metrics == ["fd", "is"]
    fid = judge.score(pictures(300, 400)).metrics["FID"]
    with_images = Evaluator(seer(), reference(), ["fd"]).score(pictures(300, 400)).metrics
    assert fid == pytest.approx(with_images["FD-lines"], rel=1e-6)
    with pytest.raises(ValueError, match=r"'pr' cannot be had: moments\.npz holds no images"):
        Evaluator(seer(published=True), file_reference(path), ["pr"])
    with pytest.raises(ValueError, match=r"'fd' cannot be had: moments\.npz holds no images"):
        Evaluator(seer(), file_reference(path), ["fd"])


def test_metrics_that_cannot_be_had_get_a_sentence():
    narrow = seer()
    narrow.network.spaces = {"pool": 6}
    assert Evaluator(narrow, reference()).metrics == ["fd", "pr", "kid"]
    with pytest.raises(ValueError, match="'is' cannot be had: lines gives no 'logits' features"):
        Evaluator(narrow, reference(), ["is"])
    with pytest.raises(ValueError, match="unknown metric 'fdd'; did you mean 'fd'"):
        Evaluator(seer(), reference(), ["fdd"])
    with pytest.raises(ValueError, match="no metric was named"):
        Evaluator(seer(), reference(), [])
    with pytest.raises(ValueError, match="'fd' cannot be had: there is no reference"):
        Evaluator(seer(), None, ["fd"])


def test_no_images_get_a_sentence():
    with pytest.raises(ValueError, match="there are no images to evaluate"):
        Evaluator(seer(), reference()).score(pictures(0, 0))


class Together:
    """Ranks that are threads of this process."""

    def __init__(self, size):
        self.size = size
        self.barrier = threading.Barrier(size)
        self.things = [None] * size

    def member(self, rank):
        ranks = Alone(rank, self.size)
        object.__setattr__(ranks, "gather", lambda thing: self.exchange(rank, thing))
        return ranks

    def exchange(self, rank, thing):
        self.things[rank] = thing
        self.barrier.wait(timeout=20)
        found = list(self.things)
        self.barrier.wait(timeout=20)
        return found

    def do(self, act):
        """What `act` gives on each rank."""
        results = [None] * self.size

        def work(rank):
            results[rank] = act(self.member(rank))

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


@pytest.mark.parametrize("size", [2, 4, 5])
@pytest.mark.parametrize("count", [30, 50, 130])
def test_ranks_see_to_the_bit_what_one_sees(size, count):
    network, some = Lines(), pictures(0, count)
    alone = see(some, network, Alone(), keep=True)
    first, *others = Together(size).do(lambda ranks: see(some, network, ranks, keep=True))
    assert first.features.keys() == alone.features.keys()
    for space, expected in alone.features.items():
        assert torch.equal(first.features[space], expected)
    assert torch.equal(first.pixels, alone.pixels)
    assert torch.equal(alone.pixels, as_bytes(digits().images[:count], "", range(count)))
    for each in others:
        assert (each.features, each.pixels) == ({}, None)
    assert {each.identity for each in (first, *others)} == {alone.identity}


def test_ranks_all_get_the_numbers_of_one():
    alone = Evaluator(seer(), reference(0, 130)).score(pictures(300, 480))

    def score(ranks):
        return Evaluator(seer(), reference(0, 130), ranks=ranks).score(pictures(300, 480))

    for scores in Together(3).do(score):
        assert (scores.metrics, scores.warnings) == (alone.metrics, alone.warnings)
