"""Pushing: what is sent, and one sentence at once where nothing can be."""

import subprocess
import sys
import time

import pytest

huggingface_hub = pytest.importorskip("huggingface_hub")

from diffussm.interop.hub import push  # noqa: E402


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    return tmp_path


@pytest.fixture
def online(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


class FakeApi:
    """Takes down what it is asked for; raises what it is given."""

    def __init__(self, error=None):
        self.error, self.asked = error, []

    def whoami(self):
        self.asked.append("whoami")
        if self.error:
            raise self.error

    def create_repo(self, name, *, private, exist_ok):
        self.asked.append(("create", name, private, exist_ok))
        return f"https://hub.example/{name}"

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self.asked.append(("upload", repo_id, folder_path))


def http_error(status):
    request = huggingface_hub.utils.httpx.Request("POST", "https://hub.example")
    response = huggingface_hub.utils.httpx.Response(status, request=request)
    return huggingface_hub.errors.HfHubHTTPError("refused", response=response)


def test_the_folder_goes_to_the_repository(folder, online):
    api = FakeApi()
    assert push(folder, "me/digits", private=True, api=api) == "https://hub.example/me/digits"
    made, sent = ("create", "me/digits", True, True), ("upload", "me/digits", folder)
    assert api.asked == ["whoami", made, sent]


ERRORS = [
    (lambda: huggingface_hub.errors.LocalTokenNotFoundError("none"), "no token for the Hub"),
    (lambda: http_error(401), "does not know this token"),
    (lambda: http_error(403), "may not write to me/digits"),
    (lambda: http_error(500), "the Hub refused me/digits"),
    (lambda: ConnectionError("no route"), "cannot be reached .no route"),
    (lambda: huggingface_hub.utils.httpx.ConnectError("no name"), "cannot be reached .no name"),
    (lambda: huggingface_hub.errors.HFValidationError("bad"), "is no name OWNER/NAME"),
]


@pytest.mark.parametrize(("error", "sentence"), ERRORS)
def test_an_error_is_a_sentence_and_nothing_is_tried_again(folder, online, error, sentence):
    api = FakeApi(error())
    with pytest.raises(ValueError, match=sentence) as caught:
        push(folder, "me/digits", api=api)
    assert "\n" not in str(caught.value)
    assert api.asked == ["whoami"]


def test_offline_by_wish_asks_nobody(folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    api = FakeApi()
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        push(folder, "me/digits", api=api)
    assert api.asked == []


def test_without_a_network_it_says_so_at_once(folder, monkeypatch):
    code = f"""
from diffussm.interop.hub import push
try:
    push({str(folder)!r}, "me/digits")
except ValueError as error:
    print(error)
"""
    for name, value in {
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "hf_nobody",
        "HF_ENDPOINT": "http://127.0.0.1:9",  # where nothing listens
    }.items():
        monkeypatch.setenv(name, value)
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "the Hub cannot be reached" in done.stdout, done.stderr
    assert time.monotonic() - start < 30  # a retry waits longer and longer


def test_a_folder_that_is_no_export(tmp_path):
    with pytest.raises(ValueError, match="no exported folder"):
        push(tmp_path, "me/digits", api=FakeApi())
