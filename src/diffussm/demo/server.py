"""Serving the page: on this machine alone, and without asking any other for anything."""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from diffussm.demo.drawing import warm_up
from diffussm.demo.shelf import Shelf
from diffussm.demo.training import Training

HOST, PORTS = "127.0.0.1", 100
"""How many ports are tried, from the one that was asked for upwards."""


def serve(shelf: Shelf, training: Training, port: int, say: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C, telling `say` where it is.

    Raises ValueError where gradio is missing or no port is free.
    """
    with TemporaryDirectory(prefix="diffussm-demo-") as files:
        # read when gradio is first imported: nothing is reported to anyone
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = files
        try:
            from diffussm.demo.page import build_page
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise ValueError("the page needs gradio; pip install 'diffussm[demo]'") from None
        free = free_port(port)
        page = build_page(shelf, training)
        launch(page, free)
        taken = "" if free == port else f" ({port} is in use)"
        say(f"http://{HOST}:{free}{taken}  Ctrl-C ends it")
        Thread(target=warm_up, args=[shelf], daemon=True).start()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            signal.pause()
        page.close(verbose=False)
        training.stop()
        training.wait()


def launch(page, port: int) -> None:
    """Open the page's server, which then runs in a thread."""
    from gradio.themes import Base

    system = ("system-ui", "sans-serif")
    page.launch(
        server_name=HOST,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        show_error=True,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        theme=Base(primary_hue="blue", font=system, font_mono=("ui-monospace", "monospace")),
        css_paths=Path(__file__).with_name("page.css"),
    )


def free_port(first: int) -> int:
    """The first free port from `first` upwards; ValueError where there is none."""
    if not 0 < first < 2**16:
        raise ValueError(f"a port is a number from 1 to 65,535, not {first}")
    for port in range(first, min(first + PORTS, 2**16)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ValueError(f"the {PORTS} ports from {first} on are in use; give another --port")
