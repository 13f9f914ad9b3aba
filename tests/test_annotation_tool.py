"The annotation tool without a browser: its logic against a plain model and bad messages, and the command line."
import http.cookiejar
import importlib.util
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
from creative_nb.annotation_tool import POOL, STORE, free_port, main, page, serve, token_in
from creative_nb.page import Annotator, Session, time_left
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from people import MAIN, made_up


def started(store, pool, name="Ada"):
    session = Session(store, pool)
    session.receive({"do": "start", "at": -1, "name": name})
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
        assert store.answers("Ada") == {session.order[k]: v for k, v in kept.items()}
        label[who] = view.get("label")
        assert label[who] == kept.get(session.at) and view["answered"] == len(kept)
        assert view["screen"] == ("done" if session.at == 5 else "image")


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(MAIN)
nested = lambda x: st.lists(x, max_size=2) | st.dictionaries(st.sampled_from(["a", "at"]), x, max_size=2)
junk = st.recursive(plain, nested, max_leaves=3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=st.fixed_dictionaries(
    {"do": st.sampled_from(["start", "answer", "go", "undo", "acts", []]), "at": st.sampled_from([-1, 0]) | junk},
    optional={"label": junk, "seconds": junk, "by": junk, "name": junk, "reply": junk}))
def test_no_message_can_break_a_session(tmp_path_factory, message):
    folder = tmp_path_factory.getbasetemp() / "junk"
    if not folder.is_dir(): folder.mkdir()
    pool, _, store = made_up(folder)
    for session in (Session(store, pool), started(store, pool, name="Eve")): json.dumps(session.receive(message))
    assert set(store.read().label) <= set(MAIN)


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
        for wrong, said in (
            ([pool, pool + "x"], "store=.*no such file"), ([store + "x", store], "pool=.*no such file"),
            ([store, pool], "this is a store"), ([store, store + "x", "--create"], "this is a store"),
            ([other.replace("labels.sqlite", "note"), store], "damaged"), ([pool, other], "another pool"),
            ([pool, pool], "no store"), ([pool, store, "--port", "99999"], "port=99999"),
            ([pool, store, "--port", str(taken.getsockname()[1])], "in use"),
            ([pool, store + "x", "--create", "--repeats", "9"], "repeats=9"),
            ([pool, store, "--pages", "0"], "pages=0"),
            ([pool, store, "--token-file", other.replace("labels.sqlite", "note")], "expected a token"),
        ):
            with pytest.raises(SystemExit, match=f"^error: .*{said}"): main([*wrong, "--no-browser"])
    assert [p.name for p in tmp_path.glob("*.sqlite")] == ["labels.sqlite"]


def test_what_is_no_message_changes_nothing(tmp_path):
    pool, _, store = made_up(tmp_path)
    widget = Annotator(store, pool)
    before = widget.view
    for junk in (None, 3, "start", ["start"], [{"do": "start"}]): widget._handle_custom_msg(junk, [])
    assert widget.view == before
    with pytest.raises(TypeError, match="message="): widget.receive("start")


@pytest.mark.parametrize("wrong", [dict(store="s"), dict(pool=None), dict(annotator=5), dict(page=1)])
def test_a_page_of_other_things_is_refused(tmp_path, wrong):
    pool, _, store = made_up(tmp_path)
    with pytest.raises(TypeError, match=next(iter(wrong))): Annotator(**dict(store=store, pool=pool) | wrong)


def test_a_page_needs_its_environment(monkeypatch):
    monkeypatch.delenv(POOL, raising=False)
    with pytest.raises(ValueError, match=POOL): page()


@pytest.mark.parametrize("wrong", [
    dict(token=""), dict(token="x"), dict(token="x" * 101), dict(token="x" * 15 + "&"), dict(token=5), dict(port=-1),
    dict(port="abc"), dict(port=1.5), dict(port=2**16), dict(host=""), dict(pages=0), dict(browser="no"),
    dict(pool=None), dict(store=3)])
def test_serve_refuses(tmp_path, monkeypatch, wrong):
    monkeypatch.setattr(annotation_tool, "_server", lambda *_: pytest.fail("started"))
    made_up(tmp_path)
    good = dict(pool=tmp_path / "pool.safetensors", store=tmp_path / "labels.sqlite", browser=False)
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(wrong))}="): serve(**good | wrong)


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


def test_the_browser_is_started_without_the_token(tmp_path, monkeypatch):
    opened = []
    made_up(tmp_path)

    class Server:
        @staticmethod
        def launch_instance(options):
            address = urllib.request.url2pathname(opened[0].removeprefix("file://"))
            content = Path(address).read_text()
            assert "t" * 20 not in opened[0] and "t" * 20 in content and stat.S_IMODE(os.stat(address).st_mode) == 0o600

    monkeypatch.setattr(annotation_tool, "_server", lambda url, shown, pages: opened.append(shown) or Server)
    serve(tmp_path / "pool.safetensors", tmp_path / "labels.sqlite", 0, "t" * 20)
    assert len(opened) == 1 and not Path(opened[0].removeprefix("file://")).exists()


@pytest.fixture
def served(tmp_path):
    "A server with room for one page: its process, its address, its token."
    if importlib.util.find_spec("voila") is None: pytest.skip("needs Voilà")
    made_up(tmp_path)
    command = [sys.executable, "-m", "creative_nb.annotation_tool", "pool.safetensors", "labels.sqlite", "--port", "0",
               "--no-browser", "--token-file", "token", "--pages", "1"]
    ctrl_c = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=log, text=True,
                                   preexec_fn=ctrl_c, env=os.environ | {"OMP_NUM_THREADS": "1"})
    yield process, re.search(r"http://\S+", process.stdout.readline()).group(), (tmp_path / "token").read_text().strip()
    process.send_signal(signal.SIGINT)
    process.wait(30)


@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps")
def test_a_server_hides_its_token_and_limits_its_pages(tmp_path, served):
    process, url, token = served
    assert token in url and token not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    assert "Annotation" in visitor.open(url, timeout=120).read().decode()
    for address, status, said in ((url, 503, "1 pages are open already"), (url.replace("/?", "/none?"), 403, "")):
        with pytest.raises(urllib.error.HTTPError) as refused: visitor.open(address, timeout=60)
        assert refused.value.code == status and said in f"{refused.value.reason} {refused.value.read().decode()}"
    process.send_signal(signal.SIGINT)
    process.wait(30)
    log = (tmp_path / "log").read_text()
    assert token not in log and "without encryption" not in log, log
