"The annotation tool without a browser: its logic against a plain model and bad messages, and the command line."
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from creative_nb import annotation_tool
from creative_nb.annotation_tool import Reception, free_port, main, serve, token_in
from creative_nb.page import Session, intro, time_left
from creative_nb.question import Question, QUESTIONS
from creative_nb.reader import PoolFile
from creative_nb.store import Store
from creative_nb.who import issue_links
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from people import MAIN, asked, made_up


def started(store, pool, name="Ada"):
    session = Session(store, pool, name)
    session.receive({"do": "start", "at": -1})
    return session


answers = st.builds(lambda label: {"do": "answer", "label": label}, st.sampled_from(MAIN))
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
        assert store.answers("Ada") == {session.order[k][:2]: v for k, v in kept.items()}
        label[who] = view.get("label")
        assert label[who] == kept.get(session.at) and view["answered"] == len(kept)
        assert view["screen"] == ("done" if session.at == 5 else "image")


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(MAIN)
nested = lambda x: st.lists(x, max_size=2) | st.dictionaries(st.sampled_from(["a", "at"]), x, max_size=2)
junk = st.recursive(plain, nested, max_leaves=3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=st.fixed_dictionaries(
    {"do": st.sampled_from(["start", "answer", "go", "undo", "acts", [], "look", "enter", "leave", "enrol"]),
     "at": st.sampled_from([-1, 0]) | junk},
    optional={key: junk for key in ("label", "seconds", "by", "name", "reply", "tab", "code", "join", "consent",
                                    "device", "time_zone")}), cookie=st.booleans())
def test_no_message_can_break_the_reception(tmp_path_factory, message, cookie):
    folder = tmp_path_factory.getbasetemp() / "junk"
    if not folder.is_dir():
        folder.mkdir()
        pool, _, store = made_up(folder)
        test_no_message_can_break_the_reception.kept = store, Reception(store, pool, join="welcome"), {}
    store, reception, people = test_no_message_can_break_the_reception.kept
    if not people: people["eve"] = enrolled(reception, "Eve", "welcome")[1]
    answer, _ = reception.receive(message, people["eve"] if cookie else "")
    json.dumps(answer)
    assert set(store.read().label) <= set(MAIN)


def enrolled(reception, name, join="welcome", **more):
    return reception.receive({"do": "enrol", "name": name, "join": join, "tab": "1", **more})


def test_nothing_that_is_sent_tells_a_method_or_an_item(tmp_path):
    pool, manifest, store = made_up(tmp_path)
    session, keys, images = started(store, pool), set(), {}
    sent = [json.dumps(intro(store, pool))]
    for at in range(10):
        sent.append(json.dumps(session.shown))
        keys.add(tuple(session.shown))
        images.setdefault(session.shown["images"][0], []).append(at)
        session.receive({"do": "answer", "at": at, "label": "creative", "seconds": 1})
    assert session.shown["screen"] == "done"
    assert sorted(map(len, images.values())) == [1] * 6 + [2] * 2  # two images came twice
    assert len(keys) == 1  # and looked like the others
    secrets = {*pool.items, *manifest.method, "method", "creativity_filter", "repeat", "side", str(tmp_path)}
    secrets |= {"safetensors", "sqlite"}
    assert {secret for secret in secrets for text in sent if secret in text} == set()


def test_a_store_that_cannot_write_is_reported_and_nothing_moves(tmp_path, monkeypatch):
    pool, _, store = made_up(tmp_path)
    session = started(store, pool)
    with monkeypatch.context() as m:
        def locked(*_, **__):
            with sqlite3.connect(store.path, timeout=0) as one, sqlite3.connect(store.path, timeout=0) as other:
                for db in (one, other): db.execute("BEGIN IMMEDIATE")
        m.setattr(store, "add", locked)
        view = session.receive({"do": "answer", "at": 0, "label": "creative", "reply": 7})
    assert "too many are answering at once" in view["error"] and view["at"] == session.at == 0
    assert view["reply"] == 7 and view["images"]
    assert session.receive({"do": "answer", "at": 0, "label": "creative"})["at"] == 1


def test_a_start_that_fails_says_so_and_no_store_is_made_anew(tmp_path):
    pool, _, store = made_up(tmp_path)
    reception = Reception(store, pool, join="welcome")
    cookie = enrolled(reception, "Ada")[1]
    (tmp_path / "elsewhere").mkdir()
    for name in ("labels.sqlite", "labels.sqlite-wal", "labels.sqlite-shm"):
        if (tmp_path / name).exists(): (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    for message, who in (({"do": "look"}, cookie), ({"do": "enrol", "name": "Bo", "join": "welcome"}, ""),
                         ({"do": "answer", "at": 0, "label": "creative", "tab": "1"}, cookie)):
        answer, kept = reception.receive(message, who)
        assert "cannot be reached" in answer["view"]["error"] or "Not saved" in answer["view"]["error"]
        assert kept == who
    assert not (tmp_path / "labels.sqlite").exists()
    for name in ("labels.sqlite", "labels.sqlite-wal", "labels.sqlite-shm"):
        if (tmp_path / "elsewhere" / name).exists(): (tmp_path / "elsewhere" / name).rename(tmp_path / name)
    answer, _ = reception.receive({"do": "answer", "at": 0, "label": "creative", "tab": "1"}, cookie)
    assert answer["view"]["at"] == 1 and len(store.read()) == 1


def test_who_comes_back_goes_on_and_who_is_new_reads_the_instructions(tmp_path):
    pool, _, store = made_up(tmp_path)
    started(store, pool, "Ada  L.").receive({"do": "answer", "at": 0, "label": "creative", "seconds": 2.5})
    for name, screen, at in (("ada l.", "image", 1), ("Bob", "start", -1)):
        session = Session(store, pool, name)
        assert (session.view()["screen"], session.at) == (screen, at)
    assert store.read().seconds.tolist() == [2.5] and store.annotators() == ["ada l."]


# ---- identity ----

def test_a_stranger_sees_and_changes_nothing(tmp_path):
    pool, _, store = made_up(tmp_path)
    reception = Reception(store, pool)
    code = issue_links(store, ["Ada"], "https://lab.example.org")["ada"].split("#")[1]
    answer, cookie = reception.receive({"do": "enter", "code": code, "tab": "1", "device": "phone"})
    assert answer["view"]["screen"] == "start" and store.person("ada")["device"] == "phone"
    for message in ({"do": "start", "at": -1}, {"do": "answer", "at": 0, "label": "creative"}):
        reception.receive(message | {"tab": "1"}, cookie)
    before = store.history()
    for message in ({"do": "enter", "code": code}, {"do": "look"}, {"do": "look", "name": "Ada"},
                    {"do": "enter", "code": "ada"},
                    {"do": "start", "at": -1, "name": "Ada", "known": True}, {"do": "enrol", "name": "Ada", "join": ""},
                    {"do": "undo", "at": 1, "tab": "1"},
                    {"do": "answer", "at": 1, "label": "inconclusive", "tab": "1"}):
        for stolen in ("", "x" * 43):
            view = reception.receive(message, stolen)[0]["view"]
            assert view["screen"] == "closed" and view["answered"] == 0 and view["name"] == "" and "images" not in view
    assert store.history().equals(before) and store.annotators() == ["ada"]
    assert reception.receive({"do": "enter", "code": code, "tab": "2"}, cookie)[0]["view"]["at"] == 1  # her own browser


def test_enrolment_is_open_only_where_it_was_opened(tmp_path):
    pool, _, store = made_up(tmp_path)
    reception = Reception(store, pool, join="welcome")
    view, cookie = enrolled(reception, "Ada")
    assert view["view"]["screen"] == "image" and cookie
    for name, join, said in (("ADA", "welcome", "taken"), ("Bo", "wrong", "open the link"),
                             ("Simulated 7", "welcome", "Simulated"),
                             ("a\u200bb", "welcome", "visible"), ("", "welcome", "1 to 60")):
        refused, none = enrolled(reception, name, join)
        assert said in refused["view"]["error"] and none == ""
    assert reception.receive({"do": "look", "tab": "2"}, cookie)[0]["view"]["name"] == "ada"
    away, gone = reception.receive({"do": "leave", "join": "welcome"}, cookie)
    assert gone == "" and away["view"]["screen"] == "start"
    assert "link" in enrolled(Reception(store, pool), "Cy", "")[0]["view"]["error"]


def test_nobody_answers_without_consent(tmp_path):
    pool, store = asked(tmp_path, consent="My answers may be published.")
    reception = Reception(store, pool, join="welcome")
    assert "agree" in enrolled(reception, "Ada")[0]["view"]["error"] and store.person("ada") == {}
    view, cookie = enrolled(reception, "Ada", consent=True)
    assert view["view"]["screen"] == "image" and store.person("ada")["consent"]
    code = issue_links(store, ["Bo"], "https://x.org")["bo"].split("#")[1]
    bo = reception.receive({"do": "enter", "code": code, "tab": "1"})[1]
    start = {"do": "start", "at": -1, "tab": "1"}
    assert "agree" in reception.receive(start, bo)[0]["view"]["error"]
    assert "agree" in reception.receive(start | {"consent": 1}, bo)[0]["view"]["error"]
    assert reception.receive(start | {"consent": True}, bo)[0]["view"]["screen"] == "image"


# ---- two panels, practice, checks ----

def test_sides_are_seen_exchanged_and_kept_as_meant(tmp_path):
    pool, store = asked(tmp_path, QUESTIONS["realism"], n=12, repeats=4)
    session = started(store, pool)
    for at, (_, _, side) in enumerate(session.order):
        white = [uri == session.shown["images"][1] for uri in session.shown["images"]]
        first_is_dark = dark_first(session.shown["images"])
        assert first_is_dark == (side == 0) and white[1]
        session.receive({"do": "answer", "at": at, "label": "first_clearly" if first_is_dark else "second_clearly"})
        session.receive({"do": "go", "at": at + 1, "by": -1})
        assert session.shown["label"] == ("first_clearly" if first_is_dark else "second_clearly")
        session.receive({"do": "go", "at": at, "by": 1})
    assert set(store.read().label) == {"first_clearly"} and len(store.read()) == 16
    details = store.details()
    assert set(details.score) == {1} and set(details.side) == {0, 1}


def dark_first(images):
    import base64
    import io

    import numpy as np
    from PIL import Image
    means = [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))).mean() for uri in images]
    return means[0] < means[1]


def test_practice_waits_for_its_feedback(tmp_path):
    pool, store = asked(tmp_path, answers=["creative"], feedback=["It was made by hand."])
    session = started(store, pool)
    assert session.shown["practice"] and session.shown["feedback"] == ""
    view = session.receive({"do": "answer", "at": 0, "label": "inconclusive"})
    assert view["at"] == 0 and view["feedback"] == "Not quite. It was made by hand."
    view = session.receive({"do": "answer", "at": 0, "label": "creative"})
    assert view["at"] == 0 and view["feedback"].startswith("Right.")
    view = session.receive({"do": "go", "at": 0, "by": 1})
    assert view["at"] == 1 and not view["practice"] and store.read().empty
    assert Session(store, pool, "Ada").at == 1


def test_seconds_that_cannot_be_true_are_unknown(tmp_path):
    pool, _, store = made_up(tmp_path)
    session = started(store, pool)
    for at, seconds in enumerate([3, -1, float("inf"), "4", None, 1e9]):
        session.receive({"do": "answer", "at": at, "label": "creative", "seconds": seconds})
    rows = store.read().set_index(["item", "repeat"]).seconds.loc[[s[:2] for s in session.order[:6]]]
    assert rows.iloc[0] == 3 and rows.iloc[1:].isna().all()
    assert time_left(session.seconds, 4) is None  # five are needed


def test_a_store_of_another_pool_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    pool, _, _ = made_up(tmp_path)
    _, _, store = made_up(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="store="): Session(store, pool, "Ada")


# ---- the process ----

def test_the_page_needs_no_pytorch():
    code = ("import sys, creative_nb.annotation_tool; print('torch' in sys.modules, 'pandas' in sys.modules);"
            "print(int(open('/proc/self/statm').read().split()[1]) * 4096 // 2**20 if sys.platform == 'linux' else 0)")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said[:2] == ["False", "False"] and int(said[2]) < 80


def test_the_command_line_checks_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(annotation_tool, "application", lambda *_: pytest.fail("started"))
    made_up(tmp_path)
    (tmp_path / "other").mkdir()
    made_up(tmp_path / "other", seed=1)
    pool, store, other = (str(tmp_path / p) for p in ("pool.safetensors", "labels.sqlite", "other/labels.sqlite"))
    (tmp_path / "other/note").write_text("no pool")
    (tmp_path / "cut.safetensors").write_bytes(Path(pool).read_bytes()[:-1] + b"x")
    note, cut = other.replace("labels.sqlite", "note"), str(tmp_path / "cut.safetensors")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for wrong, said in (
            ([pool, pool + "x"], "store=.*no such file"), ([store + "x", store], "pool=.*no such file"),
            ([store, pool], "this is a store"), ([store, store + "x", "--create"], "this is a store"),
            ([note, store], "damaged"), ([pool, other], "another pool"), ([cut, store], "damaged"),
            ([pool, pool], "no store"), ([pool, store, "--port", "99999"], "port=99999"),
            ([pool, store, "--port", str(taken.getsockname()[1])], "in use"),
            ([pool, store + "x", "--create", "--repeats", "9"], "repeats=9"),
            ([pool, store, "--base-url", "lab.example.org"], "base_url="),
            ([pool, store, "--open", "--token-file", note], "expected a token"),
        ):
            with pytest.raises(SystemExit, match=f"^error: .*{said}"): main(["serve", *wrong, "--no-browser"])
    assert [p.name for p in tmp_path.glob("*.sqlite")] == ["labels.sqlite"]


@pytest.mark.parametrize("wrong", [
    dict(join=""), dict(join="x"), dict(join="x" * 101), dict(join="x" * 15 + "&"), dict(join=5), dict(port=-1),
    dict(port="abc"), dict(port=1.5), dict(port=2**16), dict(host=""), dict(base_url="ftp://x"), dict(browser="no"),
    dict(pool=None), dict(store=3)])
def test_serve_refuses(tmp_path, monkeypatch, wrong):
    monkeypatch.setattr(annotation_tool, "application", lambda *_: pytest.fail("started"))
    made_up(tmp_path)
    good = dict(pool=tmp_path / "pool.safetensors", store=tmp_path / "labels.sqlite", browser=False)
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(wrong))}="): serve(**good | wrong)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0 and not shutil.which("setpriv"), reason="as root")
def test_a_store_that_cannot_be_written_is_found_before_the_start(tmp_path):
    made_up(tmp_path)
    code = ("from creative_nb.annotation_tool import check_files\n"
            "try: check_files('pool.safetensors', 'labels.sqlite')\n"
            "except OSError as e: print('refused', e)")
    command = [sys.executable, "-c", code]
    if os.geteuid() == 0: command = ["setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all", *command]
    for path in (tmp_path, *tmp_path.parents[:3]): path.chmod(0o755)
    for path in tmp_path.iterdir(): path.chmod(0o444)
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(Path(annotation_tool.__file__).parents[1])})
    assert said.stdout.startswith("refused") and "cannot be written" in said.stdout, said


def test_a_host_that_is_none():
    with pytest.raises(ValueError, match="host='no.such.host.invalid'"): free_port(0, "no.such.host.invalid")


def test_a_token_is_made_once_and_for_its_owner(tmp_path):
    path = tmp_path / "token"
    token = token_in(path)
    assert token_in(path) == token and len(token) >= 16 and stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    path.write_text(f"\ufeff{token}\r\n", encoding="utf-8")
    assert token_in(path) == token and stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(TypeError, match="path="): token_in(None)


def test_the_browser_is_started_without_the_code(tmp_path, monkeypatch):
    opened = []
    made_up(tmp_path)

    def look(url):
        address = urllib.request.url2pathname(url.removeprefix("file://"))
        opened.append(url)
        assert "t" * 20 not in url and "t" * 20 in Path(address).read_text()
        assert stat.S_IMODE(os.stat(address).st_mode) == 0o600

    monkeypatch.setattr(annotation_tool.webbrowser, "open", look)
    async def run(app, port, host, ready): ready()

    monkeypatch.setattr(annotation_tool, "_run", run)
    serve(tmp_path / "pool.safetensors", tmp_path / "labels.sqlite", 0, "t" * 20)
    assert len(opened) == 1 and not Path(opened[0].removeprefix("file://")).exists()


def test_a_study_of_ones_own_pictures_and_question(tmp_path):
    from PIL import Image
    for i in range(4):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (40 * i, 0, 0)).save(path)
    (tmp_path / "beauty.yaml").write_text("""
name: beauty
title: How beautiful are these images?
lead: You will see {n} images.
options:
  - {key: beautiful, text: Beautiful, meaning: You like it.}
  - {key: plain, text: Plain, meaning: You do not mind it.}
""")
    main(["new", str(tmp_path / "pictures"), str(tmp_path / "study"), "--question", str(tmp_path / "beauty.yaml")])
    assert stat.S_IMODE((tmp_path / "study").stat().st_mode) == 0o700
    store = Store(tmp_path / "study/labels.sqlite")
    assert isinstance(store.question, Question) and store.labels == ("beautiful", "plain") and store.repeats == 4
    main(["links", str(store.path), "P01", "--base-url", "https://x.org", "--to", str(tmp_path / "links.tsv")])
    session = started(store, PoolFile(tmp_path / "study/pool.safetensors"), "P01")
    session.receive({"do": "answer", "at": 0, "label": "beautiful"})
    main(["export", str(store.path), "--to", str(tmp_path / "table.csv")])
    assert "beautiful" in (tmp_path / "table.csv").read_text() and "p01" not in (tmp_path / "table.csv").read_text()
    with pytest.raises(SystemExit, match="folder="): main(["new", str(tmp_path / "pictures"), str(tmp_path / "study")])


# ---- the server ----

@pytest.fixture
def served(tmp_path):
    "A server: its process, its address, its code of enrolment."
    made_up(tmp_path)
    command = [sys.executable, "-m", "creative_nb.annotation_tool", "serve", "pool.safetensors", "labels.sqlite",
               "--port", "0", "--no-browser", "--open", "--token-file", "token"]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=log, text=True,
                                   env=os.environ | {"PYTHONPATH": str(Path(annotation_tool.__file__).parents[1])})
    url = re.search(r"http://\S+", process.stdout.readline()).group()
    yield process, url.split("#")[0], (tmp_path / "token").read_text().strip()
    if process.poll() is None: process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def sent(url, message=None, **headers):
    "Status, body and headers of a request."
    data = None if message is None else json.dumps(message).encode()
    headers = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    try: answer = urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30)
    except urllib.error.HTTPError as e: answer = e
    with answer: return answer.status, answer.read().decode(), dict(answer.headers)


@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps")
def test_a_server_tells_nothing_to_strangers(tmp_path, served):
    process, url, join = served
    assert join not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    status, text, headers = sent(url)
    assert status == 200 and "page.js" in text and "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    for path in ("labels.sqlite", "pool.safetensors", "../labels.sqlite", "page.js/../../token", "token", "talk/x"):
        assert sent(url + path)[0] in (403, 404)
    look, enrol = {"do": "look"}, {"do": "enrol", "name": "Ada", "join": join}
    assert sent(url + "talk", look, Origin="https://evil.example.org")[0] == 403
    assert sent(url + "talk", look, Host="evil.example.org")[0] == 403
    assert sent(url + "talk", look, Content_Type="text/plain")[0] == 415
    assert sent(url + "talk", [look])[0] == 400 and sent(url + "talk")[0] == 405
    assert json.loads(sent(url + "talk", look)[1])["view"]["screen"] == "closed"
    status, text, headers = sent(url + "talk", enrol)
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert json.loads(text)["view"]["screen"] == "image" and json.loads(sent(url + "talk", enrol)[1])["view"]["error"]
    again = json.loads(sent(url + "talk", look, Cookie=cookie.split(";")[0])[1])["view"]
    assert again["name"] == "ada"
    process.send_signal(signal.SIGINT)
    process.wait(30)
    log = (tmp_path / "log").read_text()
    assert join not in log and cookie.split("=")[1].split(";")[0] not in log and "Traceback" not in log, log
