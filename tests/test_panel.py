"The simulated panel: calibrated to print and to nothing else, and the same for the same seed."
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from creative_nb.annotation import STUDIES, check_labels
from creative_nb.panel import NORMAL_SD, Panel, printed_population
from creative_nb.published import published

PLAIN = dict(sensitivity=0.0, bias=0.0, taste=0.0, lapse=0.0)


def images(n: int, seed: int = 0) -> pd.DataFrame:
    return printed_population(Panel("main", "mnist"), n, seed)


@pytest.mark.parametrize("study, table", [("main", "das2020_table9_labels_vs_metrics"), ("prior", "das2020_table2_labels_vs_metrics")])
@pytest.mark.parametrize("dataset", ["mnist", "fmnist", "combined"])
def test_it_is_calibrated_to_the_other_study(study, table, dataset):
    panel, printed = Panel(study, dataset), published(table).query("dataset == @dataset")
    assert list(panel.means.index) == list(STUDIES[study]) and np.allclose(panel.means.recon_distance, printed.recon_distance)
    assert np.allclose(panel.means.oc_score, printed.in_domain_score) and panel.shares.sum() == pytest.approx(1)
    assert panel.annotators == (9 if study == "main" else 10)
    assert ("ice_mnist" in panel.means) == (dataset != "fmnist") and ("ice_fmnist" in panel.means) == (dataset != "mnist")


def test_log_odds_are_those_of_bayes():
    panel, few = Panel("main", "combined", weight=1.0), printed_population(Panel("main", "combined"), 30)
    expected = []
    for _, x in few.iterrows():
        p = panel.shares.to_numpy().copy()
        for m in panel.means:
            mean = panel.means[m].to_numpy()
            p *= stats.norm.pdf(x[m], mean, NORMAL_SD[m] * mean.mean()) if m in NORMAL_SD else stats.expon.pdf(x[m], scale=mean)
        expected.append(np.log(p / p.sum()))
    assert np.allclose(panel.log_odds(few), expected)


def test_without_biases_labels_are_drawn_from_the_posterior():
    "By the law of total probability, labels of the printed population then have the printed shares."
    panel, population = Panel("main", "fmnist", weight=1.0, **PLAIN), printed_population(Panel("main", "fmnist"), 3000)
    given_labels = panel.annotate(population, repeats=0).label.value_counts(normalize=True).reindex(panel.shares.index, fill_value=0)
    drawn = population.kind.value_counts(normalize=True)[panel.shares.index]
    assert np.abs(given_labels - np.exp(panel.log_odds(population)).mean(0)).max() < 0.01 and np.abs(drawn - panel.shares).max() < 0.03


def test_one_who_always_lapses_presses_each_key_as_often():
    shares = Panel(lapse=1.0).annotate(images(1000), 0).label.value_counts(normalize=True)
    assert len(shares) == 4 and np.abs(shares - 0.25).max() < 0.02


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.integers(0, 10**6), st.integers(1, 39))
def test_labels_of_an_image_do_not_depend_on_the_others(seed, shuffle, n):
    panel, pool = Panel("prior", "mnist", annotators=3, seed=seed), images(40)
    all_labels = panel.annotate(pool, 0).set_index(["annotator", "item"]).label
    some = panel.annotate(pool.sample(n, random_state=shuffle), 0).set_index(["annotator", "item"]).label
    assert (some == all_labels[some.index]).all() and len(some) == 3 * n


def test_seeds_and_people_differ_and_every_name_says_simulated():
    pool = images(200)
    a, again, b = (Panel(seed=s).annotate(pool) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(a, again)
    assert (a.label != b.label).mean() > 0.2 and a.annotator.str.startswith("simulated").all()
    check_labels(a, "main", pool.item)
    assert (a.groupby("annotator").repeat.sum() == 20).all()
    repeated = a[a.repeat == 1].groupby("annotator").item.agg(frozenset)
    assert repeated.nunique() > 1


def test_scores_are_in_the_units_of_the_network():
    pool = images(100)
    half = pool.assign(oc_score=pool.oc_score / 2)
    assert (Panel(training_images=27_500).annotate(half).label == Panel().annotate(pool).label).all()


@pytest.mark.parametrize("wrong, message", [(dict(study="both"), "study='both'"), (dict(dataset="digits"), "dataset='digits'"), (dict(annotators=0), "annotators=0"),
                                            (dict(lapse=2), "lapse=2"), (dict(taste=-1), "taste=-1")])
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message): Panel(**wrong)


def test_wrong_images():
    with pytest.raises(ValueError, match="no column recon_distance"): Panel().annotate(images(30).drop(columns="recon_distance"))
    with pytest.raises(ValueError, match="1 rows with a missing value"): Panel().annotate(images(30).assign(oc_score=[np.nan] + [1.0] * 29))
    with pytest.raises(ValueError, match="repeats=31"): Panel().annotate(images(30), repeats=31)


def test_shares_of_the_earlier_study_count_each_method_once():
    unfiltered = (0.29, 0.34, 0.08, 0.23, 0.13)  # non-specific, low-active, noisy, random, regular on MNIST, Table 8
    total = [sum(v) for v in ((0.35, 0.36, 0.08, 0.32, 0.03), (0.13, 0.12, 0.80, 0.25, 0.83), (0.24, 0.18, 0.05, 0.21, 0.01))]
    assert Panel("main", "mnist").shares["creative"] == pytest.approx(sum(unfiltered) / (sum(unfiltered) + sum(total)))
