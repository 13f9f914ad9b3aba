"The claims table of das2020: every test on hand-made tables with a known answer, on absent ones, and on the printed ones."
import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from creative_nb.das2020 import claims
from creative_nb.das2020.claims import (
    CLAIMS,
    FAILS,
    HELD,
    HOLDS,
    ITSELF,
    METRICS,
    NO_DATA,
    NO_PRINT,
    PAPER,
    PART,
    PEOPLE,
    Case,
    Evidence,
    Sweep,
    above,
    case,
    claims_table,
    failures,
    figures,
    number,
    similar,
    style_claims,
    verdict,
    verdict_counts,
)
from creative_nb.das2020.study import METHODS, sweep_table
from creative_nb.published import published, published_names
from creative_nb.runs import read_table, save_table
from hypothesis import given
from hypothesis import strategies as st

NS = (1, 5, 10, 20, 25)


@pytest.fixture
def out(tmp_path):
    (tmp_path / "tables").mkdir()
    return tmp_path


def write(out, name, rows):
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    save_table(table, out / "tables" / f"{name}.csv", {"of": name})


def outcome(name, out=None, *datasets):
    "Verdict of one claim, in a run or in print."
    return verdict(CLAIMS[name].cases(Evidence(datasets or ["mnist"], out) if out else PAPER))


def row(method, n, novelty, dataset="mnist", **more):
    "A row of a sweep that is as novel as `novelty` by every metric."
    values = {c: -novelty if c == "oc_score" else novelty for c in METRICS}
    return {"dataset": dataset, "n_neurons": n, "method": method, **values, **more}


def sweep(order, dataset="mnist", ns=NS, **more):
    "The methods from most to least novel, above regular decoding (1), growing and levelling off with the number of neurons."
    rows = [row(m, 0, v, dataset, image_spread=9.0) for m, v in {"regular": 1.0, "test": 1.2, "2interp": 0.95, "6interp": 0.9}.items()]
    return pd.DataFrame(rows + [row(m, n, 2 + 0.1 * (len(order) - i) + math.log(n), dataset, **more) for i, m in enumerate(order) for n in ns])


FIRST_LAST = ["loact", "ent", "3clust", "clust", "cor", "rand", "noise"], ["noise", "rand", "cor", "clust", "3clust", "ent", "loact"]
LEADING = ["novel", "random_is_less_novel", "fewest_neurons", "among_the_top", "clusters_work", "efficient", "grows", "levels_off"]


# -- cases and verdicts

def test_a_case_without_its_numbers_is_no_case():
    assert above("mnist", "D_r", 2, 1).holds and not above("mnist", "D_r", 1, 1).holds
    assert above("mnist", "D_r", math.nan, 1).holds is None and case("", "x", True, 1.0, math.nan).holds is None
    assert verdict([]) == verdict([case("", "x", True, math.nan)]) == NO_DATA


def test_similar_is_ten_percent():
    assert similar("", "", 1.1, 1).text == "1.10 against 1.00" and similar("", "", 1.0999, 1).holds and not similar("", "", 1.101, 1).holds
    assert similar("", "", -1.05, -1).holds and similar("", "", 0, 0).holds and not similar("", "", 1, 0).holds


@given(st.lists(st.sampled_from([True, False, None]), max_size=8))
def test_verdict_counts_what_was_tested(holds):
    cases = [Case("mnist" if i % 2 else "", f"case{i}", h) for i, h in enumerate(holds)]
    yes, no = holds.count(True), holds.count(False)
    assert verdict(cases, "absent") == ("absent" if not yes + no else HOLDS if not no else FAILS if not yes else PART)
    text = figures(cases)
    assert all((f"case{i}" in text) == (h is not None) for i, h in enumerate(holds))
    if yes and no: assert all((f"case{i}" in text.split(HELD)[0]) == (h is False) for i, h in enumerate(holds)) and text.startswith(f"{no} of {yes + no} fail")


def test_numbers_have_about_three_digits():
    assert [number(x) for x in (661.2, 15.46, 4.866, -0.5, 0.0)] == ["661", "15.5", "4.87", "-0.50", "0.00"]


# -- the sweep

def test_ranks_count_the_more_novel_and_leave_out_the_absent():
    s = Sweep(pd.DataFrame([row("loact", 5, 2.0), row("rand", 5, 3.0), row("cor", 5, 2.0), row("ent", 5, math.nan)]))
    assert s.rank("rand", "recon_distance") == 1 and s.rank("loact", "recon_distance") == s.rank("cor", "recon_distance") == 2
    assert s.rank("rand", "oc_score") == 1 and math.isnan(s.rank("ent", "recon_distance")) and math.isnan(s.rank("noise", "recon_distance"))
    assert s.methods("recon_distance", 5) == ["loact", "cor", "rand"] and math.isnan(s.value("loact", "image_spread"))


def test_a_repeated_row_is_an_error():
    with pytest.raises(ValueError, match="loact.*more than once"): Sweep(pd.DataFrame([row("loact", 5, 1.0)] * 2))


# -- the sweep's claims, with a known answer

@pytest.mark.parametrize("name", LEADING)
def test_low_active_first_holds(out, name):
    write(out, sweep_table("mnist"), sweep(FIRST_LAST[0]))
    assert outcome(name, out) == HOLDS


@pytest.mark.parametrize("name", ["random_is_less_novel", "fewest_neurons", "among_the_top", "efficient"])
def test_low_active_last_does_not_hold(out, name):
    write(out, sweep_table("mnist"), sweep(FIRST_LAST[1]))
    assert outcome(name, out) == FAILS


def test_part_says_where(out):
    for d, order in zip(("mnist", "fmnist"), FIRST_LAST): write(out, sweep_table(d), sweep(order, d))
    run = Evidence(["mnist", "fmnist"], out)
    cases = list(claims.fewest_neurons(run))
    failed, held = figures(cases).split(HELD)
    assert verdict(cases) == PART and "fmnist" in failed and "; mnist" not in failed and held.startswith("mnist") and "fmnist" not in held


def test_the_fuller_sweep_is_preferred(out):
    write(out, sweep_table("mnist"), sweep(FIRST_LAST[1]))
    write(out, sweep_table("mnist"), sweep(FIRST_LAST[0]))
    assert outcome("fewest_neurons", out) == HOLDS


def test_a_method_without_neurons_counts_neither_way(out):
    table = sweep(FIRST_LAST[0]).set_index("method")
    table.loc["ent", list(METRICS)] = math.nan
    write(out, sweep_table("mnist"), table.reset_index())
    assert {outcome(n, out) for n in ("non_specific_stands_out", "non_specific_rises", "non_specific_surpassed", "fewer_non_specific")} == {NO_DATA}
    assert outcome("efficient", out) == outcome("grows", out) == HOLDS
    assert "non-specific" not in figures(claims.efficient(Evidence(["mnist"], out)))


def test_fewer_numbers_of_neurons_test_less(out):
    write(out, sweep_table("mnist"), sweep(FIRST_LAST[0], ns=(1, 5)))
    assert outcome("levels_off", out) == NO_DATA and outcome("grows", out) == HOLDS


@pytest.mark.parametrize("shape,expected", [(lambda n: n, FAILS), (lambda n: -n, FAILS), (lambda n: -abs(n - 10), HOLDS)])
def test_a_peak_is_followed_by_a_drop(out, shape, expected):
    rows = [row(m, n, 100 + shape(n)) for m in METHODS for n in NS]
    write(out, sweep_table("mnist"), rows)
    assert outcome("peaks", out) == (HOLDS if shape(25) < shape(20) else expected)
    assert outcome("grows", out) == (HOLDS if shape(25) > shape(1) else FAILS)


def test_interpolation(out):
    write(out, sweep_table("mnist"), sweep(FIRST_LAST[0]))
    assert outcome("interpolation_is_opposite", out) == outcome("midpoints", out) == outcome("middle_of_a_single_set", out) == HOLDS
    table = sweep(FIRST_LAST[0])
    table.loc[table.method.isin(["2interp", "6interp"]), list(METRICS)] *= 9
    write(out, sweep_table("mnist"), table)
    assert outcome("interpolation_is_opposite", out) == outcome("midpoints", out) == outcome("middle_of_a_single_set", out) == FAILS


def test_single_sets_against_the_combined_one(out):
    for d in ("mnist", "combined"): write(out, sweep_table(d), sweep(FIRST_LAST[0], d))
    assert outcome("middle_of_the_combined_set", out, "mnist") == NO_DATA
    table = sweep(FIRST_LAST[0], "combined")
    table.loc[table.method == "2interp", list(METRICS)] *= 2
    write(out, sweep_table("combined"), table)
    assert outcome("middle_of_the_combined_set", out, "mnist", "combined") == HOLDS


@pytest.mark.parametrize("noise,alike,nearer", [(1.05, HOLDS, HOLDS), (1.5, FAILS, HOLDS), (3.0, FAILS, FAILS)])
def test_noise_beside_regular_decoding(out, noise, alike, nearer):
    table = sweep(FIRST_LAST[0])
    table.loc[table.method == "noise", list(METRICS)] = noise
    write(out, sweep_table("mnist"), table)
    assert (outcome("noisy_is_regular", out), outcome("noisy_is_nearer", out)) == (alike, nearer)
    assert outcome("noisy_is_like_training", out) == (HOLDS if noise <= 1.2 else FAILS)


@pytest.mark.parametrize("spread,changed,few,many,static", [((3, 8), (4, 25), HOLDS, HOLDS, HOLDS), ((8, 3), (25, 25), FAILS, FAILS, NO_DATA),
                                                            ((8, 9), (4, 25), HOLDS, HOLDS, FAILS)])
def test_spread_and_number_of_changed_neurons(out, spread, changed, few, many, static):
    table = sweep(FIRST_LAST[0], neurons_changed=changed[1], image_spread=float(spread[1]))
    ent = (table.method == "ent") & (table.n_neurons == 25)
    table.loc[ent, ["image_spread", "neurons_changed"]] = [spread[0], changed[0]]
    table.loc[(table.n_neurons == 1), "image_spread"] = 8.5
    write(out, sweep_table("mnist"), table)
    assert (outcome("fewer_non_specific", out), outcome("non_specific_varies_less", out), outcome("static_image", out)) == (few, many, static)
    assert outcome("less_variety", out) == (PART if max(spread) > 8.5 else HOLDS)


def test_relative_spread_of_the_metrics(out):
    table = sweep(FIRST_LAST[0])
    for c, share in (("recon_distance", 0.2), ("latent_5ns", 0.1), ("oc_score", 0.5)): table[f"{c}_sd"] = share * table[c].abs()
    write(out, sweep_table("mnist"), table)
    assert outcome("spread_of_distance", out) == outcome("spread_of_scores", out) == HOLDS
    view = dict(dataset="mnist", method="loact", n_neurons=5, inception_score=7.5)
    write(out, "das2020_mnist_classifier_metrics", [dict(classifier="mnist", ice=1.0, ice_sd=0.15, **view), dict(classifier="fmnist", ice=1.0, ice_sd=0.3, **view)])
    assert outcome("spread_of_scores", out) == PART
    assert "D_r 0.20 against ICE mnist 0.15" in figures(claims.spread_of_scores(Evidence(["mnist"], out))).split(HELD)[0]


# -- the other tables

def distances(**values): return [{"dataset": "mnist", "method": m, "recon_distance": v, "recon_distance_sd": 1.0, "samples": 10} for m, v in values.items()]


def test_recon_distance(out):
    write(out, "das2020_mnist_recon_distance", distances(low_active=5.0, non_specific=4.0, noisy=2.0, random=4.5, regular=1.0))
    assert outcome("most_distant", out) == outcome("farther_than_non_specific", out) == HOLDS and outcome("non_specific_distant", out) == PART
    write(out, "das2020_mnist_recon_distance", distances(low_active=0.5, noisy=2.0, random=4.5, regular=1.0))
    assert outcome("most_distant", out) == FAILS and outcome("farther_than_non_specific", out) == outcome("non_specific_distant", out) == NO_DATA


def views(dataset="mnist", **scores):
    n = {"loact": 5}
    rows = [dict(dataset=dataset, classifier=dataset, method=m, n_neurons=n.get(m, 0), ice=1, ice_sd=1, inception_score=v, fid=1, samples=9) for m, v in scores.items()]
    return [*rows, dict(rows[0], method="loact", n_neurons=25, inception_score=1.0), dict(rows[0], classifier="other", inception_score=99.0)]


@pytest.mark.parametrize("scores,between,creative,references", [
    (dict(test=9.8, random_images=2.8, loact=7.4), HOLDS, HOLDS, HOLDS), (dict(test=9.7, random_images=1.3, loact=5.8), HOLDS, FAILS, PART),
    (dict(test=5.0, random_images=8.0, loact=9.0), FAILS, FAILS, FAILS), (dict(test=9.8), NO_DATA, NO_DATA, HOLDS)])
def test_inception_score(out, scores, between, creative, references):
    write(out, "das2020_mnist_classifier_metrics", views(**scores))
    assert (outcome("inception_between", out), outcome("inception_creative", out), outcome("inception_references", out)) == (between, creative, references)
    assert outcome("inception_between", out, "fmnist") == NO_DATA


def test_the_small_digits_stand_in_for_mnist_but_not_for_its_numbers(out):
    write(out, "das2020_digits_classifier_metrics", views("digits", test=9.8, random_images=2.8, loact=7.4))
    assert outcome("inception_between", out, "digits") == HOLDS and outcome("inception_creative", out, "digits") == NO_DATA


def test_choices(out):
    def rows(random, hidden1, off50=2.0): return [
        dict(choice="low-active: others", value="most correlated", method="loact", recon_distance=4.0), dict(choice="low-active: others", value="at random", method="loact", recon_distance=random),
        *[dict(choice="neurons turned off", value=v, method="turn off", recon_distance=d) for v, d in (("5", 1.1), ("50", off50))],
        dict(choice="on-value", value="2 x max", method="loact", recon_distance=4.0),
        dict(choice="layer", value="hidden1", method="loact", recon_distance=hidden1), dict(choice="layer", value="hidden2", method="loact", recon_distance=4.0),
        dict(choice="D_r encodes to", value="the mean", method="regular", recon_distance=1.0), dict(choice="D_r encodes to", value="a draw", method="regular", recon_distance=9.0)]
    write(out, "das2020_mnist_sensitivity_choices", rows(4.2, 2.0))
    assert outcome("remainder_at_random", out) == outcome("lower_layers", out) == HOLDS
    write(out, "das2020_mnist_sensitivity_choices", rows(5.0, 0.5))
    assert outcome("remainder_at_random", out) == FAILS and outcome("lower_layers", out) == PART
    assert outcome("turning_off", out) == HOLDS
    write(out, "das2020_mnist_sensitivity_choices", rows(4.2, 2.0, off50=1.05))
    assert outcome("turning_off", out) == PART
    write(out, "das2020_mnist_sensitivity_choices", rows(math.nan, math.nan))
    assert outcome("remainder_at_random", out) == NO_DATA and outcome("lower_layers", out) == HOLDS


def profile(values, regular): return [dict(dataset="mnist", position=t, recon_distance=v, input_5ns=v, latent_5ns=v) for t, v in [*values.items(), (math.nan, regular)]]


def test_profile_of_interpolation(out):
    write(out, "das2020_fig12_mnist_interpolation", profile({0: 1.0, 0.25: 1.05, 0.5: 1.5, 0.75: 1.05, 1: 1.0}, 1.0))
    assert {outcome(n, out) for n in ("away_from_the_middle", "highest_in_the_middle", "random_points")} == {HOLDS}
    write(out, "das2020_fig12_mnist_interpolation", profile({0: 2.0, 0.5: 1.0, 1: 2.0}, 1.0))
    assert {outcome(n, out) for n in ("away_from_the_middle", "highest_in_the_middle", "random_points")} == {FAILS}


def test_overhead_and_filter(out):
    write(out, "benchmarks_decoding", [dict(method=m, plain_us_per_sample=10.0, creative_us_per_sample=c, ratio=10 / c) for m, c in (("loact", 10.9), ("cor", 12.0))])
    assert outcome("overhead", out) == PART and figures(claims.overhead(Evidence(["mnist"], out))) == "1 of 2 fail: cor 1.20. Hold: loact 1.09"
    write(out, "das2020_mnist_filter_rates", [dict(dataset="mnist", method=m, passed=p) for m, p in (("regular", 0.1), ("loact", 2.0), ("noise", 0.0))])
    assert outcome("filtered", out) == HOLDS


def test_losses_and_facts_come_from_the_run_or_from_the_report(out):
    said = published("das2020_table3_vae_losses").query("dataset == 'mnist'")
    for name in ("das2020_table3_vae_losses", "vae_losses_mnist"):
        write(out, name, said.assign(nll=said.nll * (1 if name.startswith("das") else 1.2)))
        assert outcome("vae_losses", out) == (HOLDS if name.startswith("das") else PART)
    write(out, "das2020_facts", published("das2020_facts").drop(columns="note"))
    assert outcome("accuracies", out) == outcome("dead", out) == outcome("off", out) == HOLDS
    write(out, "classifier_mnist", [dict(fact="classifier_test_accuracy", dataset="mnist", value=0.98)])
    write(out, "neurons_mnist", [dict(fact="dead_neurons_layer3", dataset="mnist", value=300)])
    assert outcome("accuracies", out) == FAILS and outcome("dead", out) == PART and outcome("off", out) == HOLDS


def test_a_table_of_another_shape_is_an_error(out):
    write(out, "das2020_mnist_classifier_metrics", [dict(dataset="mnist", method="test", ice=1, inception_score=9.0)])
    with pytest.raises(ValueError, match="das2020_mnist_classifier_metrics: no column classifier, n_neurons, ice_sd"): outcome("inception_between", out)


@pytest.mark.parametrize("arguments,message", [(dict(datasets="mnist"), "datasets='mnist'"), (dict(datasets=[]), r"datasets=\[\]"), (dict(out="runs/none"), "out='runs/none'")])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message): Evidence(**arguments)


# -- tables that rest on labels

MEASURED = Path(__file__).parents[1] / "data" / "measured"
PEOPLES = [name for name, c in CLAIMS.items() if c.people]
LABELLED = [f"das2020_{d}_{t}_simulated" for d in ("mnist", "combined") for t in ("table1", "table2", "table4", "table8", "table9", "agreement", "tests", "creativity_facts")]


@pytest.fixture
def judged(out):
    for name in LABELLED:
        for suffix in (".csv", ".json"): shutil.copy(MEASURED / f"{name}{suffix}", out / "tables")
    return out


@pytest.mark.parametrize("name", LABELLED)
def test_what_no_image_was_can_be_missing(judged, name):
    "No image passed the filter, none was judged garbage, a method was not in the pool: the claims that need it have no case, and none fails."
    path = judged / "tables" / f"{name}.csv"
    table = read_table(path)
    for column in set(table) & {"method", "label", "creativity_filter", "statistic", "study", "baseline", "fact"}:
        for value in table[column].dropna().unique():
            save_table(table[table[column] != value], path, json.loads(path.with_suffix(".json").read_text()))
            e = Evidence(["mnist", "combined"], judged)
            for claim in PEOPLES: list(CLAIMS[claim].cases(e))


def test_the_filter_helps_needs_filtered_images(judged):
    name = "das2020_mnist_table8_simulated"
    table, path = read_table(judged / "tables" / f"{name}.csv"), judged / "tables" / f"{name}.csv"
    assert len(list(CLAIMS["filter_helps"].cases(Evidence(["mnist"], judged)))) == len(table[table.creativity_filter == 1].dropna(axis=1, how="all")) > 0
    save_table(table[table.creativity_filter == 0], path, json.loads(path.with_suffix(".json").read_text()))
    assert list(CLAIMS["filter_helps"].cases(Evidence(["mnist"], judged))) == []


# -- what the code itself shows

def test_only_the_non_specific_method_needs_labels(out):
    before = torch.get_rng_state()
    assert outcome("off_the_shelf", out) == HOLDS and outcome("unsupervised", out) == PART
    assert [m for m in METHODS if claims.needs_labels(m)] == ["ent"] and torch.equal(before, torch.get_rng_state())


# -- the printed tables

@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_can_be_asked_of_the_printed_tables(name):
    cases = list(CLAIMS[name].cases(PAPER))
    assert all(c.text and c.dataset in ("", *PAPER.datasets) for c in cases)
    if CLAIMS[name].people and cases: assert any(c.holds is not None for c in cases)


@pytest.mark.parametrize("name,expected", {
    "meaningful": HOLDS, "most_creative": HOLDS, "prior_most_creative": HOLDS, "most_distant": HOLDS, "creative_metrics": HOLDS, "filter_helps": HOLDS,
    "novel_between": PART, "novel_metrics": PART, "same_trend": PART, "combined_helps": PART, "non_specific_creative": PART, "significant": PART,
    "noisy_is_regular": FAILS, "agreement": FAILS, "off_layer": FAILS, "fewest_neurons": PART, "noisy_is_nearer": HOLDS, "clusters_work": HOLDS,
    "schemes_alike": PART, "interpolation_is_opposite": PART, "non_specific_stands_out": PART, "less_variety": NO_DATA, "overhead": NO_DATA}.items())
def test_verdicts_on_the_printed_tables(name, expected):
    "Counted by hand in the paper's tables."
    assert outcome(name) == expected


def test_printed_cases_counted_by_hand():
    cases = {(c.dataset, c.text): c.holds for c in claims.novel_metrics(PAPER)}
    assert [k for k, holds in cases.items() if not holds] == [("fmnist", "Table 2 in-domain score 489 against 435")]
    p = {(c.dataset, c.text.split()[0]): c.holds for c in claims.significant(PAPER)}
    assert [k for k, holds in p.items() if not holds] == [("fmnist", "random")]


# -- the table

def test_absent_tables_are_said_to_be_absent(out):
    table = claims_table(out, ["digits"])
    machine = table[table.verdict != PEOPLE]
    assert set(machine.verdict) == {NO_DATA, HOLDS, PART} and len(machine[machine.verdict != NO_DATA]) == 2  # the two that the code itself answers
    assert (machine.figures[machine.verdict == NO_DATA] == "").all() and table.attrs["parts"] == {}


def test_the_table_has_every_sentence_once_and_asks_people_nothing(out):
    write(out, sweep_table("mnist"), sweep(FIRST_LAST[0]))
    table = claims_table(out, ["mnist"])
    assert list(table) == ["section", "sentence", "test", "figures", "verdict", "in_print", "figures_in_print"] and len(table) == len(CLAIMS)
    assert table.sentence.is_unique and (table[["section", "sentence", "test"]] != "").all(axis=None)
    people = [c.people for c in CLAIMS.values()]
    assert (table.verdict[people] == PEOPLE).all() and (table.figures[people] == "").all() and not (table.verdict == PEOPLE)[[not p for p in people]].any()
    assert (table.in_print[[c.reference for c in CLAIMS.values()]] == ITSELF).all() and list(table.attrs["parts"]) == [sweep_table("mnist")]


def test_print_does_not_depend_on_the_run(out):
    before = claims_table(out, ["digits"])
    write(out, sweep_table("mnist"), sweep(FIRST_LAST[1]))
    after = claims_table(out, ["mnist"])
    assert before.in_print.equals(after.in_print) and before.figures_in_print.equals(after.figures_in_print) and not before.verdict.equals(after.verdict)
    assert set(after.in_print) == {HOLDS, PART, FAILS, NO_PRINT, ITSELF}


def test_the_paper_as_a_run_gets_its_own_verdicts(out):
    "The printed tables, written as those of a run: here and in print are then the same wherever the shapes are."
    for name in published_names():
        if "sweep" in name: write(out, name, published(name))
    table = claims_table(out, ["mnist", "fmnist", "combined"])
    both = table[(table.verdict.isin([HOLDS, PART, FAILS])) & ~table.in_print.isin([NO_PRINT, ITSELF])]
    same = both[~both.sentence.str.contains("nterpolation|midpoint|clusters|regular|novel images")]  # those need regular decoding, which the sweeps lack
    assert len(same) > 10 and (same.verdict == same.in_print).all() and (same.figures == same.figures_in_print).all()


def test_the_table_can_be_saved_styled_counted_and_put_in_words(out):
    write(out, sweep_table("mnist"), sweep(FIRST_LAST[1]))
    table = claims_table(out, ["mnist"])
    save_table(table, out / "tables" / "das2020_claims.csv", {"parts": table.attrs["parts"]})
    back = read_table(out / "tables" / "das2020_claims.csv")
    assert back.fillna("").equals(table.fillna("").reset_index(drop=True)) and json.loads((out / "tables" / "das2020_claims.json").read_text())["parts"]
    html = style_claims(back).to_html()
    assert "white-space: normal" in html and "#f7c9b4" in html and "nan" not in html and "row_heading" not in html
    counts = verdict_counts(back)
    assert counts.loc["all", "all"] == len(CLAIMS) and counts.loc[FAILS, "all"] == (back.verdict == FAILS).sum()
    words = failures(back)
    failed = back[back.verdict == FAILS]
    assert len(failed) and all(s in words for s in failed.sentence) and not any(s in words for s in back[back.verdict == HOLDS].sentence)


def test_nothing_failed_is_said_so():
    table = pd.DataFrame([["6", "s", "t", "f", HOLDS, HOLDS, "f"]], columns=["section", "sentence", "test", "figures", "verdict", "in_print", "figures_in_print"])
    assert failures(table) == "Every sentence that was tested holds."
