"Label tables and tests between methods: slow oracles, other libraries, textbook values, properties, faults."
import math
from fractions import Fraction
from itertools import product

import matplotlib
import numpy as np
import pandas as pd
import pytest
from creative_nb import judgement
from creative_nb.judgement import (BASELINES, compare_counts, compare_methods, label_counts, label_differences,
                                   label_table, metric_table, plot_differences)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from judged_images import MAIN, simulated
from scipy import stats
from scipy.special import xlogy

matplotlib.use("agg")
fast = settings(max_examples=40, deadline=None)
small_counts = st.lists(st.integers(0, 6), min_size=3, max_size=3)


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
            centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
            half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
            np.testing.assert_allclose([row[k], row[f"{k}_low"], row[f"{k}_high"]], [p, centre - half, centre + half],
                atol=1e-12)


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
    (dict(consensus="beauty"), "consensus='beauty'"), (dict(status="perhaps"), "status='perhaps'"),
    (dict(status="tie", consensus="creative"), "if and only if"),
    (dict(item="i0"), "more than once")])
def test_rows_that_are_no_image_of_the_study(change, said):
    with pytest.raises(ValueError, match=said): label_counts(simulated(30).assign(**change), MAIN)


def test_missing_columns_and_empty_tables():
    with pytest.raises(ValueError, match="no column method"): label_counts(simulated().drop(columns="method"), MAIN)
    with pytest.raises(ValueError, match="empty"): label_counts(simulated()[:0], MAIN)
    with pytest.raises(ValueError, match="confidence=95"): label_table(simulated(), MAIN, confidence=95)


def test_metric_table_is_a_slow_mean():
    judged = simulated()
    table = metric_table(judged, MAIN, ["a", "ice_fmnist", "in_domain_score"])
    named = [f"{m}{end}" for m in ("a", "ice_fmnist", "in_domain_score") for end in ("", "_sd")]
    assert len(table) == 2 * len(MAIN) and list(table) == ["dataset", "label", "images", *named]
    for row in table.to_dict("records"):
        own = judged[(judged.dataset == row["dataset"]) & (judged.consensus == row["label"])]
        assert row["images"] == len(own)
        for name in ("a", "ice_fmnist", "in_domain_score"):
            np.testing.assert_allclose([row[name], row[f"{name}_sd"]], [np.mean(own[name]), np.std(own[name], ddof=1)])
    assert table[table.dataset == "mnist"].ice_fmnist.isna().all()
    assert table[table.dataset == "fmnist"].ice_fmnist.notna().all()


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
    assert ours["p_from"] == "asymptotic" and ours["dof"] == len(a) - 1
    assert np.isclose(ours["min_expected"], expected.min())
    for name, statistic in (("chi2", pearson), ("g", likelihood)):
        np.testing.assert_allclose(ours[name], statistic(table, expected), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(ours[f"p_{name}"], stats.chi2.sf(statistic(table, expected), len(a) - 1), rtol=1e-6)
    np.testing.assert_allclose(ours["v"], math.sqrt(ours["chi2"] / table.sum()))
    order = data.draw(st.permutations(range(len(a))))
    for other in (compare_counts(b, a), compare_counts(*table[:, order]), compare_counts([*a, 0, 0], [*b, 0, 0])):
        for k in ("chi2", "g", "p_chi2", "p_g", "dof", "v", "v_low", "v_high"):
            np.testing.assert_allclose(other[k], ours[k], rtol=1e-9, atol=1e-9)


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
    sampled = stats.chi2_contingency(table, correction=False,
        method=stats.MonteCarloMethod(n_resamples=20_000, rng=np.random.default_rng(1)))
    permuted = stats.chi2_contingency(table, correction=False,
        method=stats.PermutationMethod(n_resamples=5000, rng=np.random.default_rng(1)))
    for p, n in ((few["p_chi2"], 20_000), (sampled.pvalue, 20_000), (permuted.pvalue, 5000)):
        assert abs(p - ours["p_chi2"]) < 5 * math.sqrt(ours["p_chi2"] / n)
    assert abs(few["p_g"] - ours["p_g"]) < 5 * math.sqrt(ours["p_g"] / 20_000)
    again = lambda **options: compare_counts(*table, largest=0, resamples=20_000, **options)
    assert few == again() != again(seed=1)


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


@pytest.mark.parametrize("a, said", [([1, 2, 3], "b has 2 values"), ([0.5, 2], "a=.*whole numbers"), ([-1, 2], "a="),
    ([0, 0], "a="), ([math.nan, 1], "a=")])
def test_counts_that_are_none(a, said):
    with pytest.raises(ValueError, match=said): compare_counts(a, [3, 4])


@pytest.mark.parametrize("statistic, dof, n", [(0.5, 3, 50), (9.0, 3, 250), (120.0, 3, 250), (700.0, 7, 1000),
    (15.0, 1, 40)])
def test_interval_of_v_inverts_the_noncentral_distribution(statistic, dof, n):
    ends = judgement._v_interval(statistic, dof, n, 0.95)
    for end, tail in (("v_low", 0.975), ("v_high", 0.025)):
        if ends[end] > 0: assert abs(stats.ncx2.cdf(statistic, dof, n * ends[end] ** 2) - tail) < 1e-6
        else: assert stats.chi2.cdf(statistic, dof) <= tail


def test_interval_of_v_covers():
    p, q, n, random = np.array([0.4, 0.4, 0.2]), np.array([0.25, 0.5, 0.25]), 150, np.random.default_rng(0)
    true = math.sqrt(((p - q) ** 2 / (p + q)).sum() / 2)
    found = [compare_counts(random.multinomial(n, p), random.multinomial(n, q), confidence=0.95) for _ in range(300)]
    assert 0.91 < np.mean([f["v_low"] <= true <= f["v_high"] for f in found]) < 0.98


@pytest.mark.parametrize("a, b", [([3, 1], [1, 3]), ([5, 0, 0, 0], [0, 0, 0, 5]), ([1, 0], [0, 1]),
    ([9, 1, 1], [1, 1, 9])])
def test_v_and_its_interval_stay_below_1(a, b):
    found = compare_counts(a, b)
    assert 0 <= found["v_low"] <= found["v"] <= found["v_high"] <= 1


@pytest.mark.parametrize("a, b", [([2500, 2400, 90, 10], [2400, 2500, 97, 3]), ([60, 40], [45, 55]),
    ([60, 40], [47, 53]),
    ([100, 60, 40], [80, 85, 35]), ([100, 60, 40], [90, 70, 40])])
def test_the_interval_of_v_leaves_0_where_the_test_rejects(a, b):
    found = compare_counts(a, b)
    assert found["p_from"] == "asymptotic" and (found["v_low"] > 0) == (found["p_chi2"] < 0.05)


def test_images_without_a_consensus_are_a_label_more():
    judged = pd.DataFrame({"dataset": "d", "method": ["a"] * 4 + ["b"] * 4, "item": list("abcdefgh"),
                           "consensus": ["x", "x", "", None, "x", "y", "y", "x"],
                           "status": ["agreed", "agreed", "tie", "too few"] + ["agreed"] * 4})
    counts = judgement.label_counts(judgement.with_lost(judged), ("x", "y", "no_consensus"))
    assert counts[["x", "y", "no_consensus"]].to_numpy().tolist() == [[2, 0, 2], [2, 2, 0]]
    found = judgement.compare_methods(judgement.with_lost(judged), ("x", "y", "no_consensus"), "a", ["b"]).iloc[0]
    assert (found.images, found.images_baseline, found.dof) == (4, 4, 2)


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
        own = judged[judged.dataset == r.dataset]
        a, b = ([((own.method == m) & (own.consensus == k)).sum() for k in MAIN] for m in ("low-active", r.baseline))
        alone = compare_counts(a, b)
        assert (r.images, r.images_baseline) == (sum(a), sum(b))
        assert (r.p_chi2, r.p_g, r.v, r.p_from) == tuple(alone[k] for k in ("p_chi2", "p_g", "v", "p_from"))
    for k in ("chi2", "g"):
        np.testing.assert_allclose(table[f"p_{k}_adjusted"], slow_holm(table[f"p_{k}"].tolist()))
        np.testing.assert_allclose(compare_methods(judged, MAIN, adjust="bonferroni")[f"p_{k}_adjusted"],
            np.minimum(1, table[f"p_{k}"] * len(table)))


def test_counts_do_as_well_as_images():
    judged = simulated(200)
    counts = label_counts(judged, MAIN, ("dataset", "method", "creativity_filter"))
    pd.testing.assert_frame_equal(compare_methods(counts, MAIN), compare_methods(judged, MAIN))
    pd.testing.assert_frame_equal(label_differences(counts, MAIN), label_differences(judged, MAIN))


def test_difference_as_in_newcombe_1998():
    methods = {"dataset": "x", "method": ["low-active", "regular"]}
    counts = pd.DataFrame(methods | {"creative": [56, 48], "inconclusive": [14, 32]})
    row = label_differences(counts, ("creative", "inconclusive"), baselines=["regular"]).iloc[0]
    assert np.allclose([row.difference, row.low, row.high], [0.2, 0.0524, 0.3339], atol=5e-5)


def test_differences_at_no_images_of_a_label():
    methods = {"dataset": "x", "method": ["low-active", "regular"]}
    counts = pd.DataFrame(methods | {"creative": [10, 12], "inconclusive": [0, 0]})
    rows = label_differences(counts, ("creative", "inconclusive"), baselines=["regular"])
    assert (rows.difference == 0).all() and (rows.low < 0).all() and (rows.high > 0).all()


@pytest.mark.parametrize("call", [compare_methods, label_differences])
def test_methods_that_are_not_there(call):
    judged = simulated(400)
    with pytest.raises(ValueError, match="'painter'.*expected one of"): call(judged, MAIN, method="painter")
    with pytest.raises(ValueError, match="baselines"): call(judged, MAIN, baselines=())
    with pytest.raises(ValueError, match="counts has no column inconclusive"):
        call(label_counts(judged, MAIN).drop(columns="inconclusive"), MAIN)
    others = judged.method != "random-off"
    silent = judged.assign(consensus=judged.consensus.where(others, ""), status=judged.status.where(others, "tie"))
    with pytest.raises(ValueError, match="'random-off' has no image with a consensus in"): call(silent, MAIN)


# --- plots


@pytest.fixture
def ax():
    from matplotlib import pyplot as plt
    yield plt.subplots()[1]
    plt.close("all")


def test_plot_shows_the_differences(ax):
    differences = label_differences(simulated(260, seed=5), MAIN)
    plot_differences(differences, "mnist", ax)
    shown = [c[0].get_xdata().tolist() for c in ax.containers]
    assert shown == [differences.query("dataset == 'mnist' and baseline == @m").difference.tolist() for m in BASELINES]


# --- what has a name goes by it


def test_counts_with_names_are_matched_by_name():
    labels = ["creative"] * 30 + ["plain"] * 10, ["creative"] * 10 + ["plain"] * 30
    a, b = (pd.Series(x).value_counts() for x in labels)  # the most frequent first
    assert a.index[0] != b.index[0] and compare_counts(a, b) == compare_counts([30, 10], [10, 30])
    assert compare_counts(a.to_dict(), b.to_dict()) == compare_counts(a, b)
    only = compare_counts(pd.Series({"creative": 40}), b)  # a label that nobody gave is not in the counts
    assert only == compare_counts([40, 0], [10, 30])
    assert compare_counts(pd.Series([30, 10]), [10, 30]) == compare_counts([30, 10], [10, 30])
    with pytest.raises(ValueError, match="a has labels"): compare_counts(a, [10, 30])
    with pytest.raises(ValueError, match="b has labels.*different"):
        compare_counts(a, pd.Series([1, 2], index=["creative", "creative"]))


def test_methods_and_data_sets_with_numbers_as_names():
    judged = simulated(80).replace({"method": {"low-active": 1, "noisy": 2}, "dataset": {"mnist": 2024}})
    judged = judged[judged.method.isin([1, 2]) & (judged.dataset == 2024)]
    rows = compare_methods(judged, MAIN, "1", ["2"])
    assert rows.method.tolist() == ["1"] and rows.dataset.tolist() == [2024]
    with pytest.raises(ValueError, match="expected one of 2, 1"): compare_methods(judged, MAIN, "3", ["2"])


# --- what is refused


BAD_SHARES = (95, 0, 1, -0.5, math.nan, math.inf, None, "a", True)


@pytest.mark.parametrize("confidence", BAD_SHARES)
@pytest.mark.parametrize("call", [
    lambda c: label_table(simulated(), MAIN, confidence=c), lambda c: compare_counts([3, 4], [5, 6], confidence=c),
    lambda c: label_differences(simulated(), MAIN, confidence=c),
    lambda c: compare_methods(simulated(), MAIN, confidence=c)])
def test_a_confidence_that_is_none(call, confidence):
    with pytest.raises((TypeError, ValueError), match="confidence="): call(confidence)


@pytest.mark.parametrize("a", [None, 5, "ab", [], ["a"], [math.nan, 1], [-1, 2], [0.5, 1], [[1, 2]], {}, {"x": -1}])
def test_counts_of_other_kinds(a):
    with pytest.raises((TypeError, ValueError), match="a=|b="): compare_counts(a, a)


@pytest.mark.parametrize("wrong", [
    dict(seed=-1), dict(seed="a"), dict(largest=-1), dict(largest=0.5), dict(resamples=0), dict(resamples=1.5),
    dict(resamples=None)])
def test_settings_of_a_test_that_are_refused(wrong):
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(wrong))}="): compare_counts([1, 4], [5, 2], **wrong)


@pytest.mark.parametrize("call, said", [
    (lambda t: label_counts(None, MAIN), "judged=None"), (lambda t: label_counts(t, ()), "labels="),
    (lambda t: label_counts(t, "creative"), "labels="), (lambda t: label_counts(t, ["creative"] * 2), "labels="),
    (lambda t: label_counts(t, MAIN, ()), "by="), (lambda t: label_counts(t, MAIN, "method"), "by="),
    (lambda t: metric_table(t, MAIN, []), "metrics="),
    (lambda t: metric_table(t.assign(a="x"), MAIN, ["a"]), "no finite"),
    (lambda t: metric_table(t.assign(a=math.inf), MAIN, ["a"]), "a is no finite number"),
    (lambda t: compare_methods(t, MAIN, adjust="foo"), "adjust='foo'"),
    (lambda t: compare_methods(t, MAIN, baselines=[]), "baselines="),
    (lambda t: compare_methods(t, MAIN, 3), "method=3"),
    (lambda t: plot_differences(label_differences(t, MAIN), "digits"), "dataset='digits'"),
    (lambda t: plot_differences(t, "mnist"), "no column"), (lambda t: plot_differences(t, "mnist", "ax"), "ax=")])
def test_calls_that_are_refused(call, said):
    with pytest.raises((TypeError, ValueError), match=said): call(simulated())


@pytest.mark.parametrize("value", [-1, 0.5, math.nan, math.inf, "x"])
def test_tables_of_counts_that_are_none(value):
    methods = {"dataset": "x", "method": ["low-active", "regular"]}
    counts = pd.DataFrame(methods | {"creative": [value, 5], "plain": [9, 9]})
    for f in (compare_methods, label_differences):
        with pytest.raises(ValueError, match="whole numbers"):
            f(counts, ["creative", "plain"], baselines=["regular"])
