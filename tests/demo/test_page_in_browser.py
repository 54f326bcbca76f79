"""The page in a real browser, as a person uses it: `sh scripts/chromium.sh` installs what it needs.

The screenshots are kept where pytest keeps a test's files; DIFFUSSM_SCREENSHOTS names another
folder.
"""

import io
import os
import re
import shutil
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from test_demo_training import COUNTING
from tiny import SETTINGS

from diffussm.demo import training
from diffussm.demo.request import MAX_IMAGES
from diffussm.demo.server import HOST, free_port, launch
from diffussm.demo.shelf import Shelf
from diffussm.demo.training import Training
from diffussm.diffusion import DEFAULT_STEPS, SAMPLERS

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'diffussm[demo]'")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="driving a browser needs playwright: pip install playwright"
)
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: sh scripts/chromium.sh"),
    # gradio's server, and the browser's
    pytest.mark.filterwarnings("default"),
]
# without a sandbox, since tests may run as root; nothing is looked up on the network
FLAGS = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
FLAGS += " disable-component-update disable-sync"
SIZES = {"wide": {"width": 1280, "height": 900}, "narrow": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        flags = [f"--{flag}" for flag in FLAGS.split()]
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def trains(tmp_path_factory):
    return Training(tmp_path_factory.mktemp("trained") / "digits", SETTINGS)


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """Serve a page; gives its address."""
    served = []

    def build(shelf, training):
        page, port = build_page(shelf, training), free_port(7900)
        served.append(page)
        launch(page, port)
        return f"http://{HOST}:{port}/"

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("files")))
        # gradio knows a generator by its function, which the checks of types would wrap
        finders = [each for each in sys.meta_path if "jaxtyping" not in type(each).__module__]
        patch.setattr(sys, "meta_path", finders)
        from diffussm.demo.page import build_page

        yield build
    for page in served:
        page.close(verbose=False)


@pytest.fixture(scope="module")
def address(serve, paths, trains):
    """A server with both models."""
    return serve(Shelf(paths.values()), trains)


@pytest.fixture
def open_page(browser, address):
    """Open a tab of a person of their own; no request of theirs may leave this machine."""
    people, asked = [], []

    def open_tab(size="wide", scheme="light", to=address):
        person = browser.new_context(viewport=SIZES[size], color_scheme=scheme)
        people.append(person)
        page = person.new_page()
        page.set_default_timeout(15_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: asked.append(f"error:{error}"))
        page.goto(to)
        page.get_by_role("tab", name="Draw").wait_for()
        return page

    yield open_tab
    for person in people:
        person.close()
    inside = {"data", "blob"}
    away = [url for url in asked if urlsplit(url).hostname != HOST]
    assert [url for url in away if urlsplit(url).scheme not in inside] == []


@pytest.fixture
def photograph(tmp_path):
    """Keep a picture of a page."""
    folder = Path(os.environ.get("DIFFUSSM_SCREENSHOTS", tmp_path))

    def take(page, name):
        page.wait_for_timeout(300)  # what moves has arrived
        page.screenshot(path=folder / f"demo-{name}.png", full_page=True)

    return take


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def fill(page, label, value):
    page.get_by_label(label).fill(str(value))


def status(page):
    return page.locator("#status")


def drawn(page):
    """Wait for the end of a drawing; where the pictures lie."""
    status(page).get_by_text("done: ").wait_for()
    return page.locator("#pictures img")


def test_open_and_draw(open_page, paths):
    page = open_page()
    fill(page, "Steps, at most", 10)
    press(page, "Draw")
    assert drawn(page).count() == 1
    line = page.locator("#command textarea").input_value()
    assert line.startswith(f"diffussm sample {paths['ours']} --out ")
    assert "--seeds 0-15 --sampler ddim --steps 10" in line
    fill(page, "First seed", "abc")
    press(page, "Draw")
    page.get_by_role("alert").get_by_text("not 'abc'").wait_for()
    fill(page, "First seed", "3")
    page.get_by_label("First seed").press("Enter")
    assert drawn(page).count() == 1


@pytest.mark.slow
def test_progress_is_shown_and_stop_stops(open_page, paths):
    page = open_page()
    fill(page, "Steps, at most", 250)
    fill(page, "Images, at most", MAX_IMAGES)
    press(page, "Draw")
    seen = set()
    for _ in range(200):
        if found := re.match(r"step (\d+) of 250, [\d.]+ s left", status(page).inner_text()):
            seen.add(int(found[1]))
        if len(seen) > 3:
            break
        page.wait_for_timeout(50)
    assert len(seen) > 3
    press(page, "Stop")
    status(page).get_by_text("stopped").wait_for()
    page.wait_for_timeout(500)
    assert status(page).inner_text() == "stopped; the same button begins again"
    press(page, "Stop")  # there is nothing to stop
    fill(page, "Steps, at most", 2)
    press(page, "Draw")
    drawn(page)


@pytest.mark.slow
def test_draw_again_begins_anew(open_page):
    page = open_page()
    fill(page, "Steps, at most", 250)
    fill(page, "Images, at most", MAX_IMAGES)
    press(page, "Draw")
    status(page).get_by_text("of 250").wait_for()
    fill(page, "Steps, at most", 240)
    press(page, "Draw")
    status(page).get_by_text("of 240").wait_for()
    page.wait_for_timeout(500)
    assert "of 240" in status(page).inner_text()
    fill(page, "Steps, at most", 0)
    press(page, "Draw")  # what cannot be drawn ends the one before, too
    page.get_by_role("alert").get_by_text("not 0").wait_for()
    page.wait_for_timeout(500)
    assert "not 0" in status(page).inner_text()
    fill(page, "Steps, at most", 2)
    press(page, "Draw")
    drawn(page)


@pytest.mark.slow
def test_steps_stay_when_the_keyboard_passes_the_sampler(open_page):
    page = open_page()
    steps, sampler = page.get_by_label("Steps, at most"), page.get_by_label("Sampler", exact=True)
    steps.fill("120")
    steps.press("Shift+Tab")
    assert sampler.evaluate("each => each === document.activeElement")
    sampler.press("Tab")
    page.wait_for_timeout(500)
    assert steps.input_value() == "120"
    press(page, "Draw")
    drawn(page)
    assert "--sampler ddim --steps 120" in page.locator("#command textarea").input_value()


@pytest.mark.slow
@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_another_sampler_brings_its_usual_steps(open_page, by):
    page = open_page()
    sampler, names = page.get_by_label("Sampler", exact=True), list(SAMPLERS)
    other = names[(names.index(sampler.input_value()) + 1) % len(names)]
    steps = page.get_by_label("Steps, at most")
    steps.fill("7")
    if by == "mouse":
        sampler.click()
        page.get_by_role("option", name=other, exact=True).click()
    else:
        sampler.focus()
        sampler.press("ArrowDown")
        sampler.press("Enter")
    playwright.expect(sampler).to_have_value(other)
    playwright.expect(steps).to_have_value(str(DEFAULT_STEPS[other]))


@pytest.mark.slow
def test_downloads_are_what_was_drawn(open_page):
    page = open_page()
    fill(page, "Steps, at most", 2)
    fill(page, "Images, at most", 3)
    press(page, "Draw")
    drawn(page)
    links = page.locator("#files a[download]")
    links.nth(1).wait_for()
    files = {}
    for number in range(2):
        with page.expect_download() as download:
            links.nth(number).click()
        files[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    picture, arrays = sorted(files, reverse=True)
    assert picture.endswith("ours.png")
    assert files[picture].startswith(b"\x89PNG")
    assert np.load(io.BytesIO(files[arrays]))["arr_0"].shape == (3, 8, 8, 1)


@pytest.mark.slow
def test_two_models_side_by_side_from_the_same_seeds(open_page, paths):
    page = open_page()
    page.get_by_label(paths["dit"]).check()
    press(page, "Draw")
    assert drawn(page).count() == 2
    for words in ("(DiffuSSM)", "(DiT)"):
        page.locator("#pictures").get_by_text(words).wait_for()
    assert page.locator("#pictures").get_by_text("multiply-adds").count() == 2
    left, right = (drawn(page).nth(n).bounding_box() for n in range(2))
    assert left["y"] == right["y"]


@pytest.mark.slow
def test_two_people_get_their_own(open_page):
    pages = [open_page(), open_page()]
    for number, page in enumerate(pages):
        fill(page, "First seed", number * 100)
        fill(page, "Steps, at most", 40)
    for page in pages:
        press(page, "Draw")
    pictures = [drawn(page).first.get_attribute("src") for page in pages]
    assert pictures[0] != pictures[1]
    for number, page in enumerate(pages):
        page.locator("#command textarea").wait_for()
        first = f"--seeds {number * 100}-"
        assert first in page.locator("#command textarea").input_value()
    fill(pages[1], "First seed", 0)
    press(pages[1], "Draw")
    status(pages[1]).get_by_text("step").wait_for()
    assert drawn(pages[1]).first.get_attribute("src") == pictures[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label", "value", "said"),
    [
        ("Images, at most", 10**9, f"from 1 to {MAX_IMAGES}, not 1,000,000,000"),
        ("Images, at most", "", "not nothing"),
        ("Steps, at most", 0, "from 1 to 250, not 0"),
        ("First seed", "9" * 40, "whole number from 0"),
        ("number input for Guide from", 0.9, "Guide from, 0.9, must not be above Guide to, 0.8"),
    ],
)
def test_a_wrong_field_is_a_sentence_and_the_page_goes_on(open_page, label, value, said):
    page = open_page()
    before = page.get_by_label(label).input_value()
    fill(page, "number input for Guide to", 0.8)
    fill(page, label, value)
    press(page, "Draw")
    page.get_by_role("alert").get_by_text(said).wait_for()
    fill(page, label, before)
    press(page, "Draw")
    drawn(page)


@pytest.mark.slow
def test_guidance_beyond_its_slider_is_the_sliders_end(open_page):
    page = open_page()
    fill(page, "number input for Guidance", 99)
    press(page, "Draw")
    drawn(page)
    assert "--guidance 10 " in page.locator("#command textarea").input_value()


@pytest.mark.slow
def test_a_model_that_went_away_is_a_sentence(open_page, paths):
    page = open_page()
    folder = Path(paths["ours"])
    folder.rename(folder.with_name("away"))
    try:
        press(page, "Draw")
        page.get_by_role("alert").get_by_text("There is no checkpoint").wait_for()
    finally:
        folder.with_name("away").rename(folder)
    press(page, "Draw")
    drawn(page)


@pytest.mark.slow
def test_leaving_stops_the_work(open_page, monkeypatch):
    """A drawing ends when its tab is closed."""
    from diffussm.demo import drawing

    page, last = open_page(), []
    step = drawing._Drawing.advance
    monkeypatch.setattr(
        drawing._Drawing, "advance", lambda self: (step(self), last.append(time.monotonic()))
    )
    fill(page, "Steps, at most", 250)
    fill(page, "Images, at most", MAX_IMAGES)
    press(page, "Draw")
    status(page).get_by_text("step").wait_for()
    page.context.close()
    time.sleep(3)
    count = len(last)
    assert 0 < count < 250
    time.sleep(1)
    assert len(last) == count


@pytest.mark.slow
def test_the_keyboard_is_enough(open_page):
    page = open_page()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "draw":
            break
    page.keyboard.press("Enter")
    drawn(page)
    page.get_by_role("tab", name="Draw").focus()
    page.keyboard.press("Tab")
    page.get_by_role("tab", name="Inside").focus()
    page.keyboard.press("Enter")
    page.locator("#kernels svg").first.wait_for()


@pytest.mark.slow
def test_inside_and_hippo(open_page, paths):
    page = open_page()
    page.get_by_role("tab", name="Inside").click()
    page.locator("#kernels").get_by_text("block 1, forward").wait_for()
    page.get_by_label("backward").check()
    page.locator("#kernels").get_by_text("block 1, backward").wait_for()
    page.get_by_role("slider", name="Block").press("ArrowRight")
    page.locator("#kernels").get_by_text("block 2, backward").wait_for()
    page.locator("#gates").get_by_text("At step 500").wait_for()
    page.get_by_label("Model", exact=True).click()
    page.get_by_role("option", name=paths["dit"]).click()
    page.locator("#kernels").get_by_role("alert").get_by_text("DiT has no state space").wait_for()
    page.get_by_role("tab", name="HiPPO").click()
    page.locator("#recalled").get_by_text("400 values in 16 numbers").wait_for()
    page.get_by_label("legt").check()
    page.locator("#recalled").get_by_text("100 values in 16 numbers").wait_for()
    page.get_by_role("slider", name="Numbers").press("ArrowRight")
    page.locator("#recalled").get_by_text("100 values in 18 numbers").wait_for()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tab", "label", "value", "end", "said"),
    [
        ("Inside", "Block", 99, 2, "Kernels of block 2"),
        ("Inside", "Time step", -5, 0, "At step 0 "),
        ("HiPPO", "Numbers", 9999, 64, "100 values in 64 numbers"),
        ("HiPPO", "Window", 1, 2, "2 values in 16 numbers"),
    ],
)
def test_a_number_beyond_its_slider_is_the_sliders_end(open_page, tab, label, value, end, said):
    page = open_page()
    page.get_by_role("tab", name=tab).click()
    if tab == "HiPPO":
        page.get_by_label("legt").check()
        page.locator("#recalled").get_by_text("100 values in 16").wait_for()
    else:
        page.locator("#gates").get_by_text("At step 500").wait_for()
    field = page.get_by_label(re.compile(f"^number input for {label}"))
    field.fill(str(value))
    page.locator("#recalled, #kernels, #gates").get_by_text(said).first.wait_for()
    field.press("Tab")
    assert field.input_value() == str(end)
    assert page.get_by_text("Error", exact=True).count() == 0


@pytest.mark.slow
def test_without_a_model_it_trains_one(open_page, serve, trains):
    page = open_page(to=serve(Shelf(), trains))
    press(page, "Train on digits")
    page.locator("#training").get_by_text("done: 60 of 60").wait_for(timeout=60_000)
    page.get_by_role("tab", name="Draw").click()
    assert page.get_by_label(str(trains.folder)).is_checked()
    fill(page, "Steps, at most", 2)
    press(page, "Draw")
    drawn(page)


@pytest.mark.slow
def test_a_training_shows_progress_and_stops_when_left(open_page, trains, monkeypatch):
    monkeypatch.setattr(training, "TRAINER", ["-c", COUNTING])
    page = open_page()
    page.get_by_role("tab", name="Train").click()
    press(page, "Train on digits")
    page.locator("#training").get_by_text(re.compile(r"\d+ of 1,000 images, loss")).wait_for()
    press(page, "Stop and save")
    page.locator("#training").get_by_text("stopped and saved").wait_for()
    press(page, "Train on digits")
    page.locator("#training").get_by_text("left").wait_for()
    page.context.close()
    ended = threading.Thread(target=trains.wait)
    ended.start()
    ended.join(8)
    assert not ended.is_alive()
    assert trains.progress.images < 1000


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_pictures_of_the_page(open_page, paths, photograph, size, scheme):
    page = open_page(size, scheme)
    page.get_by_label(paths["dit"]).check()
    press(page, "Draw")
    drawn(page)
    photograph(page, f"draw-{size}-{scheme}")
    page.get_by_role("tab", name="Inside").click()
    page.locator("#gates svg").first.wait_for()
    photograph(page, f"inside-{size}-{scheme}")
    page.get_by_role("tab", name="HiPPO").click()
    photograph(page, f"hippo-{size}-{scheme}")
    across = page.evaluate("document.documentElement.scrollWidth")
    assert across <= SIZES[size]["width"]  # nothing sticks out to the side
