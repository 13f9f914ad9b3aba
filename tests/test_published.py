"Reading the printed tables, comparing measured ones with them, and what a rounded number allows."
import math
import re

import numpy as np
import pandas as pd
import pytest
from creative_nb.core import from_root
from creative_nb.paper import load_paper
from creative_nb.published import (KEYS, PRINTED, adds_up, compare, half_unit, key_columns, min_consistent_n,
                                   printed_rows, printed_table, printed_tables, rank_correlation, side_by_side, summary,
                                   value_columns)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

ROWS = {
    "das2019": {"in_text": 2, "table1_novelty": 29},
    "das2020": {"facts": 28, "in_text": 19, "table1_human_labels": 12, "table2_labels_vs_metrics": 12,
                "table3_vae_losses": 4, "table4_human_labels": 15, "table5_mnist_metric_sweep": 45,
                "table6_fmnist_metric_sweep": 45,
                "table7_combined_metric_sweep": 45, "table8_prior_human_study": 21, "table9_labels_vs_metrics": 12},
    "li2020": {"facts": 17, "tableS1_imagenet50": 13, "tableS2_four_classifiers": 10, "tableS3_places50": 14},
}
TABLES = [(paper, table) for paper, tables in ROWS.items() for table in tables]
SWEEP = "table5_mnist_metric_sweep"


def printed_sweep() -> pd.DataFrame: return printed_table("das2020", SWEEP)


# -- the tables

def test_every_table_has_its_rows():
    for paper, tables in ROWS.items():
        assert {name: len(printed_table(paper, name)) for name in printed_tables(paper)} == tables


@pytest.mark.parametrize("paper,name", TABLES)
def test_keys_identify_rows_and_cells_are_numbers(paper, name):
    table = printed_table(paper, name)
    assert key_columns(table) and not table.duplicated(key_columns(table)).any()
    text = printed_table(paper, name, text=True)
    assert list(text) == list(table) and text.map(lambda cell: isinstance(cell, str)).all(axis=None)
    for column in value_columns(table):
        assert text[column].map(lambda cell: cell == "" or math.isfinite(float(cell))).all()
        assert (text[column] == "").equals(table[column].isna())
    assert not table[[k for k in key_columns(table)]].isna().any(axis=None)


@pytest.mark.parametrize("dataset,name", [("mnist", SWEEP), ("fmnist", "table6_fmnist_metric_sweep"),
                                          ("combined", "table7_combined_metric_sweep")])
def test_sweep_has_every_method_at_every_number_of_neurons(dataset, name):
    table = printed_table("das2020", name)
    assert set(table.dataset) == {dataset}
    counts = table.groupby("n_neurons").method.agg(set).to_dict()
    assert counts.pop(0) == {"interpolation-2", "interpolation-6", "test"}
    assert set(counts) == {1, 5, 10, 15, 20, 25}
    assert all(m == set(load_paper("das2020").methods) for m in counts.values())
    assert table[table.method == "test"][value_columns(table)].isna().all(axis=None)
    assert table[table.method != "test"].notna().all(axis=None)


def test_unknown_name_lists_the_tables():
    with pytest.raises(ValueError, match=r"table='table55'.*table5_mnist_metric_sweep"):
        printed_table("das2020", "table55")


def test_names_in_print_are_translated():
    for paper, name in TABLES:
        abbreviations = {k for k, v in load_paper(paper).names_in_print().items() if k != v}
        table = printed_table(paper, name)
        assert not abbreviations & {*table, *(table.method if "method" in table else ())}
    names = load_paper("das2020").names_in_print()
    raw = pd.read_csv(from_root(PRINTED) / "das2020" / f"{SWEEP}.csv")
    assert printed_sweep().method.tolist() == [names.get(m, m) for m in raw.method]
    assert printed_sweep().in_domain_score.equals(raw.oc_score)


def test_rows_of_a_data_set():
    assert set(printed_rows("das2020", "table1_human_labels", "fmnist").dataset) == {"fmnist"}
    for table, dataset in (("table1_human_labels", "digits"), ("figure0", "mnist")):
        assert printed_rows("das2020", table, dataset).empty
    assert len(printed_rows("li2020", "tableS3_places50", "mnist")) == 14  # a table without data sets is whole


def test_trailing_zeros_survive_as_text():
    text = printed_table("das2020", "table4_human_labels", text=True)
    assert text.query("dataset == 'fmnist' and method == 'non-specific'").recon_distance.item() == "4.50"
    assert printed_table("das2020", "in_text").section.tolist().count("8.11") >= 2
    assert printed_table("das2019", "table1_novelty").perturbation[0] == ""


# -- comparing

cells = st.floats(0.01, 2000).map(lambda v: round(v, 2))
pairs_of_cells = st.lists(st.tuples(cells, st.one_of(cells, st.just(math.nan))), min_size=1, max_size=12)
KEY = ["dataset", "n_neurons", "method"]
frames = pairs_of_cells.map(lambda rows: pd.DataFrame(
    [("mnist", 5 * (i // 4 + 1), f"m{i % 4}", a, b) for i, (a, b) in enumerate(rows)], columns=[*KEY, "a", "b"]))


@settings(deadline=None)
@given(frames)
def test_printed_against_itself(printed):
    compared = compare(printed, printed)
    assert len(compared) == printed[["a", "b"]].notna().sum().sum()
    assert (compared.deviation == 0).all() and (compared.ratio == 1).all()
    total = summary(compared).loc["all"]
    assert total["missing"] == 0 and total["maximum"] == 0 and total["cells"] == len(compared)
    correlations = rank_correlation(printed, printed, "a").spearman
    several = printed.groupby("n_neurons").a.nunique() > 1
    assert np.allclose(correlations[several], 1) and correlations[~several].isna().all()


@settings(deadline=None)
@given(frames, st.floats(0.01, 10), st.randoms(use_true_random=False))
def test_scaled_and_shuffled(printed, c, random):
    order = list(range(len(printed)))
    random.shuffle(order)
    measured = printed.assign(a=c * printed.a, b=c * printed.b)
    measured = measured.iloc[order][["b", "method", "a", "n_neurons", "dataset"]]
    compared = compare(measured, printed)
    assert np.allclose(compared.deviation, 100 * abs(c - 1)) and np.allclose(compared.ratio, c)
    assert compared[KEY].equals(compare(printed, printed)[KEY])


@settings(deadline=None)
@given(frames, st.data())
def test_missing_cells_are_kept_and_counted(printed, data):
    kept = data.draw(st.lists(st.booleans(), min_size=len(printed), max_size=len(printed)))
    compared = compare(printed[kept], printed)
    missing = printed.loc[~np.array(kept), ["a", "b"]].notna().sum().sum()
    assert len(compared) == printed[["a", "b"]].notna().sum().sum() and compared.measured.isna().sum() == missing
    table = summary(compared)
    assert table.loc["all", "missing"] == missing == table.drop("all")["missing"].sum()
    without = compare(printed.drop(columns="a"), printed).query("column == 'a'")
    assert len(without) == printed.a.notna().sum() and without.measured.isna().all()


def test_a_printed_zero_has_no_deviation_but_keeps_its_cell():
    printed = pd.DataFrame({"method": ["a", "b"], "creative": [0.0, 0.5]})
    compared = compare(printed.assign(creative=[0.3, 0.4]), printed)
    assert compared.printed.tolist() == [0, 0.5] and compared.deviation.isna().tolist() == [True, False]
    assert summary(compared).loc["all"].tolist() == [2, 0, pytest.approx(20), pytest.approx(20)]


def test_a_negative_printed_value_has_a_positive_deviation():
    printed = pd.DataFrame({"fact": ["kappa"], "value": [-0.4]})
    assert compare(printed.assign(value=-0.5), printed).deviation.item() == pytest.approx(25)


def test_blank_keys_match_each_other():
    printed = printed_table("li2020", "tableS1_imagenet50")
    measured = pd.read_csv(from_root(PRINTED) / "li2020" / "tableS1_imagenet50.csv")  # a blank group is NaN here
    assert compare(measured, printed).measured.notna().all()


def test_own_keys():
    printed = pd.DataFrame({"seed": [0, 1], "value": [2.0, 4.0]})
    compared = compare(printed[::-1], printed, keys=["seed"])
    assert compared.seed.tolist() == [0, 1] and set(compared.column) == {"value"}


@pytest.mark.parametrize("name", ["measured", "printed"])
def test_repeated_rows_and_missing_keys_are_errors(name):
    table = printed_sweep()
    repeated, unnamed = pd.concat([table, table[:1]]), table.drop(columns="method")
    expected = {"interpolation-2.* more than once": repeated, "no column method": unnamed}
    for message, broken in expected.items():
        pair = {"measured": table, "printed": table} | {name: broken}
        with pytest.raises(ValueError, match=f"{name}: .*{message}"): compare(**pair, keys=KEY)


def test_summary_by_a_key():
    table = printed_sweep()
    score = table.in_domain_score
    measured = table.assign(in_domain_score=score.where(table.method != "noisy", score * 1.5))
    by_method = summary(compare(measured, table), "method")
    assert by_method["maximum"].drop(["noisy", "all"]).eq(0).all()
    assert by_method.loc["noisy", "maximum"] == pytest.approx(50)


# -- the order of the methods

@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=9))
def test_rank_correlation_is_spearmans(pairs):
    a, b = map(list, zip(*pairs, strict=True))
    assume(len(set(a)) > 1 and len(set(b)) > 1)
    methods = [f"m{i}" for i in range(len(a))]
    printed = pd.DataFrame({"n_neurons": 5, "method": methods, "recon_distance": np.array(a, float)})
    row = rank_correlation(printed.assign(recon_distance=np.array(b, float)), printed).loc[5]
    assert row.spearman == pytest.approx(spearmanr(a, b).statistic) and row.methods == len(a)


def test_rank_correlation_of_methods_in_both_without_interpolation():
    table = printed_sweep()
    measured = table[~table.method.isin(["non-specific", "interpolation-2"])]
    assert rank_correlation(measured, table).methods.to_dict() == dict.fromkeys([1, 5, 10, 15, 20, 25], 6)
    assert rank_correlation(table, table, interpolation=True).loc[0].tolist() == [pytest.approx(1), 2]
    opposite = rank_correlation(table.assign(in_domain_score=-table.in_domain_score), table, "in_domain_score")
    assert np.allclose(opposite.spearman, -1)


def test_rank_correlation_errors():
    table = printed_sweep()
    with pytest.raises(ValueError, match="column='fid'.*recon_distance"): rank_correlation(table, table, "fid")
    without = table.drop(columns="in_domain_score")
    with pytest.raises(ValueError, match="column='in_domain_score'"):
        rank_correlation(without, table, "in_domain_score")
    with pytest.raises(ValueError, match="by='layer'"): rank_correlation(table, table, by="layer")
    both = pd.concat([table, printed_table("das2020", "table6_fmnist_metric_sweep")])
    with pytest.raises(ValueError, match="one data set at a time"): rank_correlation(both, both)


# -- the styled table

def test_side_by_side_reads_without_its_styles():
    rows = {"method": ["a", "b"], "n_neurons": [5, 5], "recon_distance": [4.87, 1.5], "off": [792, 708]}
    printed = pd.DataFrame(rows)
    measured = pd.DataFrame({"method": ["a"], "n_neurons": [5], "recon_distance": [4.383], "off": [396]})
    html = side_by_side(measured, printed, ratio=True).to_html()
    assert html == side_by_side(measured, printed, ratio=True).to_html()  # no random ids
    plain = re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<style.*?</style>", "", html)).split()
    expected = ("4.87", "4.38", "0.90", "1.50", "792", "396", "0.50", "–", "printed", "measured", "ratio")
    for cell in expected: assert cell in plain
    assert "ratio" not in side_by_side(measured, printed).to_html()


def test_side_by_side_shades_by_deviation():
    printed = pd.DataFrame({"method": list("abcd"), "x": 1.0})
    html = side_by_side(printed.assign(x=[1.0, 1.1, 1.4, 9.0]), printed).to_html()
    style = html[:html.index("</style>")]
    lightness = [int(c, 16) for i in range(4) for c in re.findall(rf"row{i}_col1 {{\s*background-color: #(..)", style)]
    assert lightness[0] == 255 and lightness == sorted(lightness, reverse=True) and len(set(lightness)) == 4
    assert "col0 {" not in style


@pytest.mark.parametrize("paper,name", [(p, n) for p, n in TABLES if n.startswith("table")])
def test_side_by_side_of_every_table(paper, name):
    table = printed_table(paper, name)
    styled = side_by_side(table, table)
    measured, printed = (styled.data.xs(kind, axis=1, level=1) for kind in ("measured", "printed"))
    assert measured.equals(printed) and "<table" in styled.to_html()


def test_side_by_side_escapes_names():
    named = pd.DataFrame({"method": ["<b>a</b>"], "<i>x</i>": [1.0]})
    html = side_by_side(named, named).to_html()
    assert "<b>" not in html and "<i>" not in html and "&lt;b&gt;a" in html


# -- what a rounded number allows

def test_min_consistent_n_against_brute_force():
    def brute(fractions, at_most):
        for n in range(1, at_most + 1):
            counts = [[k for k in range(n + 1) if abs(k / n - float(f)) <= half_unit(f) + 1e-12] for f in fractions]
            sums = {0}
            for c in counts: sums = {s + k for s in sums for k in c}
            if n in sums: return n
    random = np.random.default_rng(0)
    for _ in range(30):
        fractions = [f"{p:.2f}" for p in random.multinomial(60, random.dirichlet(np.ones(4))) / 60]
        assert min_consistent_n(fractions, 60) == brute(fractions, 60) is not None
    assert min_consistent_n(["0.10", "0.10"], 60) is None


@settings(deadline=None)
@given(st.lists(st.integers(0, 99999), min_size=1, max_size=6), st.integers(0, 3))
def test_rounded_parts_always_add_up(parts, places):
    exact = [p / 1000 for p in parts]
    assert adds_up([f"{p:.{places}f}" for p in exact], f"{sum(exact):.{places}f}")
    assert not adds_up([f"{p:.3f}" for p in exact], f"{sum(exact) + 0.0006 * len(parts) + 0.002:.3f}")


def test_keys_are_never_values(): assert not any(set(value_columns(printed_table(*t))) & set(KEYS) for t in TABLES)
