"""The annotation tool: its logic against a plain model and bad messages; then people (scripts) in real browsers.

They reload, lose their server, open two tabs and press keys twice; at the end the store holds what they pressed, once.
"""
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from creative_nb import annotation_tool
from creative_nb.annotation_tool import POOL, STORE, main, page
from creative_nb.models import pretrained
from creative_nb.page import Annotator, Session, time_left
from creative_nb.pool import QUESTIONNAIRES, blind
from creative_nb.store import Store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

LABELS = ("creative", "novel_not_creative", "not_novel_or_creative", "inconclusive")


def made_up(folder, n=8, repeats=2, seed=0):
    "A pool of small squares, its manifest and a new store, in `folder`."
    images = torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    methods = ["low-active", "non-specific"] * (n // 2)
    manifest = pd.DataFrame({"method": methods, "creativity_filter": [0, 1] * (n // 2)})
    pool, manifest = blind(images, manifest, images[:3], name="squares", seed=seed)
    pool.save(folder / "pool.safetensors")
    return pool, manifest, Store(folder / "labels.sqlite", pool, repeats=repeats)


def started(store, pool, name="Ada"):
    session = Session(store, pool)
    session.receive({"do": "start", "at": -1, "name": name})
    return session


# ---- the logic, without a browser

answers = st.builds(lambda label: {"do": "answer", "label": label}, st.sampled_from(LABELS))
steps_away = st.builds(lambda by: {"do": "go", "by": by}, st.sampled_from([-1, 1]))
moves = st.one_of(answers, answers, st.just({"do": "undo"}), steps_away)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 1), moves, st.booleans()), max_size=30))
def test_two_sessions_of_one_annotator_keep_what_a_plain_dictionary_keeps(tmp_path_factory, steps):
    pool, _, store = made_up(tmp_path_factory.mktemp("store"), n=4, repeats=1)
    sessions, kept, past, label = (started(store, pool), started(store, pool)), {}, [], [None, None]
    for who, message, stale in steps:
        session = sessions[who]
        at = session.at
        view = session.receive(message | {"at": at + 1 if stale else at})
        if stale: assert session.at == at
        elif message["do"] == "answer" and at < 5 and kept.get(at) not in (label[who], message["label"]):
            # answered in the other session
            assert session.at == at and "another window" in view["notice"]
        elif message["do"] == "answer" and at < 5:
            if kept.get(at) != message["label"]: past.append((at, kept.get(at)))
            kept[at] = message["label"]
            assert session.at == (at + 1 if label[who] else min(set(range(6)) - set(kept)))
        elif message["do"] == "undo" and past:
            back, before = past.pop()
            kept.pop(back) if before is None else kept.update({back: before})
            assert session.at == back
        elif message["do"] == "go": assert session.at - at in (0, message["by"])
        assert store.answers("Ada") == {session.order[k]: v for k, v in kept.items()}
        label[who] = view.get("label")
        assert label[who] == kept.get(session.at) and view["answered"] == len(kept)
        assert view["screen"] == ("done" if session.at == 5 else "image")


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(LABELS)
nested = lambda x: st.lists(x, max_size=2) | st.dictionaries(st.sampled_from(["a", "at"]), x, max_size=2)
junk = st.recursive(plain, nested, max_leaves=3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=junk | st.fixed_dictionaries(
    {"do": st.sampled_from(["start", "answer", "go", "undo", "acts", []]), "at": st.sampled_from([-1, 0]) | junk},
    optional={"label": junk, "seconds": junk, "by": junk, "name": junk, "reply": junk}))
def test_no_message_can_break_a_session(tmp_path_factory, message):
    folder = tmp_path_factory.getbasetemp() / "junk"
    if not folder.is_dir(): folder.mkdir()
    pool, _, store = made_up(folder)
    for session in (Session(store, pool), started(store, pool, name="Eve")): json.dumps(session.receive(message))
    assert set(store.read().label) <= set(LABELS)


def test_nothing_that_is_sent_tells_a_method_or_an_item(tmp_path):
    pool, manifest, store = made_up(tmp_path)
    widget = Annotator(store, pool, page=True)
    widget.receive({"do": "start", "at": -1, "name": "Ada"})
    sent, keys, images = [], set(), {}
    for at in range(10):
        sent.append(json.dumps({k: v for k, v in widget.get_state().items() if k not in ("_esm", "_css")}, default=str))
        keys.add(tuple(widget.view))
        images.setdefault(widget.view["image"], []).append(at)
        widget.receive({"do": "answer", "at": at, "label": "creative", "seconds": 1})
    assert widget.view["screen"] == "done"
    assert sorted(map(len, images.values())) == [1] * 6 + [2] * 2  # two images came twice
    assert len(keys) == 1  # and looked like the others
    secrets = {*pool.items, *manifest.method, "method", "creativity_filter", "repeat", str(tmp_path)}
    secrets |= {"safetensors", "sqlite"}
    assert {secret for secret in secrets for text in sent if secret in text} == set()
    assert not any(secret in widget._esm for secret in ("low-active", "low_active", "creativity_filter", "manifest"))


def test_a_store_that_cannot_write_is_reported_and_nothing_moves(tmp_path, monkeypatch):
    pool, _, store = made_up(tmp_path)
    session = started(store, pool)
    with monkeypatch.context() as m:
        def locked(*_, **__): raise sqlite3.OperationalError("database is locked")
        m.setattr(store, "add", locked)
        view = session.receive({"do": "answer", "at": 0, "label": "creative", "reply": 7})
    assert "database is locked" in view["error"] and view["at"] == session.at == 0
    assert view["reply"] == 7 and view["image"]
    assert session.receive({"do": "answer", "at": 0, "label": "creative"})["at"] == 1


def test_who_comes_back_goes_on_and_who_is_new_reads_the_instructions(tmp_path, monkeypatch):
    pool, _, store = made_up(tmp_path)
    started(store, pool, "Ada  L.").receive({"do": "answer", "at": 0, "label": "creative", "seconds": 2.5})
    monkeypatch.setenv(POOL, str(tmp_path / "pool.safetensors"))
    monkeypatch.setenv(STORE, str(tmp_path / "labels.sqlite"))
    for query, screen, at in (("annotator=ada+l.&token=x", "image", 1), ("annotator=Bob", "start", -1),
                              ("", "start", -1), ("annotator=%00", "start", -1)):
        monkeypatch.setenv("QUERY_STRING", query)
        assert (page().view["screen"], page().view["at"]) == (screen, at), query
    assert store.read().seconds.tolist() == [2.5] and store.annotators() == ["ada l."]


def test_a_name_that_has_answers_is_asked_about(tmp_path):
    pool, _, store = made_up(tmp_path)
    started(store, pool).receive({"do": "answer", "at": 0, "label": "creative"})
    other = Session(store, pool)
    for known in ({}, {"known": False}, {"known": 1}):
        view = other.receive({"do": "start", "at": -1, "name": " ADA", **known})
        assert (view["screen"], view["name"], view["known"], other.order) == ("start", " ADA", 1, [])
    assert other.receive({"do": "start", "at": -1, "name": "Bob"})["known"] == 0 and other.at == 0  # nobody yet
    again = Session(store, pool).receive({"do": "start", "at": -1, "name": "ADA", "known": True})
    assert (again["screen"], again["at"], again["known"]) == ("image", 1, 0)


def test_seconds_that_cannot_be_true_are_unknown(tmp_path):
    pool, _, store = made_up(tmp_path)
    session = started(store, pool)
    for at, seconds in enumerate([3, -1, float("inf"), "4", None, 1e9]):
        session.receive({"do": "answer", "at": at, "label": "creative", "seconds": seconds})
    rows = store.read().set_index(["item", "repeat"]).seconds.loc[session.order[:6]]
    assert rows.iloc[0] == 3 and rows.iloc[1:].isna().all()
    assert time_left(session.seconds, 4) is None  # five are needed


def test_a_store_of_another_pool_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    pool, _, _ = made_up(tmp_path)
    _, _, store = made_up(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="store="): Annotator(store, pool)


def test_the_command_line_checks_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(annotation_tool, "_server", lambda *_: pytest.fail("started"))
    made_up(tmp_path)
    (tmp_path / "other").mkdir()
    made_up(tmp_path / "other", seed=1)
    pool, store, other = (str(tmp_path / p) for p in ("pool.safetensors", "labels.sqlite", "other/labels.sqlite"))
    (tmp_path / "other/note").write_text("no pool")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for wrong, said in (([pool, pool + "x"], "store=.*no such file"), ([store + "x", store], "pool=.*no such file"),
                            ([store, pool], "this is a store"), ([store, store + "x", "--create"], "this is a store"),
                            ([other.replace("labels.sqlite", "note"), store], "damaged"),
                            ([pool, other], "another pool"), ([pool, pool], "no store"),
                            ([pool, store, "--port", "99999"], "port=99999"),
                            ([pool, store, "--port", str(taken.getsockname()[1])], "in use"),
                            ([pool, store + "x", "--create", "--repeats", "9"], "repeats=9")):
            with pytest.raises(SystemExit, match=f"^error: .*{said}"): main([*wrong, "--no-browser"])
    assert [p.name for p in tmp_path.glob("*.sqlite")] == ["labels.sqlite"]


# ---- people in browsers

class Server:
    "The page of one study, as a user starts it."
    def __init__(self, folder):
        self.folder, self.port, self.process = folder, 0, None

    def start(self):
        command = [sys.executable, "-m", "creative_nb.annotation_tool", "pool.safetensors", "labels.sqlite"]
        options = ["--port", str(self.port), "--no-browser", "--token", "tok"]
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
        self.expected[at] = LABELS[int(key) - 1]
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
    dora.expected[0] = LABELS[1]
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
    dora.expected[1] = LABELS[0]
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
    dora.expected[5] = LABELS[1]
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
    first.expected[1] = LABELS[0]
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
