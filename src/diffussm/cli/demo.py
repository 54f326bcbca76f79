"""`diffussm demo`: the page in the browser."""

from pathlib import Path

import typer

from diffussm.cli.devices import choose_device
from diffussm.cli.display import say

RUNS, FOLDER = Path("runs"), Path("runs/digits")
"""Where runs are looked for, and where the page trains."""


def demo(
    checkpoints: list[Path] | None = typer.Argument(
        None, help="Run folders or model files; the newest run under ./runs, unless given."
    ),
    port: int = typer.Option(7860, help="Where the page is; the next free one, if it is in use."),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:1, mps."),
) -> None:
    """Open a page to draw, compare and look inside: diffussm demo runs/digits runs/dit

    Only this machine can reach it. Without a model it offers to train one.
    """
    from diffussm.demo.server import serve
    from diffussm.demo.shelf import Shelf, newest_run
    from diffussm.demo.training import Training

    paths = [str(path) for path in checkpoints or []]
    if not paths and (newest := newest_run(RUNS)):
        say(f"opening the newest run, {newest}")
        paths = [newest]
    shelf = Shelf(paths, choose_device(device))
    for path in paths:
        shelf.take(path)  # a mistake is said here, before there is a page
    serve(shelf, Training(FOLDER), port, say)
