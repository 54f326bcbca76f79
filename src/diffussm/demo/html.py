"""The page's own pieces of HTML: pictures, progress, and sentences."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image as Pillow

from diffussm.demo.drawing import Frame, Panel
from diffussm.demo.shelf import Facts
from diffussm.demo.training import Progress

TURN = "<p>waiting for its turn ...</p>"
STOPPING = "<p>stopping ...</p>"
STOPPED = "<p>stopped; the same button begins again</p>"


def paragraph(text: str) -> str:
    """Plain words."""
    return f"<p>{escape(text)}</p>"


def mistake(error: BaseException | str) -> str:
    """A sentence that says what went wrong; read out at once."""
    text = str(error)
    return f'<p class="mistake" role="alert">{escape(text[:1].upper() + text[1:])}</p>'


def progress(done: int, total: int, words: str) -> str:
    """A bar and what it means."""
    return (
        f'<div class="progress"><progress value="{done}" max="{max(total, 1)}" '
        f'aria-label="progress"></progress><span role="status">{escape(words)}</span></div>'
    )


def drawing_progress(frame: Frame) -> str:
    """How far a drawing is, with the time left."""
    if frame.step < frame.total:
        words = f"step {frame.step} of {frame.total}, {seconds(frame.left)} left"
    else:
        words = f"done: {frame.total} steps"
    return progress(frame.step, frame.total, words)


def pictures(panels: Sequence[Panel], facts: dict[str, Facts]) -> str:
    """What the models have drawn, side by side."""
    return f'<div class="panels">{"".join(_panel(each, facts) for each in panels)}</div>'


def picture(image: Pillow.Image, words: str) -> str:
    """An image inside the page itself, with words for whoever does not see it."""
    held = io.BytesIO()
    image.save(held, format="PNG", compress_level=1)
    data = base64.b64encode(held.getvalue()).decode()
    return (
        f'<img src="data:image/png;base64,{data}" alt="{escape(words)}" '
        f'width="{image.width}" height="{image.height}">'
    )


def seconds(value: float) -> str:
    """A duration that a person reads at a glance."""
    if value < 10:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 100 else f"{value / 60:.0f} min"


def _panel(panel: Panel, facts: dict[str, Facts]) -> str:
    known, name = facts[panel.checkpoint], escape(panel.checkpoint)
    numbers = {
        "parameters": f"{known.parameters:,}",
        "multiply-adds per image and step": f"{known.multiply_adds / 1e6:,.1f} M",
        "seconds": f"{panel.seconds:.2f}",
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in numbers.items())
    shown = picture(panel.picture, f"{len(panel.pixels)} images by {panel.checkpoint}")
    return (
        f"<figure>{shown}<figcaption><strong>{name}</strong> ({known.family})"
        f"<dl>{rows}</dl></figcaption></figure>"
    )


def training_progress(now: Progress) -> str:
    """How far a training is, with the time left, or how it ended."""
    if now.error:
        return mistake(now.error)
    images = f"{now.images:,} of {now.total:,} images"
    if now.done:
        words = f"done: {images}; the model is on the tab Draw"
    elif not now.running:
        words = f"stopped and saved after {images}; the same button goes on"
    elif now.left is None:
        words = "starting ..."
    else:
        words = f"{images}, loss {now.loss:.3f}, {seconds(now.left)} left"
    return progress(now.images, now.total, words)


def newest(preview: Path | None) -> str:
    """The last grid of samples that a training has drawn."""
    if preview is None:
        return ""
    count = f"{int(preview.stem):,}"
    with Pillow.open(preview) as image:
        return f"<figure>{picture(image, f'samples after {count} images')}</figure>"
