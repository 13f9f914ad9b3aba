"""People (scripts) in real browsers at the annotation tool.

They reload, lose their server, open two tabs and press keys twice; at the end the store holds what they pressed, once.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from creative_nb.models import pretrained
from creative_nb.pool import QUESTIONNAIRES, blind
from creative_nb.store import Store
from people import MAIN, made_up
from PIL import Image


class Server:
    "The page of one study, as a user starts it."
    def __init__(self, folder):
        self.folder, self.port, self.process = folder, 0, None

    def start(self):
        command = [sys.executable, "-m", "creative_nb.annotation_tool", "pool.safetensors", "labels.sqlite"]
        options = ["--port", str(self.port), "--no-browser", "--token-file", "token"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(self.folder)}
        with open(self.folder / "server.log", "a") as log:
            heeds_ctrl_c = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests in the background ignore it
            self.process = subprocess.Popen(command + options, cwd=self.folder, stdout=subprocess.PIPE, stderr=log,
                                            text=True, env=environment, preexec_fn=heeds_ctrl_c)
        said = self.process.stdout.readline()
        assert "http://" in said, (self.folder / "server.log").read_text()
        self.url = re.search(r"http://\S+", said).group()
        self.port = int(re.search(r":(\d+)/", self.url).group(1))
        return self

    def family(self):
        server = psutil.Process(self.process.pid)
        return [server, *server.children(recursive=True)]

    def kill(self):
        "SIGKILL to the server and its kernels."
        family = self.family() if self.process.poll() is None else []
        for p in family:
            with suppress(psutil.NoSuchProcess): p.kill()
        self.process.wait()
        psutil.wait_procs(family, timeout=10)

    def stop(self):
        "As Ctrl-C does."
        family = self.family() if self.process.poll() is None else []
        self.process.send_signal(signal.SIGINT)
        try: self.process.wait(15)
        finally: self.left = psutil.wait_procs(family, timeout=5)[1]
        for p in self.left: p.kill()


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium: pytest.skip("needs Chromium (Debian: apt install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright for Python")
    pytest.importorskip("voila")
    with playwright.sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"], headless=True)
        yield b
        b.close()


@pytest.fixture(scope="module")
def study(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    pool, manifest, store = made_up(folder)
    server = Server(folder).start()
    server.pool, server.manifest, server.store = pool, manifest, store
    yield server
    server.kill()


class Person:
    "A script at a page, and what it should have in the store."
    def __init__(self, study, browser, name, context=None):
        self.study, self.name = study, name
        self.context = context or browser.new_context(viewport={"width": 1280, "height": 800})
        self.page, self.expected, self.outside = self.context.new_page(), {}, []
        ours = lambda url: url.startswith(("data:", "blob:", f"http://127.0.0.1:{study.port}/"))
        self.page.on("request", lambda r: ours(r.url) or self.outside.append(r.url))

    def open(self): self.page.goto(self.study.url, wait_until="commit")

    def begin(self):
        self.page.locator(".creative-annotator input[type=text]").fill(self.name, timeout=120_000)
        self.page.keyboard.press("Enter")
        self.ready()

    def ready(self):
        "Wait until an image has been shown for long enough to be judged."
        self.page.locator(".creative-annotator .stage img").wait_for(timeout=120_000)
        self.page.wait_for_timeout(330)

    @property
    def at(self): return int(re.match(r"Image (\d+) of 10", self.page.locator("header p").inner_text()).group(1)) - 1

    def shows(self, at, timeout=20_000):
        if at == 10: self.page.locator(".end").wait_for(timeout=timeout)
        else: self.page.get_by_text(f"Image {at + 1} of 10").wait_for(timeout=timeout)

    def press(self, key, at, to):
        "Press an answer at one position, and remember it; `to` is where it should lead."
        assert self.at == at
        self.page.keyboard.press(key)
        self.expected[at] = MAIN[int(key) - 1]
        self.shows(to)

    def check(self):
        order = self.study.store.order(self.name)
        assert self.study.store.answers(self.name) == {order[at]: label for at, label in self.expected.items()}
        assert not self.outside, "the page asked other servers"


def fits_a_phone(page):
    elements = "[...document.querySelectorAll(':root, .creative-annotator, .creative-annotator *')]"
    widths = page.evaluate(f"{elements}.map(e => e.scrollWidth)")
    boxes = [button.bounding_box() for button in page.locator(".answers button").all()]
    image = page.locator(".stage img").bounding_box()
    assert max(widths) <= 390 and min(b["height"] for b in boxes) >= 44
    assert len({b["x"] for b in boxes}) == len({b["y"] for b in boxes}) == 2  # two by two
    assert image["width"] == image["height"] >= 330
    assert image["width"] * 2 % 6 == 0  # whole screen pixels for each of the 6


def label(people, start, end):
    for at in range(start, end):
        people[0].page.wait_for_timeout(330)
        for i, person in enumerate(people): person.press("1234"[(at + i) % 4], at, at + 1)


def test_three_annotators_a_reload_and_a_killed_server(study, browser):
    phone = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True,
                                device_scale_factor=2)
    people = [Person(study, browser, "Ada"), Person(study, browser, "Bob"), Person(study, browser, "Cleo Ü.", phone)]
    for p in people: p.open()
    for p in people: p.begin()
    fits_a_phone(people[2].page)
    label(people, 0, 3)
    people[0].page.reload(wait_until="commit")  # the address knows her name
    people[0].ready()
    assert people[0].at == 3
    label(people, 3, 5)
    text = people[1].page.content()
    assert not any(secret in text for secret in (*study.pool.items, *study.manifest.method))

    study.kill()
    people[2].page.keyboard.press("1")
    alert = people[2].page.get_by_role("alert")
    alert.get_by_text("Not saved: the connection to the server is lost. "
                      "Reload the page; everything before this image is saved.").wait_for()
    assert people[2].at == 5
    people[2].check()  # the press is not in the store, all before it are

    study.start()
    for p in people: p.page.reload(wait_until="commit")
    for p in people:
        p.ready()
        assert p.at == 5
    label(people, 5, 10)
    for p in people: p.check()
    assert len(study.store.read()) == 30 and study.store.read().seconds.between(0.25, 60).all()
    people[0].page.keyboard.press("ArrowLeft")
    people[0].shows(9)
    pressed = people[0].page.get_by_role("button", pressed=True).inner_text().split("\n")[-1]
    assert pressed == QUESTIONNAIRES["main"][people[0].expected[9]].text
    for p in people: p.context.close()


PRESS = ("const press = (repeat) => document.body.dispatchEvent("
         "new KeyboardEvent('keydown', {key: '2', code: 'Digit2', bubbles: true, repeat}));")
HOLD = PRESS + "press(true); press(true);"
PRESS_TWICE_AND_AGAIN = PRESS + """
    // twice at once, and when the next image has just appeared: too soon to have seen it
    const again = new MutationObserver(() => { again.disconnect(); press(false); setTimeout(press, 20, false); });
    again.observe(document.querySelector('.stage img'), { attributeFilter: ['src'] });
    press(false); press(false);
"""


def test_slips_of_the_finger_and_two_tabs(study, browser):
    dora = Person(study, browser, "2u Dora?")  # letters and digits in a name are no shortcuts
    dora.open()
    dora.begin()
    keyboard = dora.page.keyboard
    dora.page.evaluate(PRESS_TWICE_AND_AGAIN)
    dora.expected[0] = MAIN[1]
    dora.shows(1)
    dora.page.wait_for_timeout(400)
    dora.page.evaluate(HOLD)
    keyboard.press("Control+2")
    assert dora.at == 1
    dora.press("1", 1, 2)
    dora.page.wait_for_timeout(330)
    dora.press("4", 2, 3)
    dora.check()

    for to in (2, 1):  # back, changed, forward
        keyboard.press("ArrowLeft")
        dora.shows(to)
    assert dora.page.get_by_role("button", pressed=True).get_attribute("aria-keyshortcuts") == "1"
    dora.page.wait_for_timeout(330)
    dora.press("3", 1, 2)
    keyboard.press("ArrowRight")
    dora.shows(3)
    keyboard.press("ArrowRight")  # not over an image without an answer
    dora.page.wait_for_timeout(330)
    assert dora.at == 3
    dora.check()

    keyboard.press("u")  # takes back the change, wherever one is
    dora.shows(1)
    dora.expected[1] = MAIN[0]
    dora.check()
    keyboard.press("?")
    dora.page.get_by_role("dialog").wait_for()
    dora.page.wait_for_timeout(330)
    keyboard.press("2")  # not while reading
    keyboard.press("Escape")
    assert dora.at == 1
    for to in (2, 3):
        keyboard.press("ArrowRight")
        dora.shows(to)

    tab = Person(study, browser, dora.name, context=dora.context)
    tab.expected = dora.expected
    tab.page.goto(dora.page.url, wait_until="commit")
    tab.ready()
    tab.press("4", 3, 4)
    tab.page.wait_for_timeout(330)
    tab.press("4", 4, 5)
    dora.page.bring_to_front()  # what lies behind draws once a second
    keyboard.press("1")  # still shows the fourth as unanswered: learns what the other tab said
    dora.page.get_by_text("Answered in another window").wait_for()
    assert dora.page.get_by_role("button", pressed=True).get_attribute("aria-keyshortcuts") == "4"
    dora.check()
    dora.press("1", 3, 4)  # now it is a change
    keyboard.press("ArrowRight")  # over the fifth, which the other tab answered
    dora.shows(5)
    dora.page.wait_for_timeout(330)
    for _ in range(2): keyboard.press("Tab")  # the second answer, by the keys that everybody knows
    keyboard.down("Enter")
    dora.expected[5] = MAIN[1]
    dora.shows(6)
    dora.page.wait_for_timeout(330)
    keyboard.down("Enter")  # held
    dora.page.wait_for_timeout(330)
    keyboard.up("Enter")
    assert dora.at == 6
    tab.page.bring_to_front()
    tab.page.wait_for_timeout(330)
    tab.press("2", 5, 6)
    tab.page.wait_for_timeout(330)
    tab.press("1", 6, 7)
    dora.page.wait_for_timeout(330)
    dora.press("1", 6, 7)
    tab.check()
    history = study.store.history().query("annotator == '2u dora?'")
    assert (history.before == history.after).sum() == 0
    assert history.kind.value_counts().to_dict() == {"answer": 9, "undo": 1}
    dora.context.close()


def test_a_name_in_use_and_keys_switched_off(study, browser):
    first = Person(study, browser, "Emil")
    first.open()
    first.begin()
    first.press("1", 0, 1)
    assert first.page.locator("header .who").inner_text() == "Emil"
    first.page.get_by_role("button", name="Instructions").click()
    first.page.get_by_label("use these keys").uncheck()
    first.page.keyboard.press("Escape")
    first.page.wait_for_timeout(330)
    first.page.keyboard.press("2")
    first.page.get_by_role("button", name="Creative", exact=True).click()
    first.expected[1] = MAIN[0]
    first.shows(2)
    first.page.get_by_role("button", name="Instructions").click()
    first.page.get_by_role("link", name="Start under another name").click()

    first.page.locator("input[type=text]").fill("emil", timeout=120_000)
    first.page.keyboard.press("Enter")
    first.page.get_by_text("“emil” has 2 answers already").wait_for()
    first.page.locator("input[type=text]").fill("emilia")
    assert first.page.get_by_role("button", name="Start").is_visible()
    first.page.locator("input[type=text]").fill("emil")
    first.page.get_by_role("button", name="Go on").click()
    first.ready()
    assert first.at == 2
    first.check()
    first.context.close()


def test_the_picture_of_the_page(browser, tmp_path):
    """The page as the README shows it.

    CREATIVE_NB_PICTURE=figures/annotation_tool.png pytest -k picture makes that file again."""
    latents = 1.8 * torch.randn(12, 50, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(): images = pretrained("mnist").decode(latents)
    manifest = pd.DataFrame({"method": "low-active", "creativity_filter": [0] * 12})
    pool, _ = blind(images, manifest, images[:4], name="mnist")
    pool.save(tmp_path / "pool.safetensors")
    server = Server(tmp_path)
    server.store = Store(tmp_path / "labels.sqlite", pool, repeats=2)
    server.start()
    try:
        ida = Person(server, browser, "Ida")
        ida.open()
        ida.begin()
        for key in "12131":
            at = ida.page.locator("header p").inner_text()
            ida.page.wait_for_timeout(330)
            ida.page.keyboard.press(key)
            ida.page.wait_for_function("before => document.querySelector('header p').innerText !== before", arg=at)
        ida.page.wait_for_timeout(330)
        picture = Path(os.environ.get("CREATIVE_NB_PICTURE", tmp_path / "page.png"))
        ida.page.screenshot(path=picture)
        assert ida.page.evaluate("document.documentElement.scrollHeight") <= 800
        assert len(Image.open(picture).convert("L").getcolors()) > 50
        ida.context.close()
    finally: server.stop()


def test_ctrl_c_ends_the_kernels_too(study):
    began = time.time()
    study.stop()
    assert study.process.returncode == 0 and study.left == [] and time.time() - began < 15
