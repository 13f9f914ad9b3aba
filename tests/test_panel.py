"The simulated panel: calibrated to print and to nothing else, and the same for the same seed."
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from creative_nb.das2020.human_labels import OTHER, PRINTED_STUDIES, LabelledPool
from creative_nb.experiment import Run
from creative_nb.labels import check_labels
from creative_nb.panel import NORMAL_SD, Panel, PrintedStudy, printed_population
from creative_nb.question import QUESTIONS, Question, options_of
from creative_nb.published import printed_table

PLAIN = dict(sensitivity=0.0, bias=0.0, taste=0.0, lapse=0.0)
LABELS = {q: list(options_of(q)) for q in ("main", "earlier")}


def panel_of(questionnaire: str = "main", dataset: str = "mnist", **options) -> Panel:
    "A panel that gives the labels of one study and is calibrated to the other one."
    return Panel(PRINTED_STUDIES[OTHER[questionnaire]], questionnaire, dataset, **options)


def images(n: int, seed: int = 0) -> pd.DataFrame:
    return printed_population(panel_of("main", "mnist"), n, seed)


@pytest.mark.parametrize("questionnaire, table, annotators", [
    ("main", "table9_labels_vs_metrics", 9), ("earlier", "table2_labels_vs_metrics", 10)])
@pytest.mark.parametrize("dataset", ["mnist", "fmnist", "combined"])
def test_it_is_calibrated_to_the_other_study(questionnaire, table, annotators, dataset):
    panel = LabelledPool(Run("das2020", dataset, "smoke"), questionnaire=questionnaire).panel
    assert panel == panel_of(questionnaire, dataset, annotators=annotators)
    printed = printed_table("das2020", table).query("dataset == @dataset")
    own = printed.set_index("label").loc[LABELS[OTHER[questionnaire]]]
    assert list(panel.means.index) == panel.labels == LABELS[questionnaire]
    assert np.allclose(panel.means.recon_distance, own.recon_distance)
    assert np.allclose(panel.means.in_domain_score, own.in_domain_score) and panel.shares.sum() == pytest.approx(1)
    assert np.allclose(panel.means.recon_distance, printed.recon_distance)  # printed in the order of the questionnaire
    assert ("ice_mnist" in panel.means) == (dataset != "fmnist")
    assert ("ice_fmnist" in panel.means) == (dataset != "mnist")


def test_log_odds_are_those_of_bayes():
    panel, few = panel_of("main", "combined", weight=1.0), printed_population(panel_of("main", "combined"), 30)
    expected = []
    for _, x in few.iterrows():
        p = panel.shares.to_numpy().copy()
        for m in panel.means:
            mean = panel.means[m].to_numpy()
            if m in NORMAL_SD: p *= stats.norm.pdf(x[m], mean, NORMAL_SD[m] * mean.mean())
            else: p *= stats.expon.pdf(x[m], scale=mean)
        expected.append(np.log(p / p.sum()))
    assert np.allclose(panel.log_odds(few), expected)


def test_without_biases_labels_are_drawn_from_the_posterior():
    "By the law of total probability, labels of the printed population then have the printed shares."
    panel = panel_of("main", "fmnist", weight=1.0, **PLAIN)
    population = printed_population(panel_of("main", "fmnist"), 3000)
    given_labels = panel.annotate(population, repeats=0).label.value_counts(normalize=True)
    given_labels = given_labels.reindex(panel.shares.index, fill_value=0)
    drawn = population.kind.value_counts(normalize=True)[panel.shares.index]
    assert np.abs(given_labels - np.exp(panel.log_odds(population)).mean(0)).max() < 0.01
    assert np.abs(drawn - panel.shares).max() < 0.03


def test_one_who_always_lapses_presses_each_key_as_often():
    shares = panel_of(lapse=1.0).annotate(images(1000), 0).label.value_counts(normalize=True)
    assert len(shares) == 4 and np.abs(shares - 0.25).max() < 0.02


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.integers(0, 10**6), st.integers(1, 39))
def test_labels_of_an_image_do_not_depend_on_the_others(seed, shuffle, n):
    panel, pool = panel_of("earlier", "mnist", annotators=3, seed=seed), images(40)
    all_labels = panel.annotate(pool, 0).set_index(["annotator", "item"]).label
    some = panel.annotate(pool.sample(n, random_state=shuffle), 0).set_index(["annotator", "item"]).label
    assert (some == all_labels[some.index]).all() and len(some) == 3 * n


def test_seeds_and_people_differ_and_every_name_says_simulated():
    pool = images(200)
    a, again, b = (panel_of(seed=s).annotate(pool) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(a, again)
    assert (a.label != b.label).mean() > 0.2 and a.annotator.str.startswith("simulated").all()
    check_labels(a, "main", pool.item)
    assert (a.groupby("annotator").repeat.sum() == 20).all()
    repeated = a[a.repeat == 1].groupby("annotator").item.agg(frozenset)
    assert repeated.nunique() > 1


def test_scores_are_in_the_units_of_the_network():
    pool = images(100)
    half = pool.assign(in_domain_score=pool.in_domain_score / 2)
    assert (panel_of(training_images=27_500).annotate(half).label == panel_of().annotate(pool).label).all()


@pytest.mark.parametrize("wrong, message", [
    (dict(questionnaire="both"), "questionnaire='both'"), (dict(dataset="digits"), "dataset='digits'"),
    (dict(annotators=0), "annotators=0"), (dict(lapse=2), "lapse=2"), (dict(taste=-1), "taste=-1")])
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message): Panel(PRINTED_STUDIES["earlier"], **wrong)


def test_a_questionnaire_needs_as_many_options_as_the_calibration(monkeypatch):
    two = Question("two", "Two?", "Two.", QUESTIONS["main"].options[:2])
    monkeypatch.setitem(QUESTIONS, "two", two)
    with pytest.raises(ValueError, match="questionnaire='two': expected 4 options"):
        Panel(PRINTED_STUDIES["main"], "two")


def test_printed_studies_name_what_is_wrong():
    with pytest.raises(ValueError, match="dataset='digits'"): PRINTED_STUDIES["main"].label_means("digits")
    both = PrintedStudy("das2020", "both", "table2_labels_vs_metrics", "table4_human_labels", 9, {"mnist": 1})
    with pytest.raises(ValueError, match="questionnaire='both'"): both.label_means("mnist")


def test_wrong_images():
    panel, pool = panel_of(), images(30)
    with pytest.raises(ValueError, match="no column recon_distance"):
        panel.annotate(pool.drop(columns="recon_distance"))
    with pytest.raises(ValueError, match="1 rows with a missing value"):
        panel.annotate(pool.assign(in_domain_score=[np.nan] + [1.0] * 29))
    with pytest.raises(ValueError, match="repeats=31"): panel.annotate(pool, repeats=31)


def test_shares_of_the_earlier_study_count_each_method_once():
    # non-specific, low-active, noisy, random, regular on MNIST, Table 8
    unfiltered = (0.29, 0.34, 0.08, 0.23, 0.13)
    others = (0.35, 0.36, 0.08, 0.32, 0.03), (0.13, 0.12, 0.80, 0.25, 0.83), (0.24, 0.18, 0.05, 0.21, 0.01)
    share = sum(unfiltered) / (sum(unfiltered) + sum(map(sum, others)))
    assert panel_of("main", "mnist").shares["creative"] == pytest.approx(share)


@pytest.mark.parametrize("wrong", [
    dict(calibration=None), dict(questionnaire=3), dict(annotators=1.5), dict(annotators="a"), dict(seed=-1),
    dict(training_images=0), dict(training_images=-5), dict(weight=np.nan), dict(sensitivity=None), dict(bias="a"),
    dict(taste=np.inf), dict(lapse=-0.1), dict(lapse=np.nan)])
def test_a_panel_refuses(wrong):
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(wrong))}="):
        Panel(**dict(calibration=PRINTED_STUDIES["earlier"]) | wrong)


@pytest.mark.parametrize("change, said", [
    (lambda t: t.assign(in_domain_score=np.inf), "30 rows"), (lambda t: t.assign(in_domain_score="many"), "30 rows"),
    (lambda t: t[:0], "at least one row"), (lambda t: t.assign(item="a"), "item 'a'"),
    (lambda t: t.assign(item=None), "item"),
    (lambda t: t.drop(columns="item"), "no column item"), (lambda t: None, "manifest=None")])
def test_images_that_a_panel_cannot_judge(change, said):
    with pytest.raises((TypeError, ValueError), match=said): panel_of().annotate(change(images(30)))


@pytest.mark.parametrize("call, said", [
    (lambda: panel_of().annotate(images(30), repeats=1.5), "repeats=1.5"),
    (lambda: panel_of().annotate(images(30), repeats=-1), "repeats=-1"),
    (lambda: printed_population(panel_of(), -1), "n=-1"), (lambda: printed_population(None, 5), "panel=None"),
    (lambda: PRINTED_STUDIES["main"].label_shares("digits"), "dataset='digits'"),
    (lambda: PRINTED_STUDIES["main"].label_means(None), "dataset=None"),
    (lambda: PrintedStudy("das2020", "main", "a", "b", 0, {}), "annotators=0"),
    (lambda: PrintedStudy("das2020", "main", "a", "b", 9, {"mnist": -1}), "training_images=")])
def test_calls_of_the_panel_that_are_refused(call, said):
    with pytest.raises((TypeError, ValueError), match=said): call()
