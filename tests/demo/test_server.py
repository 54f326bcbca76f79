"""The page's server and command: on this machine alone, on the next free port, in sentences."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffussm.cli.demo import demo
from diffussm.demo import server
from diffussm.demo.server import HOST, free_port
from diffussm.demo.shelf import Shelf
from diffussm.demo.training import Training


def test_a_port_in_use_leads_to_the_next():
    with socket.socket() as one:
        one.bind((HOST, 0))
        one.listen()
        port = one.getsockname()[1]
        assert free_port(port) > port


def test_no_port_is_a_sentence(monkeypatch):
    monkeypatch.setattr(server, "PORTS", 0)
    with pytest.raises(ValueError, match="give another --port"):
        free_port(7860)
    with pytest.raises(ValueError, match="from 1 to 65,535, not 70000"):
        free_port(70000)


def test_without_gradio_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("os.environ", dict(os.environ))
    monkeypatch.delitem(sys.modules, "diffussm.demo.page", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r"pip install 'diffussm\[demo\]'"):
        server.serve(Shelf(), Training(tmp_path), 7860, lambda text: None)


@pytest.fixture
def served(monkeypatch, tmp_path):
    """What the command would serve, in an empty folder."""
    calls = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server, "serve", lambda *arguments: calls.append(arguments))
    return calls


def test_the_command_opens_what_it_is_given(served, paths):
    demo([Path(path) for path in paths.values()], port=7000, device="cpu")
    (shelf, training, port, _) = served[0]
    assert (shelf.paths, port) == (list(paths.values()), 7000)
    assert training.folder == Path("runs/digits")


def test_the_command_opens_the_newest_run_or_none(served, paths, capsys):
    demo(None, port=7860, device="cpu")
    assert served[0][0].paths == []
    Path("runs").mkdir()
    Path("runs/mine").symlink_to(paths["ours"])
    demo([], port=7860, device="cpu")
    assert served[1][0].paths == ["runs/mine"]
    assert "the newest run, runs/mine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty/x", b"", "has no model.safetensors"),
        ("nothing", None, "there is no checkpoint"),
        ("text", b"hello", "damaged or not a safetensors file"),
    ],
)
def test_a_wrong_checkpoint_is_said_before_there_is_a_page(served, tmp_path, name, content, said):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        demo([path.parent if name == "empty/x" else path], port=7860, device="cpu")
    assert not served


def test_help_does_not_wait_for_torch():
    code = "from diffussm.cli.demo import demo; import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


SERVE = """
import sys
from pathlib import Path
from diffussm.demo.server import serve
from diffussm.demo.shelf import Shelf
from diffussm.demo.training import Training
say = lambda text: print(text, flush=True)
serve(Shelf(), Training(Path("runs/digits")), int(sys.argv[1]), say)
"""


@pytest.mark.slow
def test_sigterm_ends_the_server_and_leaves_nothing(tmp_path):
    pytest.importorskip("gradio")
    with socket.socket() as one:
        one.bind((HOST, 0))
        one.listen()
        port = one.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(port)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"TMPDIR": str(tmp_path)},
        )
        line = process.stdout.readline()
    assert line == f"http://{HOST}:{port + 1} ({port} is in use)  Ctrl-C ends it\n"
    time.sleep(0.5)
    process.terminate()
    assert process.wait(20) == 0
    assert process.communicate()[0] == ""
    assert list(tmp_path.iterdir()) == []
