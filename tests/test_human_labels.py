"""From a pool to tables of labels.

Blinding, reproduction, names that say whose labels they are, and the same tables by another way."""
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from creative_nb.agreement import consensus
from creative_nb.claims import NEEDS_PEOPLE, SIMULATED, Evidence, claims_table
from creative_nb.das2020 import human_labels
from creative_nb.das2020.annotation_pool import chosen, image_metrics, passing, pool_path, reference_images
from creative_nb.das2020.claims import CLAIMS
from creative_nb.das2020.human_labels import (OTHER, PRINTED_STUDIES, LabelledPool, fractions_table, labelled_pools,
                                              read_labelled, read_manifest, with_printed)
from creative_nb.das2020.labels_vs_metrics import (creativity_facts, cross_validated, model_differences, table2_metrics,
                                                   three_classes)
from creative_nb.das2020.report import Report, all_tests
from creative_nb.das2020.samples import fit_filter
from creative_nb.das2020.study_report import flow
from creative_nb.experiment import Run
from creative_nb.creativity import cross_validate_creativity
from creative_nb.judgement import compare_methods, label_table, metric_table
from creative_nb.labels import write_labels
from creative_nb.panel import Panel, printed_population
from creative_nb.preregistration import Plan, Rules
from creative_nb.pool import Pool, blind
from creative_nb.question import options_of
from creative_nb.runs import read_table, save_table
from creative_nb.store import Store

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("low-active", "noisy", "random-off", "regular")
DATASETS = ["mnist", "fmnist"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    "A run on the small digits, with tiny networks of its own."
    folder = tmp_path_factory.mktemp("small")
    change = {"vae": {"hidden": [64, 32], "latent": 8, "epochs": 3}, "classifier": {"epochs": 1},
              "artifacts": str(folder / "artifacts"), "checkpoints": ""}
    return Run("das2020", "digits", "smoke", change, str(folder / "out"))


@pytest.fixture(scope="module")
def creativity(small): return fit_filter(small, 300)


def test_every_image_of_the_pool_can_be_made_again(small, creativity):
    images, rows = chosen(small, creativity, "low-active", plain=8, filtered=4, draws=40)
    assert len(images) == len(rows) == 12
    again = small.sample("low-active", 40, 5, int(rows.seed.iloc[0]))
    assert torch.equal(images, again[rows["index"].tolist()])
    pd.testing.assert_frame_equal(image_metrics(small, images)[["recon_distance"]], rows[["recon_distance"]], rtol=1e-5)


def test_filtered_images_pass_and_methods_share_no_latents(small, creativity):
    tables = {m: chosen(small, creativity, m, plain=5, filtered=5, draws=60)[1] for m in METHODS}
    for rows in tables.values():
        kept = rows[rows.creativity_filter == 1]
        assert passing(creativity, kept).all() and (kept["index"] >= 5).all()
        assert rows["index"].is_unique and len(rows) == 10
    assert len({rows.seed.iloc[0] for rows in tables.values()}) == len(METHODS)
    with pytest.raises(ValueError, match="draws=9"):
        chosen(small, creativity, "random-off", plain=5, filtered=5, draws=9)
    for wrong in (dict(plain=-5), dict(filtered=-1), dict(draws=1.5), dict(n=0), dict(plain=0, filtered=0)):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            chosen(small, creativity, "low-active", **dict(plain=5, filtered=5, draws=60) | wrong)
    with pytest.raises(ValueError, match="n=-5"): reference_images(small, -5)


@pytest.fixture
def root(tmp_path, monkeypatch):
    "A checkout in which two runs hold pools of made-up images."
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "settings.ini", tmp_path)
    for folder in ("nbs", "data/published"): (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    for dataset in DATASETS:
        run, panel = run_on(dataset), Panel(PRINTED_STUDIES["earlier"], "main", dataset)
        about = {"dataset": dataset, "creativity_filter": [0] * 30 + [1] * 10, "seed": 0, "index": range(40),
                 "n_neurons": 5}
        parts = [printed_population(panel, 40, i).assign(method=m, **about) for i, m in enumerate(METHODS)]
        rows = pd.concat(parts, ignore_index=True).drop(columns=["item", "kind"])
        pool, manifest = blind(torch.rand(len(rows), 1, 4, 4), rows, torch.rand(3, 1, 4, 4), dataset, "main", 0)
        pool.save(pool_path(run))
        save_table(manifest, run.table_path("annotation_pool"), {"data_hash": "abc", "pool": pool.digest})
    return tmp_path


def run_on(dataset="mnist"): return Run("das2020", dataset, "smoke")


def labelled(labels="simulated", dataset="mnist", **more): return LabelledPool(run_on(dataset), str(labels), **more)


def as_people(answers): return answers.assign(annotator=answers.annotator.str.replace("simulated", "person"))


def test_results_stay_in_the_checkout_of_the_test(root):
    assert run_on().out == root / "runs/smoke/das2020/mnist"


def test_the_word_simulated_stands_on_all_that_the_panel_touches(root):
    s = labelled()
    path = s.save_table(fractions_table(s), "table4")
    assert path.name == "table4_simulated.csv" and path.parent == s.run.out / "tables"
    columns, about = list(pd.read_csv(path)), json.loads(path.with_suffix(".json").read_text())
    assert {"creative_simulated", "creative_low_simulated", "agreed_simulated"} <= set(columns)
    assert {"dataset", "method", "images", "recon_distance"} <= set(columns)
    assert not set(columns) & {"creative", "agreed", "tie", "inconclusive_high"}
    assert about["labels"] == "simulated panel" and about["panel"]["dataset"] == "mnist" and about["annotators"] == 9
    assert about["questionnaire"] == "main" and about["panel"]["calibration"]["questionnaire"] == "earlier"
    assert "simulated" in s.caption and all("simulated" in a for a in s.answers.annotator)
    table, source = read_labelled(s.run.out / "tables", "table4")
    assert source == "simulated" and list(table) == list(fractions_table(s))


@pytest.mark.parametrize("questionnaire, annotators", [("main", 9), ("earlier", 10)])
@pytest.mark.parametrize("dataset", DATASETS)
def test_the_panel_answers_one_study_and_is_calibrated_to_the_other(root, questionnaire, annotators, dataset):
    s = labelled(dataset=dataset, questionnaire=questionnaire)
    assert s.panel == Panel(PRINTED_STUDIES[OTHER[questionnaire]], questionnaire, dataset, annotators)
    assert s.answers.annotator.nunique() == annotators and set(s.answers.label) <= set(options_of(questionnaire))


def test_a_data_set_that_is_not_in_print_has_the_panel_of_mnist(root):
    s, mnist = labelled(dataset="digits"), labelled()
    renamed = mnist.manifest.rename(columns={"ice_mnist": "ice_digits"}).assign(dataset="digits")
    save_table(renamed, s.run.table_path("annotation_pool"), {"training_images": 27_500})
    assert s.panel == Panel(PRINTED_STUDIES["earlier"], "main", "mnist", 9, training_images=27_500)
    halved = mnist.manifest.assign(in_domain_score=2 * mnist.manifest.in_domain_score)
    pd.testing.assert_frame_equal(s.answers, mnist.panel.annotate(halved))


def test_a_store_and_a_csv_give_the_same_tables_as_labels_counted_by_hand(root):
    simulated = labelled()
    names = {"simulated 1": "Ann", "simulated 2": "Bo", "simulated 3": "Cy"}
    answers = simulated.answers[simulated.answers.annotator.isin(names)].replace({"annotator": names})
    write_labels(answers, root / "labels.csv")
    pool = Pool.load(pool_path(run_on()))
    store = Store(root / "labels.sqlite", pool, repeats=0)
    for r in answers[answers.repeat == 0].itertuples(): store.add(r.annotator, r.item, r.label)
    by_csv, by_store = (labelled(root / f"labels.{kind}") for kind in ("csv", "sqlite"))
    a, b = fractions_table(by_csv), fractions_table(by_store)
    pd.testing.assert_frame_equal(a, b)
    first = answers[answers.repeat == 0]
    votes = first.groupby("item").label.agg(lambda v: v.iloc[0] if v.nunique() == 1 else "")
    plain = by_csv.manifest.query("creativity_filter == 0").assign(label=lambda t: t.item.map(votes))
    for r in a.itertuples():
        seen = plain[(plain.method == r.method) & (plain.label != "")].label
        assert r.agreed == len(seen)
        assert r.creative == pytest.approx((seen == "creative").mean()) if len(seen) else np.isnan(r.creative)
    path = by_csv.save_table(a, "table4")
    assert path.name == "table4_people.csv" and list(pd.read_csv(path)) == list(a)
    about = json.loads(path.with_suffix(".json").read_text())
    assert about["labels"] == "people" and about["labels_file"] == "labels.csv"
    assert str(root) not in json.dumps(about["labels_file"])


def test_tables_of_people_come_before_simulated_ones(root):
    s = labelled()
    s.save_table(fractions_table(s), "table4")
    write_labels(as_people(s.answers), root / "people.csv")
    p = labelled(root / "people.csv")
    p.save_table(fractions_table(p), "table4")
    tables = s.run.out / "tables"
    assert read_labelled(tables, "table4")[1] == "people"
    with pytest.raises(FileNotFoundError, match="no table8 in .*mnist/tables"): read_labelled(tables, "table8")


def test_labels_of_other_images_are_refused(root):
    answers = labelled().answers.assign(item="elsewhere").drop_duplicates(["annotator", "item", "repeat"])
    write_labels(answers, root / "other.csv")
    with pytest.raises(ValueError, match="elsewhere"): _ = labelled(root / "other.csv").consensus


def test_people_are_asked_in_one_study_the_panel_in_both(root):
    assert list(labelled_pools(run_on(), "simulated")) == ["main", "earlier"]
    assert list(labelled_pools(run_on(), "x.csv", "earlier")) == ["earlier"]


def test_images_that_nobody_saw_are_left_out(root):
    s = labelled()
    seen = s.manifest.item[:50]
    write_labels(s.answers[s.answers.item.isin(seen)], root / "few.csv")
    judged = labelled(root / "few.csv").consensus
    assert set(judged.item) == set(seen)


def save_all():
    for d in DATASETS:
        for questionnaire, s in labelled_pools(run_on(d)).items():
            if questionnaire == "main":
                table = fractions_table(s)
                for name in ("table1", "table4"): s.save_table(table, name)
                s.save_table(metric_table(s.consensus, s.names, table2_metrics(s.manifest)), "table2")
                s.save_table(compare_methods(s.consensus.query("creativity_filter == 0"), s.names), "tests")
            else:
                by_filter = ["dataset", "method", "creativity_filter"]
                s.save_table(label_table(s.consensus, s.names, by_filter), "table8")
                s.save_table(metric_table(s.consensus, s.names, table2_metrics(s.manifest)), "table9")


def test_tests_over_all_data_sets_are_those_of_the_counts(root):
    save_all()
    report = Report("das2020", DATASETS, "smoke")
    tables = report.labelled("table4")
    assert list(tables) == ["simulated"] and (report.out / "tables" / "table4_human_labels_simulated.csv").is_file()
    tests = all_tests(tables["simulated"], list(options_of("main")))
    assert len(tests) == 6
    for r in tests.itertuples():
        s = labelled(dataset=r.dataset)
        plain = s.manifest.query("creativity_filter == 0").join(consensus(s.answers), on="item")
        methods = ("low-active", r.baseline)
        counts = np.array([[(plain[plain.method == m].consensus == k).sum() for k in s.names] for m in methods])
        counts = counts[:, counts.any(0)]
        expected = stats.chi2_contingency(counts, correction=False)
        assert r.chi2 == pytest.approx(expected.statistic)
        assert r.p_from != "asymptotic" or r.p_chi2 == pytest.approx(expected.pvalue)
        assert r.p_chi2_adjusted >= r.p_chi2


def test_claims_about_people_say_what_they_rest_on(root):
    before = claims_table(CLAIMS, Evidence("das2020", DATASETS, "smoke"))
    save_all()
    evidence = Evidence("das2020", DATASETS, "smoke")
    after = claims_table(CLAIMS, evidence)
    assert not before.verdict.isin(SIMULATED.values()).any()
    changed = before.verdict != after.verdict
    assert changed.sum() > 15 and (before.verdict[changed] == NEEDS_PEOPLE).all()
    assert after.verdict[changed].isin(SIMULATED.values()).all()
    assert any("simulated" in name for name in evidence.parts())


def test_facts_of_the_classifier_are_those_of_its_summary(root):
    s = labelled()
    summary = cross_validate_creativity(s.consensus, table2_metrics(s.manifest), folds=3, repeats=1).summary
    facts = creativity_facts(summary, "mnist").set_index("fact").value
    accuracy = summary[summary.measure == "accuracy"].set_index("model")["mean"]
    single = [v for k, v in accuracy.items() if k not in ("all metrics", "majority")]
    assert facts.creativity_classifier_accuracy == accuracy["all metrics"]
    assert facts.creativity_classifier_majority == accuracy["majority"]
    assert facts.creativity_classifier_best_single_metric == max(single)


def test_the_classifier_is_also_judged_without_filtered_images(root, capsys):
    s, settings = labelled(), dict(folds=3, repeats=1, seed=0)
    found, plain = cross_validated(s, ["in_domain_score"], **settings), s.consensus.query("creativity_filter == 0")
    assert list(found) == ["all images", "without filtered images"]
    assert set(found["without filtered images"].probabilities.row) == set(plain.index[plain.consensus != ""])
    expected = cross_validate_creativity(plain, ["in_domain_score"], **settings).summary
    pd.testing.assert_frame_equal(found["without filtered images"].summary, expected)
    judged = s.consensus
    no_more = (judged.creativity_filter == 0) & (judged.consensus == "creative")
    s.consensus = judged.assign(consensus=judged.consensus.mask(no_more, "inconclusive"))
    assert "without filtered images" not in cross_validated(s, ["in_domain_score"], **settings)
    assert "without filtered images: 0 of" in capsys.readouterr().out


def test_the_manifest_beside_the_labels_is_the_one_they_belong_to(root):
    s, folder = labelled(), root / "annotations"
    write_labels(as_people(s.answers), folder / "labels.csv")
    s.manifest.assign(method="of this study").to_csv(folder / "manifest.csv", index=False)
    beside = labelled(folder / "labels.csv")
    of_run = labelled(folder / "labels.csv", manifest_file=str(s.run.table_path("annotation_pool")))
    assert set(beside.consensus.method) == {"of this study"} and set(of_run.consensus.method) == set(METHODS)


def test_simulated_answers_in_a_file_are_still_simulated(root):
    s = labelled()
    write_labels(s.answers, root / "panel.csv")
    again = labelled(root / "panel.csv")
    assert again.simulated and again.caption == "simulated panel" and again.name("table4").endswith("simulated")
    pd.testing.assert_frame_equal(fractions_table(again), fractions_table(s))
    mixed = s.answers.assign(annotator=s.answers.annotator.replace("simulated 1", "Ann"))
    write_labels(mixed, root / "mixed.csv")
    with pytest.raises(ValueError, match="answers of both"): _ = labelled(root / "mixed.csv").simulated


def test_a_manifest_of_another_data_set_or_pool_is_refused(root):
    with pytest.raises(ValueError, match="dataset='mnist'.*of fmnist"):
        _ = labelled(manifest_file=str(run_on("fmnist").table_path("annotation_pool"))).manifest
    pool = Pool.load(pool_path(run_on()))
    rows = pd.DataFrame({"method": ["a"] * 20})
    other, _ = blind(torch.rand(20, 1, 4, 4), rows, torch.rand(3, 1, 4, 4), "mnist", "main", 1)
    store = Store(root / "other.sqlite", other, repeats=0)
    store.add("Ann", other.items[0], "creative")
    with pytest.raises(ValueError, match="another pool"): _ = labelled(root / "other.sqlite").manifest
    assert pool.digest != other.digest


def test_every_table_of_the_report_says_simulated_where_it_rests_on_labels(root):
    save_all()
    report = Report("das2020", DATASETS, "smoke")
    names = {"table2": "table2_labels_vs_metrics", "table9": "table9_labels_vs_metrics", "tests": "tests"}
    for table, name in names.items():
        report.labelled(table)
        path = report.out / "tables" / f"{name}_simulated.csv"
        columns = set(pd.read_csv(path))
        assert columns and all(c in human_labels.KEYS or c.endswith("_simulated") for c in columns)
        assert set(json.loads(path.with_suffix(".json").read_text())["parts"]) == set(DATASETS)
        assert set(read_table(path).dataset) == set(DATASETS)


def test_tables_of_the_earlier_study_do_not_replace_those_of_the_later(root):
    main, earlier = labelled(), labelled(questionnaire="earlier")
    assert main.name("tests") != earlier.name("tests") and earlier.name("table8") == "table8_simulated"


def test_one_annotator_has_no_agreement_and_no_consensus(root):
    s = labelled()
    one = s.answers[s.answers.annotator == "simulated 1"].assign(annotator="Ann")
    write_labels(one, root / "one.csv")
    alone = labelled(root / "one.csv")
    assert list(human_labels.agreement_table(alone).statistic) == ["self_consistency"]
    assert (alone.consensus.status == "too few").all()
    table = fractions_table(alone)
    assert table.creative.isna().all() and not len(all_tests(table.assign(dataset="mnist"), list(alone.names)))


def test_one_annotator_who_has_just_begun(root):
    s = labelled()
    first = s.answers.query("annotator == 'simulated 1' and repeat == 0").head(3)
    write_labels(first.assign(annotator="Ann"), root / "few.csv")
    begun = labelled(root / "few.csv")
    table = human_labels.agreement_table(begun)
    assert not len(table) and "statistic" in table
    assert begun.caption == "labels of 1 person" and len(begun.consensus) == 3


def test_names_that_look_like_numbers_stay_names(root):
    s, folder = labelled(), root / "annotations"
    numbers = {m: f"00{i}" for i, m in enumerate(METHODS)} | {i: f"{n:03}" for n, i in enumerate(s.manifest["item"])}
    manifest = s.manifest.replace({"method": numbers, "item": numbers}).assign(dataset="007")
    write_labels(as_people(s.answers).replace({"item": numbers}), folder / "labels.csv")
    manifest.to_csv(folder / "manifest.csv", index=False)
    own = read_manifest(folder / "manifest.csv")
    assert own.method.tolist() == manifest.method.tolist() and set(own.dataset) == {"007"}
    run = run_on()
    run.setting = replace(run.setting, dataset="007")
    table = fractions_table(LabelledPool(run, folder / "labels.csv", manifest_file=folder / "manifest.csv"))
    assert set(table.method) == set(numbers[m] for m in METHODS) and table.agreed.sum() > 20


def test_a_manifest_that_is_none(root):
    (root / "m.csv").write_text("item,dataset,method,creativity_filter\na,x,y,0\na,x,y,0\n")
    with pytest.raises(ValueError, match="item of its own"): read_manifest(root / "m.csv")
    (root / "m.csv").write_text("item,dataset\na,x\n")
    with pytest.raises(ValueError, match="no column method"): read_manifest(root / "m.csv")
    with pytest.raises(FileNotFoundError, match="path="): read_manifest(root / "none.csv")


def test_names_cannot_become_part_of_a_page(root):
    s, evil = labelled(), "<img src=x onerror=alert(1)>"
    table = fractions_table(s).replace({"method": {"regular": evil}})
    pages = [with_printed(s, table, "table4").to_html(), with_printed(s, table.drop(columns="method"), "x").to_html()]
    s.run.setting = replace(s.run.setting, dataset=evil)
    pages += [with_printed(s, table.assign(dataset=evil), "nothing printed").to_html()]
    assert not any("<img" in page for page in pages) and "&lt;img" in pages[-1]


@pytest.mark.parametrize("wrong", [dict(run=None), dict(labels=3), dict(questionnaire="pilot"), dict(minimum=0),
                                   dict(minimum=2.5), dict(manifest_file=None)])
def test_a_labelled_pool_refuses(wrong):
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(wrong))}="):
        LabelledPool(**dict(run=run_on()) | wrong)


# --- each annotator, other readings, other people


def with_a_bad_one(s) -> pd.DataFrame:
    "Answers of people, of whom one always presses 1 and one stopped early."
    answers = as_people(s.answers)
    answers.loc[answers.annotator == "person 1", "label"] = "creative"
    return answers[(answers.annotator != "person 2") | answers.item.isin(s.manifest.item[:40])]


def test_rules_leave_people_out_and_stand_in_the_record(root):
    write_labels(with_a_bad_one(labelled()), root / "labels.csv")
    rules = Rules(answered=0.5, one_label=0.95)
    every, some = labelled(root / "labels.csv"), labelled(root / "labels.csv", rules=rules)
    assert not every.excluded and some.excluded == {"person 1": "one_label", "person 2": "answered"}
    assert every.answers.annotator.nunique() == 9 and some.answers.annotator.nunique() == 7
    assert fractions_table(some).creative.sum() < fractions_table(every).creative.sum()
    about = json.loads(some.save_table(fractions_table(some), "table4").with_suffix(".json").read_text())
    assert about["rules"]["answered"] == 0.5 and about["excluded"] == 2 and about["annotators"] == 7
    readings = human_labels.readings_table(some)
    assert list(readings.reading.unique()) == ["consensus", "consensus of everybody", "Dawid-Skene", "all answers"]
    by_all = readings[readings.reading == "consensus of everybody"].set_index("method").creative
    pd.testing.assert_series_equal(by_all, fractions_table(every).set_index("method").creative[by_all.index])
    with pytest.raises(ValueError, match="all 9 break one"):
        _ = labelled(root / "labels.csv", rules=Rules(right=1.0)).answers


def test_no_name_of_a_person_is_in_the_table_by_annotator(root):
    write_labels(with_a_bad_one(labelled()).replace({"person 1": "Ada Lovelace"}, regex=False), root / "labels.csv")
    s = labelled(root / "labels.csv", rules=Rules(one_label=0.95))
    table = human_labels.annotators_shown(s)
    assert table.annotator.tolist() == [f"person {i}" for i in range(1, 10)] and table.breaks.tolist()[0] == "one_label"
    assert "ada" not in s.save_table(table, "annotators").read_text().casefold()
    assert "ada" not in json.dumps(s.provenance()).casefold()


def test_images_without_a_consensus_have_a_column(root):
    table = fractions_table(labelled())
    np.testing.assert_allclose(table.no_consensus, 1 - table.agreed / table.images)
    assert (table.no_consensus_low <= table.no_consensus).all()
    assert (table.no_consensus <= table.no_consensus_high).all()
    assert len(human_labels.plot_fractions(labelled(), table, "table4").axes) == 5


def test_differences_for_other_people(root):
    s = labelled()
    found = human_labels.people_tested(s, ["noisy", "regular", "elsewhere"])
    assert len(found) == 8 and set(found.baseline) == {"noisy", "regular"} and found.annotators.eq(9).all()
    plain = s.answers.merge(s.manifest.query("creativity_filter == 0"), on="item").query("repeat == 0")
    creative = (plain.label == "creative").groupby(plain.method).mean()
    row = found.set_index(["baseline", "label"]).loc[("noisy", "creative")]
    assert row.difference == pytest.approx(creative["low-active"] - creative["noisy"])
    assert row.low < row.difference < row.high
    write_labels(as_people(s.answers[s.answers.annotator.isin(["simulated 1", "simulated 2"])]), root / "two.csv")
    assert human_labels.people_tested(labelled(root / "two.csv"), ["noisy"]).empty


def test_a_plan_stands_in_every_record_and_deviations_are_told(root):
    s, folder = labelled(), root / "annotations"
    write_labels(as_people(s.answers), folder / "labels.csv")
    s.manifest.to_csv(folder / "manifest.csv", index=False)
    plan = Plan(["More creative."], ["answer_differences"], images=30, people=12, stop="All done.")
    plan.save(folder / "plan.json")
    p = labelled(folder / "labels.csv")
    assert p.plan == plan and p.provenance()["plan"] == plan.digest
    assert p.deviations().set_index("part").done.to_dict() == {"people": "9"}
    assert labelled(folder / "labels.csv", minimum=4).deviations().part.tolist() == ["people", "minimum"]
    assert s.plan is None and s.deviations().empty and s.provenance()["plan"] is None


def test_the_flow_of_people(root):
    write_labels(with_a_bad_one(labelled()), root / "labels.csv")
    s = labelled(root / "labels.csv", rules=Rules(answered=0.5, one_label=0.95))
    found = flow(s, invited=20).set_index("stage").people.to_dict()
    assert found == {"invited": 20, "started": 9, "finished": 8, "left out": 2, "left out, one_label": 1,
                     "left out, answered": 1, "analysed": 7}
    assert list(flow(labelled()).stage) == ["started", "finished", "left out", "analysed"]


def test_models_are_compared_and_three_classes_told_apart(root, capsys):
    s, earlier = labelled(), labelled(questionnaire="earlier")
    found = cross_validated(s, ["in_domain_score", "latent_5ns"], folds=3, repeats=1)
    against = model_differences(found)
    models = found["all images"].folds.model.unique()
    assert len(against) == 2 * 2 * 3 and set(against.verdict) <= {"not decided", *(f"{m} better" for m in models)}
    three = three_classes(earlier, ["in_domain_score", "recon_distance"], folds=2)
    assert set(three.probabilities.label) == {"creative", "garbage", "not_creative"}
    assert three_classes(earlier, ["in_domain_score"], folds=500) is None
    assert "too few for 500" in capsys.readouterr().out
