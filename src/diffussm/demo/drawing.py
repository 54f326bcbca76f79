"""From a request to pictures, step by step: what the page shows while it draws."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as Pillow

from diffussm.analysis.same_noise import check_comparable
from diffussm.demo.request import Request, file_name
from diffussm.demo.shelf import Shelf
from diffussm.generation import Generator, sample_sheet, to_uint8, write_npz, write_png
from diffussm.generation.pictures import Pixels

FRAME_EVERY = 0.1
"""Seconds between two frames, at least: more are not seen, and each must reach the browser."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """What one model has drawn so far."""

    checkpoint: str
    pixels: Pixels
    labels: list[int] | None
    picture: Pillow.Image
    seconds: float
    """That its network, and the decoding at the end, took."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where all models of a request stand."""

    step: int
    """Calls of each network so far, from 1."""
    total: int
    left: float
    """Seconds to the end, as it goes."""
    panels: tuple[Panel, ...]


def draw(shelf: Shelf, request: Request) -> Iterator[Frame]:
    """Frames on the way and one at the end; close the generator to stop.

    Models take turns, step by step. Raises ValueError for what some model cannot draw.
    """
    models = {checkpoint: shelf.take(checkpoint) for checkpoint in request.checkpoints}
    check_comparable(models)
    drawings = [_Drawing(checkpoint, model, request) for checkpoint, model in models.items()]
    total, started, shown = request.steps, time.perf_counter(), -math.inf
    for step in range(1, total + 1):
        for drawing in drawings:
            with shelf.work:
                drawing.advance()
        now = time.perf_counter()
        if step == total or now - shown >= FRAME_EVERY:
            shown, left = now, (now - started) / step * (total - step)
            panels = tuple(drawing.panel() for drawing in drawings)
            yield Frame(step=step, total=total, left=left, panels=panels)


def warm_up(shelf: Shelf) -> None:
    """Draw one image of each model badly: what torch makes on first use is then there."""
    for path in shelf.paths:
        usual = shelf.take(path).config
        request = Request(
            checkpoints=(path,),
            classes=(),
            seeds=range(1),
            sampler="ddim",
            steps=1,
            guidance=usual.guidance.scale,
            interval=usual.guidance.interval,
        )
        next(draw(shelf, request))


def write(frame: Frame, folder: Path) -> list[str]:
    """A PNG and an npz of each panel, as `diffussm sample` writes them; their paths."""
    written = []
    for panel in frame.panels:
        picture, arrays = (folder / (file_name(panel.checkpoint) + end) for end in (".png", ".npz"))
        write_png(picture, panel.picture)
        write_npz(arrays, panel.pixels, panel.labels)
        written += [str(picture), str(arrays)]
    return written


class _Drawing:
    """One model at work on a request."""

    def __init__(self, checkpoint: str, model: Generator, request: Request):
        self.checkpoint, self.model, self.request = checkpoint, model, request
        config = model.config
        self.labels = self.model.labels(len(request.seeds), request.classes or None)
        self.seconds = 0.0
        _ = self.model.autoencoder  # a missing one should not be found after the drawing
        self._states = self.model.steps(
            request.seeds,
            self.labels,
            request.sampling(config.sampling),
            request.guided(config.guidance),
        )

    def advance(self) -> None:
        """One call of the network; the last one's state is decoded."""
        started = time.perf_counter()
        state = next(self._states)
        last = state.step + 1 == state.total
        self.pixels = to_uint8(self.model.autoencoder.decode(state.x) if last else state.x)
        self.seconds += time.perf_counter() - started

    def panel(self) -> Panel:
        """The pictures of now, laid out as `diffussm sample` does."""
        config, labels = self.model.config, self.labels
        classes = len(self.request.classes or range(config.model.num_classes))
        picture = sample_sheet(self.pixels, self.request.seeds, labels, config.class_names, classes)
        return Panel(
            checkpoint=self.checkpoint,
            pixels=self.pixels,
            labels=labels,
            picture=picture,
            seconds=self.seconds,
        )
