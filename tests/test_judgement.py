"Label tables, tests between methods and the creativity classifier: slow oracles, other libraries, textbook values, properties, leaks, faults."
import json
import math
from fractions import Fraction
from itertools import product

import matplotlib
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from creative_nb import judgement
from creative_nb.judgement import (
    BASELINES,
    STRENGTHS,
    CreativityClassifier,
    CrossValidation,
    coefficient_path,
    compare_counts,
    compare_methods,
    cross_validate_creativity,
    images_needed,
    label_counts,
    label_differences,
    label_table,
    metric_table,
    p_by_pool,
    plot_calibration,
    plot_differences,
    plot_p_by_pool,
    plot_path,
    printed_comparisons,
    sizes_of_claim,
)
from creative_nb.published import published
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import xlogy
from sklearn.calibration import calibration_curve
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold

matplotlib.use("agg")
fast = settings(max_examples=40, deadline=None)
MAIN = ("creative", "novel_not_creative", "not_novel_or_creative", "inconclusive")
METHODS = ("low_active", *BASELINES)
small_counts = st.lists(st.integers(0, 6), min_size=3, max_size=3)


def simulated(n: int = 240, seed: int = 0, datasets=("mnist", "fmnist")) -> pd.DataFrame:
    "n judged images whose metrics a and b depend on the label; ice_fmnist is for fmnist only."
    random = np.random.default_rng(seed)
    status = random.choice(["agreed", "tie", "too few"], n, p=[0.85, 0.1, 0.05])
    label = random.choice(MAIN, n, p=[0.3, 0.3, 0.3, 0.1])
    dataset = random.choice(datasets, n)
    values = random.standard_normal((n, 4)) + (label == "creative")[:, None] * [1.2, 0.5, 0, 0]
    frame = pd.DataFrame(values, columns=["a", "b", "ice_fmnist", "oc_score"]).assign(
        item=[f"i{i}" for i in range(n)], dataset=dataset, method=random.choice(METHODS, n), creativity_filter=random.integers(0, 2, n),
        consensus=np.where(status == "agreed", label, ""), status=status)
    return frame.assign(ice_fmnist=frame.ice_fmnist.where(frame.dataset == "fmnist"))


# --- tables of labels


@pytest.mark.parametrize("by", [("dataset", "method"), ("dataset", "method", "creativity_filter"), ("method",)])
def test_label_table_is_a_slow_count(by):
    judged = simulated()
    table = label_table(judged, MAIN, by)
    assert len(table) == len(judged[[*by]].drop_duplicates())
    for row in table.to_dict("records"):
        images = [r for r in judged.to_dict("records") if all(r[k] == row[k] for k in by)]
        agreed = [r for r in images if r["status"] == "agreed"]
        assert (row["images"], row["agreed"]) == (len(images), len(agreed))
        assert (row["tie"], row["too_few"]) == tuple(sum(r["status"] == s for r in images) for s in ("tie", "too few"))
        for k in MAIN:
            n, p, z = len(agreed), sum(r["consensus"] == k for r in agreed) / len(agreed), stats.norm.ppf(0.975)
            centre, half = (p + z**2 / (2 * n)) / (1 + z**2 / n), z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
            np.testing.assert_allclose([row[k], row[f"{k}_low"], row[f"{k}_high"]], [p, centre - half, centre + half], atol=1e-12)


def test_label_counts_keep_every_image_once():
    judged = simulated()
    counts = label_counts(judged, MAIN)
    assert counts.images.sum() == len(judged)
    assert (counts[["agreed", "tie", "too_few"]].sum(axis=1) == counts.images).all()
    assert (counts[[*MAIN]].sum(axis=1) == counts.agreed).all()


def test_group_without_consensus_has_no_fractions():
    judged = simulated(8).assign(consensus="", status="tie")
    table = label_table(judged, MAIN, ("dataset",))
    assert table.tie.sum() == 8 and table[[*MAIN, "creative_low", "creative_high"]].isna().all(axis=None)


def test_consensus_survives_a_csv_file(tmp_path):
    judged = simulated()
    judged.to_csv(tmp_path / "judged.csv", index=False)
    pd.testing.assert_frame_equal(label_table(pd.read_csv(tmp_path / "judged.csv"), MAIN), label_table(judged, MAIN))


@pytest.mark.parametrize("change, said", [
    (dict(consensus="beauty"), "consensus='beauty'"), (dict(status="perhaps"), "status='perhaps'"), (dict(status="tie", consensus="creative"), "if and only if"),
    (dict(item="i0"), "more than once")])
def test_rows_that_are_no_image_of_the_study(change, said):
    with pytest.raises(ValueError, match=said): label_counts(simulated(30).assign(**change), MAIN)


def test_missing_columns_and_empty_tables():
    with pytest.raises(ValueError, match="no column method"): label_counts(simulated().drop(columns="method"), MAIN)
    with pytest.raises(ValueError, match="empty"): label_counts(simulated()[:0], MAIN)
    with pytest.raises(ValueError, match="confidence=95"): label_table(simulated(), MAIN, confidence=95)


def test_metric_table_is_a_slow_mean():
    judged = simulated()
    table = metric_table(judged, MAIN, ["a", "ice_fmnist", "oc_score"])
    assert len(table) == 2 * len(MAIN) and "oc_score" not in table
    for row in table.to_dict("records"):
        own = judged[(judged.dataset == row["dataset"]) & (judged.consensus == row["label"])]
        assert row["images"] == len(own)
        for column, name in (("a", "a"), ("ice_fmnist", "ice_fmnist"), ("oc_score", "in_domain_score")):
            np.testing.assert_allclose([row[name], row[f"{name}_sd"]], [np.mean(own[column]), np.std(own[column], ddof=1)])
    assert table[table.dataset == "mnist"].ice_fmnist.isna().all() and table[table.dataset == "fmnist"].ice_fmnist.notna().all()


def test_metric_table_keeps_labels_nobody_gave():
    judged = simulated()
    table = metric_table(judged[judged.consensus != "inconclusive"], MAIN, ["a"]).set_index(["dataset", "label"])
    assert table.loc[("mnist", "inconclusive"), "images"] == 0 and math.isnan(table.loc[("mnist", "inconclusive"), "a"])


def test_metric_that_is_sometimes_missing():
    judged = simulated()
    judged.loc[3, "a"] = np.nan
    with pytest.raises(ValueError, match="a is NaN for 1 of"): metric_table(judged, MAIN, ["a"])


# --- two rows of counts


def pearson(table, expected): return ((table - expected) ** 2 / expected).sum()


def likelihood(table, expected): return 2 * xlogy(table, table / expected).sum()


def slow_exact(table: np.ndarray) -> tuple[float, float]:
    "p of both statistics given the margins, from binomial coefficients in exact fractions."
    columns, n, total = table.sum(0), int(table[0].sum()), int(table.sum())
    expected = np.outer(table.sum(1), columns) / total
    p = [Fraction(0), Fraction(0)]
    for first in product(*(range(int(c) + 1) for c in columns)):
        if sum(first) != n: continue
        weight = Fraction(math.prod(math.comb(int(c), x) for c, x in zip(columns, first)), math.comb(total, n))
        other = np.array([first, columns - first])
        for i, statistic in enumerate((pearson, likelihood)):
            if statistic(other, expected) >= statistic(table, expected) - 1e-9: p[i] += weight
    return float(p[0]), float(p[1])


@fast
@given(small_counts, small_counts)
def test_small_tables_are_exact(a, b):
    assume(sum(a) and sum(b) and np.count_nonzero(np.add(a, b)) > 1)
    ours = compare_counts(a, b)
    table = np.array([a, b])[:, np.add(a, b) > 0]
    if ours["min_expected"] >= 5: assert ours["p_from"] == "asymptotic"
    else:
        assert ours["p_from"] == "exact"
        np.testing.assert_allclose([ours["p_chi2"], ours["p_g"]], slow_exact(table), rtol=1e-9)


@fast
@given(st.lists(st.integers(20, 200), min_size=2, max_size=6), st.data())
def test_large_tables_by_formula(a, data):
    b = data.draw(st.lists(st.integers(20, 200), min_size=len(a), max_size=len(a)))
    table, ours = np.array([a, b]), compare_counts(a, b)
    expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
    assert ours["p_from"] == "asymptotic" and ours["dof"] == len(a) - 1 and np.isclose(ours["min_expected"], expected.min())
    for name, statistic in (("chi2", pearson), ("g", likelihood)):
        np.testing.assert_allclose(ours[name], statistic(table, expected), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(ours[f"p_{name}"], stats.chi2.sf(statistic(table, expected), len(a) - 1), rtol=1e-6)
    np.testing.assert_allclose(ours["v"], math.sqrt(ours["chi2"] / table.sum()))
    order = data.draw(st.permutations(range(len(a))))
    for other in (compare_counts(b, a), compare_counts(*table[:, order]), compare_counts([*a, 0, 0], [*b, 0, 0])):
        for k in ("chi2", "g", "p_chi2", "p_g", "dof", "v", "v_low", "v_high"): np.testing.assert_allclose(other[k], ours[k], rtol=1e-9, atol=1e-9)


def test_party_and_gender_as_in_the_manual_of_r():
    ours = compare_counts([762, 327, 468], [484, 239, 477])
    assert round(ours["chi2"], 2) == 30.07 and ours["dof"] == 2 and abs(ours["p_chi2"] - 2.954e-07) < 1e-10


def test_lady_tasting_tea():
    ours = compare_counts([3, 1], [1, 3])
    assert round(ours["p_chi2"], 4) == round(ours["p_g"], 4) == 0.4857 and ours["p_from"] == "exact"


@pytest.mark.parametrize("a", range(0, 9))
def test_two_labels_and_equal_methods_are_a_fisher_test(a):
    ours = compare_counts([a, 8 - a], [2, 6])
    for k in ("p_chi2", "p_g"): assert np.isclose(ours[k], stats.fisher_exact([[a, 8 - a], [2, 6]]).pvalue)


def test_no_continuity_correction():
    table = [[30, 20], [18, 32]]
    assert np.isclose(compare_counts(*table)["p_chi2"], stats.chi2_contingency(table, correction=False).pvalue)
    assert compare_counts(*table)["p_chi2"] < stats.chi2_contingency(table).pvalue


@pytest.mark.parametrize("table", [[[12, 9, 2, 1], [5, 14, 4, 0]], [[3, 0, 5], [1, 4, 2]]])
def test_exact_is_what_random_tables_approach(table):
    ours, few = compare_counts(*table), compare_counts(*table, largest=0, resamples=20_000)
    assert ours["p_from"] == "exact" and few["p_from"] == "Monte Carlo"
    sampled = stats.chi2_contingency(table, correction=False, method=stats.MonteCarloMethod(n_resamples=20_000, rng=np.random.default_rng(1)))
    permuted = stats.chi2_contingency(table, correction=False, method=stats.PermutationMethod(n_resamples=5000, rng=np.random.default_rng(1)))
    for p, n in ((few["p_chi2"], 20_000), (sampled.pvalue, 20_000), (permuted.pvalue, 5000)):
        assert abs(p - ours["p_chi2"]) < 5 * math.sqrt(ours["p_chi2"] / n)
    assert abs(few["p_g"] - ours["p_g"]) < 5 * math.sqrt(ours["p_g"] / 20_000)
    assert few == compare_counts(*table, largest=0, resamples=20_000) != compare_counts(*table, largest=0, resamples=20_000, seed=1)


def test_exact_test_keeps_its_level():
    columns, n = np.array([7, 6, 3]), 8
    firsts = [f for f in product(*(range(c + 1) for c in columns)) if sum(f) == n]
    weights = stats.multivariate_hypergeom.pmf(firsts, columns, n)
    for k in ("p_chi2", "p_g"):
        p = np.array([compare_counts(f, columns - f)[k] for f in firsts])
        for level in (0.01, 0.05, 0.2): assert 0 < weights[p <= level].sum() <= level


def test_one_label_only_is_no_difference():
    ours = compare_counts([5, 0], [9, 0])
    assert (ours["p_chi2"], ours["p_g"], ours["dof"], ours["chi2"]) == (1, 1, 0, 0) and math.isnan(ours["v"])


def test_equal_rows():
    ours = compare_counts([2, 3, 4], [2, 3, 4])
    assert ours["p_chi2"] == ours["p_g"] == 1 and ours["v"] == ours["v_low"] == 0


@pytest.mark.parametrize("a, said", [([1, 2, 3], "b has 2 counts"), ([0.5, 2], "a=.*whole numbers"), ([-1, 2], "a="), ([0, 0], "a="), ([math.nan, 1], "a=")])
def test_counts_that_are_none(a, said):
    with pytest.raises(ValueError, match=said): compare_counts(a, [3, 4])


@pytest.mark.parametrize("statistic, dof, n", [(0.5, 3, 50), (9.0, 3, 250), (120.0, 3, 250), (700.0, 7, 1000), (15.0, 1, 40)])
def test_interval_of_v_inverts_the_noncentral_distribution(statistic, dof, n):
    ends = judgement._v_interval(statistic, dof, n, 0.95)
    for end, tail in (("v_low", 0.975), ("v_high", 0.025)):
        if ends[end] > 0: assert abs(stats.ncx2.cdf(statistic, dof, n * ends[end] ** 2) - tail) < 1e-6
        else: assert stats.chi2.cdf(statistic, dof) <= tail


def test_interval_of_v_covers():
    p, q, n, random = np.array([0.4, 0.4, 0.2]), np.array([0.25, 0.5, 0.25]), 150, np.random.default_rng(0)
    true = math.sqrt(((p - q) ** 2 / (p + q)).sum() / 2)
    found = [compare_counts(random.multinomial(n, p), random.multinomial(n, q)) for _ in range(300)]
    assert 0.91 < np.mean([f["v_low"] <= true <= f["v_high"] for f in found]) < 0.98


# --- methods


def slow_holm(p: list[float]) -> list[float]:
    order, out, largest = sorted(range(len(p)), key=lambda i: p[i]), [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1, (len(p) - rank) * p[i]))
        out[i] = largest
    return out


def test_slow_holm(): assert np.allclose(slow_holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


def test_compare_methods_is_each_pair_and_holm_over_all():
    judged = simulated(400)
    table = compare_methods(judged, MAIN)
    assert [*zip(table.dataset, table.baseline)] == [*product(judged.dataset.unique(), BASELINES)]
    for r in table.itertuples():
        a, b = ([((judged.dataset == r.dataset) & (judged.method == m) & (judged.consensus == k)).sum() for k in MAIN] for m in ("low_active", r.baseline))
        alone = compare_counts(a, b)
        assert (r.images, r.images_baseline, r.p_chi2, r.p_g, r.v, r.p_from) == (sum(a), sum(b), alone["p_chi2"], alone["p_g"], alone["v"], alone["p_from"])
    for k in ("chi2", "g"):
        np.testing.assert_allclose(table[f"p_{k}_adjusted"], slow_holm(table[f"p_{k}"].tolist()))
        np.testing.assert_allclose(compare_methods(judged, MAIN, adjust="bonferroni")[f"p_{k}_adjusted"], np.minimum(1, table[f"p_{k}"] * len(table)))


def test_counts_do_as_well_as_images():
    judged = simulated(200)
    counts = label_counts(judged, MAIN, ("dataset", "method", "creativity_filter"))
    pd.testing.assert_frame_equal(compare_methods(counts, MAIN), compare_methods(judged, MAIN))
    pd.testing.assert_frame_equal(label_differences(counts, MAIN), label_differences(judged, MAIN))


def test_difference_as_in_newcombe_1998():
    counts = pd.DataFrame({"dataset": "x", "method": ["low_active", "regular"], "creative": [56, 48], "inconclusive": [14, 32]})
    row = label_differences(counts, ("creative", "inconclusive"), baselines=["regular"]).iloc[0]
    assert np.allclose([row.difference, row.low, row.high], [0.2, 0.0524, 0.3339], atol=5e-5)


def test_differences_at_no_images_of_a_label():
    counts = pd.DataFrame({"dataset": "x", "method": ["low_active", "regular"], "creative": [10, 12], "inconclusive": [0, 0]})
    rows = label_differences(counts, ("creative", "inconclusive"), baselines=["regular"])
    assert (rows.difference == 0).all() and (rows.low < 0).all() and (rows.high > 0).all()


@pytest.mark.parametrize("call", [compare_methods, label_differences])
def test_methods_that_are_not_there(call):
    judged = simulated(400)
    with pytest.raises(ValueError, match="'painter'.*expected one of"): call(judged, MAIN, method="painter")
    with pytest.raises(ValueError, match="baselines"): call(judged, MAIN, baselines=())
    with pytest.raises(ValueError, match="counts has no column inconclusive"): call(label_counts(judged, MAIN).drop(columns="inconclusive"), MAIN)
    silent = judged.assign(consensus=judged.consensus.where(judged.method != "random", ""), status=judged.status.where(judged.method != "random", "tie"))
    with pytest.raises(ValueError, match="'random' has no image with a consensus in"): call(silent, MAIN)


# --- printed fractions


@pytest.fixture(scope="module")
def first(): return published("das2020_table1_human_labels")


@pytest.fixture(scope="module")
def printed(first): return printed_comparisons(first, MAIN)


@fast
@given(st.lists(st.integers(1, 20), min_size=3, max_size=3), st.lists(st.integers(1, 20), min_size=3, max_size=3))
def test_p_by_pool_is_the_test_at_whole_counts(a, b):
    n = sum(a) * sum(b)  # so that both fractions are whole counts
    x, y = np.multiply(a, 10 * sum(b)), np.multiply(b, 10 * sum(a))
    row = p_by_pool(np.divide(a, sum(a)), np.divide(b, sum(b)), [10 * n]).iloc[0]
    ours = stats.chi2_contingency([x, y])
    np.testing.assert_allclose([row.p_chi2, row.min_expected], [ours.pvalue, ours.expected_freq.min()], rtol=1e-6, atol=1e-300)
    np.testing.assert_allclose(row.p_g, stats.chi2_contingency([x, y], lambda_="log-likelihood").pvalue, rtol=1e-6, atol=1e-300)


def test_images_needed_is_the_first_size_below_the_level(first, printed):
    rows = first.set_index(["dataset", "method"])[[*MAIN]]
    for r in printed.itertuples():
        p = p_by_pool(rows.loc[(r.dataset, "low_active")], rows.loc[(r.dataset, r.baseline)], range(1, 700))
        for needed, values in ((r.needed_chi2, p.p_chi2), (r.needed_g, p.p_g)):
            assert needed == p.images[(values < 0.05).idxmax()]
            assert (np.diff(values) < 0).all()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=4, max_size=4), st.lists(st.integers(0, 60), min_size=4, max_size=4), st.integers(0, 1000))
def test_rounding_stays_within_its_range(a, b, seed):
    assume(sum(a) and sum(b))
    a, b = np.divide(a, sum(a)), np.divide(b, sum(b))
    assume(((a.round(2) + b.round(2) > 0) == (a + b > 0)).all() and (a + b > 0).sum() > 1)
    table = np.array([a, b])[:, a + b > 0]
    rounded, random = table.round(2), np.random.default_rng(seed)
    ends, k = judgement._extremes(rounded, 0.005), table.shape[1]
    shifts = random.uniform(-1, 1, (60, 2, k)) * 0.005
    near = table + (shifts - shifts.mean(2, keepdims=True)) * random.random((60, 1, 1))
    near = near[((near >= 0) & (abs(near - rounded) <= 0.005)).all((1, 2))]
    for x in (table, *near):
        expected = np.tile(x.mean(0), (2, 1))
        for name, statistic in (("chi2", pearson), ("g", likelihood)):
            assert ends[name][0] - 1e-7 <= statistic(x, expected) <= ends[name][1] + 1e-7


def test_rounding_bounds_are_reached():
    "Two labels: one free number a method, so a grid finds the ends."
    table = np.array([[0.40, 0.60], [0.25, 0.75]])
    grid = np.linspace(-0.005, 0.005, 21)
    values = []
    for u, v in product(grid, grid):
        x = table + [[u, -u], [v, -v]]
        values.append((pearson(x, np.tile(x.mean(0), (2, 1))), likelihood(x, np.tile(x.mean(0), (2, 1)))))
    ends = judgement._extremes(table, 0.005)
    np.testing.assert_allclose([ends["chi2"], ends["g"]], np.transpose([np.min(values, 0), np.max(values, 0)]), rtol=1e-6)


def test_needed_range_and_exact_fractions(first):
    rows = first.set_index(["dataset", "method"])[[*MAIN]]
    a, b = rows.loc[("combined", "low_active")], rows.loc[("combined", "random")]
    exact, coarse = images_needed(a, b, half_unit=0), images_needed(a, b, half_unit=0.01)
    fine = images_needed(a, b)
    assert (exact.least == exact.needed).all() and (exact.most == exact.needed).all() and (fine.needed == exact.needed).all()
    assert (coarse.least < fine.least).all() and (fine.least < fine.needed).all() and (fine.needed < fine.most).all() and (fine.most < coarse.most).all()
    assert (images_needed(a, b, level=0.01).needed > fine.needed).all()
    assert np.isinf(images_needed([0.5, 0.5], [0.5, 0.5]).most).all() and np.isinf(images_needed([1, 0], [1, 0]).needed).all()


def test_the_sentence_of_the_paper(first, printed):
    "Sizes at which all claims hold, by trying every size."
    rows, holds = first.set_index(["dataset", "method"])[[*MAIN]], np.ones(700, bool)
    for r in printed.itertuples():
        p = p_by_pool(rows.loc[(r.dataset, "low_active")], rows.loc[(r.dataset, r.baseline)], range(1, 701))
        both = ((p.p_chi2 < 0.05) & (p.p_g < 0.05)).to_numpy()
        holds &= both if (r.dataset, r.baseline) != ("combined", "random") else ~both
    sizes, found = np.flatnonzero(holds) + 1, sizes_of_claim(printed)
    assert (found.loc["as printed", "least"], found.loc["as printed", "most"]) == (sizes[0], sizes[-1]) == (235, 449)
    assert found.possible.all() and len(sizes) == 449 - 235 + 1
    assert printed.set_index(["dataset", "baseline"]).p_chi2["fmnist", "random"] > 0.2
    assert not sizes_of_claim(printed_comparisons(first, MAIN, excepted=[("fmnist", "random")])).possible["as printed"]


def test_table_4_and_its_other_method():
    table = printed_comparisons(published("das2020_table4_human_labels"), MAIN, method="non_specific", images=200, excepted=())
    assert len(table) == 9 and (table.images == 200).all() and table.claimed.all()
    assert sizes_of_claim(table).most.eq(math.inf).all()


def test_fractions_that_are_none(first):
    for a in ([39, 61], [0.3, 0.3], [-0.1, 1.1], [math.nan, 1]):
        with pytest.raises(ValueError, match="fractions_a"): p_by_pool(a, [0.5, 0.5], [10])
    with pytest.raises(ValueError, match="fractions_b has 3"): p_by_pool([0.5, 0.5], [0.5, 0.5, 0], [10])
    with pytest.raises(ValueError, match="level"): images_needed([0.5, 0.5], [0.4, 0.6], level=5)
    with pytest.raises(ValueError, match="add up to 1"): images_needed([0.5, 0.46], [0.4, 0.6])
    with pytest.raises(ValueError, match="'painter'"): printed_comparisons(first, MAIN, baselines=["painter"])
    with pytest.raises(ValueError, match="mnist low_active occurs more"): printed_comparisons(pd.concat([first, first]), MAIN)


# --- the classifier


@pytest.fixture(scope="module")
def scores():
    random = np.random.default_rng(3)
    creative = random.random(220) < 0.3
    values = random.standard_normal((220, 4)) + creative[:, None] * [1.0, 0.6, 0, 0]
    values[:, 1] += values[:, 0]
    return pd.DataFrame(values * [1, 5, 0.01, 300] + [0, 3, 0.1, 400], columns=["a", "b", "c", "d"]), creative


def test_coefficients_are_those_of_statsmodels(scores):
    frame, creative = scores
    model = CreativityClassifier().fit(frame, creative)
    x = ((frame - frame.mean()) / frame.std(ddof=0)).to_numpy()
    alpha = np.r_[0, np.full(4, 1 / model.strength_)]  # the intercept is free
    other = sm.Logit(creative.astype(float), sm.add_constant(x)).fit_regularized(alpha=alpha, disp=0, acc=1e-12, maxiter=2000)
    np.testing.assert_allclose([model.intercept_, *model.coefficients_], other.params, atol=2e-3)


def test_strength_is_the_one_a_slow_search_finds(scores):
    frame, creative = scores
    model = CreativityClassifier(seed=4).fit(frame, creative)
    x, losses = ((frame - frame.mean()) / frame.std(ddof=0)).to_numpy(), []
    for c in STRENGTHS:
        folds = StratifiedKFold(5, shuffle=True, random_state=4).split(x, creative)
        fits = [(LogisticRegression(C=c, l1_ratio=1.0, solver="saga", max_iter=10_000, random_state=0).fit(x[a], creative[a]), b) for a, b in folds]
        losses.append(np.mean([log_loss(creative[b], m.predict_proba(x[b])) for m, b in fits]))
    assert model.strength_ == STRENGTHS[int(np.argmin(losses))]


def test_units_and_order_of_columns_do_not_matter(scores):
    frame, creative = scores
    model = CreativityClassifier(["a", "b", "c", "d"]).fit(frame, creative)
    other = CreativityClassifier(["a", "b", "c", "d"]).fit((frame * 1000 + 5)[["d", "c", "b", "a"]], creative)
    np.testing.assert_allclose(other.coefficients_, model.coefficients_, atol=1e-6)
    np.testing.assert_allclose(other.predict_proba(frame * 1000 + 5), model.predict_proba(frame[["c", "a", "d", "b"]].assign(more="x")), atol=1e-6)


def test_probabilities_and_ranking(scores):
    frame, creative = scores
    model = CreativityClassifier().fit(frame, creative)
    p = model.predict_proba(frame)
    assert p.shape == (220, 2) and np.allclose(p.sum(1), 1) and abs(p[:, 1].mean() - creative.mean()) < 0.01
    assert roc_auc_score(creative, p[:, 1]) > 0.7
    tensors = {k: torch.tensor(frame[k].to_numpy()) for k in frame}
    assert np.array_equal(model.predict_proba(tensors), p)
    order = model.rank(tensors)
    assert sorted(order) == list(range(220)) and (np.diff(p[order, 1]) <= 0).all() and model.rank(frame, top=7).tolist() == order[:7].tolist()
    same = {k: v[:1].expand(5) for k, v in tensors.items()}
    assert model.rank(same).tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(np.concatenate([model.predict_proba(frame[i:i + 3]) for i in range(0, 220, 3)]), p)
    images = torch.arange(220)
    assert images[model.rank(tensors, 3)].tolist() == order[:3].tolist()


def test_useless_and_constant_metrics():
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.standard_normal((300, 8)), columns=list("abcdefgh")).assign(constant=3.0)
    model = CreativityClassifier().fit(frame, random.random(300) < 0.4)
    assert model.coefficients_["constant"] == 0 and (model.coefficients_ == 0).sum() >= 5
    assert np.isfinite(model.predict_proba(frame)).all()


def test_saved_and_loaded(scores, tmp_path):
    frame, creative = scores
    model = CreativityClassifier(["b", "a"], seed=2).fit(frame, creative)
    path = tmp_path / "model.json"
    model.save(path)
    again = CreativityClassifier.load(path)
    assert np.array_equal(again.predict_proba(frame), model.predict_proba(frame)) and again.coefficients_.equals(model.coefficients_)
    assert (again.metrics, again.seed, again.strength_) == (("b", "a"), 2, model.strength_)
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes() and len(list(tmp_path.iterdir())) == 2


def test_failed_save_leaves_the_old_file(scores, tmp_path, monkeypatch):
    model = CreativityClassifier().fit(*scores)
    path = tmp_path / "model.json"
    model.save(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError): model.save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["model.json"]


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", json.dumps({"kind": "Novelty"})])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(ValueError, match="model.json"): CreativityClassifier.load(tmp_path / "model.json")


def test_classifier_says_what_is_wrong(scores, tmp_path):
    frame, creative = scores
    for call in (lambda m: m.predict_proba(frame), lambda m: m.rank(frame), lambda m: m.save(tmp_path / "x")):
        with pytest.raises(NotFittedError): call(CreativityClassifier())
    assert not list(tmp_path.iterdir())
    model = CreativityClassifier().fit(frame, creative)
    with pytest.raises(ValueError, match="no column d: expected a, b, c, d"): model.predict_proba(frame.drop(columns="d"))
    with pytest.raises(ValueError, match="b is NaN or infinite for 1 of 220"): model.predict_proba(frame.assign(b=[math.inf, *[1.0] * 219]))
    with pytest.raises(ValueError, match="b is NaN"): model.fit(frame.assign(b=math.nan), creative)
    with pytest.raises(ValueError, match="0 of 220 are"): model.fit(frame, np.zeros(220, bool))
    with pytest.raises(ValueError, match="1 of 220 are"): model.fit(frame, np.arange(220) == 7)
    with pytest.raises(ValueError, match="220 booleans, got int"): model.fit(frame, creative.astype(int))
    with pytest.raises(ValueError, match="groups of shape"): model.fit(frame, creative, groups=[1, 2])
    with pytest.raises(ValueError, match="top=0"): model.rank(frame, top=0)
    with pytest.raises(ValueError, match="different names"): CreativityClassifier([]).fit(frame, creative)


def test_path_begins_with_nothing_and_ends_unpenalised(scores):
    frame, creative = scores
    path = coefficient_path(frame, creative, decades=5, points=12)
    x = (frame - frame.mean()) / frame.std(ddof=0)
    free = sm.Logit(creative.astype(float), sm.add_constant(x.to_numpy())).fit(disp=0)
    assert (path.iloc[0] == 0).all() and (path.abs().sum(axis=1).diff().dropna() > -1e-3).all()
    np.testing.assert_allclose(path.iloc[-1], free.params[1:], atol=0.01)


# --- cross-validation


@pytest.fixture(scope="module")
def judged(): return simulated(260, seed=5)


@pytest.fixture(scope="module")
def result(judged): return cross_validate_creativity(judged, ["a", "b", "oc_score"], folds=5, repeats=2)


def test_every_image_is_held_out_once_a_repeat(judged, result):
    agreed = judged[judged.consensus != ""]
    for _, rows in result.probabilities.groupby("repeat"):
        assert sorted(rows.row) == list(agreed.index)
        assert (rows.set_index("row").creative.sort_index() == (agreed.consensus == "creative")).all()
        shares = rows.groupby("fold").creative.mean()
        assert shares.max() - shares.min() < 0.05
    first, second = (r.set_index("row").fold.sort_index() for _, r in result.probabilities.groupby("repeat"))
    assert (first != second).any()


def test_by_hand(judged, result):
    "The first fold again, in plain steps: scale, choose C and fit on the training rows, then look at the held-out ones."
    metrics, rows = ["a", "b", "oc_score"], result.probabilities.query("repeat == 0")
    agreed = judged[judged.consensus != ""]
    held = agreed.index.isin(rows.query("fold == 0").row)
    creative = (agreed.consensus == "creative").to_numpy()
    train, y = agreed.loc[~held, metrics], creative[~held]
    mean, sd = train.mean(), train.std(ddof=0)
    x, new, losses = ((train - mean) / sd).to_numpy(), ((agreed.loc[held, metrics] - mean) / sd).to_numpy(), []
    fit = lambda c, x, y: LogisticRegression(C=c, l1_ratio=1.0, solver="saga", max_iter=10_000, random_state=0).fit(x, y)
    for c in STRENGTHS:
        inner = StratifiedKFold(5, shuffle=True, random_state=0).split(x, y)
        losses.append(np.mean([log_loss(y[b], fit(c, x[a], y[a]).predict_proba(x[b])) for a, b in inner]))
    p = fit(STRENGTHS[int(np.argmin(losses))], x, y).predict_proba(new)[:, 1]
    ours = rows.query("fold == 0").set_index("row").loc[agreed.index[held], "all metrics"]
    np.testing.assert_allclose(ours, p, atol=1e-3)
    single = sm.Logit(y.astype(float), sm.add_constant(x[:, 0])).fit(disp=0).predict(sm.add_constant(new[:, 0]))
    np.testing.assert_allclose(rows.query("fold == 0").set_index("row").loc[agreed.index[held], "a"], single, atol=1e-3)
    assert (rows.query("fold == 0").majority == y.mean()).all()


def test_measures_are_recomputed(result):
    for r in result.folds.itertuples():
        rows = result.probabilities.query("repeat == @r.repeat and fold == @r.fold")
        p, y = rows[r.model], rows.creative
        said = p > 0.5
        recall = [(said == y)[y == c].mean() for c in (False, True)]
        np.testing.assert_allclose([r.images, r.accuracy, r.balanced_accuracy, r.brier], [len(y), (said == y).mean(), np.mean(recall), ((p - y) ** 2).mean()])
        wins = [(a > b) + 0.5 * (a == b) for a in p[y] for b in p[~y]]
        assert np.isclose(r.auc, np.mean(wins))


def test_summary_is_over_folds_and_over_repeats(result):
    assert set(result.summary.model) == {"all metrics", "a", "b", "oc_score", "majority"} and len(result.summary) == 5 * 4
    row = result.summary.set_index(["model", "measure"]).loc[("a", "auc")]
    values = result.folds.query("model == 'a'")
    means = values.groupby("repeat").auc.mean()
    np.testing.assert_allclose([row["mean"], row.sd_folds, row.sd_repeats], [values.auc.mean(), values.auc.std(), means.std()])
    best = result.summary.query("measure == 'auc'").set_index("model")["mean"]
    assert best["all metrics"] > best["oc_score"] + 0.1 and best["majority"] == 0.5


def test_a_held_out_image_has_no_part_in_its_model(judged, result):
    "Another metric value of one image changes its own prediction in its fold, and nobody else's there."
    row = result.probabilities.row[0]
    wild = judged.copy()
    wild.loc[row, "a"] = 1e6
    other = cross_validate_creativity(wild, ["a", "b", "oc_score"], folds=5, repeats=1).probabilities
    before = result.probabilities.query("repeat == 0")
    assert (other.row.to_numpy() == before.row.to_numpy()).all()
    changed = (other[["all metrics", "a"]] != before[["all metrics", "a"]]).any(axis=1)
    fold = other.fold[other.row == row].iloc[0]
    assert set(other.row[changed & (other.fold == fold)]) == {row} and changed[other.fold != fold].all()


def test_same_seed_same_folds(judged, result):
    again = cross_validate_creativity(judged, ["a", "b", "oc_score"], folds=5, repeats=1)
    pd.testing.assert_frame_equal(again.probabilities, result.probabilities.query("repeat == 0"))
    other = cross_validate_creativity(judged, ["a"], folds=5, repeats=1, seed=1)
    assert (other.probabilities.row.to_numpy() != result.probabilities.query("repeat == 0").row.to_numpy()).any()


def copies_of_noise(n: int = 24, times: int = 4, width: int = 12) -> tuple[pd.DataFrame, list[str]]:
    random = np.random.default_rng(1)
    noise = pd.DataFrame(random.standard_normal((n, width)), columns=[f"n{i}" for i in range(width)])
    noise = noise.assign(item=range(n), consensus=np.where(np.arange(n) % 2, "creative", "inconclusive"))
    return pd.concat([noise] * times, ignore_index=True), [f"n{i}" for i in range(width)]


def test_copies_on_both_sides_look_like_skill():
    copies, metrics = copies_of_noise()
    auc = {}
    for groups in (None, "item"):
        found = cross_validate_creativity(copies, metrics, folds=3, repeats=1, groups=groups)
        auc[groups] = found.folds.query("model == 'all metrics'").auc.mean()
        spread = copies["item"].loc[found.probabilities.row].to_numpy()
        assert (found.probabilities.fold.groupby(spread).nunique().max() == 1) == (groups == "item")
    assert auc[None] > 0.9 and 0.3 < auc["item"] < 0.7


def test_choice_of_strength_keeps_groups_together():
    copies, metrics = copies_of_noise()
    creative = copies.consensus == "creative"
    together = CreativityClassifier(metrics).fit(copies, creative, copies["item"])
    apart = CreativityClassifier(metrics).fit(copies, creative)
    assert together.strength_ <= 0.1 < 3 < apart.strength_


def test_what_counts_as_not_creative(judged):
    rows = lambda **options: set(cross_validate_creativity(judged, ["a"], folds=3, repeats=1, **options).probabilities.row)
    assert rows() == set(judged.index[judged.consensus != ""])
    assert rows(against=["not_novel_or_creative"]) == set(judged.index[judged.consensus.isin(["creative", "not_novel_or_creative"])])
    found = cross_validate_creativity(judged, ["a"], folds=3, repeats=1, positive="inconclusive").probabilities
    assert found.creative.sum() == (judged.consensus == "inconclusive").sum()


@pytest.mark.parametrize("options, said", [
    (dict(folds=100), "folds=100: expected at least as many images of either class"), (dict(folds=1), "folds=1"), (dict(repeats=0), "repeats=0"),
    (dict(positive="beauty"), "got 0 of one; 'beauty'"), (dict(metrics=["a", "ice_fmnist"]), "ice_fmnist is NaN"), (dict(metrics=["x"]), "no column x"),
    (dict(groups="person"), "no column person"), (dict(metrics=[]), "at least one"), (dict(against=[]), "got 0 of one")])
def test_cross_validation_says_what_is_wrong(judged, options, said):
    with pytest.raises(ValueError, match=said): cross_validate_creativity(judged, **{"metrics": ["a"], **options})


def test_fold_of_one_class_has_no_auc():
    measures = judgement._measures(np.zeros(4, bool), np.array([0.1, 0.2, 0.3, 0.6]))
    assert math.isnan(measures["auc"]) and math.isnan(measures["balanced_accuracy"]) and measures["accuracy"] == 0.75
    assert np.isclose(measures["brier"], (0.01 + 0.04 + 0.09 + 0.36) / 4)


def test_probabilities_are_calibrated_where_the_model_is_true():
    random = np.random.default_rng(0)
    x = random.standard_normal(1500)
    p = 1 / (1 + np.exp(1 - 1.5 * x))
    made = pd.DataFrame({"a": x, "item": range(1500), "consensus": np.where(random.random(1500) < p, "creative", "inconclusive")})
    found = cross_validate_creativity(made, ["a"], folds=5, repeats=1).probabilities
    np.testing.assert_allclose(found["all metrics"], p[found.row], atol=0.1)


# --- plots


@pytest.fixture
def ax():
    from matplotlib import pyplot as plt
    yield plt.subplots()[1]
    plt.close("all")


def test_plots_show_the_numbers(ax, judged, result, first, scores):
    plot_calibration(result, bins=4, ax=ax)
    observed, predicted = calibration_curve(result.probabilities.creative, result.probabilities["all metrics"], n_bins=4, strategy="quantile")
    np.testing.assert_array_equal(ax.lines[-1].get_xydata(), np.stack([predicted, observed], 1))
    with pytest.raises(ValueError, match="model='x'"): plot_calibration(result, "x")
    ax.clear()
    plot_p_by_pool(first, MAIN, "fmnist", sizes=[10, 100], ax=ax)
    rows = first.set_index(["dataset", "method"])[[*MAIN]]
    p = p_by_pool(rows.loc[("fmnist", "low_active")], rows.loc[("fmnist", "noisy")], [10, 100])
    np.testing.assert_array_equal([line.get_ydata() for line in ax.lines[:2]], [p.p_chi2, p.p_g])
    ax.clear()
    path = coefficient_path(*scores, points=4)
    plot_path(path, 0.5, ax)
    assert [line.get_label() for line in ax.lines[:4]] == list(path) and list(ax.lines[4].get_xdata()) == [0.5, 0.5]
    ax.clear()
    differences = label_differences(judged, MAIN)
    plot_differences(differences, "mnist", ax)
    shown = [c[0].get_xdata().tolist() for c in ax.containers]
    assert shown == [differences.query("dataset == 'mnist' and baseline == @m").difference.tolist() for m in BASELINES]


def test_result_can_be_narrowed(result):
    few = CrossValidation(result.folds[result.folds.model == "a"], result.probabilities)
    assert set(few.summary.model) == {"a"}
