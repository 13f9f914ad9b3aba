"Annotation: blinding, the store under several processes and kills, round trips, and the statistics against slow oracles and other libraries."
import io, itertools, json, multiprocessing, os, pickle, random, signal, sqlite3, string, tempfile, threading, time, warnings
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from pathlib import Path
from urllib.request import urlopen

import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from statsmodels.stats.inter_rater import fleiss_kappa

from creative_nb import annotation
from creative_nb.annotation import (MEANINGS, OPTIONS, STUDIES, Pool, Store, agreement, blind, check_labels, clean_name, consensus, folder_pool,
                                    label_studio_config, label_studio_tasks, read_labels, self_consistency, write_labels)

MAIN = STUDIES["main"]
fork = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
needs_fork = pytest.mark.skipif(fork is None, reason="needs os.fork")
some = settings(max_examples=20, deadline=None)


def make_pool(n: int = 12, seed: int = 0, study: str = "main") -> tuple[Pool, pd.DataFrame]:
    images = torch.from_numpy(np.random.default_rng(0).random((n, 1, 6, 5), dtype=np.float32))
    manifest = pd.DataFrame({"dataset": "digits", "method": [("low_active", "noisy", "regular")[i % 3] for i in range(n)], "creativity_filter": 0,
                             "seed": 7, "index": range(n), "n_neurons": 5, "input_1nn": 0.5, "ice_mnist": 1.25})
    return blind(images, manifest, images[:2], "digits", study, seed)


def table(**votes: str) -> pd.DataFrame:
    "Labels of items from strings of digits: each annotator's label, counted from 1; `.` is missing."
    rows = [(f"rater {r}", item, MAIN[int(d) - 1]) for item, digits in votes.items() for r, d in enumerate(digits) if d != "."]
    return pd.DataFrame(rows, columns=["annotator", "item", "label"])


POOL, KEY = make_pool()


# ---- studies and pool ----

def test_each_label_has_a_text_and_a_meaning():
    assert OPTIONS.keys() == MEANINGS.keys() == set().union(*STUDIES.values())
    for study in STUDIES.values(): assert len({OPTIONS[k] for k in study}) == len({MEANINGS[k] for k in study}) == 4


@pytest.mark.parametrize("study", STUDIES)
def test_a_saved_pool_and_its_tasks_say_nothing_of_the_manifest(tmp_path, study):
    pool, key = make_pool(30, study=study)
    pool.save(tmp_path / "pool.safetensors")
    Store(tmp_path / "s.sqlite", pool)
    texts = [(tmp_path / "pool.safetensors").read_bytes(), (tmp_path / "s.sqlite").read_bytes(), json.dumps(label_studio_tasks(pool)).encode(),
             label_studio_config(pool).encode()]
    for word in {*key.method, "method", "creativity_filter", "n_neurons", "input_1nn", "ice_mnist"}:
        assert not any(word.encode() in text for text in texts), word
    loaded = Pool.load(tmp_path / "pool.safetensors")
    assert torch.equal(loaded.images, pool.images) and torch.equal(loaded.primer, pool.primer)
    assert (loaded.items, loaded.name, loaded.study, loaded.labels, loaded.digest) == (pool.items, "digits", study, STUDIES[study], pool.digest)


def test_names_and_order_depend_on_the_seed_alone():
    images, (one, other) = torch.rand(9, 1, 4, 4), (pd.DataFrame({"method": list(m)}) for m in ("abcabcabc", "cccbbbaaa"))
    (a, key_a), (b, key_b) = (blind(images, m, images[:1], "x") for m in (one, other))
    assert a.items == b.items and torch.equal(a.images, b.images) and key_a.method.tolist() != key_b.method.tolist()
    c, key_c = blind(images.flip(0), one.iloc[::-1], images[:1], "x")  # the same in another order of input
    pairs = lambda pool, key: sorted(zip(key.method, map(bytes, pool.images.numpy())))
    assert c.items == a.items and pairs(c, key_c) == pairs(a, key_a)
    assert blind(images, one, images[:1], "x", seed=1)[0].items != a.items != blind(images, one, images[:1], "y")[0].items


def test_neither_place_nor_name_hints_at_the_method():
    method = np.repeat(["a", "b"], 50)
    places, names = [], []
    for seed in range(40):
        _, key = blind(torch.zeros(100, 1, 1, 1), pd.DataFrame({"method": method}), torch.zeros(0, 1, 1, 1), "x", seed=seed)
        first = key.method.to_numpy() == "a"
        places.append(np.flatnonzero(first).mean())
        names.append(key["item"].rank().to_numpy()[first].mean() - 1)
    for means in (places, names): assert abs(np.mean(means) - 49.5) < 4 * 2.9 / 40 ** 0.5  # a mean of 50 of 100 places has standard deviation 2.9


def test_manifest_rows_fit_the_pool():
    images = torch.arange(20).view(20, 1, 1, 1) / 255
    pool, key = blind(images, pd.DataFrame({"value": range(20)}, index=range(100, 120)), images[:0], "x")
    assert pool.images.flatten().tolist() == key.value.tolist() and key.columns[0] == "item" and key["item"].tolist() == list(pool.items)


@pytest.mark.parametrize("change, word", [
    (dict(images=torch.full((12, 1, 6, 5), 1.5)), "images"), (dict(images=torch.full((12, 1, 6, 5), float("nan"))), "images"),
    (dict(images=torch.zeros(12, 1, 6, 5, dtype=torch.uint8)), "images"), (dict(images=torch.zeros(12, 2, 6, 5)), "images"), (dict(images=np.zeros((12, 1, 6, 5))), "images"),
    (dict(images=torch.zeros(11, 1, 6, 5)), "manifest"), (dict(primer=torch.zeros(1, 3, 6, 5)), "primer"), (dict(study="pilot"), "study"), (dict(seed=-1), "seed"),
    (dict(images=torch.zeros(0, 1, 6, 5), manifest=pd.DataFrame({"method": []})), "items")])
def test_blind_refuses(change, word):
    good = dict(images=torch.zeros(12, 1, 6, 5), manifest=KEY.drop(columns="item"), primer=torch.zeros(1, 1, 6, 5), name="x")
    blind(**good)
    with pytest.raises(ValueError, match=word): blind(**good | change)


@pytest.mark.parametrize("items", [("a", "a"), ("a",), ("a", "b/c"), ("a", ""), ("a", 3), ("a", "x" * 61), ("a", "..")])
def test_a_pool_refuses_bad_items(items):
    with pytest.raises(ValueError, match="items"): Pool(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), items, torch.zeros(0, 1, 3, 3, dtype=torch.uint8), "x")


def test_the_digest_sees_every_part():
    x, none = torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(0, 1, 2, 2, dtype=torch.uint8)
    variants = [Pool(x, ("a", "b"), none, "n"), Pool(x + 1, ("a", "b"), none, "n"), Pool(x, ("b", "a"), none, "n"), Pool(x, ("a", "b"), x[:1], "n"),
                Pool(x, ("a", "b"), none, "m"), Pool(x, ("a", "b"), none, "n", "prior"), Pool(x.view(2, 1, 1, 4), ("a", "b"), none.view(0, 1, 1, 4), "n")]
    assert len({p.digest for p in variants}) == len(variants)


def test_load_refuses_other_files(tmp_path):
    with pytest.raises(FileNotFoundError): Pool.load(tmp_path / "none.safetensors")
    annotation.save_tensors(tmp_path / "other.safetensors", {"images": torch.zeros(1)})
    with pytest.raises(ValueError, match="no pool"): Pool.load(tmp_path / "other.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk" * 9)
    with pytest.raises(ValueError, match="damaged"): Pool.load(tmp_path / "junk.safetensors")


def test_folder_pool(tmp_path):
    for method, file, colour in (("ours", "a.png", 10), ("ours", "deep/b.png", 20), ("theirs", "c.jpg", 200), ("primer", "p.png", 90)):
        (tmp_path / "lab" / method / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (5, 4), colour).save(tmp_path / "lab" / method / file)
    (tmp_path / "lab" / "notes.txt").write_text("not an image")
    pool, key = folder_pool(tmp_path / "lab")
    assert pool.name == "lab" and pool.images.shape == (3, 1, 4, 5) and pool.primer.flatten().unique().tolist() == [90]
    assert dict(zip(key.file, key.method)) == {"ours/a.png": "ours", "ours/deep/b.png": "ours", "theirs/c.jpg": "theirs"}
    assert dict(zip(key.file, pool.images[:, 0, 0, 0].tolist())) == {"ours/a.png": 10, "ours/deep/b.png": 20, "theirs/c.jpg": 200}
    elsewhere, key = folder_pool(tmp_path / "lab", primer=tmp_path / "lab" / "theirs", name="x")
    assert set(key.method) == {"ours", "primer"} and len(elsewhere.primer) == 1
    Image.new("RGB", (9, 9), (255, 0, 0)).save(tmp_path / "lab" / "ours" / "d.png")
    with pytest.raises(ValueError, match="size"): folder_pool(tmp_path / "lab")
    assert folder_pool(tmp_path / "lab", size=(6, 7))[0].images.shape == (4, 3, 6, 7)
    with pytest.raises(FileNotFoundError, match="root"): folder_pool(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="primer"): folder_pool(tmp_path / "lab", primer=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="subfolder"): folder_pool(tmp_path / "empty")


# ---- names and orders ----

NAMES = st.text(st.characters(exclude_categories=("C",)), min_size=1, max_size=20).filter(lambda s: s.strip() and len(s.casefold()) <= 20)


@given(NAMES)
def test_a_clean_name_stays_clean(name):
    try: clean = clean_name(name)
    except ValueError: return  # such as a ligature that unfolds to a long text
    assert clean == clean_name(clean) == clean_name(f"  {name}\t") and "  " not in clean


@pytest.mark.parametrize("bad", ["", " \n ", "a\x00b", "a\nb", "a\x7fb", "a\ud800", "a​b", "x" * 61, None, 3])
def test_bad_names(bad):
    with pytest.raises(ValueError, match="annotator"): clean_name(bad)


@given(st.integers(1, 60), st.data())
def test_order(n, data):
    repeats = data.draw(st.integers(0, n))
    order = annotation._showings(n, repeats, np.random.default_rng(data.draw(st.integers(0, 99))))
    place = {showing: p for p, showing in enumerate(order)}
    assert len(place) == len(order) == n + repeats and {i for i, again in order if not again} == set(range(n))
    assert all(p - place[image, 0] >= n / 4 for (image, again), p in place.items() if again)


def test_order_depends_on_the_name_and_the_seed_alone(tmp_path):
    pool, _ = make_pool(40)
    a, b = (Store(tmp_path / f"{i}.sqlite", pool, repeats=10) for i in "ab")
    before = a.order("Ann")
    a.add("Ann", pool.items[0], "creative")
    assert a.order(" ANN") == b.order("ann") == before == Store(tmp_path / "a.sqlite").order("Ann")
    orders = [tuple(a.order(name)) for name in ("ann", "bo", "cy")] + [tuple(Store(tmp_path / "c.sqlite", pool, repeats=10, seed=1).order("ann"))]
    assert len(set(orders)) == 4 and len({frozenset(i for i, again in o if again) for o in orders}) == 4


def test_repeats_are_spread_over_the_session(tmp_path):
    store = Store(tmp_path / "s.sqlite", make_pool(100)[0], repeats=20)
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
            else: store.add(who, POOL.items[n], label, repeat, seconds=i), model.add(who.casefold(), POOL.items[n], repeat, label)
        frame, history = Store(Path(folder) / "s.sqlite").read(), store.history()
        assert {(r.annotator, r.item, r.repeat): r.label for r in frame.itertuples()} == model.labels and len(history) == model.events
        for who in ("ann", "bo"): assert store.answers(who) == {(i, r): label for (a, i, r), label in model.labels.items() if a == who}
        assert store.annotators() == sorted({a for a, _, _ in model.labels}) and history.seq.is_monotonic_increasing
        kept = history[(history.kind == "answer") & ~history.seq.isin(history.undoes)]  # the answers follow from the history, seconds and time as well
        last = kept.drop_duplicates(["annotator", "item", "repeat"], keep="last").rename(columns={"after": "label"})[list(frame.columns)]
        pd.testing.assert_frame_equal(last.sort_values(["annotator", "item", "repeat"], ignore_index=True), frame)


def test_each_person_undoes_their_own(tmp_path):
    store, (a, b) = Store(tmp_path / "s.sqlite", POOL, repeats=0), POOL.items[:2]
    store.add("Ann", a, "creative"), store.add("Bo", a, "inconclusive"), store.add("Ann", b, "creative")
    assert [store.undo("Bo"), store.undo("Bo"), store.undo("Ann"), store.undo("Ann"), store.undo("Ann")] == [(a, 0), None, (b, 0), (a, 0), None]
    assert store.read().empty and store.read().dtypes.to_dict() == check_labels(table(a="1")).dtypes.to_dict()


def test_an_answer_replaces_only_what_was_seen(tmp_path):
    store, item = Store(tmp_path / "s.sqlite", POOL, repeats=0), POOL.items[0]
    assert store.add("Ann", item, "creative", replaces="") and not store.add("Ann", item, "inconclusive", replaces="")
    assert store.add("Ann", item, "creative", replaces="")  # it is there already
    assert store.answers("Ann") == {(item, 0): "creative"} and len(store.history()) == 1
    assert store.add("Ann", item, "inconclusive", replaces="creative") and not store.add("Ann", item, "creative", replaces="novel_not_creative")
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
    assert (again.repeats, again.seed, again.study, again.labels, again.items) == (3, 5, "main", MAIN, POOL.items)
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


@pytest.mark.parametrize("change", [dict(item="x"), dict(item=["a"]), dict(label="nice"), dict(label=None), dict(repeat=2), dict(repeat="0"), dict(seconds=-1),
                                    dict(seconds=float("inf")), dict(seconds="long"), dict(annotator="")])
def test_add_refuses(tmp_path, change):
    store = Store(tmp_path / "s.sqlite", POOL, repeats=2)
    with pytest.raises(ValueError, match=next(iter(change))): store.add(**dict(annotator="Ann", item=POOL.items[0], label="creative") | change)
    assert store.history().empty


def test_an_answer_and_its_event_come_together_or_not_at_all(tmp_path):
    store, item = Store(tmp_path / "s.sqlite", POOL, repeats=0), POOL.items[0]
    store.add("Ann", item, "creative")
    with sqlite3.connect(store.path) as db: db.execute("CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(sqlite3.Error, match="disk full"): store.add("Ann", item, "inconclusive")
    with pytest.raises(sqlite3.Error, match="disk full"): store.undo("Ann")
    assert store.answers("Ann") == {(item, 0): "creative"} and len(store.history()) == 1
    with sqlite3.connect(store.path) as db: db.execute("DROP TRIGGER full")
    store.add("Ann", item, "inconclusive")
    assert store.answers("Ann") == {(item, 0): "inconclusive"}


def test_an_answer_is_on_the_disk_and_waits_for_others(tmp_path):
    store = Store(tmp_path / "s.sqlite", POOL, repeats=0)
    with annotation._connected(store.path) as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,) and db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
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


# ---- labels ----

@st.composite
def label_tables(draw, items=POOL.items[:6]):
    people = draw(st.lists(NAMES.map(lambda s: s + "x"), min_size=1, max_size=3, unique_by=lambda s: "".join(s.split()).casefold()))
    keys = draw(st.lists(st.tuples(st.sampled_from(people), st.sampled_from(items), st.integers(0, 1)), min_size=1, max_size=12, unique=True))
    rows = [(*k, draw(st.sampled_from(MAIN)), draw(st.none() | st.floats(0, 1e6))) for k in keys]
    try: return check_labels(pd.DataFrame(rows, columns=["annotator", "item", "repeat", "label", "seconds"]))
    except ValueError: return check_labels(table(a="1"))


def in_order(labels: pd.DataFrame, *without: str) -> pd.DataFrame:
    return labels.sort_values(["annotator", "item", "repeat"], ignore_index=True).drop(columns=list(without))


@some
@given(label_tables())
def test_round_trip_csv(labels):
    with tempfile.TemporaryDirectory() as folder:
        write_labels(labels, Path(folder) / "l.csv")
        pd.testing.assert_frame_equal(read_labels(Path(folder) / "l.csv"), labels)


@settings(max_examples=10, deadline=None)
@given(label_tables())
def test_round_trip_store(labels):
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(torch.zeros(7, 1, 2, 2, dtype=torch.uint8), ("a", *POOL.items[:6]), torch.zeros(0, 1, 2, 2, dtype=torch.uint8), "x")
        store = Store(Path(folder) / "l.sqlite", pool, repeats=len(pool.items))
        for r in labels.itertuples(): store.add(r.annotator, r.item, r.label, r.repeat, r.seconds)
        back = read_labels(store.path, pool=pool)
        pd.testing.assert_frame_equal(in_order(back, "time"), in_order(labels, "time"))
        assert (pd.to_datetime(back.time).dt.tz is not None) and back.time.str.endswith("+00:00").all()
        write_labels(back, Path(folder) / "l.csv")
        pd.testing.assert_frame_equal(read_labels(Path(folder) / "l.csv", pool=pool), back)


def export(labels: pd.DataFrame, name) -> list[dict]:
    "Tasks as Label Studio exports them."
    result = lambda label: [{"type": "choices", "from_name": "label", "to_name": "image", "value": {"choices": [name(label)]}}]
    return [{"id": n, "data": {"image": "data:", "item": item, "repeat": repeat}, "predictions": [], "annotations": [
        {"completed_by": {"id": n, "email": r.annotator}, "result": result(r.label), "was_cancelled": False, "lead_time": None if r.seconds != r.seconds else r.seconds}
        for r in rows.itertuples()]} for n, ((item, repeat), rows) in enumerate(labels.groupby(["item", "repeat"]))]


def minimal(tasks: list[dict]) -> list[dict]:
    return [task["data"] | {"id": 1, "annotation_id": 2, "annotator": a["completed_by"], "lead_time": a["lead_time"], "label": a["result"][0]["value"]["choices"][0]}
            for task in tasks for a in task["annotations"]]


@some
@given(label_tables(), st.booleans(), st.booleans())
def test_round_trip_label_studio(labels, small, alias):
    tasks = export(labels, (lambda k: k) if alias else OPTIONS.get)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "e.json").write_text(json.dumps(minimal(tasks) if small else tasks))
        pd.testing.assert_frame_equal(in_order(read_labels(Path(folder) / "e.json")), in_order(labels))


def read_json(tmp_path, content, **more) -> pd.DataFrame:
    (tmp_path / "e.json").write_text(json.dumps(content))
    return read_labels(tmp_path / "e.json", **more)


def test_label_studio_annotators(tmp_path):
    one = lambda who: [{"data": {"item": "a"}, "annotations": [{**who, "result": [{"type": "choices", "value": {"choices": ["creative"]}}]}]}]
    for who, name in (({"completed_by": 3}, "3"), ({"completed_by": {"email": "Ann@x.org"}}, "ann@x.org"), ({"completed_by": {"id": 4}}, "4"), ({}, "unknown"),
                      ({"completed_by": None}, "unknown")):
        assert read_json(tmp_path, one(who)).annotator.tolist() == [name]
    for who, name in (({"annotator": 3}, "3"), ({"annotator": {"id": 4, "email": "b@x"}}, "b@x"), ({}, "unknown")):
        assert read_json(tmp_path, [{"item": "a", "label": "Creative", **who}]).annotator.tolist() == [name]


def test_label_studio_leaves_out_what_is_no_answer(tmp_path):
    choice = lambda *c: [{"type": "choices", "value": {"choices": list(c)}}]
    tasks = [{"data": {"item": "a"}, "annotations": [{"completed_by": 1, "result": choice("creative")}, {"completed_by": 2, "was_cancelled": True, "result": choice("creative")},
                                                     {"completed_by": 3, "result": [{"type": "textarea", "value": {"text": ["hm"]}}]}, {"completed_by": 4, "result": []}]},
             {"data": {"item": "b"}, "annotations": []}]
    assert read_json(tmp_path, tasks)[["annotator", "item"]].values.tolist() == [["1", "a"]]
    tasks[1]["annotations"] = [{"completed_by": 1, "result": choice("creative", "inconclusive")}]
    with pytest.raises(ValueError, match="at once"): read_json(tmp_path, tasks)
    with pytest.raises(ValueError, match="at once"): read_json(tmp_path, [{"item": "a", "label": {"choices": ["Creative", "Cannot decide"]}}])
    with pytest.raises(ValueError, match="nice"): read_json(tmp_path, [{"item": "a", "label": "nice"}])
    with pytest.raises(ValueError, match="item"): read_json(tmp_path, [{"label": "Creative"}])
    with pytest.raises(ValueError, match="has two"): read_json(tmp_path, [{"item": "a", "label": "Creative"}] * 2)
    assert read_json(tmp_path, [{"item": "a", "label": "Garbage"}], study="prior").label.tolist() == ["garbage"]


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.sampled_from(["creative", "a", "2026-01-01T00:00:00Z", ""]), lambda x: st.lists(x, max_size=3) | st.dictionaries(
    st.sampled_from(["item", "label", "data", "annotations", "result", "type", "value", "choices", "annotator", "completed_by", "updated_at"]), x, max_size=5), max_leaves=15)


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_any_json_is_labels_or_a_clear_error(content):
    with tempfile.TemporaryDirectory() as folder:
        try: assert len(read_json(Path(folder), content)) > 0
        except ValueError as e: assert "e.json" in str(e)


@pytest.mark.parametrize("study", STUDIES)
def test_label_studio_config_and_tasks(study):
    pool, _ = make_pool(3, study=study)
    view = ET.fromstring(label_studio_config(pool))
    choices = view.findall("Choices/Choice")
    assert [(c.get("alias"), c.get("value"), c.get("hotkey")) for c in choices] == [(k, OPTIONS[k], str(i)) for i, k in enumerate(pool.labels, 1)]
    assert view.find("Choices").get("toName") == view.find("Image").get("name") and view.find("Image").get("value") == "$image"
    for image, item, task in zip(pool.images, pool.items, label_studio_tasks(pool)):
        shown = np.asarray(Image.open(urlopen(task["data"]["image"])))
        assert task["data"]["item"] == item and shown.shape == (46 * 6, 46 * 5) and (shown[::46, ::46] == image[0].numpy()).all()


def test_colour_png():
    image = torch.arange(3 * 2 * 4, dtype=torch.uint8).view(3, 2, 4)
    assert (np.asarray(Image.open(io.BytesIO(annotation.png(image)))) == image.permute(1, 2, 0).numpy()).all()


@pytest.mark.parametrize("change, words", [
    (lambda t: t.drop(columns="label"), "no column label"), (lambda t: t[:0], "at least one row"), (lambda t: pd.concat([t, t[:1]]), "has two"),
    (lambda t: pd.concat([t, t[:1].assign(annotator="RATER  0")]), "has two"), (lambda t: t.assign(label="Creative"), "label='Creative' in row 0"),
    (lambda t: t.assign(repeat=2), "repeat=2 "), (lambda t: t.assign(repeat="x"), "repeat"), (lambda t: t.assign(repeat=0.5), "repeat"), (lambda t: t.assign(seconds=-1), "seconds"),
    (lambda t: t.assign(item=None), "item"), (lambda t: t.assign(item=" "), "item"), (lambda t: t.assign(annotator=""), "annotator"), (lambda t: t.assign(annotator=np.nan), "annotator"),
    (lambda t: t.to_dict(), "dict")])
def test_check_labels_refuses(change, words):
    with pytest.raises(ValueError, match=words): check_labels(change(table(a="12", b="31")))


def test_check_labels_returns_a_clean_copy():
    rough = table(a="12").assign(annotator=["Ann ", 7], item=" a ", seconds=["", "2.5"], comment="x").set_index("comment")
    before = rough.copy()
    clean = check_labels(rough, items=("a",))
    pd.testing.assert_frame_equal(rough, before)
    assert clean.columns.tolist() == list(annotation.COLUMNS) and clean.annotator.tolist() == ["ann", "7"] and clean["item"].tolist() == ["a", "a"]
    assert clean.seconds.isna().tolist() == [True, False] and clean["repeat"].tolist() == [0, 0] and clean.time.tolist() == ["", ""]
    pd.testing.assert_frame_equal(check_labels(clean), clean)


def test_read_labels_refuses(tmp_path):
    with pytest.raises(FileNotFoundError): read_labels(tmp_path / "none.csv")
    (tmp_path / "l.xlsx").write_text("")
    with pytest.raises(ValueError, match="ends in"): read_labels(tmp_path / "l.xlsx")
    for name, content in (("empty.csv", ""), ("semicolon.csv", "annotator;item;label\na;b;creative\n"), ("binary.csv", "\0\xff"), ("broken.json", "[{"), ("text.sqlite", "x" * 200)):
        (tmp_path / name).write_bytes(content.encode("latin-1"))
        with pytest.raises(ValueError, match=name): read_labels(tmp_path / name)
    store = Store(tmp_path / "s.sqlite", POOL, repeats=0)
    store.add("Ann", POOL.items[0], "creative")
    with pytest.raises(ValueError, match="study"): read_labels(store.path, "prior")
    with pytest.raises(ValueError, match="another pool"): read_labels(store.path, pool=make_pool(5)[0])
    with pytest.raises(ValueError, match="study"): read_labels(store.path, "prior", pool=POOL)


def test_a_spreadsheet_may_have_written_it(tmp_path):
    (tmp_path / "l.csv").write_bytes("﻿annotator,item,label\r\nZoë,001,creative\r\n\"NA\",1e5,inconclusive\r\n".encode())
    labels = read_labels(tmp_path / "l.csv")
    assert labels.annotator.tolist() == ["zoë", "na"] and labels["item"].tolist() == ["001", "1e5"]


# ---- consensus ----

@some
@given(label_tables(), st.integers(1, 4), st.randoms())
def test_consensus_against_counting(labels, minimum, dice):
    found = consensus(labels, minimum=minimum)
    assert list(found.columns) == [*MAIN, "raters", "consensus", "status"] and set(found.index) == set(labels["item"])
    for item, row in found.iterrows():
        votes = Counter(r.label for r in labels.itertuples() if r.item == item and r.repeat == 0)
        best = [k for k, v in votes.items() if v == max(votes.values())]
        status = "too few" if not votes or votes[best[0]] < minimum else "agreed" if len(best) == 1 else "tie"
        assert (row.status, row.consensus, row.raters) == (status, best[0] if status == "agreed" else "", votes.total())
        assert all(row[k] == votes[k] for k in MAIN)
    people = sorted(set(labels.annotator))
    renamed = dict(zip(people, dice.sample([f"p{i}" for i in range(len(people))], len(people))))
    rows = dice.sample(range(len(labels)), len(labels))
    pd.testing.assert_frame_equal(consensus(labels.assign(annotator=labels.annotator.map(renamed)).iloc[rows], minimum=minimum), found)


def test_nine_annotators_and_four_labels_always_have_three_votes():
    found = consensus(table(**{"".join(spread): spread for spread in itertools.combinations_with_replacement("1234", 9)}))
    assert len(found) == 220 and found.raters.eq(9).all() and set(found.status) == {"agreed", "tie"}


@pytest.mark.parametrize("minimum", [0, -1, 2.5])
def test_consensus_refuses(minimum):
    with pytest.raises(ValueError, match="minimum"): consensus(table(a="1"), minimum=minimum)


def test_consensus_of_the_prior_study():
    labels = table(a="111").replace("creative", "garbage")
    assert consensus(labels, "prior").consensus["a"] == "garbage"
    with pytest.raises(ValueError, match="label"): consensus(labels)
    with pytest.raises(ValueError, match="study"): consensus(labels, "pilot")


# ---- agreement ----

def slow_agreement(votes: np.ndarray) -> tuple[float, float, float]:
    "Kappa, alpha, pairwise agreement by looking at every pair of answers."
    units = [[label for label, n in enumerate(row) for _ in range(n)] for row in votes]
    share = lambda pairs: np.mean([a == b for a, b in pairs])
    agree = np.mean([share(itertools.permutations(u, 2)) for u in units])
    p = np.mean([np.bincount(u, minlength=votes.shape[1]) / len(u) for u in units], axis=0)
    pooled = [a for u in units for a in u]
    disagree = sum(sum(a != b for a, b in itertools.permutations(u, 2)) / (len(u) - 1) for u in units) / len(pooled)
    by_chance = np.mean([a != b for a, b in itertools.permutations(pooled, 2)])
    return (agree - (p @ p)) / (1 - p @ p), 1 - disagree / by_chance, agree


VOTES = st.lists(st.lists(st.integers(0, 4), min_size=4, max_size=4).filter(lambda row: sum(row) >= 2), min_size=1, max_size=8).map(np.array)
VARIED = VOTES.filter(lambda v: (v.sum(0) > 0).sum() > 1)


@given(VARIED)
def test_agreement_against_pairs(votes):
    found = annotation._agreement(annotation._agreement_terms(votes))
    np.testing.assert_allclose(found, slow_agreement(votes), rtol=1e-9, atol=1e-12)
    assert (found <= 1 + 1e-12).all() and found[2] >= 0


@given(st.integers(2, 9), st.data())
def test_equal_raters_are_what_statsmodels_says(raters, data):
    answers = np.array(data.draw(st.lists(st.lists(st.integers(0, 3), min_size=raters, max_size=raters), min_size=2, max_size=10)))
    votes = np.stack([(answers == k).sum(1) for k in range(4)], 1)
    kappa = annotation._agreement(annotation._agreement_terms(votes))[0]
    if (votes.sum(0) > 0).sum() == 1: assert np.isnan(kappa)
    else:
        np.testing.assert_allclose(kappa, fleiss_kappa(votes), atol=1e-12)
        assert -1 / (raters - 1) - 1e-12 <= kappa <= 1 + 1e-12


@given(VARIED)
def test_alpha_is_what_the_krippendorff_package_says(votes):
    krippendorff = pytest.importorskip("krippendorff")
    alpha = annotation._agreement(annotation._agreement_terms(votes))[1]
    np.testing.assert_allclose(alpha, krippendorff.alpha(value_counts=votes, level_of_measurement="nominal"), atol=1e-12)


def test_missing_answers_and_single_raters_are_left_out():
    krippendorff = pytest.importorskip("krippendorff")
    labels = table(a="1122", b="33.3", c=".12.", d="4...", e="2222")
    wide = labels.pivot(index="annotator", columns="item", values="label").map(MAIN.index, na_action="ignore").to_numpy(float)
    found = agreement(labels, resamples=50)
    assert found["items"].eq(4).all() and found.annotators.eq(4).all() and list(found.index) == list(annotation.AGREEMENT)
    assert found.value["krippendorff_alpha"] == pytest.approx(krippendorff.alpha(wide, level_of_measurement="nominal"), abs=1e-12)


def test_repeats_do_not_count():
    labels = check_labels(table(a="12", b="34", c="11"))
    pd.testing.assert_frame_equal(agreement(pd.concat([labels, labels.assign(repeat=1, label="creative")]), resamples=20), agreement(labels, resamples=20))


def random_votes(n: int, seed: int) -> np.ndarray:
    "Images that differ in how sure one can be of them; nine answers each."
    g = np.random.default_rng(seed)
    return np.stack([g.multinomial(9, g.dirichlet([0.5] * 4)) for _ in range(n)])


def as_labels(votes: np.ndarray) -> pd.DataFrame:
    return table(**{f"i{n}": "".join(str(k + 1) * v for k, v in enumerate(row)) for n, row in enumerate(votes)})


def test_intervals_against_a_loop():
    votes, g = random_votes(80, 0), np.random.default_rng(1)
    drawn = [fleiss_kappa(votes[g.integers(0, 80, 80)]) for _ in range(2000)]
    found = agreement(as_labels(votes), confidence=0.9, resamples=4000).loc["fleiss_kappa"]
    np.testing.assert_allclose([found.low, found.high], np.quantile(drawn, [0.05, 0.95]), atol=0.01)
    assert found.value == pytest.approx(fleiss_kappa(votes)) and found.high - found.low > 0.1


def test_intervals_hold_what_they_promise():
    truth = fleiss_kappa(random_votes(20000, 99))
    terms = [annotation._agreement_terms(random_votes(60, seed)) for seed in range(150)]
    inside = [low <= truth <= high for (low, _, _), (high, _, _) in (annotation._intervals(t, 0.9, 300, 0) for t in terms)]
    assert 0.83 < np.mean(inside) < 0.96


def test_intervals_depend_on_the_seed_and_the_confidence():
    labels = as_labels(random_votes(20, 3))
    pd.testing.assert_frame_equal(agreement(labels, resamples=100), agreement(labels, resamples=100))
    assert agreement(labels, resamples=100).low.ne(agreement(labels, resamples=100, seed=1).low).any()
    wide, narrow = agreement(labels, confidence=0.99), agreement(labels, confidence=0.5)
    assert ((wide.low < narrow.low) & (narrow.high < wide.high)).all()


def test_all_differ_and_all_agree():
    assert agreement(table(a="1234", b="1234"), resamples=10).value.round(9).tolist() == [-0.333333333, round(1 - 1 / (24 / 28), 9), 0]
    perfect = agreement(table(a="111", b="22.", c="333"), resamples=200)
    assert perfect.value.eq(1).all() and perfect.low.eq(1).all() and perfect.high.eq(1).all()  # draws of one image alone have no kappa


def test_undefined_values_are_nan_and_say_why():
    with pytest.warns(UserWarning, match="every label is 'creative'") as caught: found = agreement(table(a="111", b="11."))
    assert len(caught) == 1 and found.loc[["fleiss_kappa", "krippendorff_alpha"], ["value", "low", "high"]].isna().all(axis=None)
    assert found.loc["pairwise_agreement", ["value", "low", "high"]].eq(1).all()
    with pytest.warns(UserWarning, match="no interval") as caught: found = agreement(table(a="112", b="1"))
    assert len(caught) == 1 and found["items"].eq(1).all() and found.low.isna().all() and found.value.notna().all()


@pytest.mark.parametrize("labels", [table(a="1", b="2"), table(a="1", b=".2", c="..3")])
def test_agreement_needs_two_raters(labels):
    with pytest.raises(ValueError, match="two annotators"): agreement(labels)


@pytest.mark.parametrize("change", [dict(confidence=95), dict(confidence=0), dict(resamples=0), dict(resamples=1.5)])
def test_agreement_refuses(change):
    with pytest.raises(ValueError, match=next(iter(change))): agreement(table(a="12", b="11"), **change)


# ---- self-consistency ----

def twice(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame: return pd.concat([first.assign(repeat=0), second.assign(repeat=1)])


def test_self_consistency_by_hand():
    labels = twice(table(a="12", b="12", c="21", d="31", e="44", f="1."), table(a="12", b="13", c="22", d=".1", g="1."))
    found = self_consistency(labels)
    assert found.loc["rater 0", ["repeats", "same"]].tolist() == [3, 3] and found.loc["rater 1", ["repeats", "same", "share"]].tolist() == [4, 2, 0.5]
    assert found.loc["rater 0", "kappa"] == 1 and found.loc["rater 1", "kappa"] == pytest.approx((0.5 - 0.375) / (1 - 0.375))
    z, n, p = 1.959963984540054, 4, 0.5
    centre, half = (p + z * z / 2 / n) / (1 + z * z / n), z / (1 + z * z / n) * (p * (1 - p) / n + z * z / 4 / n / n) ** 0.5
    assert found.loc["rater 1", ["low", "high"]].tolist() == pytest.approx([centre - half, centre + half])


def test_who_always_presses_1():
    with pytest.warns(UserWarning, match="'rater 0' is undefined") as caught: found = self_consistency(twice(table(a="12", b="13"), table(a="12", b="14")))
    assert len(caught) == 1 and found.share.tolist() == [1, 0.5] and found.kappa.isna().tolist() == [True, False]


def test_no_repeats_is_an_empty_table():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for labels in (table(a="12"), table(a="12").assign(repeat=1), twice(table(a="1"), table(b="1"))):
            found = self_consistency(labels)
            assert found.empty and found.columns.tolist() == ["repeats", "same", "share", "low", "high", "kappa"] and found.index.name == "annotator"


def test_self_consistency_takes_either_study():
    prior = table(a="22", b="11").replace("novel_not_creative", "garbage")
    assert self_consistency(twice(prior, prior)).share.eq(1).all()
    with pytest.raises(ValueError, match="label"): self_consistency(twice(prior, prior.replace("garbage", "nice")))
