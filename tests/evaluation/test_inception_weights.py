"""Where Inception's weights come from, and what is refused; nothing here needs a network."""

import hashlib

import pytest
import torch

from diffussm.evaluation import inception_weights as module
from diffussm.evaluation.inception import Inception, load_inception
from diffussm.evaluation.inception_weights import FILE, check_weights, find_weights, usual_places


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home in which nothing lies yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCH_HOME", raising=False)
    return tmp_path


def put(path, content=b"weights"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def published(monkeypatch, home, content=b"weights"):
    """Let a file stand for the published one."""
    monkeypatch.setattr(module, "CHECKSUM", hashlib.sha256(b"weights").hexdigest()[:8])
    monkeypatch.setattr(module, "URL", put(home / "published", content).as_uri())


def test_the_usual_places(home, monkeypatch):
    torch_hub, ours = home / "cache/torch/hub/checkpoints" / FILE, home / "cache/diffussm" / FILE
    assert usual_places() == [torch_hub, ours]
    put(ours)
    assert find_weights() == ours
    put(torch_hub)
    assert find_weights() == torch_hub
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    assert find_weights() == ours
    elsewhere = put(home / "torch/hub/checkpoints" / FILE)
    assert find_weights() == elsewhere
    assert find_weights(put(home / "mine.pth")) == home / "mine.pth"


def test_missing_weights_say_what_can_be_done(home):
    with pytest.raises(ValueError, match="FID needs") as error:
        find_weights()
    for words in (FILE, "cache/torch/hub", "cache/diffussm", "path", "download", "other features"):
        assert words in str(error.value)
    with pytest.raises(ValueError, match=r"no file .*mine.pth"):
        find_weights(home / "mine.pth", download=True)


def test_a_download_is_for_those_who_ask_and_only_once(home, monkeypatch):
    published(monkeypatch, home)
    with pytest.raises(ValueError, match="FID needs"):
        find_weights()
    place = find_weights(download=True)
    assert place == home / "cache/diffussm" / FILE
    assert place.read_bytes() == b"weights"
    assert [*place.parent.iterdir()] == [place]
    (home / "published").unlink()
    assert find_weights(download=True) == find_weights() == place


def test_a_download_that_is_not_whole_leaves_nothing(home, monkeypatch):
    published(monkeypatch, home, b"weigh")
    found = hashlib.sha256(b"weigh").hexdigest()
    with pytest.raises(ValueError, match=f"SHA-256 is {found} and must begin with 9"):
        find_weights(download=True)
    assert [*(home / "cache/diffussm").iterdir()] == []


def test_no_network(home, monkeypatch):
    published(monkeypatch, home)
    (home / "published").unlink()
    with pytest.raises(ValueError, match=r"cannot download file:.*put it into .*cache/diffussm"):
        find_weights(download=True)


def test_the_address_holds_the_checksum():
    assert module.URL.endswith(f"-{module.CHECKSUM}.pth")


def test_other_or_truncated_weights(home):
    found = hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(ValueError, match=f"SHA-256 is {found} and must begin with 6726825d"):
        load_inception(put(home / "mine.pth"))


@pytest.fixture
def anything_goes(monkeypatch):
    monkeypatch.setattr(module, "CHECKSUM", "")


@pytest.mark.usefixtures("anything_goes")
class TestLoading:
    def test_published_names(self, home):
        network, path = Inception("0" * 64), home / "mine.pth"
        weights = network.state_dict()
        # as old files are: no counters of batches, not in a zip
        for name in [name for name in weights if name.endswith("num_batches_tracked")]:
            del weights[name]
        torch.save(weights, path, _use_new_zipfile_serialization=False)
        before = torch.get_rng_state()
        loaded = load_inception(path, biased=False)
        assert torch.equal(torch.get_rng_state(), before)
        state = loaded.state_dict()
        assert all(torch.equal(state[name], weights[name]) for name in weights)
        assert (
            loaded.identity == check_weights(path) == hashlib.sha256(path.read_bytes()).hexdigest()
        )
        assert not loaded.training
        assert not loaded.biased
        assert not any(weight.requires_grad for weight in loaded.parameters())

    def test_other_weights(self, home):
        torch.save({"fc.weight": torch.zeros(1000, 2048)}, home / "mine.pth")
        with pytest.raises(ValueError, match=r"no fitting Conv2d_1a_3x3.conv.weight"):
            load_inception(home / "mine.pth")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_file_with_code(self, home, zipped):
        torch.save({"fc.weight": Code()}, home / "mine.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match="cannot read the weights"):
            load_inception(home / "mine.pth")
        assert not ran

    @pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 half a zip"])
    def test_no_weights_at_all(self, home, content):
        with pytest.raises(ValueError, match="cannot read the weights"):
            load_inception(put(home / "mine.pth", content))

    def test_a_list(self, home):
        torch.save([torch.zeros(3)], home / "mine.pth")
        with pytest.raises(ValueError, match="cannot read the weights"):
            load_inception(home / "mine.pth")


ran = []


class Code:
    def __reduce__(self):
        return ran.append, (1,)
