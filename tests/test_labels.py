"Tables of labels: round trips through every kind of file, and what is refused."
import json, tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.request import urlopen

import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from creative_nb.labels import check_labels, label_studio_config, label_studio_tasks, read_labels, write_labels
from creative_nb.pool import Pool
from creative_nb.question import options_of
from creative_nb.store import LABEL_COLUMNS, Store
from people import POOL, label_tables, make_pool, table

some = settings(max_examples=20, deadline=None)


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
        images, none = (torch.zeros(n, 1, 2, 2, dtype=torch.uint8) for n in (7, 0))
        pool = Pool(images, ("a", *POOL.items[:6]), none, "x")
        store = Store(Path(folder) / "l.sqlite", pool, repeats=len(pool.items))
        for r in labels.itertuples(): store.add(r.annotator, r.item, r.label, r.repeat, r.seconds)
        back = read_labels(store.path, pool=pool)
        drawn = ["time", "position", "side"]
        pd.testing.assert_frame_equal(in_order(back, *drawn), in_order(labels, *drawn))
        assert back.position.between(0, 14).all() and (back.side == 0).all()
        assert (pd.to_datetime(back.time).dt.tz is not None) and back.time.str.endswith("+00:00").all()
        write_labels(back, Path(folder) / "l.csv")
        pd.testing.assert_frame_equal(read_labels(Path(folder) / "l.csv", pool=pool), back)


def export(labels: pd.DataFrame, name) -> list[dict]:
    "Tasks as Label Studio exports them."
    result = lambda label: [{"type": "choices", "from_name": "label", "to_name": "image",
                             "value": {"choices": [name(label)]}}]
    annotation = lambda n, r: {"completed_by": {"id": n, "email": r.annotator}, "result": result(r.label),
                               "was_cancelled": False, "lead_time": None if r.seconds != r.seconds else r.seconds}
    return [{"id": n, "data": {"image": "data:", "item": item, "repeat": repeat}, "predictions": [],
             "annotations": [annotation(n, r) for r in rows.itertuples()]}
            for n, ((item, repeat), rows) in enumerate(labels.groupby(["item", "repeat"]))]


def minimal(tasks: list[dict]) -> list[dict]:
    answer = lambda a: {"id": 1, "annotation_id": 2, "annotator": a["completed_by"], "lead_time": a["lead_time"],
                        "label": a["result"][0]["value"]["choices"][0]}
    return [task["data"] | answer(a) for task in tasks for a in task["annotations"]]


@some
@given(label_tables(), st.booleans(), st.booleans())
def test_round_trip_label_studio(labels, small, alias):
    tasks = export(labels, (lambda k: k) if alias else lambda k: options_of("main")[k].text)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "e.json").write_text(json.dumps(minimal(tasks) if small else tasks))
        pd.testing.assert_frame_equal(in_order(read_labels(Path(folder) / "e.json")), in_order(labels))


def read_json(tmp_path, content, **more) -> pd.DataFrame:
    (tmp_path / "e.json").write_text(json.dumps(content))
    return read_labels(tmp_path / "e.json", **more)


def test_label_studio_annotators(tmp_path):
    choice = {"type": "choices", "value": {"choices": ["creative"]}}
    one = lambda who: [{"data": {"item": "a"}, "annotations": [{**who, "result": [choice]}]}]
    for who, name in (({"completed_by": 3}, "3"), ({"completed_by": {"email": "Ann@x.org"}}, "ann@x.org"),
                      ({"completed_by": {"id": 4}}, "4"), ({}, "unknown"),
                      ({"completed_by": None}, "unknown")):
        assert read_json(tmp_path, one(who)).annotator.tolist() == [name]
    for who, name in (({"annotator": 3}, "3"), ({"annotator": {"id": 4, "email": "b@x"}}, "b@x"), ({}, "unknown")):
        assert read_json(tmp_path, [{"item": "a", "label": "Creative", **who}]).annotator.tolist() == [name]


def test_label_studio_leaves_out_what_is_no_answer(tmp_path):
    choice = lambda *c: [{"type": "choices", "value": {"choices": list(c)}}]
    annotations = [{"completed_by": 1, "result": choice("creative")},
                   {"completed_by": 2, "was_cancelled": True, "result": choice("creative")},
                   {"completed_by": 3, "result": [{"type": "textarea", "value": {"text": ["hm"]}}]},
                   {"completed_by": 4, "result": []}]
    tasks = [{"data": {"item": "a"}, "annotations": annotations}, {"data": {"item": "b"}, "annotations": []}]
    assert read_json(tmp_path, tasks)[["annotator", "item"]].values.tolist() == [["1", "a"]]
    tasks[1]["annotations"] = [{"completed_by": 1, "result": choice("creative", "inconclusive")}]
    with pytest.raises(ValueError, match="at once"): read_json(tmp_path, tasks)
    both = [{"item": "a", "label": {"choices": ["Creative", "Cannot decide"]}}]
    with pytest.raises(ValueError, match="at once"): read_json(tmp_path, both)
    with pytest.raises(ValueError, match="nice"): read_json(tmp_path, [{"item": "a", "label": "nice"}])
    with pytest.raises(ValueError, match="item"): read_json(tmp_path, [{"label": "Creative"}])
    with pytest.raises(ValueError, match="has two"): read_json(tmp_path, [{"item": "a", "label": "Creative"}] * 2)
    garbage = read_json(tmp_path, [{"item": "a", "label": "Garbage"}], questionnaire="earlier")
    assert garbage.label.tolist() == ["garbage"]


VALUES = st.sampled_from(["creative", "a", "2026-01-01T00:00:00Z", ""])
FIELDS = st.sampled_from(["item", "label", "data", "annotations", "result", "type", "value", "choices", "annotator",
                          "completed_by", "updated_at"])
JSON = st.recursive(st.none() | st.booleans() | st.integers() | VALUES,
                    lambda x: st.lists(x, max_size=3) | st.dictionaries(FIELDS, x, max_size=5), max_leaves=15)


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_any_json_is_labels_or_a_clear_error(content):
    with tempfile.TemporaryDirectory() as folder:
        try: assert len(read_json(Path(folder), content)) > 0
        except ValueError as e: assert "e.json" in str(e)


@pytest.mark.parametrize("questionnaire", ["main", "earlier"])
def test_label_studio_config_and_tasks(questionnaire):
    pool, _ = make_pool(3, questionnaire=questionnaire)
    view = ET.fromstring(label_studio_config(pool))
    choices = view.findall("Choices/Choice")
    told = [(k, options_of(questionnaire)[k].text, str(i)) for i, k in enumerate(pool.labels, 1)]
    assert [(c.get("alias"), c.get("value"), c.get("hotkey")) for c in choices] == told
    assert view.find("Choices").get("toName") == view.find("Image").get("name")
    assert view.find("Image").get("value") == "$image"
    for image, item, task in zip(pool.images, pool.items, label_studio_tasks(pool)):
        shown = np.asarray(Image.open(urlopen(task["data"]["image"])))
        assert task["data"]["item"] == item and shown.shape == (46 * 6, 46 * 5)
        assert (shown[::46, ::46] == image[0].numpy()).all()


@pytest.mark.parametrize("change, words", [
    (lambda t: t.drop(columns="label"), "no column label"), (lambda t: t[:0], "at least one row"),
    (lambda t: pd.concat([t, t[:1]]), "has two"),
    (lambda t: pd.concat([t, t[:1].assign(annotator="RATER  0")]), "has two"),
    (lambda t: t.assign(label="Creative"), "label='Creative' in row 0"), (lambda t: t.assign(repeat=2), "repeat=2 "),
    (lambda t: t.assign(repeat="x"), "repeat"), (lambda t: t.assign(repeat=0.5), "repeat"),
    (lambda t: t.assign(seconds=-1), "seconds"), (lambda t: t.assign(item=None), "item"),
    (lambda t: t.assign(item=" "), "item"), (lambda t: t.assign(annotator=""), "annotator"),
    (lambda t: t.assign(annotator=np.nan), "annotator"),
    (lambda t: t.to_dict(), "labels="), (lambda t: None, "labels="),
    (lambda t: t.assign(seconds=np.inf), "seconds"), (lambda t: t.assign(seconds="long"), "seconds='long'"),
    (lambda t: pd.concat([t, t[["label"]]], axis=1), "two columns label")])
def test_check_labels_refuses(change, words):
    with pytest.raises((TypeError, ValueError), match=words): check_labels(change(table(a="12", b="31")))


def test_check_labels_returns_a_clean_copy():
    rough = table(a="12").assign(annotator=["Ann ", 7], item=" a ", seconds=["", "2.5"], comment="x")
    rough = rough.set_index("comment")
    before = rough.copy()
    clean = check_labels(rough, items=("a",))
    pd.testing.assert_frame_equal(rough, before)
    assert clean.columns.tolist() == list(LABEL_COLUMNS)
    assert clean.annotator.tolist() == ["ann", "7"] and clean["item"].tolist() == ["a", "a"]
    assert clean.seconds.isna().tolist() == [True, False]
    assert clean["repeat"].tolist() == [0, 0] and clean.time.tolist() == ["", ""]
    pd.testing.assert_frame_equal(check_labels(clean), clean)


def test_read_labels_refuses(tmp_path):
    with pytest.raises(FileNotFoundError): read_labels(tmp_path / "none.csv")
    (tmp_path / "l.xlsx").write_text("")
    with pytest.raises(ValueError, match="ends in"): read_labels(tmp_path / "l.xlsx")
    for name, content in (("empty.csv", ""), ("binary.csv", "\0\xff"), ("broken.json", "[{"),
                          ("text.sqlite", "x" * 200)):
        (tmp_path / name).write_bytes(content.encode("latin-1"))
        with pytest.raises(ValueError, match=name): read_labels(tmp_path / name)
    store = Store(tmp_path / "s.sqlite", POOL, repeats=0)
    store.add("Ann", POOL.items[0], "creative")
    with pytest.raises(ValueError, match="questionnaire"): read_labels(store.path, "earlier")
    with pytest.raises(ValueError, match="another pool"): read_labels(store.path, pool=make_pool(5)[0])
    with pytest.raises(ValueError, match="questionnaire"): read_labels(store.path, "earlier", pool=POOL)


def test_a_spreadsheet_may_have_written_it(tmp_path):
    text = "\ufeffannotator,item,label\r\nZoë,001,creative\r\n\"NA\",1e5,inconclusive\r\n"
    (tmp_path / "l.csv").write_bytes(text.encode())
    labels = read_labels(tmp_path / "l.csv")
    assert labels.annotator.tolist() == ["zoë", "na"] and labels["item"].tolist() == ["001", "1e5"]


ROW = "annotator,item,label\nann,a1,creative\n"


@pytest.mark.parametrize("name, text", [
    ("L.CSV", ROW), ("mark.csv", "\ufeff" + ROW), ("empty.csv", ROW + ",,\nbob,a1,creative\n , ,\n"),
    ("semicolon.csv", "annotator;item;label;seconds\nann;a1;creative;2,5\n"), ("tab.csv", ROW.replace(",", "\t")),
    ("sep.csv", "sep=;\n" + ROW.replace(",", ";")), ("columns.csv", "annotator,item,label,,\nann,a1,creative,,\n"),
    ("case.csv", "Annotator, Item ,LABEL\nann,a1,creative\n"), ("seen.csv", ROW.replace("creative", "Creative")),
    ("studio.csv", "id,annotator,item,label,lead_time\n1,ann,a1,Creative,2.5\n")])
def test_csv_as_other_programs_write_it(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    labels = read_labels(tmp_path / name)
    assert labels.label.eq("creative").all() and labels["item"].eq("a1").all() and labels.annotator[0] == "ann"
    assert len(labels) == (2 if name == "empty.csv" else 1)
    if name in ("semicolon.csv", "studio.csv"): assert labels.seconds.tolist() == [2.5]


def test_csv_in_utf_16(tmp_path):
    (tmp_path / "l.csv").write_text(ROW.replace(",", "\t").replace("ann\t", "zoë\t"), encoding="utf-16")
    assert read_labels(tmp_path / "l.csv").annotator.tolist() == ["zoë"]


@pytest.mark.parametrize("text, said", [
    (ROW.encode() + b"\0", "zero bytes"), (ROW.replace("ann,", "zoë,").encode("latin-1"), "UTF-8"),
    (b'annotator,item,label\n"ann,a1,creative\n', "expected rows"), (b",,\n,,\n", "no column annotator")])
def test_csv_that_is_none(tmp_path, text, said):
    (tmp_path / "l.csv").write_bytes(text)
    with pytest.raises(ValueError, match=f"source=.*l.csv.*{said}"): read_labels(tmp_path / "l.csv")


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "@ann", "-5", "+1", "'=x", "'@", "o'neill", "007"])
def test_names_that_a_spreadsheet_would_compute(tmp_path, name):
    labels = check_labels(table(a="1").assign(annotator=name))
    write_labels(labels, tmp_path / "l.csv")
    cell = (tmp_path / "l.csv").read_text().splitlines()[1].split(",")[0]
    assert cell[0] not in "=+-@" and read_labels(tmp_path / "l.csv").annotator.tolist() == [name.casefold()]


def choice(text: str, control: str = "label") -> dict:
    return {"type": "choices", "from_name": control, "to_name": "image", "value": {"choices": [text]}}


def test_a_second_question_is_none_of_ours(tmp_path):
    answer = lambda *results: {"completed_by": 1, "result": list(results)}
    sure = choice("sure", "confidence")
    tasks = [{"data": {"item": item}, "annotations": [answer(*results)]} for item, results in
             (("a", (choice("creative"), sure)), ("b", (sure, choice("Creative"))), ("c", (sure,)))]
    labels = read_json(tmp_path, tasks)
    assert labels["item"].tolist() == ["a", "b"] and labels.label.eq("creative").all()
    with pytest.raises(ValueError, match="control 'label', got none"): read_json(tmp_path, tasks[2:])


def test_an_export_of_an_old_label_studio(tmp_path):
    done = {"result": [choice("creative")], "created_at": 1600000000, "lead_time": 2}
    task = {"id": 1, "data": {"item": "a"}, "completions": [done, {"result": [], "skipped": True}]}
    row = read_json(tmp_path, [task]).iloc[0]
    assert (row["item"], row.label, row.time) == ("a", "creative", "2020-09-13T12:26:40.000+00:00")
    task["completions"][0]["created_at"] = 1600000000000
    assert read_json(tmp_path, [task]).time[0] == row.time


@pytest.mark.parametrize("text, said", [
    ("\ufeff[", "expected JSON"), ("[" * 100_000, "expected JSON"), ("1" * 6000, "expected"), ("null", "expected"),
    ("[1, 2]", "expected"), ('[{"item": ["a"], "label": "creative"}]', "no text"),
    ('[{"item": "a", "label": 3}]', "expected"), ('[{"item": "a", "label": {"choices": [3]}}]', "no text")])
def test_json_that_is_no_export(tmp_path, text, said):
    (tmp_path / "e.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"source=.*e.json.*{said}"): read_labels(tmp_path / "e.json")


def test_json_with_a_mark_and_a_large_suffix(tmp_path):
    content = json.dumps([{"item": 7, "label": "Creative", "annotator": 1}])
    (tmp_path / "E.JSON").write_text("\ufeff" + content, encoding="utf-8")
    assert read_labels(tmp_path / "E.JSON")["item"].tolist() == ["7"]


@pytest.mark.parametrize("call", [
    lambda: read_labels(None), lambda: read_labels("x.csv", 3), lambda: read_labels("x.csv", "main", "pool"),
    lambda: write_labels(None, "x.csv"), lambda: write_labels(table(a="1"), None), lambda: label_studio_tasks(None),
    lambda: label_studio_config("pool"), lambda: check_labels(table(a="1"), items="a")])
def test_arguments_of_another_type(call):
    with pytest.raises(TypeError, match="=.*: expected"): call()
