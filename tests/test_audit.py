"The audits of the printed numbers: known oddities are found, and so is every change that is planted in a copy."
import math
import shutil
from functools import cache
from itertools import chain

import pandas as pd
import pytest
from creative_nb.claims import (FAILS, HOLDS, PART, Claims, InPrint, all_claims, audit_table, normalised, range_cases,
                                repeated_rows, significant_digits, verdict)
from creative_nb.core import from_root
from creative_nb.das2019 import audit as das2019
from creative_nb.das2020 import audit as das2020
from creative_nb.das2020.claims import CLAIMS
from creative_nb.li2020 import audit as li2020
from creative_nb.published import PRINTED

AUDITS = {"das2019": das2019.claim, "das2020": das2020.claim, "li2020": li2020.claim}
SWEEP, S3 = "table5_mnist_metric_sweep", "tableS3_places50"


@cache
def audit(paper: str, folder: str = PRINTED) -> pd.DataFrame:
    return audit_table(AUDITS[paper], InPrint(paper, folder=folder)).set_index(pd.Index(AUDITS[paper], name="claim"))


@pytest.fixture
def plant(tmp_path):
    folder = tmp_path / "published"
    shutil.copytree(from_root(PRINTED), folder)

    def change(paper, name, where, **values):
        path = folder / paper / f"{name}.csv"
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows = (table[list(where)] == pd.Series(where)).all(axis=1)
        assert rows.sum() == 1, "the row to change is there once"
        table.loc[rows, list(values)] = list(values.values())
        table.to_csv(path, index=False)
        return str(folder)
    return change


# -- the tables of findings

@pytest.mark.parametrize("paper", AUDITS)
def test_a_finding_has_cases_and_evidence(paper):
    table = audit(paper)
    assert list(table) == ["section", "sentence", "test", "evidence", "verdict"]
    assert set(table.verdict) <= {HOLDS, PART, FAILS}  # so every check found numbers in the committed tables
    assert table.evidence.str.contains(r"\d").all()
    failing = table.verdict != HOLDS
    assert (table[failing].evidence.str.contains(" fail: ").all()
            and table[~failing].evidence.str.startswith("all ").all())


def test_every_printed_number_with_a_range_is_checked():
    assert sum(int(audit(p).evidence["ranges"].split()[1]) for p in AUDITS) == 1677


@pytest.mark.parametrize("paper,name,expected,evidence", [
    ("das2020", "printed_twice", FAILS, "combined noisy creative: 0.25 and 0.26"),
    ("das2020", "kappa_bound", FAILS, "-0.47"),
    ("das2020", "off_layer", FAILS, "792 off of 500"),
    ("das2020", "text_twice", FAILS, "10000 (section 5) and 15000 (section 8.9)"),
    ("das2020", "loss_scales", HOLDS, "all 2 hold"),
    ("das2020", "pools", PART, "the 7 rows of fmnist need 617"),
    ("das2020", "versions", PART, "interpolation-6 recon_distance: 1.586 and 1.61"),
    ("das2020", "mixture", FAILS, "mnist: labels imply +0.30 (low-active) to +1.95 (regular)"),
    ("das2020", "totals", HOLDS, "96.3 + 13.7"),
    ("das2020", "distance_of_five", HOLDS, "4.47"),
    ("das2019", "perturbed", FAILS, "0.01 %"),
    ("das2019", "interpolated", PART, "8 of 16"),
    ("li2020", "repeats", FAILS, "Trial 5"),
    ("li2020", "averages", FAILS, "mean 7.844, printed 7.03"),
    ("li2020", "diversity_gap", PART, "lpips: 22% (11% to 33% within rounding)"),
])
def test_known_oddities_are_found(paper, name, expected, evidence):
    row = audit(paper).loc[name]
    assert row.verdict == expected and evidence in row.evidence


LOW = {"method": "loact"}
PLANTED = [  # paper, table, the row and its new values, the claim and its new verdict
    ("das2020", "table3_vae_losses", {"dataset": "fmnist"}, {"total": "242.6"}, "totals", FAILS),
    (
        "das2020",
        "table1_human_labels",
        {"dataset": "mnist", "method": "random"},
        {"creative": "0.34"},
        "fractions",
        FAILS,
    ),
    (
        "das2020",
        "table8_prior_human_study",
        {"dataset": "mnist", "method": "regular"},
        {"creative": "0.16"},
        "fractions",
        FAILS,
    ),
    (
        "das2020",
        "table4_human_labels",
        {"dataset": "mnist", "method": "random"},
        {"recon_distance": "4.25"},
        "distance_of_five",
        FAILS,
    ),
    ("das2020", SWEEP, LOW | {"n_neurons": "10"}, {"input_5nn": "5.37"}, "neighbours", FAILS),
    (
        "das2020",
        SWEEP,
        {"method": "cor", "n_neurons": "20"},
        {"oc_score": "346.43", "recon_distance": "4.33"},
        "repeats",
        FAILS,
    ),
    (
        "das2020",
        "table2_labels_vs_metrics",
        {"dataset": "mnist", "label": "creative"},
        {"ice_mnist": "4.2"},
        "ranges",
        FAILS,
    ),
    ("das2020", "table3_vae_losses", {"dataset": "celeba"}, {"nll": "95259.5"}, "loss_scales", PART),
    ("das2020", "facts", {"fact": "classifier_test_accuracy", "dataset": "mnist"}, {"value": "99.28"}, "ranges", FAILS),
    ("das2020", "facts", {"fact": "dead_neurons_layer1", "dataset": "mnist"}, {"value": "251"}, "dead_units", FAILS),
    (
        "das2020",
        "table4_human_labels",
        {"dataset": "combined", "method": "noisy"},
        {"creative": "0.25"},
        "printed_twice",
        HOLDS,
    ),
    ("das2020", "in_text", {"quantity": "annotators_prior_study"}, {"value": "3"}, "kappa_bound", HOLDS),
    ("das2020", "in_text", {"quantity": "off_neurons_layer"}, {"value": "3"}, "off_layer", HOLDS),
    ("das2019", "in_text", {"quantity": "perturbed_percent"}, {"value": "0.1"}, "perturbed", HOLDS),
    ("das2019", "table1_novelty", {"dataset": "mnist", "method": "test"}, {"input_1ns": "-1.096"}, "ranges", FAILS),
    (
        "li2020",
        S3,
        {"group": "AM-L with Mean Initialization", "variant": "Average"},
        {"inception_score": "7.84"},
        "averages",
        HOLDS,
    ),
]


@pytest.mark.parametrize("paper,table,where,values,name,expected", PLANTED, ids=[f"{p[1]}: {p[4]}" for p in PLANTED])
def test_a_planted_change_is_found(plant, paper, table, where, values, name, expected):
    assert audit(paper).verdict[name] != expected
    row = audit(paper, plant(paper, table, where, **values)).loc[name]
    assert row.verdict == expected
    if expected != HOLDS: assert next(iter(values.values())) in row.evidence


def test_one_number_of_the_text_is_mended(plant):
    folder = plant("das2020", "in_text", {"quantity": "samples_per_method", "section": "5"}, value="15000")
    assert audit("das2020", folder).evidence["text_twice"].startswith("1 of 4 fail")


# -- what the tests are made of

def test_repeated_rows_need_two_values_and_one_of_four_digits():
    a = {"variant": "a", "fid": "38.39", "is": "7.03", "lpips": "0.64"}
    assert repeated_rows({"a": a, "b": a | {"variant": "b"}}) == {("a", "b"): {"fid": "38.39", "is": "7.03"}}
    assert not repeated_rows({"a": a, "b": a | {"fid": "38.38"}}) and not repeated_rows(
        {"a": a, "b": a | {"is": "7.04"}}
    )
    assert [significant_digits(x) for x in ("0.44", "-1.50", "100", "0.0")] == [2, 3, 3, 0]


def test_ranges_include_their_bounds():
    evidence = InPrint("li2020")
    values = evidence.text(S3, text=False).ms_ssim
    outcomes = lambda *bounds: [c.holds for c in range_cases(evidence, [S3], {"ms_ssim": bounds})]
    assert all(outcomes(values.min(), values.max())) and len(outcomes(0, 1)) == len(values)
    assert outcomes(-math.inf, values.min()) == (values == values.min()).tolist()


# -- a sentence has one test

def test_no_sentence_of_a_paper_occurs_twice():
    for paper, claims in AUDITS.items():
        everything = chain(claims.values(), CLAIMS.values() if paper == "das2020" else ())
        sentences = [normalised(c.sentence) for c in everything]
        assert len(sentences) == len(set(sentences))


def test_levels_off_has_one_verdict_in_print():
    rows = {n: c for n, c in [*AUDITS["das2020"].items(), *CLAIMS.items()] if "levels off" in normalised(c.sentence)}
    assert list(rows) == ["levels_off"]
    assert verdict(rows["levels_off"].cases(InPrint("das2020"))) == PART


def test_a_sentence_cannot_get_a_second_test():
    claim = Claims()
    claim("1", "A is above B.", "t")(function := lambda evidence: iter(()))
    with pytest.raises(ValueError, match="A is  above B!.*is claim <lambda> already"):
        claim.untestable("b", "2", "A is  above B!", "t")
    claim("1", "A is above B.", "another test")(function)  # a cell that runs again
    assert claim["<lambda>"].test == "another test"
    other = Claims()
    other.untestable("c", "2", "a is above b", "t")
    with pytest.raises(ValueError, match="a is above b"): all_claims(claim, other)
    again = Claims()
    again.untestable("c", "2", "C.", "t")
    with pytest.raises(ValueError, match="claim c occurs twice"): all_claims(other, again)
