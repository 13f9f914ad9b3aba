"""People (scripts) at a study whose disk is full or may only be read, or whose server is killed again and again.

No answer is lost or counted twice, and the page says in its own words what is wrong.
"""
import os
import random
import resource
import shutil
import subprocess

import pytest
import torch
from browsing import PHONE, Person, Server, browser, fits_a_phone, pictured  # noqa: F401
from creative_nb.question import QUESTIONS, Option, Question
from people import asked, made_up

BEAUTY = Question("beauty", "How beautiful are these images?", "You will see {n} images.", [
    Option("beautiful", "Beautiful", "You would hang it on a wall.", 3),
    Option("pleasant", "Pleasant", "You like it.", 2),
    Option("plain", "Plain", "It leaves you cold.", 1)], consent="My answers may be published.", thanks="Come again.")


class Disk:
    "A small disk of its own where that is allowed, else a limit on the size of the server's files."
    def __init__(self, folder):
        self.folder, self.filler = folder, folder / "filler"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        self.own = bool(shutil.which("mount")) and subprocess.run(mount, capture_output=True).returncode == 0

    def fill(self, server):
        if not self.own: return resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        try:
            with self.filler.open("wb", buffering=0) as f:
                while True: f.write(b"x" * 512)
        except OSError: pass

    def free(self, server):
        if self.own: self.filler.unlink()
        else: resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)

    def lock(self, on=True):
        "Allow only to read, or to write again."
        if self.own: subprocess.run(["mount", "-o", f"remount,{'ro' if on else 'rw'}", str(self.folder)], check=True)
        elif os.geteuid() == 0: pytest.skip("nothing is only to be read for root")
        else:
            paths = (*self.folder.iterdir(), self.folder)
            for path in paths: path.chmod((0o500 if path.is_dir() else 0o400) | 0o200 * (not on))

    def away(self):
        if self.own: subprocess.run(["umount", "-l", str(self.folder)], check=True)


@pytest.fixture
def disk(browser, tmp_path):  # noqa: F811
    disk = Disk(tmp_path / "study")
    pool, _, store = made_up(disk.folder)
    disk.server = Server(disk.folder, log=tmp_path).start()
    disk.server.pool, disk.server.store = pool, store
    yield disk
    disk.server.kill()
    disk.away()


OTHERS_WORDS = ("sqlite", "database", "disk i/o", "errno", "/tmp")


def alert(person): return person.page.get_by_role("alert").locator("span").inner_text()


def test_a_full_disk_and_one_that_may_only_be_read(disk, browser):  # noqa: F811
    study = disk.server
    ada, bob = Person(study, browser, "Ada"), Person(study, browser, "Bob", browser.new_context(**PHONE))
    newcomer = Person(study, browser, "Cy")
    for p in (ada, bob): p.open(), p.begin()
    for p in (ada, bob): p.press("1", 0, 1), p.ready()
    for name, harm, mend, said in (
            ("full", lambda: disk.fill(study), lambda: disk.free(study),
             "no space left" if disk.own else "cannot be written"),
            ("locked", lambda: disk.lock(), lambda: disk.lock(False), "may only be read")):
        at = ada.at
        harm()
        for p in (ada, bob):
            p.page.keyboard.press("2")
            p.page.get_by_role("alert").get_by_text("Not saved").wait_for()
            assert said in alert(p) and "Please try again" in alert(p) and p.at == at
            assert not any(word in alert(p).lower() for word in OTHERS_WORDS)
        pictured(bob.page, f"{name}_phone"), pictured(ada.page, f"{name}_desk")
        newcomer.open()
        newcomer.page.locator("input[type=text]").or_(newcomer.page.get_by_role("alert")).first.wait_for()
        if newcomer.page.locator("input[type=text]").count():
            newcomer.page.locator("input[type=text]").fill("Cy")
            newcomer.page.keyboard.press("Enter")
            newcomer.page.get_by_role("alert").get_by_text("cannot be reached just now").wait_for()
        ada.page.reload(wait_until="commit")  # shows her image, which needs no writing, or what is wrong
        unreachable = ada.page.get_by_role("alert").get_by_text("cannot be reached")
        ada.page.locator(".stage img").or_(unreachable).first.wait_for()
        pictured(newcomer.page, f"{name}_newcomer"), pictured(ada.page, f"{name}_reloaded")
        mend()
        for p in (ada, bob): p.check()
        ada.page.reload(wait_until="commit")
        ada.ready()
        for p in (ada, bob):
            p.press("3", at, at + 1)
            p.ready()
            p.check()
    newcomer.open()
    newcomer.begin()
    newcomer.press("2", 0, 1)
    for p in (ada, bob, newcomer): p.check(), p.context.close()
    history = study.store.history()
    assert len(history) == len(study.store.read()) == 7 and (history.kind == "answer").all()


LIGHTNESS = """() => [...document.querySelectorAll('.stage img')].map((img) => {
    const c = document.createElement('canvas'); [c.width, c.height] = [img.naturalWidth, img.naturalHeight];
    const d = c.getContext('2d'); d.drawImage(img, 0, 0);
    return d.getImageData(0, 0, c.width, c.height).data.reduce((a, b) => a + b); })"""


def key_for(person, at, question) -> str:
    "A key to press now; for two panels the one that says that the lighter panel has clearly more."
    keys, turned = "123456789"[:len(question.labels)], person.study.store.person(person.name)["reversed"]
    if question.panels == 1: wanted = at % len(keys)
    else: wanted = len(keys) - 1 if (light := person.page.evaluate(LIGHTNESS))[0] < light[1] else 0
    return keys[::-1][wanted] if turned else keys[wanted]


def settled(person, at, key):
    """Press until the page has gone on, as somebody does who is told that an answer was not saved; who had none saved
    before the server was started again, reads the first screen again."""
    for _ in range(200):
        if person.at > at: return
        if person.at < 0:
            person.page.get_by_role("button", name="Start").click()
            person.ready()
            person.page.keyboard.press(key)
        if person.page.get_by_role("alert").is_visible(): person.page.keyboard.press(key)
        person.page.wait_for_timeout(50)
    raise AssertionError(f"{person.name} is still at {at}: {person.page.content()}")


@pytest.mark.parametrize("question", [QUESTIONS["diversity"], BEAUTY], ids=lambda q: q.name)
def test_kills_lose_and_double_nothing(question, browser, tmp_path):  # noqa: F811
    "Three people, one of them on a phone, at a question about two panels and at one of a lab's own."
    _, store = asked(tmp_path, question, n=6, repeats=2)
    study, draw = Server(tmp_path), random.Random(question.name)
    study.store = store
    study.start()
    try:
        phone = browser.new_context(**PHONE)
        people = [Person(study, browser, "Ada"), Person(study, browser, "Bob"), Person(study, browser, "Cleo", phone)]
        for p in people:
            p.open()
            p.page.locator("input[type=text]").fill(p.name)
            if question.consent: p.page.get_by_label(question.consent).check()
            p.page.get_by_role("button", name="Start").click()
            p.ready()
        fits_a_phone(people[2].page, question.panels)
        pictured(people[2].page, f"{question.name}_phone")
        for at in range(8):
            for p in people: p.ready()
            keys = [key_for(p, at, question) for p in people]
            for p, key in zip(people, keys):
                p.page.keyboard.press(key)
                p.page.wait_for_timeout(draw.choice([0, 3, 10, 30]))
                if draw.random() < 0.3: study.kill(), study.start()
            for p, key in zip(people, keys): settled(p, at, key)
        assert all(p.page.locator(".end").count() for p in people)
        table, history = store.read(), store.history()
        assert len(table) == len(history) == 24 and (history.kind == "answer").all()
        for p in people:
            own, shown = table[table.annotator == p.name.lower()].sort_values("position"), store.showings(p.name)
            assert own.position.tolist() == list(range(1, 9))
            assert list(own[["item", "repeat", "side"]].itertuples(index=False, name=None)) == shown
            wanted = ["second_clearly"] * 8 if question.panels == 2 else [question.labels[at % 3] for at in range(8)]
            assert own.label.tolist() == wanted
            first = own[own.repeat == 0]
            assert first.side.sum() == (3 if question.panels == 2 else 0)
    finally: study.stop()


def test_a_code_from_a_recruiting_platform_opens_nothing_of_others(browser, tmp_path):  # noqa: F811
    _, _, store = made_up(tmp_path)
    study = Server(tmp_path)
    study.store = store
    study.start()
    sent = study.url.replace("/#", "/?PROLIFIC_PID=5f3a9c&STUDY_ID=1#")
    try:
        first, second = Person(study, browser, "5f3a9c"), Person(study, browser, "5f3a9c")
        first.open(sent)
        field = first.page.locator("input[type=text]")
        field.wait_for()
        assert field.input_value() == "5f3a9c" and "PROLIFIC" not in first.page.url
        first.page.reload(wait_until="commit")
        first.page.locator("input[type=text]").wait_for()
        assert field.input_value() == "5f3a9c"
        first.page.get_by_role("button", name="Start").click()
        first.ready()
        first.press("1", 0, 1)
        first.check()
        second.open(sent)
        second.page.get_by_role("button", name="Start").click()
        second.page.get_by_text("This name is taken").wait_for()
        assert second.page.locator(".stage").count() == 0 and len(store.read()) == 1
        other = Person(study, browser, "x")
        other.open(study.url.replace("/#", "/?PROLIFIC_PID=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E#"))
        other.page.locator("input[type=text]").wait_for()
        assert other.page.locator("input[type=text]").input_value() == "<img src=x onerror=alert(1)>"
        for p in (first, second, other): p.context.close()
    finally: study.stop()


def test_nothing_is_left_of_the_small_disk(tmp_path):
    disk = Disk(tmp_path / "d")
    (disk.folder / "a").write_bytes(torch.zeros(10).numpy().tobytes())
    disk.away()
    assert not disk.own or not (disk.folder / "a").exists()
