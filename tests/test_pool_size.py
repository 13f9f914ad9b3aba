"Printed fractions: every size tried, whole counts, grids over what rounding allows, faults."
import math
from itertools import product

import matplotlib
import numpy as np
import pandas as pd
import pytest
from creative_nb import pool_size
from creative_nb.pool_size import images_needed, p_by_pool, plot_p_by_pool, printed_comparisons, sizes_of_claim
from creative_nb.published import printed_table
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from judged_images import MAIN
from scipy import stats
from scipy.special import xlogy

matplotlib.use("agg")
fast = settings(max_examples=40, deadline=None)


def pearson(table, expected): return ((table - expected) ** 2 / expected).sum()


def likelihood(table, expected): return 2 * xlogy(table, table / expected).sum()


@pytest.fixture(scope="module")
def first(): return printed_table("das2020", "table1_human_labels")


@pytest.fixture(scope="module")
def printed(first): return printed_comparisons(first, MAIN)


@fast
@given(st.lists(st.integers(1, 20), min_size=3, max_size=3), st.lists(st.integers(1, 20), min_size=3, max_size=3))
def test_p_by_pool_is_the_test_at_whole_counts(a, b):
    n = sum(a) * sum(b)  # so that both fractions are whole counts
    x, y = np.multiply(a, 10 * sum(b)), np.multiply(b, 10 * sum(a))
    row = p_by_pool(np.divide(a, sum(a)), np.divide(b, sum(b)), [10 * n]).iloc[0]
    ours = stats.chi2_contingency([x, y])
    np.testing.assert_allclose([row.p_chi2, row.min_expected], [ours.pvalue, ours.expected_freq.min()], rtol=1e-6,
        atol=1e-300)
    np.testing.assert_allclose(row.p_g, stats.chi2_contingency([x, y], lambda_="log-likelihood").pvalue, rtol=1e-6,
        atol=1e-300)


def test_images_needed_is_the_first_size_below_the_level(first, printed):
    rows = first.set_index(["dataset", "method"])[[*MAIN]]
    for r in printed.itertuples():
        p = p_by_pool(rows.loc[(r.dataset, "low-active")], rows.loc[(r.dataset, r.baseline)], range(1, 700))
        for needed, values in ((r.needed_chi2, p.p_chi2), (r.needed_g, p.p_g)):
            assert needed == p.images[(values < 0.05).idxmax()]
            assert (np.diff(values) < 0).all()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=4, max_size=4), st.lists(st.integers(0, 60), min_size=4, max_size=4),
    st.integers(0, 1000))
def test_rounding_stays_within_its_range(a, b, seed):
    assume(sum(a) and sum(b))
    a, b = np.divide(a, sum(a)), np.divide(b, sum(b))
    assume(((a.round(2) + b.round(2) > 0) == (a + b > 0)).all() and (a + b > 0).sum() > 1)
    table = np.array([a, b])[:, a + b > 0]
    rounded, random = table.round(2), np.random.default_rng(seed)
    ends, k = pool_size._extremes(rounded, 0.005), table.shape[1]
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
    ends = pool_size._extremes(table, 0.005)
    np.testing.assert_allclose([ends["chi2"], ends["g"]], np.transpose([np.min(values, 0), np.max(values, 0)]),
        rtol=1e-6)


def test_needed_range_and_exact_fractions(first):
    rows = first.set_index(["dataset", "method"])[[*MAIN]]
    a, b = rows.loc[("combined", "low-active")], rows.loc[("combined", "random-off")]
    exact, coarse = images_needed(a, b, half_unit=0), images_needed(a, b, half_unit=0.01)
    fine = images_needed(a, b)
    assert (exact.least == exact.needed).all() and (exact.most == exact.needed).all()
    assert (fine.needed == exact.needed).all()
    assert (coarse.least < fine.least).all() and (fine.least < fine.needed).all() and (fine.needed < fine.most).all()
    assert (fine.most < coarse.most).all()
    assert (images_needed(a, b, level=0.01).needed > fine.needed).all()
    assert np.isinf(images_needed([0.5, 0.5], [0.5, 0.5]).most).all()
    assert np.isinf(images_needed([1, 0], [1, 0]).needed).all()


def test_the_sentence_of_the_paper(first, printed):
    "Sizes at which all claims hold, by trying every size."
    rows, holds = first.set_index(["dataset", "method"])[[*MAIN]], np.ones(700, bool)
    for r in printed.itertuples():
        p = p_by_pool(rows.loc[(r.dataset, "low-active")], rows.loc[(r.dataset, r.baseline)], range(1, 701))
        both = ((p.p_chi2 < 0.05) & (p.p_g < 0.05)).to_numpy()
        holds &= both if (r.dataset, r.baseline) != ("combined", "random-off") else ~both
    sizes, found = np.flatnonzero(holds) + 1, sizes_of_claim(printed)
    assert (found.loc["as printed", "least"], found.loc["as printed", "most"]) == (sizes[0], sizes[-1]) == (235, 449)
    assert found.possible.all() and len(sizes) == 449 - 235 + 1
    assert printed.set_index(["dataset", "baseline"]).p_chi2["fmnist", "random-off"] > 0.2
    other = printed_comparisons(first, MAIN, excepted=[("fmnist", "random-off")])
    assert not sizes_of_claim(other).possible["as printed"]


def test_table_4_and_its_other_method():
    fourth = printed_table("das2020", "table4_human_labels")
    table = printed_comparisons(fourth, MAIN, method="non-specific", images=200, excepted=())
    assert len(table) == 9 and (table.images == 200).all() and table.claimed.all()
    assert sizes_of_claim(table).most.eq(math.inf).all()


def test_fractions_that_are_none(first):
    for a in ([39, 61], [0.3, 0.3], [-0.1, 1.1], [math.nan, 1]):
        with pytest.raises(ValueError, match="fractions_a"): p_by_pool(a, [0.5, 0.5], [10])
    with pytest.raises(ValueError, match="fractions_b has 3"): p_by_pool([0.5, 0.5], [0.5, 0.5, 0], [10])
    with pytest.raises(ValueError, match="level"): images_needed([0.5, 0.5], [0.4, 0.6], level=5)
    with pytest.raises(ValueError, match="add up to 1"): images_needed([0.5, 0.46], [0.4, 0.6])
    with pytest.raises(ValueError, match="'painter'"): printed_comparisons(first, MAIN, baselines=["painter"])
    with pytest.raises(ValueError, match="mnist low-active occurs more"):
        printed_comparisons(pd.concat([first, first]), MAIN)


@pytest.fixture
def ax():
    from matplotlib import pyplot as plt
    yield plt.subplots()[1]
    plt.close("all")


def test_plot_shows_p_of_both_tests(ax, first):
    plot_p_by_pool(first, MAIN, "fmnist", sizes=[10, 100], ax=ax)
    rows = first.set_index(["dataset", "method"])[[*MAIN]]
    p = p_by_pool(rows.loc[("fmnist", "low-active")], rows.loc[("fmnist", "noisy")], [10, 100])
    np.testing.assert_array_equal([line.get_ydata() for line in ax.lines[:2]], [p.p_chi2, p.p_g])


@pytest.mark.parametrize("call, said", [
    (lambda t: images_needed([0.5, 0.5], [0.4, 0.6], half_unit=-1), "half_unit=-1"),
    (lambda t: images_needed([0.5, 0.5], [0.4, 0.6], half_unit=1), "half_unit=1"),
    (lambda t: images_needed([0.5, 0.5], [0.4, 0.6], half_unit=math.nan), "half_unit=nan"),
    (lambda t: images_needed([0.5, 0.5], [0.4, 0.6], level="a"), "level='a'"),
    (lambda t: images_needed([0.5, 0.5], [0.4, 0.6], level=1), "level=1"),
    (lambda t: images_needed(None, [0.4, 0.6]), "fractions_a=None"), (lambda t: images_needed([], []), "fractions_a="),
    (lambda t: p_by_pool([0.5, 0.5], [0.4, 0.6], []), "sizes="), (lambda t: p_by_pool([1.0], [1.0], [0]), "sizes="),
    (lambda t: p_by_pool([1.0], [1.0], [2.5]), "sizes="), (lambda t: p_by_pool([1.0], [1.0], [math.inf]), "sizes="),
    (lambda t: p_by_pool([1.0], [1.0], 10), "sizes="), (lambda t: printed_comparisons(t, MAIN, images=0), "images=0"),
    (lambda t: printed_comparisons(t, []), "labels="),
    (lambda t: printed_comparisons(t, MAIN, excepted=["a"]), "excepted="),
    (lambda t: sizes_of_claim(t), "no column claimed"),
    (lambda t: plot_p_by_pool(t, MAIN, "digits"), "dataset='digits'"),
    (lambda t: plot_p_by_pool(t, MAIN, "mnist", "painter"), "'painter'")])
def test_calls_that_are_refused(call, said, first):
    with pytest.raises((TypeError, ValueError), match=said): call(first)


def test_fractions_with_names_are_matched_by_name():
    a, b = pd.Series({"x": 0.6, "y": 0.4}), pd.Series({"y": 0.7, "x": 0.3})
    pd.testing.assert_frame_equal(images_needed(a, b), images_needed([0.6, 0.4], [0.3, 0.7]))
    pd.testing.assert_frame_equal(p_by_pool(a, b, [20]), p_by_pool([0.6, 0.4], [0.3, 0.7], [20]))
