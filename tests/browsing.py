"A study that is served as a user serves it, and people (scripts) in a real browser."
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from creative_nb import annotation_tool
from people import MAIN


class Server:
    "The page of one study, as a user starts it."
    def __init__(self, folder, log=None):
        self.folder, self.port, self.process = folder, 0, None
        self.log = (log or folder) / "server.log"

    def start(self):
        command = [sys.executable, "-m", "creative_nb.annotation_tool", "serve", "pool.safetensors", "labels.sqlite"]
        options = ["--port", str(self.port), "--no-browser", "--open", "--token-file", "token"]
        environment = os.environ | {"PYTHONPATH": str(Path(annotation_tool.__file__).parents[1])}
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(command + options, cwd=self.folder, stdout=subprocess.PIPE, stderr=log,
                                            text=True, env=environment)
        said = self.process.stdout.readline()
        assert "http://" in said, self.log.read_text()
        self.url = re.search(r"http://\S+", said).group()
        self.port = int(re.search(r":(\d+)/", self.url).group(1))
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        "As Ctrl-C does."
        self.process.send_signal(signal.SIGINT)
        self.process.wait(15)


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium: pytest.skip("needs Chromium (Debian: apt install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright for Python")
    with playwright.sync_playwright() as p:
        b = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"], headless=True)
        yield b
        b.close()


PHONE = dict(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2)


class Person:
    "A script at a page, and what it should have in the store."
    def __init__(self, study, browser, name, context=None):
        self.study, self.name = study, name
        self.context = context or browser.new_context(viewport={"width": 1280, "height": 800})
        self.page, self.expected, self.outside = self.context.new_page(), {}, []
        ours = lambda url: url.startswith(("data:", f"http://127.0.0.1:{study.port}/"))
        self.page.on("request", lambda r: ours(r.url) or self.outside.append(r.url))

    def open(self, url=""): self.page.goto(url or self.study.url, wait_until="commit")

    def begin(self):
        self.page.locator("input[type=text]").fill(self.name)
        self.page.keyboard.press("Enter")
        self.ready()

    def ready(self):
        "Wait until an image has been shown for long enough to be judged."
        self.page.locator(".stage img").first.wait_for()
        self.page.wait_for_timeout(330)

    @property
    def at(self):
        "The position shown; -1 before the first, the number of images at the end."
        first = "document.querySelector('header p, .end h1, .start h1')"
        place = self.page.evaluate(f"({first} ?? document.body).innerText")
        if place == "Thank you": return len(self.study.store.order(self.name))
        number = re.match(r"(?:Practice: i|I)mage (\d+) of", place)
        return int(number.group(1)) - 1 if number else -1

    def pressed(self): return self.page.locator("[aria-pressed=true]").inner_text().split("\n")[-1]

    def options(self): return [b.inner_text().split("\n")[-1] for b in self.page.locator(".answers button").all()]

    def shows(self, at, timeout=20_000):
        if at == 10: self.page.locator(".end").wait_for(timeout=timeout)
        else: self.page.get_by_text(f"Image {at + 1} of 10").wait_for(timeout=timeout)

    def label_of(self, key):
        "The label of an answer key, whichever way round this person sees the options."
        return MAIN[::-1][int(key) - 1] if self.study.store.person(self.name)["reversed"] else MAIN[int(key) - 1]

    def press(self, key, at, to):
        "Press an answer at one position, and remember it; `to` is where it should lead."
        assert self.at == at
        self.page.keyboard.press(key)
        self.expected[at] = self.label_of(key)
        self.shows(to)

    def check(self):
        order = self.study.store.order(self.name)
        assert self.study.store.answers(self.name) == {order[at]: label for at, label in self.expected.items()}
        assert not self.outside, "the page asked other servers"
        assert self.page.url == f"http://127.0.0.1:{self.study.port}/"


def fits_a_phone(page, panels=1):
    elements = "[...document.querySelectorAll(':root, .creative-annotator, .creative-annotator *:not(.who)')]"
    widths = page.evaluate(f"{elements}.map(e => e.scrollWidth)")
    boxes = [button.bounding_box() for button in page.locator(".answers button").all()]
    images = [image.bounding_box() for image in page.locator(".stage img").all()]
    assert max(widths) <= 390 and min(b["height"] for b in boxes) >= 44 and len(images) == panels
    assert all(0 <= b["x"] and b["x"] + b["width"] <= 390 and b["y"] + b["height"] <= 844 for b in (*boxes, *images))
    return images


def pictured(page, name):
    "A picture of the page, for those who want to look at it, in the folder CREATIVE_NB_PICTURES."
    if folder := os.environ.get("CREATIVE_NB_PICTURES"): page.screenshot(path=Path(folder) / f"{name}.png")
