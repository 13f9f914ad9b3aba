"From a pool to tables of labels: blinding, reproduction, names that say whose labels they are, and the same tables by another way."
import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from creative_nb.annotation import STUDIES, Store, blind, consensus, write_labels
from creative_nb.das2020 import annotation_pool, human_labels, report
from creative_nb.das2020.annotation_pool import chosen, image_metrics, passing
from creative_nb.das2020.claims import PEOPLE, SIMULATED, claims_table
from creative_nb.das2020.human_labels import LabelStudy, fractions_table, label_studies, read_labelled
from creative_nb.das2020.labels_vs_metrics import creativity_facts, cross_validated, table2_metrics
from creative_nb.das2020.metric_sweep import JUDGED
from creative_nb.das2020.samples import fit_filter
from creative_nb.das2020.study import Study
from creative_nb.judgement import compare_methods, cross_validate_creativity, label_table, metric_table
from creative_nb.panel import Panel, printed_population
from creative_nb.runs import save_table

METHODS = ("low_active", "noisy", "random", "regular")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return Study("digits", hidden=(64, 32), latent=8, epochs=3, classifier_epochs=1, artifacts=folder / "artifacts", out=folder / "out")


@pytest.fixture(scope="module")
def creativity(study): return fit_filter(study, 300)


def test_every_image_of_the_pool_can_be_made_again(study, creativity):
    images, rows = chosen(study, creativity, "low_active", plain=8, filtered=4, draws=40)
    assert len(images) == len(rows) == 12
    again = study.sample(JUDGED["low_active"], 40, 5, int(rows.seed.iloc[0]))
    assert torch.equal(images, again[rows["index"].tolist()])
    pd.testing.assert_frame_equal(image_metrics(study, images)[["recon_distance"]], rows[["recon_distance"]], rtol=1e-5)


def test_filtered_images_pass_and_methods_share_no_latents(study, creativity):
    tables = {m: chosen(study, creativity, m, plain=5, filtered=5, draws=60)[1] for m in METHODS}
    for rows in tables.values():
        kept = rows[rows.creativity_filter == 1]
        assert passing(creativity, kept).all() and (kept["index"] >= 5).all() and rows["index"].is_unique and len(rows) == 10
    assert len({rows.seed.iloc[0] for rows in tables.values()}) == len(METHODS)
    with pytest.raises(ValueError, match="draws=9"): chosen(study, creativity, "random", plain=5, filtered=5, draws=9)


@pytest.fixture
def run(tmp_path):
    "A run that holds a pool of made-up images of two data sets."
    for dataset in ("mnist", "fmnist"):
        rows = pd.concat([printed_population(Panel("main", dataset), 40, i).assign(method=m, dataset=dataset, creativity_filter=[0] * 30 + [1] * 10, seed=0, index=range(40), n_neurons=5)
                          for i, m in enumerate(METHODS)], ignore_index=True).drop(columns=["item", "kind"])
        pool, manifest = blind(torch.rand(len(rows), 1, 4, 4), rows, torch.rand(3, 1, 4, 4), dataset, "main", 0)
        pool.save(annotation_pool.pool_path(tmp_path, dataset))
        save_table(manifest, tmp_path / "tables" / f"{annotation_pool.manifest_name(dataset)}.csv", {"data_hash": "abc", "pool": pool.digest})
    return tmp_path


def label_study(run, labels="simulated", dataset="mnist", **more): return LabelStudy(dataset, run, labels, scale="smoke", **more)


def test_the_word_simulated_stands_on_all_that_the_panel_touches(run):
    s = label_study(run)
    path = s.save_table(fractions_table(s), "table4")
    assert path.name == "das2020_mnist_table4_simulated.csv"
    columns, about = list(pd.read_csv(path)), json.loads(path.with_suffix(".json").read_text())
    assert {"creative_simulated", "creative_low_simulated", "agreed_simulated"} <= set(columns) and {"dataset", "method", "images", "recon_distance"} <= set(columns)
    assert not set(columns) & {"creative", "agreed", "tie", "inconclusive_high"}
    assert about["labels"] == "simulated panel" and about["panel"]["dataset"] == "mnist" and about["annotators"] == 9
    assert "simulated" in s.caption and all("simulated" in a for a in s.answers.annotator)
    table, source = read_labelled(run, "mnist", "table4")
    assert source == "simulated" and list(table) == list(fractions_table(s))


def test_a_store_and_a_csv_give_the_same_tables_as_labels_counted_by_hand(run):
    simulated = label_study(run)
    answers = simulated.answers[simulated.answers.annotator.isin(["simulated 1", "simulated 2", "simulated 3"])].replace({"annotator": {"simulated 1": "Ann", "simulated 2": "Bo", "simulated 3": "Cy"}})
    write_labels(answers, run / "labels.csv")
    pool = annotation_pool.Pool.load(annotation_pool.pool_path(run, "mnist"))
    store = Store(run / "labels.sqlite", pool, repeats=0)
    for r in answers[answers.repeat == 0].itertuples(): store.add(r.annotator, r.item, r.label)
    by_csv, by_store = (label_study(run, str(run / f"labels.{kind}")) for kind in ("csv", "sqlite"))
    a, b = fractions_table(by_csv), fractions_table(by_store)
    pd.testing.assert_frame_equal(a, b)
    votes = answers[answers.repeat == 0].groupby("item").label.agg(lambda v: v.iloc[0] if v.nunique() == 1 else "")
    plain = by_csv.manifest.query("creativity_filter == 0").assign(label=lambda t: t.item.map(votes))
    for r in a.itertuples():
        seen = plain[(plain.method == r.method) & (plain.label != "")].label
        assert r.agreed == len(seen) and (r.creative == pytest.approx((seen == "creative").mean()) if len(seen) else np.isnan(r.creative))
    path = by_csv.save_table(a, "table4")
    assert path.name == "das2020_mnist_table4_people.csv" and list(pd.read_csv(path)) == list(a)
    about = json.loads(path.with_suffix(".json").read_text())
    assert about["labels"] == "people" and about["labels_file"] == "labels.csv" and str(run) not in json.dumps(about["labels_file"])


def test_tables_of_people_come_before_simulated_ones(run):
    s = label_study(run)
    s.save_table(fractions_table(s), "table4")
    write_labels(s.answers.assign(annotator=s.answers.annotator.str.replace("simulated", "person")), run / "people.csv")
    p = label_study(run, str(run / "people.csv"))
    p.save_table(fractions_table(p), "table4")
    assert read_labelled(run, "mnist", "table4")[1] == "people"
    with pytest.raises(FileNotFoundError, match="table8 of mnist"): read_labelled(run, "mnist", "table8")


def test_labels_of_other_images_are_refused(run):
    write_labels(label_study(run).answers.assign(item="elsewhere").drop_duplicates(["annotator", "item", "repeat"]), run / "other.csv")
    with pytest.raises(ValueError, match="elsewhere"): _ = label_study(run, str(run / "other.csv")).judged


def test_people_are_asked_in_one_study_the_panel_in_both(run):
    assert list(label_studies("simulated", dataset="mnist", out=run)) == ["main", "prior"] and list(label_studies("x.csv", "prior", dataset="mnist", out=run)) == ["prior"]


def test_images_that_nobody_saw_are_left_out(run):
    s = label_study(run)
    seen = s.manifest.item[:50]
    write_labels(s.answers[s.answers.item.isin(seen)], run / "few.csv")
    judged = label_study(run, str(run / "few.csv")).judged
    assert set(judged.item) == set(seen)


def save_all(run, datasets=("mnist", "fmnist")):
    for d in datasets:
        for options, s in label_studies(dataset=d, out=run, scale="smoke").items():
            if options == "main":
                table = fractions_table(s)
                for name in ("table1", "table4"): s.save_table(table, name)
                s.save_table(metric_table(s.judged, s.names, table2_metrics(s.manifest)), "table2")
                s.save_table(compare_methods(s.judged.query("creativity_filter == 0"), s.names), "tests")
            else:
                s.save_table(label_table(s.judged, s.names, ["dataset", "method", "creativity_filter"]), "table8")
                s.save_table(metric_table(s.judged, s.names, table2_metrics(s.manifest)), "table9")


def test_tests_over_all_data_sets_are_those_of_the_counts(run):
    save_all(run)
    tables = report.gather_labelled(run, ["mnist", "fmnist"], "table4")
    assert list(tables) == ["simulated"] and (run / "tables" / "das2020_table4_human_labels_simulated.csv").is_file()
    tests = report.all_tests(tables["simulated"], list(STUDIES["main"]))
    assert len(tests) == 6
    for r in tests.itertuples():
        s = label_study(run, dataset=r.dataset)
        plain = s.manifest.query("creativity_filter == 0").join(consensus(s.answers), on="item")
        counts = np.array([[(plain[plain.method == m].consensus == k).sum() for k in s.names] for m in ("low_active", r.baseline)])
        counts = counts[:, counts.any(0)]
        expected = stats.chi2_contingency(counts, correction=False)
        assert r.chi2 == pytest.approx(expected.statistic) and (r.p_from != "asymptotic" or r.p_chi2 == pytest.approx(expected.pvalue))
        assert r.p_chi2_adjusted >= r.p_chi2


def test_claims_about_people_say_what_they_rest_on(run):
    datasets = ["mnist", "fmnist"]
    before = claims_table(run, datasets)
    save_all(run)
    after = claims_table(run, datasets)
    assert not before.verdict.isin(SIMULATED.values()).any()
    changed = before.verdict != after.verdict
    assert changed.sum() > 15 and (before.verdict[changed] == PEOPLE).all() and after.verdict[changed].isin(SIMULATED.values()).all()
    assert any("simulated" in name for name in after.attrs["parts"])


def test_facts_of_the_classifier_are_those_of_its_summary(run):
    s = label_study(run)
    summary = cross_validate_creativity(s.judged, table2_metrics(s.manifest), folds=3, repeats=1).summary
    facts = creativity_facts(summary, "mnist").set_index("fact").value
    accuracy = summary[summary.measure == "accuracy"].set_index("model")["mean"]
    assert facts.creativity_classifier_accuracy == accuracy["all metrics"] and facts.creativity_classifier_majority == accuracy["majority"]
    assert facts.creativity_classifier_best_single_metric == max(v for k, v in accuracy.items() if k not in ("all metrics", "majority"))


def test_the_classifier_is_also_judged_without_filtered_images(run, capsys):
    s, settings = label_study(run), dict(folds=3, repeats=1, seed=0)
    found, plain = cross_validated(s, ["oc_score"], **settings), s.judged.query("creativity_filter == 0")
    assert list(found) == ["all images", "without filtered images"]
    assert set(found["without filtered images"].probabilities.row) == set(plain.index[plain.consensus != ""])
    pd.testing.assert_frame_equal(found["without filtered images"].summary, cross_validate_creativity(plain, ["oc_score"], **settings).summary)
    s.judged = s.judged.assign(consensus=s.judged.consensus.mask((s.judged.creativity_filter == 0) & (s.judged.consensus == "creative"), "inconclusive"))
    assert "without filtered images" not in cross_validated(s, ["oc_score"], **settings) and "without filtered images: 0 of" in capsys.readouterr().out


def test_the_manifest_beside_the_labels_is_the_one_they_belong_to(run):
    s, folder = label_study(run), run / "annotations"
    write_labels(s.answers.assign(annotator=s.answers.annotator.str.replace("simulated", "person")), folder / "labels.csv")
    s.manifest.assign(method="of this study").to_csv(folder / "manifest.csv", index=False)
    beside, of_run = label_study(run, str(folder / "labels.csv")), label_study(run, str(folder / "labels.csv"), manifest_file=str(run / "tables" / "das2020_mnist_annotation_pool.csv"))
    assert set(beside.judged.method) == {"of this study"} and set(of_run.judged.method) == set(METHODS)


def test_simulated_answers_in_a_file_are_still_simulated(run):
    s = label_study(run)
    write_labels(s.answers, run / "panel.csv")
    again = label_study(run, str(run / "panel.csv"))
    assert again.simulated and again.caption == "simulated panel" and again.name("table4").endswith("simulated")
    pd.testing.assert_frame_equal(fractions_table(again), fractions_table(s))
    mixed = s.answers.assign(annotator=s.answers.annotator.replace("simulated 1", "Ann"))
    write_labels(mixed, run / "mixed.csv")
    with pytest.raises(ValueError, match="answers of both"): _ = label_study(run, str(run / "mixed.csv")).simulated


def test_a_manifest_of_another_data_set_or_pool_is_refused(run):
    with pytest.raises(ValueError, match="dataset='mnist'.*of fmnist"):
        _ = label_study(run, manifest_file=str(run / "tables" / "das2020_fmnist_annotation_pool.csv")).manifest
    pool = annotation_pool.Pool.load(annotation_pool.pool_path(run, "mnist"))
    other, _ = blind(torch.rand(20, 1, 4, 4), pd.DataFrame({"method": ["a"] * 20}), torch.rand(3, 1, 4, 4), "mnist", "main", 1)
    store = Store(run / "other.sqlite", other, repeats=0)
    store.add("Ann", other.items[0], "creative")
    with pytest.raises(ValueError, match="another pool"): _ = label_study(run, str(run / "other.sqlite")).manifest
    assert pool.digest != other.digest


def test_every_table_of_the_report_says_simulated_where_it_rests_on_labels(run):
    save_all(run)
    for table in ("table2", "table9", "tests"): report.gather_labelled(run, ["mnist", "fmnist"], table)
    for name in ("das2020_table2_labels_vs_metrics_simulated", "das2020_table9_labels_vs_metrics_simulated", "das2020_tests_simulated"):
        columns = set(pd.read_csv(run / "tables" / f"{name}.csv"))
        assert columns and all(c in human_labels.KEYS or c.endswith("_simulated") for c in columns)


def test_tables_of_the_earlier_study_do_not_replace_those_of_the_later(run):
    main, prior = label_study(run), label_study(run, options="prior")
    assert main.name("tests") != prior.name("tests") and prior.name("table8") == "das2020_mnist_table8_simulated"


def test_one_annotator_has_no_agreement_and_no_consensus(run):
    s = label_study(run)
    one = s.answers[s.answers.annotator == "simulated 1"].assign(annotator="Ann")
    write_labels(one, run / "one.csv")
    alone = label_study(run, str(run / "one.csv"))
    assert list(human_labels.agreement_table(alone).statistic) == ["self_consistency"] and (alone.judged.status == "too few").all()
    assert fractions_table(alone).creative.isna().all() and not len(report.all_tests(fractions_table(alone).assign(dataset="mnist"), list(alone.names)))


def test_one_annotator_who_has_just_begun(run):
    s = label_study(run)
    write_labels(s.answers.query("annotator == 'simulated 1' and repeat == 0").head(3).assign(annotator="Ann"), run / "few.csv")
    begun = label_study(run, str(run / "few.csv"))
    table = human_labels.agreement_table(begun)
    assert not len(table) and "statistic" in table and begun.caption == "labels of 1 person" and len(begun.judged) == 3
