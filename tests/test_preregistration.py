"Plans that are written when a study is made, kept with its answers, and printed beside what was done otherwise."
import csv
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from creative_nb.annotation_tool import main, new_study
from creative_nb.preregistration import Plan, Rules, as_plan, default_plan, read_plan
from creative_nb.question import QUESTIONS
from creative_nb.reader import png
from creative_nb.store import Store
from creative_nb.study import _plan_of, _planned
from creative_nb.who import pseudonymised
from people import POOL, asked, made_up


def plan(**more) -> Plan:
    usual = dict(hypotheses=["More creative."], tests=["answer_differences"], images=80, people=9, stop="All done.")
    return Plan(**usual | more)


@pytest.mark.parametrize("more", [{}, dict(minimum=1 / 3), dict(rules=Rules(answered=0.8, longest_run=9), notes="Ä")])
def test_a_plan_comes_back_as_it_was(tmp_path, more):
    one, path = plan(**more), tmp_path / "plan.json"
    one.save(path)
    one.save(path)
    assert Plan.load(path) == one and Plan.load(path).digest == one.digest == json.loads(path.read_text())["digest"]


def test_every_part_counts_in_the_hash():
    changes = [dict(hypotheses=["Less creative."]), dict(tests=["chi2"]), dict(images=81), dict(people=8),
               dict(stop="Now."), dict(minimum=4), dict(rules=Rules(others=0.5)), dict(notes="x")]
    assert len({plan().digest, *(plan(**c).digest for c in changes)}) == 9


def test_a_plan_is_not_written_over_or_edited(tmp_path):
    path = tmp_path / "plan.json"
    plan().save(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="another plan"): replace(plan(), people=5).save(path)
    assert path.read_bytes() == before
    path.write_text(path.read_text().replace('"people": 9', '"people": 5'))
    with pytest.raises(ValueError, match="edited since"): Plan.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"digest": "x"}', "{\"digest\": \"x\", \"rules\": {\"beauty\": 1}}"])
def test_other_files_are_no_plans(tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ValueError, match="path=.*expected a file of Plan.save"): Plan.load(tmp_path / "p.json")
    with pytest.raises(FileNotFoundError, match="path="): Plan.load(tmp_path / "none.json")


def test_deviations_are_told():
    rules = Rules(answered=0.5)
    found = plan().deviations({"people": 7, "images": 80, "rules": rules})
    assert [f["part"] for f in found] == ["people", "rules"]
    assert found[0]["done"] == "7" and "answered=0.5" in found[1]["done"]
    assert plan().deviations({"people": 9}) == [] == plan(images=None).deviations({"images": 80})
    with pytest.raises(ValueError, match="beauty"): plan().deviations({"beauty": 1})


@pytest.mark.parametrize("wrong", [dict(hypotheses=[]), dict(tests=[]), dict(people=0), dict(minimum=2.5),
    dict(stop=" ")])
def test_a_plan_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))): plan(**wrong)


def test_a_lab_writes_its_plan_in_yaml(tmp_path):
    text = "hypotheses: [More creative.]\ntests: [answer_differences]\npeople: 9\nstop: All done.\nimages: 80\n"
    (tmp_path / "plan.yaml").write_text(text + "rules: {answered: 0.8}\n")
    assert read_plan(tmp_path / "plan.yaml") == plan(rules=Rules(answered=0.8))
    (tmp_path / "plan.yaml").write_text(text)
    assert read_plan(tmp_path / "plan.yaml") == plan() == as_plan(plan().about)
    for wrong in ("", "- a", "people: [", text + "beauty: 1", text.replace("9", "nine"), text + "rules: {answered: 8}"):
        (tmp_path / "wrong.yaml").write_text(wrong)
        with pytest.raises(ValueError, match="path=.*wrong.yaml"): read_plan(tmp_path / "wrong.yaml")
    with pytest.raises(FileNotFoundError, match="path="): read_plan(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_has_a_plan_if_nobody_writes_one(name):
    made = default_plan(name, people=4)
    assert made.people == 4 and "4 people" in made.stop and made.rules == Rules() and made.images is None


def test_a_store_keeps_its_first_plan(tmp_path):
    store = Store(tmp_path / "s.sqlite", POOL, 2, plan=plan())
    assert store.plan == plan() == Store(tmp_path / "s.sqlite", POOL, 2, plan=plan(people=3)).plan
    assert Store(tmp_path / "other.sqlite", POOL, 2).plan is None
    assert set(pseudonymised(store).plan) <= {plan().digest}
    store.add("Ann", POOL.items[0], "creative")
    assert set(pseudonymised(store).plan) == {plan().digest}


def serve(*arguments):
    "The command line up to the moment before it serves."
    code = ("import sys, creative_nb.annotation_tool as tool; tool.serve = lambda *_, **__: print('served');"
            f"tool.main({list(map(str, arguments))!r}); print('torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout.split() or done.stderr


def test_a_served_study_is_made_with_a_plan(tmp_path):
    made_up(tmp_path)
    (tmp_path / "labels.sqlite").unlink()
    pool, store = tmp_path / "pool.safetensors", tmp_path / "labels.sqlite"
    assert serve("serve", pool, store, "--create", "--no-browser") == ["served", "False"]  # without PyTorch
    assert Store(store).plan == default_plan("main") == Plan.load(tmp_path / "plan.json")
    written = tmp_path / "plan.yaml"
    written.write_text("hypotheses: [a]\ntests: [b]\npeople: 9\nstop: c\n")
    assert "expected that of the store" in serve("serve", pool, store, "--plan", written)
    assert "another plan is there" in serve("serve", pool, tmp_path / "s.sqlite", "--create", "--plan", written)
    assert not (tmp_path / "s.sqlite").exists()
    (tmp_path / "plan.json").unlink()
    assert serve("serve", pool, tmp_path / "s.sqlite", "--create", "--plan", written)[0] == "served"
    assert Store(tmp_path / "s.sqlite").plan == read_plan(written) == Plan.load(tmp_path / "plan.json")
    assert serve("serve", pool, tmp_path / "s.sqlite", "--create", "--plan", written)[0] == "served"
    assert serve("serve", pool, tmp_path / "t.sqlite", "--create")[0] == "served"  # by the plan beside it
    assert Store(tmp_path / "t.sqlite").plan == read_plan(written)


def test_a_study_of_ones_own_pictures_has_a_plan(tmp_path):
    for method in ("a", "b"):
        (tmp_path / "pictures" / method).mkdir(parents=True)
        for i in range(3 if method == "a" else 2):
            pixels = torch.randint(256, (1, 6, 6), dtype=torch.uint8)
            (tmp_path / "pictures" / method / f"{i}.png").write_bytes(png(pixels))
    new_study(tmp_path / "pictures", tmp_path / "study")
    assert Store(tmp_path / "study/labels.sqlite").plan == default_plan("main", images=2)
    assert Plan.load(tmp_path / "study/plan.json").images == 2
    (tmp_path / "own.json").write_text(json.dumps(plan().about))
    main(["new", str(tmp_path / "pictures"), str(tmp_path / "planned"), "--plan", str(tmp_path / "own.json")])
    assert Store(tmp_path / "planned/labels.sqlite").plan == plan()
    with pytest.raises(SystemExit, match="none.yaml"):
        main(["new", str(tmp_path / "pictures"), str(tmp_path / "x"), "--plan", str(tmp_path / "none.yaml")])
    assert not (tmp_path / "x").exists()


def test_the_plan_of_a_paper_counts_the_images_of_the_pool(tmp_path):
    class Job: source = tmp_path / "06_pool.ipynb"
    rows = [("a", 0)] * 3 + [("b", 0)] * 2 + [("b", 1)] * 4
    with (tmp_path / "manifest.csv").open("w") as f: csv.writer(f).writerows([("method", "creativity_filter"), *rows])
    assert _planned(_plan_of(Job), tmp_path / "manifest.csv") == default_plan("main", images=2)
    plan(images=None).save(tmp_path / "kept.json")
    (tmp_path / "plan.yaml").write_text((tmp_path / "kept.json").read_text())
    assert _planned(_plan_of(Job), tmp_path / "manifest.csv") == plan(images=2)
    with pytest.raises(ValueError, match="images=327 of the plan: expected at most 2"):
        _planned(plan(images=327), tmp_path / "manifest.csv")


def test_a_table_tells_the_side_and_the_place(tmp_path):
    _, store = asked(tmp_path, QUESTIONS["diversity"], n=8, repeats=2)
    for item, again in store.order("Ann")[:6]: store.add("Ann", item, "first_clearly", again)
    table, places = store.read(), {(i, r): (n + 1, s) for n, (i, r, s) in enumerate(store.showings("Ann"))}
    assert len(table) == 6 and set(table.side) == {0, 1}
    for row in table.itertuples(): assert (row.position, row.side) == places[row.item, row.repeat]
