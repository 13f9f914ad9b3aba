"The store: names, orders, answers under several processes and kills, against a plain model."
import multiprocessing, os, pickle, random, shutil, signal, sqlite3, stat, string, tempfile, threading, time
from collections import defaultdict
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st

from creative_nb.labels import check_labels, read_labels
from creative_nb.pool import blind
from creative_nb.store import Store, _connected, _showings, clean_name
from creative_nb.who import Refused, enrol, enter, issue_links, pseudonymised, whose, withdraw, write_links
from people import MAIN, NAMES, POOL, make_pool, table

fork = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
needs_fork = pytest.mark.skipif(fork is None, reason="needs os.fork")


@given(NAMES)
def test_a_clean_name_stays_clean(name):
    try: clean = clean_name(name)
    except ValueError: return  # such as a ligature that unfolds to a long text
    assert clean == clean_name(clean) == clean_name(f"  {name}\t") and "  " not in clean


@pytest.mark.parametrize("bad", ["", " \n ", "a\x00b", "a\nb", "a\x7fb", "a\ud800", "a​b", "x" * 61, "\u200d", None, 3])
def test_bad_names(bad):
    with pytest.raises((TypeError, ValueError), match="annotator"): clean_name(bad)


@given(st.integers(1, 60), st.data())
def test_order(n, data):
    repeats = data.draw(st.integers(0, n))
    order = _showings(n, repeats, np.random.default_rng(data.draw(st.integers(0, 99))))
    place = {showing: p for p, showing in enumerate(order)}
    assert len(place) == len(order) == n + repeats and {i for i, again in order if not again} == set(range(n))
    assert all(p - place[image, 0] >= n / 4 for (image, again), p in place.items() if again)


def test_order_depends_on_the_name_and_the_seed_alone(tmp_path):
    pool, _ = make_pool(40)
    a, b = (Store(tmp_path / f"{i}.sqlite", pool, repeats=10, seed=0) for i in "ab")
    before = a.order("Ann")
    a.add("Ann", pool.items[0], "creative")
    assert a.order(" ANN") == b.order("ann") == before == Store(tmp_path / "a.sqlite").order("Ann")
    orders = [tuple(a.order(name)) for name in ("ann", "bo", "cy")]
    orders.append(tuple(Store(tmp_path / "c.sqlite", pool, repeats=10, seed=1).order("ann")))
    assert len(set(orders)) == 4 and len({frozenset(i for i, again in o if again) for o in orders}) == 4


def test_repeats_are_spread_over_the_session(tmp_path):
    store = Store(tmp_path / "s.sqlite", make_pool(100)[0], repeats=20, seed=0)
    places = [p for name in string.ascii_lowercase for p, (_, again) in enumerate(store.order(name)) if again]
    assert min(places) < 50 and 70 < np.mean(places) < 100 and np.mean(np.array(places) >= 110) < 0.5


# ---- the store ----

class Model:
    "What a store should do, in plain Python."
    def __init__(self): self.labels, self.stack, self.events = {}, defaultdict(list), 0

    def add(self, who, item, repeat, label):
        before = self.labels.get((who, item, repeat))
        if before == label: return
        self.stack[who].append((item, repeat, before))
        self.labels[who, item, repeat], self.events = label, self.events + 1

    def undo(self, who):
        if not self.stack[who]: return None
        item, repeat, before = self.stack[who].pop()
        self.events += 1
        if before is None: del self.labels[who, item, repeat]
        else: self.labels[who, item, repeat] = before
        return item, repeat


STEP = st.tuples(st.sampled_from(["Ann", "Bo"]), st.sampled_from([None, *MAIN]), st.integers(0, 2), st.integers(0, 1))


@settings(max_examples=15, deadline=None)
@given(st.lists(STEP, max_size=20))
def test_store_against_a_model(steps):
    with tempfile.TemporaryDirectory() as folder:
        store, model = Store(Path(folder) / "s.sqlite", POOL, repeats=len(POOL.items)), Model()
        for i, (who, label, n, repeat) in enumerate(steps):
            if label is None: assert store.undo(who) == model.undo(who.casefold())
            else:
                store.add(who, POOL.items[n], label, repeat, seconds=i)
                model.add(who.casefold(), POOL.items[n], repeat, label)
        frame, history = Store(Path(folder) / "s.sqlite").read(), store.history()
        assert {(r.annotator, r.item, r.repeat): r.label for r in frame.itertuples()} == model.labels
        assert len(history) == model.events
        for who in ("ann", "bo"):
            assert store.answers(who) == {(i, r): label for (a, i, r), label in model.labels.items() if a == who}
        assert store.annotators() == sorted({a for a, _, _ in model.labels}) and history.seq.is_monotonic_increasing
        # the answers follow from the history, seconds and time as well
        kept = history[(history.kind == "answer") & ~history.seq.isin(history.undoes)]
        last = kept.drop_duplicates(["annotator", "item", "repeat"], keep="last").rename(columns={"after": "label"})
        frame = frame.drop(columns=["position", "side"])
        last = last[list(frame.columns)]
        pd.testing.assert_frame_equal(last.sort_values(["annotator", "item", "repeat"], ignore_index=True), frame)


def test_each_person_undoes_their_own(tmp_path):
    store, (a, b) = Store(tmp_path / "s.sqlite", POOL, repeats=0), POOL.items[:2]
    store.add("Ann", a, "creative"), store.add("Bo", a, "inconclusive"), store.add("Ann", b, "creative")
    undone = [store.undo(who) for who in ("Bo", "Bo", "Ann", "Ann", "Ann")]
    assert undone == [(a, 0), None, (b, 0), (a, 0), None]
    assert store.read().empty and store.read().dtypes.to_dict() == check_labels(table(a="1")).dtypes.to_dict()


def test_an_answer_replaces_only_what_was_seen(tmp_path):
    store, item = Store(tmp_path / "s.sqlite", POOL, repeats=0), POOL.items[0]
    assert store.add("Ann", item, "creative", replaces="") and not store.add("Ann", item, "inconclusive", replaces="")
    assert store.add("Ann", item, "creative", replaces="")  # it is there already
    assert store.answers("Ann") == {(item, 0): "creative"} and len(store.history()) == 1
    assert store.add("Ann", item, "inconclusive", replaces="creative")
    assert not store.add("Ann", item, "creative", replaces="novel_not_creative")
    assert store.history().after.tolist() == ["creative", "inconclusive"]


def test_only_what_is_shown_twice_has_a_second_answer(tmp_path):
    store = Store(tmp_path / "s.sqlite", POOL, repeats=1)
    (again,) = [item for item, repeat in store.order("Ann") if repeat]
    for item in POOL.items:
        if item == again: assert store.add("Ann", item, "creative", repeat=1)
        else:
            with pytest.raises(ValueError, match="repeat=1.*does not see"): store.add("Ann", item, "creative", repeat=1)
    assert store.undo("Ann") == (again, 1)


def test_opening(tmp_path):
    path, (other, _) = tmp_path / "s.sqlite", make_pool(12, seed=1)
    with pytest.raises(FileNotFoundError): Store(path)
    store = Store(path, POOL, repeats=3, seed=5)
    again = Store(path, POOL, repeats=9)
    assert (again.repeats, again.seed, again.questionnaire) == (3, 5, "main")
    assert (again.labels, again.items) == (MAIN, POOL.items)
    assert pickle.loads(pickle.dumps(store)).order("x") == store.order("x")
    with pytest.raises(ValueError, match="another pool"): Store(path, other)
    for repeats in (-1, 13, 2.5):
        with pytest.raises(ValueError, match="repeats"): Store(tmp_path / "t.sqlite", POOL, repeats=repeats)
    assert not (tmp_path / "t.sqlite").exists()


@pytest.mark.parametrize("content", [b"", b"text, but no database. " * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_other_files_are_no_store(tmp_path, content):
    (tmp_path / "x.sqlite").write_bytes(content)
    for pool in (None, POOL):
        with pytest.raises(ValueError, match="no store"): Store(tmp_path / "x.sqlite", pool)
    assert (tmp_path / "x.sqlite").read_bytes() == content


def test_another_database_is_no_store(tmp_path):
    with sqlite3.connect(tmp_path / "x.sqlite") as db: db.execute("CREATE TABLE about (a)")
    with pytest.raises(ValueError, match="lacks"): Store(tmp_path / "x.sqlite")


@pytest.mark.parametrize("change", [
    dict(item="x"), dict(item=["a"]), dict(label="nice"), dict(label=None), dict(repeat=2), dict(repeat="0"),
    dict(seconds=-1), dict(seconds=float("inf")), dict(seconds="long"), dict(annotator=""), dict(repeat=True),
    dict(seconds=True), dict(replaces="nice"), dict(replaces=0)])
def test_add_refuses(tmp_path, change):
    store = Store(tmp_path / "s.sqlite", POOL, repeats=2)
    good = dict(annotator="Ann", item=POOL.items[0], label="creative")
    with pytest.raises((TypeError, ValueError), match=next(iter(change))): store.add(**good | change)
    assert store.history().empty


def test_an_answer_and_its_event_come_together_or_not_at_all(tmp_path):
    store, item = Store(tmp_path / "s.sqlite", POOL, repeats=0), POOL.items[0]
    store.add("Ann", item, "creative")
    with sqlite3.connect(store.path) as db:
        db.execute("CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(sqlite3.Error, match="disk full"): store.add("Ann", item, "inconclusive")
    with pytest.raises(sqlite3.Error, match="disk full"): store.undo("Ann")
    assert store.answers("Ann") == {(item, 0): "creative"} and len(store.history()) == 1
    with sqlite3.connect(store.path) as db: db.execute("DROP TRIGGER full")
    store.add("Ann", item, "inconclusive")
    assert store.answers("Ann") == {(item, 0): "inconclusive"}


def test_an_answer_is_on_the_disk_and_waits_for_others(tmp_path):
    store = Store(tmp_path / "s.sqlite", POOL, repeats=0)
    with _connected(store.path) as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        db.execute("BEGIN IMMEDIATE")
        worker = threading.Thread(target=store.add, args=("Ann", POOL.items[0], "creative"))
        worker.start()
        worker.join(0.3)
        assert worker.is_alive() and store.answers("Ann") == {}
        db.execute("COMMIT")
    worker.join(10)
    assert store.answers("Ann") == {(POOL.items[0], 0): "creative"}


def sound(path: Path) -> bool:
    with sqlite3.connect(path) as db: return db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@needs_fork
def test_several_processes_and_threads_lose_nothing(tmp_path):
    pool, _ = make_pool(30)
    start = fork.Barrier(4)

    def work(n):  # every process makes the store; two annotators a process, one of them common to all
        start.wait()
        store = Store(tmp_path / "s.sqlite", pool, repeats=0)
        both = [threading.Thread(target=lambda who=who, items=items: [store.add(who, i, MAIN[n]) for i in items])
                for who, items in ((f"own {n}", pool.items), ("common", pool.items[n::4]))]
        for t in both: t.start()
        for t in both: t.join()

    workers = [fork.Process(target=work, args=(n,)) for n in range(4)]
    for w in workers: w.start()
    for w in workers: w.join(60)
    assert [w.exitcode for w in workers] == [0] * 4
    store = Store(tmp_path / "s.sqlite", pool)
    assert sound(store.path) and len(store.history()) == 5 * 30 and store.history().seq.tolist() == list(range(1, 151))
    assert store.answers("common") == {(item, 0): MAIN[i % 4] for i, item in enumerate(pool.items)}
    for n in range(4): assert store.answers(f"own {n}") == {(item, 0): MAIN[n] for item in pool.items}


@needs_fork
def test_kills_lose_no_acknowledged_answer(tmp_path):
    pool, _ = make_pool(400)
    store, acknowledged, dice = Store(tmp_path / "s.sqlite", pool, repeats=0), {}, random.Random(0)

    def work(who, pipe):
        for item in pool.items:
            store.add(who, item, "creative")
            os.write(pipe, f"{item}\n".encode())

    for n in range(8):
        reader, writer = os.pipe()
        worker = fork.Process(target=work, args=(f"a{n}", writer))
        worker.start()
        os.close(writer)
        with os.fdopen(reader) as lines:
            first = lines.readline()
            time.sleep(dice.random() * 0.1)
            os.kill(worker.pid, signal.SIGKILL)
            acknowledged[f"a{n}"] = [first.strip(), *lines.read().split()]
        worker.join(10)
        assert worker.exitcode == -signal.SIGKILL
    assert sound(store.path)
    for who, items in acknowledged.items():
        kept = [i for i, _ in Store(store.path, pool).answers(who)]
        assert set(items) <= set(kept) and len(kept) <= len(items) + 1
    history = store.history()
    assert not history.duplicated(["annotator", "item"]).any() and len(history) == len(store.read()) >= 8
    store.add("after", pool.items[0], "creative")
    assert store.answers("after")


@needs_fork
def test_kills_while_creating_leave_no_half_store(tmp_path):
    dice = random.Random(0)
    for n in range(10):
        worker = fork.Process(target=Store, args=(tmp_path / f"{n}.sqlite", POOL, 5))
        worker.start()
        time.sleep(dice.random() * 0.03)
        os.kill(worker.pid, signal.SIGKILL)
        worker.join(10)
        store = Store(tmp_path / f"{n}.sqlite", POOL, 5)
        store.add("Ann", POOL.items[0], "creative")
        assert store.items == POOL.items and len(store.read()) == 1


@pytest.mark.parametrize("name", ["علی\u200cرضا", "ශ\u0dca\u200dරී", "\U0001f469\u200d\U0001f52c"])
def test_names_with_joiners_are_names(name):
    assert "\u200c" in clean_name(name) or "\u200d" in clean_name(name)
    assert clean_name(f"\u200d{name}\u200c ") == clean_name(name)  # what nobody sees makes nobody else


def test_a_store_is_for_its_owner_only(tmp_path):
    store = Store(tmp_path / "s.sqlite", POOL, repeats=0)
    with _connected(store.path) as other:
        other.execute("SELECT * FROM about")
        store.add("Ann", POOL.items[0], "creative")
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.glob("s.sqlite*") if p.suffix != ".lock"}
    assert len(modes) == 3 and set(modes.values()) == {0o600}


def in_child(work) -> str:
    "What `work` returns in a process that is not allowed everything."
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        if os.getuid() == 0: os.setgid(65534), os.setuid(65534)
        try: said = str(work())
        except Exception as e: said = f"{type(e).__name__}: {e}"
        os.write(writer, said.encode()), os._exit(0)
    os.close(writer), os.waitpid(pid, 0)
    with os.fdopen(reader) as f: return f.read()


@needs_fork
def test_a_store_that_may_only_be_read_is_read():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        os.chmod(folder, 0o755)
        path = Path(folder) / "study" / "s.sqlite"
        store = Store(path, POOL, repeats=0)
        store.add("Ann", POOL.items[0], "creative")
        copy = lambda: [shutil.copy(p, f"{folder}/{p.name}") for p in path.parent.iterdir()]
        with _connected(path) as other:  # another process, so the log stays
            other.execute("SELECT * FROM about")
            store.add("Ann", POOL.items[1], "creative")
            copied = [Path(p) for p in copy()]
        for p in (*path.parent.iterdir(), *copied): p.chmod(0o444)
        path.parent.chmod(0o555), os.chmod(folder, 0o555)
        assert in_child(lambda: len(read_labels(path))) == "2"
        again = Path(folder) / "s.sqlite"
        assert in_child(lambda: len(Store(again).read())) == "2"  # log and index lie beside it
        os.chmod(folder, 0o755), Path(f"{again}-shm").unlink(), os.chmod(folder, 0o555)
        assert "s.sqlite-wal holds answers" in in_child(lambda: read_labels(again))
        os.chmod(folder, 0o755), path.parent.chmod(0o755)


@needs_fork
def test_a_full_disk_leaves_nothing_behind(tmp_path):
    resource = pytest.importorskip("resource")

    def make():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        return Store(tmp_path / "s.sqlite", POOL, repeats=0)

    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try: make()
        except OSError as e: os.write(writer, str(e).encode())
        finally: os._exit(0)
    os.close(writer), os.waitpid(pid, 0)
    with os.fdopen(reader) as f: assert f"path={tmp_path}" in f.read()
    assert {p.name for p in tmp_path.iterdir()} <= {"s.sqlite.lock"}


def test_settle_moves_the_answers_into_the_file(tmp_path):
    store = Store(tmp_path / "s.sqlite", POOL, repeats=0)
    with _connected(store.path) as other:
        other.execute("SELECT * FROM about")
        store.add("Ann", POOL.items[0], "creative")
        assert other.execute("SELECT count(*) FROM answers").fetchone() == (1,)
        store.settle()
        shutil.copy(store.path, tmp_path / "copy.sqlite")
    assert len(Store(tmp_path / "copy.sqlite").read()) == 1


def test_a_damaged_store_is_refused(tmp_path):
    pool, _ = make_pool(200)
    store = Store(tmp_path / "s.sqlite", pool, repeats=0)
    for item in pool.items: store.add("Ann", item, "creative")
    whole, dice, refused = store.path.read_bytes(), random.Random(0), 0
    for _ in range(40):  # 64 bytes in one page
        page = dice.randrange(len(whole) // 4096) * 4096 + dice.randrange(4096 - 64)
        store.path.write_bytes(whole[:page] + bytes(b ^ 255 for b in whole[page:page + 64]) + whole[page + 64:])
        try: same = Store(store.path, pool).read().equals(Store(store.path).read()) and len(store.read()) == 200
        except (ValueError, OSError): refused += 1
        else: assert same
    assert refused > 10  # the rest hit pages without content
    store.path.write_bytes(whole)
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE answers SET label = 'inconclusive' WHERE item = ?", pool.items[:1])
    with pytest.raises(ValueError, match="damaged"): Store(store.path)


def test_a_database_without_what_a_store_says_of_itself(tmp_path):
    path = Store(tmp_path / "s.sqlite", POOL, repeats=0).path
    with sqlite3.connect(path) as db: db.execute("DELETE FROM about")
    with pytest.raises(ValueError, match="path=.*damaged.*digest"): Store(path)


@pytest.mark.parametrize("change", [
    dict(path=None), dict(path=3), dict(pool="pool"), dict(repeats=-1), dict(repeats="2"), dict(seed=-1),
    dict(seed=1.5)])
def test_a_store_refuses(tmp_path, change):
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(change))}="):
        Store(**dict(path=tmp_path / "s.sqlite", pool=POOL) | change)
    assert not list(tmp_path.iterdir())


# ---- what was shown ----

def sides_of(store, name): return {(item, again): side for item, again, side in store.showings(name)}


def pair_store(folder, n=20, repeats=6, **known) -> Store:
    images = torch.rand(n, 2, 1, 4, 4)
    rows = pd.DataFrame({"method": "am", "answer": [""] * n, "feedback": [""] * n})
    for column, values in known.items(): rows.loc[range(len(values)), column] = values
    return Store(folder / "p.sqlite", blind(images, rows, images[:0, 0], "x", "diversity")[0], repeats=repeats)


def test_what_was_shown_is_written_once(tmp_path, monkeypatch):
    store = Store(tmp_path / "s.sqlite", POOL, repeats=4)
    first = store.order("Ann")
    monkeypatch.setattr("creative_nb.store._showings", lambda *_: pytest.fail("drawn again"))
    store.begin("ann", device="another", time_zone="another")
    assert Store(store.path).order("ANN") == first and store.person("Ann")["device"] == ""
    with sqlite3.connect(store.path) as db:
        about = dict(db.execute("SELECT key, value FROM about"))
    assert POOL.question.options[0].meaning in about["question"] and about["seed"] == "null"


def test_orders_differ_between_stores_without_a_seed(tmp_path):
    a, b = (Store(tmp_path / f"{i}.sqlite", make_pool(40)[0], repeats=10) for i in "ab")
    assert a.order("Ann") != b.order("Ann")


def test_half_of_the_people_see_the_options_in_reverse(tmp_path):
    store = Store(tmp_path / "s.sqlite", POOL, repeats=0)
    for i in range(11): store.begin(f"p{i}")
    assert sum(store.person(f"p{i}")["reversed"] for i in range(11)) in (5, 6)


def test_sides_are_balanced_for_each_person_and_other_when_seen_again(tmp_path):
    store = pair_store(tmp_path)
    seen = [sides_of(store, name) for name in "abcdef"]
    for sides in seen:
        assert sum(side for (_, again), side in sides.items() if not again) == 10
        assert all(sides[item, 0] != sides[item, 1] for item, again in sides if again)
    assert len({tuple(sorted(s.items())) for s in seen}) == 6
    firsts = np.mean([[sides[item, 0] for item in store.items] for sides in seen])
    assert firsts == 0.5


def test_practice_comes_first_and_checks_amid_the_rest(tmp_path):
    answers = ["equal", "first_clearly", "second_clearly", "equal"]
    store = pair_store(tmp_path, answer=answers, feedback=["So it is.", "So it is."])
    kinds = {item: "practice" if k.feedback else "check" for item, k in store.known.items()}
    checks = set()
    for name in "abcdefgh":
        order = store.order(name)
        shown = [kinds.get(item, "study") for item, _ in order]
        assert len(order) == 26 and shown[:2] == ["practice"] * 2 and shown[2:].count("check") == 2
        assert not any(again for item, again in order if item in kinds)
        checks |= {at for at, kind in enumerate(shown) if kind == "check"}
        for item, again in order: store.add(name, item, "equal", again)
    assert len(checks) > 4
    table = store.details()
    assert len(table) == 8 * 26 and table.query("kind == 'check'").right.mean() == 0.5
    assert set(store.read()["item"]) == set(store.items) - set(store.known) and table.score.eq(3).all()


def test_a_store_of_the_first_version_is_read_and_goes_on(tmp_path):
    path = Store(tmp_path / "s.sqlite", POOL, repeats=3, seed=5).path
    expected = Store(tmp_path / "t.sqlite", POOL, repeats=3, seed=5).order("Ann")
    with sqlite3.connect(path) as db:
        for name in ("people", "showings", "sessions", "links", "zooms", "withdrawn"): db.execute(f"DROP TABLE {name}")
        db.execute("DELETE FROM about WHERE key IN ('question', 'known', 'secret', 'made')")
        db.execute("UPDATE about SET value = '\"creative_nb annotations 1\"' WHERE key = 'format'")
    store = Store(path, POOL)
    assert store.question.name == "main" and store.read().empty and store.person("Ann") == {}
    store.add("Ann", POOL.items[0], "creative")
    assert store.order("Ann") == expected and len(store.details()) == 15


def test_the_zoom_of_an_answer_is_kept_and_a_store_without_zooms_goes_on(tmp_path):
    store = Store(tmp_path / "s.sqlite", POOL, repeats=0, seed=5)
    one, two = [item for item, _ in store.order("Ann")][:2]
    store.add("Ann", one, "creative")
    with sqlite3.connect(store.path) as db: db.execute("DROP TABLE zooms")
    assert store.details().zoom.isna().all()
    store.add("Ann", two, "creative", zoom=12.5)
    assert store.details().set_index("item").zoom[[one, two]].isna().tolist() == [True, False]
    with pytest.raises(ValueError, match="zoom"): store.add("Ann", one, "inconclusive", zoom=0)
    withdraw(store, "Ann")
    with sqlite3.connect(store.path) as db: assert db.execute("SELECT count(*) FROM zooms").fetchone() == (0,)


# ---- who ----

def test_links_open_once_and_names_nothing(tmp_path):
    store = Store(tmp_path / "s.sqlite", POOL, repeats=0)
    links = issue_links(store, ["P01", "Zoë 2"], "https://lab.example.org/study/")
    codes = [link.split("#")[1] for link in links.values()]
    assert all(link.startswith("https://lab.example.org/study/#") for link in links.values())
    assert not any("P01".casefold() in link for link in links.values())
    assert whose(store, enter(store, codes[0])) == "p01"
    for wrong in (codes[0], codes[0][:-1], "P01", "", codes[1].upper()):
        with pytest.raises(Refused): enter(store, wrong)
    for taken in ("p01", "ZOË 2", "Simulated 3", "a\u200bb", ""):
        with pytest.raises(Refused): enrol(store, taken)
    assert whose(store, "p01") is None and store.annotators() == []
    again = issue_links(store, ["p01"], "https://lab.example.org")["p01"].split("#")[1]
    assert again != codes[0] and whose(store, enter(store, again)) == "p01"


def test_a_copy_of_the_store_opens_nobodys_session(tmp_path):
    store = Store(tmp_path / "s.sqlite", POOL, repeats=0)
    token = enrol(store, "Ann")
    store.settle()
    assert token.encode() not in store.path.read_bytes()


def test_codes_of_two_studies_differ(tmp_path):
    a, b = (issue_links(Store(tmp_path / f"{i}.sqlite", POOL, repeats=0), ["P01"], "https://x.org") for i in "ab")
    assert a != b


def test_who_withdraws_is_gone(tmp_path):
    store = Store(tmp_path / "s.sqlite", POOL, repeats=0)
    for name in ("wilhelmina", "Bo"):
        enrol(store, name)
        for item, _ in store.order(name)[:3]: store.add(name, item, "creative")
    store.undo("wilhelmina")
    assert withdraw(store, "Wilhelmina") == 2 and store.annotators() == ["bo"] and len(Store(store.path).read()) == 3
    left = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert b"wilhelmina" not in left and set(store.history().annotator) == {"bo"}
    with pytest.raises(Refused): enrol(store, "WILHELMINA")
    with pytest.raises(ValueError, match="withdrawn"): issue_links(store, ["wilhelmina"], "https://x.org")
    with pytest.raises(ValueError, match="annotator="): withdraw(store, "nobody")


def test_tables_without_names(tmp_path):
    store = Store(tmp_path / "s.sqlite", POOL, repeats=2)
    for name in ("Ann", "Bo"):
        store.begin(name, "phone", "Europe/Rome")
        for item, again in store.order(name)[:4]: store.add(name, item, "creative", again, seconds=2)
    text = pseudonymised(store).to_csv()
    assert not any(word in text for word in ("ann,", "bo,", "Rome", "phone", "20" + "26-"))
    assert pseudonymised(store).annotator.nunique() == 2
    assert pseudonymised(store).equals(pseudonymised(Store(store.path)))


def test_links_are_for_their_owner_only(tmp_path):
    write_links({"p01": "https://x.org/#code"}, tmp_path / "links.tsv")
    assert stat.S_IMODE((tmp_path / "links.tsv").stat().st_mode) == 0o600
    with pytest.raises(ValueError, match="path="): write_links({}, tmp_path / "links.tsv")
