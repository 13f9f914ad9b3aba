"""People (scripts) in real browsers at the annotation tool.

They reload, lose their server, open two tabs and press keys twice; at the end the store holds what they pressed, once.
"""
import os
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from browsing import PHONE, Person, Server, browser, fits_a_phone, pictured  # noqa: F401
from creative_nb.models import pretrained
from creative_nb.pool import blind, sheet
from creative_nb.question import QUESTIONS, options_of
from creative_nb.reader import PoolFile
from creative_nb.store import Store
from creative_nb.who import completion_code, issue_links
from people import asked, made_up
from PIL import Image


@pytest.fixture(scope="module")
def study(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    pool, manifest, store = made_up(folder)
    server = Server(folder).start()
    server.pool, server.manifest, server.store = pool, manifest, store
    yield server
    server.kill()


def label(people, start, end):
    for at in range(start, end):
        people[0].page.wait_for_timeout(330)
        for i, person in enumerate(people): person.press("1234"[(at + i) % 4], at, at + 1)


def test_three_annotators_a_reload_and_a_killed_server(study, browser):
    phone = browser.new_context(**PHONE)
    long = "Cleo Ü. " + "with a very long name indeed " * 2
    people = [Person(study, browser, "Ada"), Person(study, browser, "Bob"), Person(study, browser, long[:60], phone)]
    for p in people: p.open()
    for p in people: p.begin()
    assert people[0].options()[::-1] == people[1].options()  # half of the people see them in reverse
    image, = fits_a_phone(people[2].page)
    assert image["width"] == image["height"] >= 330 and image["width"] * 2 % 6 == 0  # whole pixels of the screen
    assert "touch, 390 x 844" in study.store.person(people[2].name)["device"]
    label(people, 0, 3)
    people[0].page.reload(wait_until="commit")  # the browser knows her
    people[0].ready()
    assert people[0].at == 3
    label(people, 3, 5)
    text = people[1].page.content()
    assert not any(secret in text for secret in (*study.pool.items, *study.manifest.method))

    study.kill()
    people[2].page.wait_for_timeout(330)
    people[2].page.keyboard.press("1")
    alert = people[2].page.get_by_role("alert")
    alert.get_by_text("Not saved: the connection to the server is lost.").wait_for()
    assert people[2].at == 5
    people[2].check()  # the press is not in the store, all before it are

    study.start()
    people[0].page.reload(wait_until="commit")  # the others just go on
    people[0].ready()
    assert [p.at for p in people] == [5, 5, 5]
    label(people, 5, 10)
    for p in people: p.check()
    assert len(study.store.read()) == 30 and study.store.read().seconds.between(0.25, 60).all()
    assert completion_code(study.store, "Ada") in people[0].page.locator(".end").inner_text()
    people[0].page.keyboard.press("ArrowLeft")
    people[0].shows(9)
    assert people[0].pressed() == options_of("main")[people[0].expected[9]].text
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
    dora.expected[0] = dora.label_of(2)
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
    dora.expected[1] = dora.label_of(1)
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
    tab.open(dora.page.url)
    tab.ready()
    tab.press("4", 3, 4)
    tab.page.wait_for_timeout(330)
    tab.press("4", 4, 5)
    dora.page.bring_to_front()
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
    dora.expected[5] = dora.label_of(2)
    dora.shows(6)
    dora.page.wait_for_timeout(330)
    keyboard.down("Enter")  # held
    dora.page.wait_for_timeout(330)
    keyboard.up("Enter")
    assert dora.at == 6
    dora.check()
    history = study.store.history().query("annotator == '2u dora?'")
    assert (history.before == history.after).sum() == 0
    assert history.kind.value_counts().to_dict() == {"answer": 8, "undo": 1}
    dora.context.close()


def test_a_name_in_use_and_keys_switched_off(study, browser):
    first = Person(study, browser, "Emil")
    first.open()
    first.begin()
    first.press("1", 0, 1)
    assert first.page.locator("header .who").inner_text() == "emil"
    first.page.get_by_role("button", name="Instructions").click()
    first.page.get_by_label("use these keys").uncheck()
    first.page.keyboard.press("Escape")
    first.page.wait_for_timeout(330)
    first.page.keyboard.press("2")
    first.page.get_by_role("button", name="Creative", exact=True).click()
    first.expected[1] = "creative"
    first.shows(2)
    first.check()

    stranger = Person(study, browser, "EMIL")
    stranger.open()
    stranger.page.locator("input[type=text]").fill("EMIL")
    stranger.page.keyboard.press("Enter")
    stranger.page.get_by_text("This name is taken").wait_for()
    assert stranger.page.locator(".stage").count() == 0
    first.page.get_by_role("button", name="Instructions").click()
    first.page.get_by_role("button", name="Another person").click()
    first.page.locator("input[type=text]").wait_for()
    for p in (first, stranger): p.context.close()


def test_a_link_opens_in_one_browser(study, browser):
    link = issue_links(study.store, ["P01"], f"http://127.0.0.1:{study.port}")["p01"]
    own, other, none = (Person(study, browser, "P01") for _ in range(3))
    own.open(link)
    own.page.get_by_role("button", name="Start").click()
    own.ready()
    own.press("2", 0, 1)
    own.check()  # nothing is left in the address
    other.open(link)
    other.page.get_by_text("This link was opened in another browser before").wait_for()
    none.open(own.page.url)
    none.page.get_by_text("Please open your link").wait_for()
    own.open(link)
    own.ready()
    assert own.at == 1 and other.page.locator(".stage").count() == none.page.locator(".stage").count() == 0
    for p in (own, other, none): p.context.close()


def test_pairs_with_practice_on_a_desk_and_on_a_phone(browser, tmp_path):
    "A study of the kind of li2020: sheets of photographs by two methods, five answers, one item to practise on."
    colours = torch.rand(10, 2, 9, 3, 1, 1).expand(-1, -1, -1, -1, 40, 40)
    panels = torch.stack([torch.stack([sheet(x, 3) for x in pair]) for pair in colours])
    panels = torch.stack([panels[:, 0] * 0.3, panels[:, 1] * 0.3 + 0.7], 1)  # the second one is always lighter
    rows = pd.DataFrame({"method": ["am"] * 10}).assign(caption="images of Rock Beauty fish", answer="", feedback="")
    rows.loc[0, ["answer", "feedback"]] = "second_clearly", "The lighter sheet was meant."
    blind(panels, rows, panels[:0, 0], "fish", "diversity", 0)[0].save(tmp_path / "pool.safetensors")
    server = Server(tmp_path)
    server.store = Store(tmp_path / "labels.sqlite", PoolFile(tmp_path / "pool.safetensors"), repeats=2)
    server.start()
    lightness = """() => [...document.querySelectorAll('.stage img')].map((img) => {
        const c = document.createElement('canvas'); [c.width, c.height] = [img.naturalWidth, img.naturalHeight];
        const d = c.getContext('2d'); d.drawImage(img, 0, 0);
        return d.getImageData(0, 0, c.width, c.height).data.reduce((a, b) => a + b); })"""
    try:
        for name, kind in (("Ada", {}), ("Bob", PHONE)):
            person = Person(server, browser, name, browser.new_context(**kind))
            person.open()
            pictured(person.page, f"pairs_start_{name}")
            person.begin()
            if kind:
                a, b = fits_a_phone(person.page, 2)
                assert a["y"] + a["height"] <= b["y"] and a["x"] == b["x"]
            turned = server.store.person(name)["reversed"]
            for at in range(12):
                place = f"Practice: image {at + 1} of 12" if at == 0 else f"Image {at + 1} of 12"
                person.page.get_by_text(place, exact=True).wait_for()
                person.page.wait_for_timeout(400)
                a, b = person.page.evaluate(lightness)
                person.page.keyboard.press("51"[turned] if a < b else "15"[turned])  # the lighter panel, clearly
                if at: continue
                person.page.get_by_text("Right. The lighter sheet was meant.").wait_for()
                pictured(person.page, f"pairs_{name}")
                if kind: fits_a_phone(person.page, 2)
                person.page.get_by_role("button", name="Go on").click()
            person.page.get_by_text("Thank you").wait_for()
            person.context.close()
        table = server.store.details()
        assert len(table) == 24 and set(table.label) == {"second_clearly"} and set(table.side) == {0, 1}
        assert table.zoom.gt(0).all()
        assert sorted(table.groupby("annotator").reversed.first()) == [0, 1]
    finally: server.stop()


def test_consent_and_a_question_that_is_not_in_the_bundle(browser, tmp_path):
    pool, store = asked(tmp_path, consent="My answers may be published without my name.")
    server = Server(tmp_path)
    server.store = store
    server.start()
    try:
        ada = Person(server, browser, "Ada")
        ada.open()
        ada.page.locator("input[type=text]").fill("Ada")
        ada.page.get_by_role("button", name="Start").click()
        ada.page.wait_for_timeout(300)
        assert store.person("Ada") == {}
        ada.page.get_by_label("My answers may be published").check()
        ada.page.get_by_role("button", name="Start").click()
        ada.ready()
        assert store.person("Ada")["consent"] and QUESTIONS["main"].consent == ""
        ada.context.close()
    finally: server.stop()


def test_the_picture_of_the_page(browser, tmp_path):
    """The page as the README shows it.

    CREATIVE_NB_PICTURE=figures/annotation_tool.png pytest -k picture makes that file again."""
    latents = 1.8 * torch.randn(12, 50, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(): images = pretrained("mnist").decode(latents)
    manifest = pd.DataFrame({"method": "low-active", "creativity_filter": [0] * 12})
    pool, _ = blind(images, manifest, images[:4], name="mnist", seed=0)
    pool.save(tmp_path / "pool.safetensors")
    server = Server(tmp_path)
    server.store = Store(tmp_path / "labels.sqlite", pool, repeats=2, seed=0)
    server.start()
    try:
        ida = Person(server, browser, "Ida")
        ida.open()
        pictured(ida.page, "start")
        ida.begin()
        for key in "12131":
            at = ida.page.locator("header p").first.inner_text()
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


def test_ctrl_c_ends_the_server(study):
    began = time.time()
    study.stop()
    assert study.process.returncode == 0 and time.time() - began < 15
