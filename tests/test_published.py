"Reading the printed tables, comparing measured ones with them, and the audit."
import math
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from creative_nb.core import from_root
from creative_nb.published import (
    CHECKS,
    KEYS,
    PUBLISHED,
    adds_up,
    audit,
    compare,
    half_unit,
    judge,
    key_columns,
    published,
    published_names,
    rank_correlation,
    side_by_side,
    smallest_pool,
    summary,
    twins,
    value_columns,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

ROWS = {"das2019_table1_novelty": 29, "das2020_facts": 28, "das2020_table1_human_labels": 12, "das2020_table2_labels_vs_metrics": 12,
        "das2020_table3_vae_losses": 4, "das2020_table4_human_labels": 15, "das2020_table5_mnist_metric_sweep": 45,
        "das2020_table6_fmnist_metric_sweep": 45, "das2020_table7_combined_metric_sweep": 45, "das2020_table8_prior_human_study": 21,
        "das2020_table9_labels_vs_metrics": 12, "li2020_facts": 17, "li2020_tableS1_imagenet50": 13, "li2020_tableS2_four_classifiers": 10,
        "li2020_tableS3_places50": 14, "printed_in_text": 21}
SWEEP = "das2020_table5_mnist_metric_sweep"


# -- the tables

def test_every_table_has_its_rows():
    assert {name: len(published(name)) for name in published_names()} == ROWS


@pytest.mark.parametrize("name", ROWS)
def test_keys_identify_rows_and_cells_are_numbers(name):
    table = published(name)
    assert key_columns(table) and not table.duplicated(key_columns(table)).any()
    text = published(name, text=True)
    assert list(text) == list(table) and text.map(lambda cell: isinstance(cell, str)).all(axis=None)
    for column in value_columns(table):
        assert text[column].map(lambda cell: cell == "" or math.isfinite(float(cell))).all()
        assert (text[column] == "").equals(table[column].isna())
    assert not table[[k for k in key_columns(table)]].isna().any(axis=None)


@pytest.mark.parametrize("dataset,name", [("mnist", SWEEP), ("fmnist", "das2020_table6_fmnist_metric_sweep"),
                                          ("combined", "das2020_table7_combined_metric_sweep")])
def test_sweep_has_every_method_at_every_number_of_neurons(dataset, name):
    table = published(name)
    assert set(table.dataset) == {dataset}
    counts = table.groupby("n_neurons").method.agg(set).to_dict()
    assert counts.pop(0) == {"2interp", "6interp", "test"}
    assert set(counts) == {1, 5, 10, 15, 20, 25} and all(m == {"3clust", "clust", "cor", "ent", "loact", "noise", "rand"} for m in counts.values())
    assert table[table.method == "test"][value_columns(table)].isna().all(axis=None)
    assert table[table.method != "test"].notna().all(axis=None)


def test_unknown_name_lists_the_tables():
    with pytest.raises(ValueError, match=r"name='das2020_table55'.*das2020_table5_mnist_metric_sweep"): published("das2020_table55")


def test_trailing_zeros_survive_as_text():
    text = published("das2020_table4_human_labels", text=True)
    assert text.query("dataset == 'fmnist' and method == 'non_specific'").recon_distance.item() == "4.50"
    assert published("printed_in_text").section.tolist().count("8.11") >= 2 and published("das2019_table1_novelty").perturbation[0] == ""


# -- comparing

cells = st.floats(0.01, 2000).map(lambda v: round(v, 2))
frames = st.lists(st.tuples(cells, st.one_of(cells, st.just(math.nan))), min_size=1, max_size=12).map(lambda rows: pd.DataFrame(
    [("mnist", 5 * (i // 4 + 1), f"m{i % 4}", a, b) for i, (a, b) in enumerate(rows)], columns=["dataset", "n_neurons", "method", "a", "b"]))


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
    measured = printed.assign(a=c * printed.a, b=c * printed.b).iloc[order][["b", "method", "a", "n_neurons", "dataset"]]
    compared = compare(measured, printed)
    assert np.allclose(compared.deviation, 100 * abs(c - 1)) and np.allclose(compared.ratio, c)
    assert compared[["dataset", "n_neurons", "method"]].equals(compare(printed, printed)[["dataset", "n_neurons", "method"]])


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
    printed = published("li2020_tableS1_imagenet50")
    measured = pd.read_csv(from_root(PUBLISHED) / "li2020_tableS1_imagenet50.csv")  # a blank group is NaN here
    assert compare(measured, printed).measured.notna().all()


def test_own_keys():
    printed = pd.DataFrame({"seed": [0, 1], "value": [2.0, 4.0]})
    compared = compare(printed[::-1], printed, keys=["seed"])
    assert compared.seed.tolist() == [0, 1] and set(compared.column) == {"value"}


@pytest.mark.parametrize("name", ["measured", "printed"])
def test_repeated_rows_and_missing_keys_are_errors(name):
    table = published(SWEEP)
    repeated, unnamed = pd.concat([table, table[:1]]), table.drop(columns="method")
    for broken, message in ((repeated, f"{name}: .*2interp.* more than once"), (unnamed, f"{name}: no column method")):
        pair = {"measured": table, "printed": table} | {name: broken}
        with pytest.raises(ValueError, match=message): compare(**pair, keys=["dataset", "n_neurons", "method"])


def test_summary_by_a_key():
    table = published(SWEEP)
    measured = table.assign(oc_score=table.oc_score.where(table.method != "noise", table.oc_score * 1.5))
    by_method = summary(compare(measured, table), "method")
    assert by_method["maximum"].drop(["noise", "all"]).eq(0).all() and by_method.loc["noise", "maximum"] == pytest.approx(50)


# -- the order of the methods

@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=9))
def test_rank_correlation_is_spearmans(pairs):
    a, b = map(list, zip(*pairs, strict=True))
    assume(len(set(a)) > 1 and len(set(b)) > 1)
    printed = pd.DataFrame({"n_neurons": 5, "method": [f"m{i}" for i in range(len(a))], "recon_distance": np.array(a, float)})
    row = rank_correlation(printed.assign(recon_distance=np.array(b, float)), printed).loc[5]
    assert row.spearman == pytest.approx(spearmanr(a, b).statistic) and row.methods == len(a)


def test_rank_correlation_of_methods_in_both_without_interpolation():
    table = published(SWEEP)
    measured = table[~table.method.isin(["ent", "2interp"])]
    assert rank_correlation(measured, table).methods.to_dict() == dict.fromkeys([1, 5, 10, 15, 20, 25], 6)
    assert rank_correlation(table, table, interpolation=True).loc[0].tolist() == [pytest.approx(1), 2]
    opposite = rank_correlation(table.assign(oc_score=-table.oc_score), table, "oc_score")
    assert np.allclose(opposite.spearman, -1)


def test_rank_correlation_errors():
    table = published(SWEEP)
    with pytest.raises(ValueError, match="column='fid'.*recon_distance"): rank_correlation(table, table, "fid")
    with pytest.raises(ValueError, match="column='oc_score'"): rank_correlation(table.drop(columns="oc_score"), table, "oc_score")
    with pytest.raises(ValueError, match="by='layer'"): rank_correlation(table, table, by="layer")
    both = pd.concat([table, published("das2020_table6_fmnist_metric_sweep")])
    with pytest.raises(ValueError, match="one data set at a time"): rank_correlation(both, both)


# -- the styled table

def test_side_by_side_reads_without_its_styles():
    printed = pd.DataFrame({"method": ["a", "b"], "n_neurons": [5, 5], "recon_distance": [4.87, 1.5], "off": [792, 708]})
    measured = pd.DataFrame({"method": ["a"], "n_neurons": [5], "recon_distance": [4.383], "off": [396]})
    html = side_by_side(measured, printed, ratio=True).to_html()
    assert html == side_by_side(measured, printed, ratio=True).to_html()  # no random ids
    plain = re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<style.*?</style>", "", html)).split()
    for cell in ("4.87", "4.38", "0.90", "1.50", "792", "396", "0.50", "–", "printed", "measured", "ratio"): assert cell in plain
    assert "ratio" not in side_by_side(measured, printed).to_html()


def test_side_by_side_shades_by_deviation():
    printed = pd.DataFrame({"method": list("abcd"), "x": 1.0})
    html = side_by_side(printed.assign(x=[1.0, 1.1, 1.4, 9.0]), printed).to_html()
    style = html[:html.index("</style>")]
    lightness = [int(c, 16) for i in range(4) for c in re.findall(rf"row{i}_col1 {{\s*background-color: #(..)", style)]
    assert lightness[0] == 255 and lightness == sorted(lightness, reverse=True) and len(set(lightness)) == 4
    assert "col0 {" not in style


@pytest.mark.parametrize("name", [n for n in ROWS if "facts" not in n and "text" not in n])
def test_side_by_side_of_every_table(name):
    table = published(name)
    styled = side_by_side(table, table)
    assert styled.data.xs("measured", axis=1, level=1).equals(styled.data.xs("printed", axis=1, level=1)) and "<table" in styled.to_html()


# -- the audit

@pytest.fixture
def copy(tmp_path):
    for path in from_root(PUBLISHED).glob("*.csv"): shutil.copy(path, tmp_path)

    def plant(name, where, **values):
        path = tmp_path / f"{name}.csv"
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows = (table[list(where)] == pd.Series(where)).all(axis=1)
        assert rows.sum() == 1, "the row to change is there once"
        table.loc[rows, list(values)] = list(values.values())
        table.to_csv(path, index=False)
        return tmp_path
    return plant


def verdict(findings, table, text):
    row = findings[findings.table.str.contains(table, regex=False) & findings.finding.str.contains(text, regex=False)]
    assert len(row) == 1, f"{len(row)} findings on {table} contain {text!r}"
    return row.verdict.item(), row.evidence.item()


@pytest.fixture(scope="module")
def findings(): return audit()


def test_audit_is_a_table_of_findings_with_evidence(findings):
    assert list(findings) == ["table", "finding", "evidence", "verdict"] and len(findings) >= len(CHECKS) >= 20
    assert set(findings.verdict) <= {"consistent", "partly", "inconsistent", "impossible"}
    assert findings.evidence.str.contains(r"\d").all() and not findings.duplicated(["table", "finding"]).any()
    failing = findings.verdict != "consistent"
    assert findings[failing].evidence.str.contains("fail:").all() and findings[~failing].evidence.str.startswith("all ").all()


@pytest.mark.parametrize("table,text,expected,evidence", [
    ("das2020 Tables 1, 4", "Rows printed in both", "inconsistent", "combined noisy creative: 0.25 and 0.26"),
    ("das2020 section 8.11", "Fleiss' kappa", "impossible", "-0.47"),
    ("li2020 Tables S1-S3", "repeats the digits", "inconsistent", "Trial 5"),
    ("li2020 Table S3", "average of its trials", "inconsistent", "mean 7.844, printed 7.03"),
    ("das2020 section 8.3", "off neurons", "impossible", "792 off of 500"),
    ("das2020 text", "samples_per_method", "inconsistent", "10000 (section 5) and 15000 (section 8.9)"),
    ("das2020 Table 3", "stated scale", "partly", "celeba"),
    ("das2020 Table 3", "add up", "consistent", "96.3 + 13.7"),
    ("das2020 Tables 4, 5-7", "D_r of a method", "consistent", "4.47"),
])
def test_known_oddities_are_found(findings, table, text, expected, evidence):
    assert verdict(findings, table, text)[0] == expected and evidence in verdict(findings, table, text)[1]


LOW = {"method": "loact"}
PLANTED = [  # table, the row and its new values, the finding, its new verdict
    ("das2020_table3_vae_losses", {"dataset": "fmnist"}, {"total": "242.6"}, "das2020 Table 3", "add up", "inconsistent"),
    ("das2020_table1_human_labels", {"dataset": "mnist", "method": "random"}, {"creative": "0.34"},
     "das2020 Table 1", "four labels", "inconsistent"),
    ("das2020_table8_prior_human_study", {"dataset": "mnist", "method": "regular"}, {"creative": "0.16"},
     "das2020 Table 8", "four labels", "inconsistent"),
    ("das2020_table4_human_labels", {"dataset": "mnist", "method": "random"}, {"recon_distance": "4.25"},
     "das2020 Tables 4, 5-7", "D_r", "inconsistent"),
    (SWEEP, LOW | {"n_neurons": "10"}, {"input_5nn": "5.37"}, "das2020 Tables 5-7", "fifth neighbour", "impossible"),
    (SWEEP, LOW | {"n_neurons": "1"}, {"recon_distance": "2.08"}, "das2020 Tables 5-7", "highest D_r with 1 neuron", "partly"),
    (SWEEP, {"method": "cor", "n_neurons": "20"}, {"oc_score": "346.43", "recon_distance": "4.33"},
     "Tables 2, 5-7, 9", "repeats the digits", "inconsistent"),
    ("das2020_table2_labels_vs_metrics", {"dataset": "mnist", "label": "creative"}, {"ice_mnist": "4.2"}, "all tables", "range", "impossible"),
    ("das2020_facts", {"fact": "dead_neurons_layer1", "dataset": "mnist"}, {"value": "251"},
     "das2020 section 8.3", "dead neurons", "impossible"),
    ("li2020_tableS3_places50", {"group": "AM-L with Mean Initialization", "variant": "Average"}, {"inception_score": "7.84"},
     "li2020 Table S3", "average of its trials", "consistent"),
    ("das2020_table4_human_labels", {"dataset": "combined", "method": "noisy"}, {"creative": "0.25"},
     "das2020 Tables 1, 4", "Rows printed", "consistent"),
    ("printed_in_text", {"quantity": "annotators_prior_study"}, {"value": "3"}, "das2020 section 8.11", "Fleiss' kappa", "consistent"),
    ("printed_in_text", {"quantity": "off_neurons_layer"}, {"value": "3"}, "das2020 section 8.3", "off neurons", "consistent"),
    ("printed_in_text", {"quantity": "samples_per_method", "section": "5"}, {"value": "15000"}, "das2020 text", "samples_per_method", "consistent"),
]


@pytest.mark.parametrize("name,where,values,table,text,expected", PLANTED, ids=[f"{p[3]}: {p[4]}" for p in PLANTED])
def test_a_planted_change_is_found(findings, copy, name, where, values, table, text, expected):
    assert verdict(findings, table, text)[0] != expected
    changed = audit(copy(name, where, **values))
    found, evidence = verdict(changed, table, text)
    assert found == expected
    if expected != "consistent": assert next(iter(values.values())) in evidence


def test_smallest_pool_against_brute_force():
    def brute(fractions, largest):
        for n in range(1, largest + 1):
            counts = [[k for k in range(n + 1) if abs(k / n - float(f)) <= half_unit(f) + 1e-12] for f in fractions]
            sums = {0}
            for c in counts: sums = {s + k for s in sums for k in c}
            if n in sums: return n
    random = np.random.default_rng(0)
    for _ in range(30):
        fractions = [f"{p:.2f}" for p in random.multinomial(60, random.dirichlet(np.ones(4))) / 60]
        assert smallest_pool(fractions, 60) == brute(fractions, 60) is not None
    assert smallest_pool(["0.10", "0.10"], 60) is None


@settings(deadline=None)
@given(st.lists(st.integers(0, 99999), min_size=1, max_size=6), st.integers(0, 3))
def test_rounded_parts_always_add_up(parts, places):
    exact = [p / 1000 for p in parts]
    assert adds_up([f"{p:.{places}f}" for p in exact], f"{sum(exact):.{places}f}")
    assert not adds_up([f"{p:.3f}" for p in exact], f"{sum(exact) + 0.0006 * len(parts) + 0.002:.3f}")


def test_twins_need_two_values_and_one_of_four_digits():
    a = {"variant": "a", "fid": "38.39", "is": "7.03", "lpips": "0.64"}
    assert twins({"a": a, "b": a | {"variant": "b"}}) == {("a", "b"): {"fid": "38.39", "is": "7.03"}}
    assert not twins({"a": a, "b": a | {"fid": "38.38"}}) and not twins({"a": a, "b": a | {"is": "7.04"}})


def test_a_finding_needs_cases():
    with pytest.raises(ValueError, match="cases: none"): judge("T", "holds", [])


def test_keys_are_never_values(): assert not any(set(value_columns(published(n))) & set(KEYS) for n in ROWS)
