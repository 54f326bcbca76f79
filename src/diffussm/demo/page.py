"""The page in gradio's widgets: each field and button, and what it calls.

Handlers only read fields and turn answers into HTML. A mistake becomes a sentence on the page.
"""

from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr

from diffussm.checkpoint import MODEL_FILE
from diffussm.demo import html, inside
from diffussm.demo.drawing import draw, write
from diffussm.demo.request import MAX_IMAGES, MAX_STEPS, MISTAKES, read_request, usual_request
from diffussm.demo.shelf import Shelf
from diffussm.demo.training import Training
from diffussm.diffusion import DEFAULT_STEPS, SAMPLERS
from diffussm.ssm.reconstruction import MEMORIES

AT_ONCE, WAITING = 4, 16
"""Drawings that share the machine, and how many more may wait for their turn."""

CLEAN_EVERY, KEEP_FILES = 600, 3600
"""Seconds: how often files of downloads are looked through, and how long each is kept."""


def build_page(shelf: Shelf, training: Training) -> gr.Blocks:
    """The whole page, to be launched by `diffussm.demo.server.serve`."""
    with gr.Blocks(
        title="diffussm", analytics_enabled=False, delete_cache=(CLEAN_EVERY, KEEP_FILES)
    ) as page:
        gr.HTML("<h1>diffussm</h1><p>Images out of noise, without attention.</p>")
        with gr.Tabs(selected="draw" if shelf.paths else "train"):
            with gr.Tab("Draw", id="draw"):
                chosen = _draw_tab(shelf)
            with gr.Tab("Inside", id="inside") as tab:
                looked_at = _inside_tab(shelf, tab)
            with gr.Tab("HiPPO", id="hippo"):
                _hippo_tab()
            with gr.Tab("Train", id="train"):
                trained = _train_tab(shelf, training)

        def offer(path: str | None):
            """All models of the shelf, which may have grown, with one of them chosen."""
            return (
                gr.update(choices=shelf.paths, value=[path] if path else []),
                gr.update(choices=shelf.paths, value=path),
            )

        began_with = bool(shelf.paths)  # then one is chosen already, and perhaps others by now
        page.load(
            lambda: (
                [gr.update(choices=shelf.paths)] * 2
                if began_with
                else offer(next(iter(shelf.paths), None))
            ),
            None,
            [chosen, looked_at],
            show_progress="hidden",
        )
        trained.success(
            lambda: offer(next(reversed(shelf.paths), None)),
            None,
            [chosen, looked_at],
            show_progress="hidden",
        )
    page.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)
    return page


def _draw_tab(shelf: Shelf) -> gr.CheckboxGroup:
    names, sampling, guided = usual_request(shelf, shelf.paths[:1])
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            chosen = gr.CheckboxGroup(
                shelf.paths, value=shelf.paths[:1], label="Models, side by side"
            )
            classes = gr.Dropdown(
                names,
                value=[],
                multiselect=True,
                label="Classes",
                info="in turn over the images; empty: all",
            )
            with gr.Row():
                seed = gr.Textbox("0", label="First seed", min_width=120, max_lines=1)
                number = gr.Number(
                    16, precision=0, label=f"Images, at most {MAX_IMAGES}", min_width=120
                )
            with gr.Row():
                sampler = gr.Dropdown(
                    list(SAMPLERS),
                    value=sampling.sampler,
                    label="Sampler",
                    min_width=120,
                    filterable=False,
                )
                steps = gr.Number(
                    sampling.total, precision=0, label=f"Steps, at most {MAX_STEPS}", min_width=120
                )
            guidance = gr.Slider(0, 10, guided.scale, step=0.1, label="Guidance", info="1: none")
            with gr.Row():
                low, high = (
                    gr.Slider(0, 1, share, step=0.05, label=f"Guide {end}", min_width=120)
                    for end, share in zip(("from", "to"), guided.interval, strict=True)
                )
            with gr.Row():
                start = gr.Button("Draw", variant="primary", min_width=100, elem_id="draw")
                stop = gr.Button("Stop", min_width=100, elem_id="stop")
        with gr.Column(scale=2, min_width=300):
            status = gr.HTML(elem_id="status")
            panels = gr.HTML(elem_id="pictures")
            command = gr.Textbox(
                label="The command line that makes the same files",
                lines=2,
                interactive=False,
                buttons=["copy"],
                elem_id="command",
            )
            files = gr.File(
                label="Download (PNG, npz)",
                file_count="multiple",
                interactive=False,
                visible=False,
                elem_id="files",
            )
    fields = [chosen, classes, seed, number, sampler, steps, guidance, low, high]
    shown = [status, panels, command, files]

    turns: dict[str, int] = {}  # the newest drawing of each person; 0 once it is to stop
    numbers = count(1)

    def begin(person: gr.Request) -> tuple[int, str]:
        number = turns[_who(person)] = next(numbers)
        return number, html.TURN

    def end(person: gr.Request):
        if not turns.get(_who(person)):
            return gr.skip()
        turns[_who(person)] = 0
        return html.STOPPING

    def show(person: gr.Request, number: int, *asked) -> Iterator[tuple]:
        try:
            request = read_request(*asked)
            facts = {path: shelf.facts(path) for path in request.checkpoints}
            lines = "\n".join(map(request.command, request.checkpoints))
            with TemporaryDirectory() as folder:
                for frame in draw(shelf, request):
                    now = turns.get(_who(person))
                    if now != number:  # a newer drawing's words are not written over
                        said = html.STOPPED if now == 0 else gr.skip()
                        yield said, gr.skip(), gr.skip(), gr.skip()
                        return
                    written = write(frame, Path(folder)) if frame.step == frame.total else []
                    download = gr.update(value=written, visible=bool(written))
                    pictures = html.pictures(frame.panels, facts)
                    yield html.drawing_progress(frame), pictures, lines, download
        except MISTAKES as error:
            yield html.mistake(error), "", "", gr.update(visible=False)
        if turns.get(_who(person)) == number:
            del turns[_who(person)]

    def usual(paths: list[str]) -> tuple:
        names, sampling, guided = usual_request(shelf, paths)
        offered = gr.update(choices=names, value=[])
        name = sampling.sampler
        return offered, name, name, sampling.total, guided.scale, *guided.interval

    def usual_steps(name: str, before: str) -> tuple:
        """Of another sampler: gradio speaks of input whenever the field is left, too."""
        return gr.skip() if name == before else DEFAULT_STEPS[name], name

    before = gr.State(sampling.sampler)
    changed = [classes, sampler, before, steps, guidance, low, high]
    chosen.change(usual, chosen, changed, show_progress="hidden")
    sampler.input(usual_steps, [sampler, before], [steps, before], show_progress="hidden")
    turn = gr.State(0)
    begun = gr.on(
        [start.click, seed.submit], begin, None, [turn, status], queue=False, show_progress="hidden"
    )
    begun.then(
        show, [turn, *fields], shown, show_progress="hidden", trigger_mode="multiple"
    )  # else a second one were dropped while the first draws
    stop.click(end, None, status, queue=False, show_progress="hidden")
    return chosen


def _inside_tab(shelf: Shelf, tab: gr.Tab) -> gr.Dropdown:
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            first = next(iter(shelf.paths), None)
            model = gr.Dropdown(shelf.paths, value=first, label="Model", filterable=False)
            block = gr.Slider(1, 2, 1, step=1, label="Block")
            direction = gr.Radio(["forward", "backward"], value="forward", label="Direction")
            t = gr.Slider(0, 999, 500, step=1, label="Time step of the gates, 0: least noise")
        with gr.Column(scale=2, min_width=300):
            kernels = gr.HTML(elem_id="kernels")
            gates = gr.HTML(elem_id="gates")

    def show_kernels(path: str | None, block: object, direction: str) -> str:
        return _or_sentence(lambda: inside.show_kernels(_model(shelf, path), block, direction))

    def show_gates(path: str | None, t: object) -> str:
        return _or_sentence(lambda: inside.show_gates(_model(shelf, path), t))

    def bounds(path: str | None) -> tuple:
        blocks, steps = 2, 1000
        with suppress(*MISTAKES):  # the charts then say why
            found = _model(shelf, path)
            steps = found.config.diffusion.steps
            blocks = inside.depth(found)
        return (
            gr.update(maximum=max(blocks, 2), value=1),
            gr.update(maximum=steps - 1, value=steps // 2),
        )

    changed = gr.on([tab.select, model.change], bounds, model, [block, t], show_progress="hidden")
    changed.then(show_kernels, [model, block, direction], kernels, show_progress="hidden")
    changed.then(show_gates, [model, t], gates, show_progress="hidden")
    _on_input([block, direction], show_kernels, [model, block, direction], kernels)
    _on_input([t], show_gates, [model, t], gates)
    return model


def _hippo_tab() -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            memory = gr.Radio(
                list(MEMORIES),
                value="legs",
                label="Memory",
                info="legs: the whole past; legt, fourier: a sliding window",
            )
            state = gr.Slider(2, inside.MAX_STATE, 16, step=2, label="Numbers in the state")
            waves = gr.Slider(1, inside.MAX_WAVES, 8, step=1, label="Waves in the signal")
            window = gr.Slider(2, inside.LENGTH, 100, step=1, label="Window, in samples")
        with gr.Column(scale=2, min_width=300):
            fields = [memory, state, waves, window]
            first = inside.show_memory(*(field.value for field in fields))
            recalled = gr.HTML(first, elem_id="recalled")

    def show(*asked) -> str:
        return _or_sentence(lambda: inside.show_memory(*asked))

    _on_input(fields, show, fields, recalled)


def _train_tab(shelf: Shelf, training: Training):
    gr.HTML(
        f"<p>Train a small DiffuSSM on handwritten digits, in <code>{training.folder}</code>: "
        "minutes on two cores. It goes on where it stopped, and stops, saving, when nobody "
        "watches.</p>"
    )
    with gr.Row():
        start = gr.Button("Train on digits", variant="primary", min_width=100, elem_id="train")
        stop = gr.Button("Stop and save", min_width=100, elem_id="stop-training")
    status = gr.HTML(elem_id="training")
    preview = gr.HTML(elem_id="preview")

    def follow() -> Iterator[tuple[str, str]]:
        for progress in training.watch():
            yield html.training_progress(progress), html.newest(training.newest_preview())
        if (training.folder / MODEL_FILE).exists():
            shelf.add(str(training.folder))

    watching = start.click(
        follow, None, [status, preview], show_progress="hidden", concurrency_limit=WAITING
    )
    stop.click(training.stop, None, None, queue=False)
    return watching


def _on_input(changing: list, show, fields: list, chart: gr.HTML) -> None:
    """Draw a chart anew when one of some fields changes; `show` checks them, not gradio."""
    once = {"show_progress": "hidden", "trigger_mode": "always_last", "preprocess": False}
    for field in changing:
        field.input(show, fields, chart, **once)


def _model(shelf: Shelf, path: str | None):
    if path is None:
        raise ValueError("no model is chosen; train one first, on the tab Train")
    return shelf.take(path)


def _who(person: gr.Request) -> str:
    """One open page."""
    return person.session_hash or ""


def _or_sentence(show) -> str:
    try:
        return show()
    except MISTAKES as error:
        return html.mistake(error)
