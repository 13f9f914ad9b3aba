"The claims of das2020: every test on hand-made tables with a known answer, on absent ones, and on the printed ones."
import json
import math
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch
from creative_nb import claims as engine
from creative_nb.claims import (FAILS, HELD, HOLDS, IS_PRINTED, NEEDS_PEOPLE, NO_DATA, NO_PRINT, PART, SIMULATED, Case,
                                Claims, Evidence, InPrint, above, case_from, claims_table, evidence_text, failures,
                                format_number, similar, style_claims, verdict, verdict_counts)
from creative_nb.core import from_root
from creative_nb.das2020 import claims_networks
from creative_nb.das2020.claims import CLAIMS
from creative_nb.das2020.claims_novelty import Sweep
from creative_nb.methods import METHODS, LowActive
from creative_nb.novelty import METRICS
from creative_nb.paper import Paper, load_paper, shelf
from creative_nb.published import printed_tables
from creative_nb.runs import read_table, save_table
from hypothesis import given
from hypothesis import strategies as st

NS = (1, 5, 10, 20, 25)
SETTINGS = ["mnist", "fmnist", "combined"]
PAPER = InPrint("das2020")
TURN_ON = list(load_paper("das2020").methods)


@pytest.fixture
def folder(tmp_path): return tmp_path


def write(folder, name, rows, setting="mnist"):
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    save_table(table, folder / setting / f"{name}.csv", {"of": name})


def evidence_in(folder, *settings): return Evidence("das2020", settings or ["mnist"], folder=folder)


def cases_of(name, folder, *settings): return list(CLAIMS[name].cases(evidence_in(folder, *settings)))


def outcome(name, folder=None, *settings):
    "Verdict of one claim, in a folder of tables or in print."
    return verdict(CLAIMS[name].cases(evidence_in(folder, *settings) if folder else PAPER))


def outcomes(names, folder): return {outcome(name, folder) for name in names.split()}


def row(method, n, novelty, dataset="mnist", **more):
    "A row of a sweep that is as novel as `novelty` by every metric."
    values = {m.name: m.novelty(novelty) for m in METRICS.values()}
    return {"dataset": dataset, "n_neurons": n, "method": method, **values, **more}


UNCHANGED = {"regular": 1.0, "test": 1.2, "interpolation-2": 0.95, "interpolation-6": 0.9}


def sweep(order, dataset="mnist", ns=NS, **more):
    "The methods from most to least novel, above regular decoding (1), growing and levelling off with the neurons."
    rows = [row(m, 0, v, dataset, image_spread=9.0) for m, v in UNCHANGED.items()]
    changed = [row(m, n, 2 + 0.1 * (len(order) - i) + math.log(n), dataset, **more) for i, m in enumerate(order)
               for n in ns]
    return pd.DataFrame(rows + changed)


FIRST = ["low-active", "non-specific", "three-clusters", "one-cluster", "correlation", "random-off", "noisy"]
LAST = FIRST[::-1]
LEADING = (
    "novel random_is_less_novel fewest_neurons among_the_top clusters_work efficient grows levels_off highest_distance"
)


# -- cases and verdicts

def test_a_case_without_its_numbers_is_no_case():
    assert above("mnist", "D_r", 2, 1).holds and not above("mnist", "D_r", 1, 1).holds
    assert above("mnist", "D_r", math.nan, 1).holds is None and case_from("", "x", True, 1.0, math.nan).holds is None
    assert verdict([]) == verdict([case_from("", "x", True, math.nan)]) == NO_DATA


def test_similar_is_ten_percent():
    assert similar("", "", 1.1, 1).text == "1.10 against 1.00"
    assert similar("", "", 1.0999, 1).holds and not similar("", "", 1.101, 1).holds
    assert similar("", "", -1.05, -1).holds and similar("", "", 0, 0).holds and not similar("", "", 1, 0).holds


all_outcomes = st.lists(st.sampled_from([True, False, None]), max_size=8)


def numbered(holds): return [Case("mnist" if i % 2 else "", f"case{i}", h) for i, h in enumerate(holds)]


@given(all_outcomes)
def test_verdict_counts_what_was_tested(holds):
    yes, no = holds.count(True), holds.count(False)
    expected = "absent" if not yes + no else HOLDS if not no else FAILS if not yes else PART
    assert verdict(numbered(holds), "absent") == expected
    assert verdict(numbered(holds), "absent", exact=True) == (FAILS if expected == PART else expected)


@given(all_outcomes)
def test_evidence_has_every_case_that_was_tested(holds):
    yes, no = holds.count(True), holds.count(False)
    text = evidence_text(numbered(holds))
    assert all((f"case{i}" in text) == (h is not None) for i, h in enumerate(holds))
    if not (yes and no): return
    failing = text.split(HELD)[0]
    assert text.startswith(f"{no} of {yes + no} fail")
    assert all((f"case{i}" in failing) == (h is False) for i, h in enumerate(holds))


@given(all_outcomes, st.integers(1, 4))
def test_shortened_evidence_says_how_many(holds, at_most):
    yes, no = holds.count(True), holds.count(False)
    text = evidence_text(numbered(holds), at_most)
    shown = [i for i in range(len(holds)) if f"case{i}" in text]
    assert {holds[i] for i in shown} <= ({False} if no else {True})
    assert len(shown) == (min(no, at_most) if no else min(yes, 1))
    if no: assert text.startswith(f"{no} of {yes + no} fail") and (f"and {no - at_most} more" in text) == (no > at_most)
    elif yes: assert text.startswith(f"all {yes} hold")


def test_numbers_have_about_three_digits():
    assert [format_number(x) for x in (661.2, 15.46, 4.866, -0.5, 0.0)] == ["661", "15.5", "4.87", "-0.50", "0.00"]


# -- the sweep

def test_ranks_count_the_more_novel_and_leave_out_the_absent():
    rows = {"low-active": 2.0, "random-off": 3.0, "correlation": 2.0, "non-specific": math.nan}
    s = Sweep(pd.DataFrame([row(m, 5, v) for m, v in rows.items()]), TURN_ON)
    assert s.rank("random-off", "recon_distance") == 1 == s.rank("random-off", "in_domain_score")
    assert s.rank("low-active", "recon_distance") == s.rank("correlation", "recon_distance") == 2
    assert math.isnan(s.rank("non-specific", "recon_distance")) and math.isnan(s.rank("noisy", "recon_distance"))
    assert s.methods("recon_distance", 5) == ["low-active", "correlation", "random-off"]
    assert math.isnan(s.value("low-active", "image_spread"))


def test_a_repeated_row_is_an_error():
    with pytest.raises(ValueError, match="low-active.*more than once"):
        Sweep(pd.DataFrame([row("low-active", 5, 1.0)] * 2), TURN_ON)


# -- the sweep's claims, with a known answer

@pytest.mark.parametrize("name", LEADING.split())
def test_low_active_first_holds(folder, name):
    write(folder, "metric_sweep", sweep(FIRST))
    assert outcome(name, folder) == HOLDS


@pytest.mark.parametrize("name", "random_is_less_novel fewest_neurons among_the_top efficient highest_distance".split())
def test_low_active_last_does_not_hold(folder, name):
    write(folder, "metric_sweep", sweep(LAST))
    assert outcome(name, folder) == FAILS


def test_part_says_where(folder):
    for d, order in (("mnist", FIRST), ("fmnist", LAST)): write(folder, "metric_sweep", sweep(order, d), d)
    cases = cases_of("fewest_neurons", folder, "mnist", "fmnist")
    failed, held = evidence_text(cases).split(HELD)
    assert verdict(cases) == PART and "fmnist" in failed and "; mnist" not in failed
    assert held.startswith("mnist") and "fmnist" not in held


def test_a_method_without_neurons_counts_neither_way(folder):
    table = sweep(FIRST).set_index("method")
    table.loc["non-specific", list(METRICS)] = math.nan
    write(folder, "metric_sweep", table.reset_index())
    about_it = "non_specific_stands_out non_specific_rises non_specific_surpassed fewer_non_specific"
    assert outcomes(about_it, folder) == {NO_DATA} and outcomes("efficient grows", folder) == {HOLDS}
    assert "non-specific" not in evidence_text(cases_of("efficient", folder))


def test_fewer_numbers_of_neurons_test_less(folder):
    write(folder, "metric_sweep", sweep(FIRST, ns=(1, 5)))
    assert outcome("levels_off", folder) == NO_DATA and outcome("grows", folder) == HOLDS


@pytest.mark.parametrize("shape,peaks", [(lambda n: n, FAILS), (lambda n: -n, HOLDS), (lambda n: -abs(n - 10), HOLDS)])
def test_a_peak_is_followed_by_a_drop(folder, shape, peaks):
    write(folder, "metric_sweep", [row(m, n, 100 + shape(n)) for m in TURN_ON for n in NS])
    assert outcome("peaks", folder) == peaks
    assert outcome("grows", folder) == (HOLDS if shape(25) > shape(1) else FAILS)


def test_interpolation(folder):
    names = "interpolation_is_opposite midpoints middle_of_a_single_set"
    write(folder, "metric_sweep", sweep(FIRST))
    assert outcomes(names, folder) == {HOLDS}
    table = sweep(FIRST)
    table.loc[table.method.isin(["interpolation-2", "interpolation-6"]), list(METRICS)] *= 9
    write(folder, "metric_sweep", table)
    assert outcomes(names, folder) == {FAILS}


def test_single_sets_against_the_combined_one(folder):
    for d in ("mnist", "combined"): write(folder, "metric_sweep", sweep(FIRST, d), d)
    assert outcome("middle_of_the_combined_set", folder, "mnist") == NO_DATA
    table = sweep(FIRST, "combined")
    table.loc[table.method == "interpolation-2", list(METRICS)] *= 2
    write(folder, "metric_sweep", table, "combined")
    assert outcome("middle_of_the_combined_set", folder, "mnist", "combined") == HOLDS


@pytest.mark.parametrize("noise,alike,nearer", [(1.05, HOLDS, HOLDS), (1.5, FAILS, HOLDS), (3.0, FAILS, FAILS)])
def test_noise_beside_regular_decoding(folder, noise, alike, nearer):
    table = sweep(FIRST)
    table.loc[table.method == "noisy", list(METRICS)] = noise
    write(folder, "metric_sweep", table)
    assert (outcome("noisy_is_regular", folder), outcome("noisy_is_nearer", folder)) == (alike, nearer)
    assert outcome("noisy_is_like_training", folder) == (HOLDS if noise <= 1.2 else FAILS)


@pytest.mark.parametrize("spread,changed,few,many,static", [
    ((3, 8), (4, 25), HOLDS, HOLDS, HOLDS), ((8, 3), (25, 25), FAILS, FAILS, NO_DATA),
    ((8, 9), (4, 25), HOLDS, HOLDS, FAILS)])
def test_spread_and_number_of_changed_neurons(folder, spread, changed, few, many, static):
    table = sweep(FIRST, neurons_changed=changed[1], image_spread=float(spread[1]))
    last = (table.method == "non-specific") & (table.n_neurons == 25)
    table.loc[last, ["image_spread", "neurons_changed"]] = [spread[0], changed[0]]
    table.loc[(table.n_neurons == 1), "image_spread"] = 8.5
    write(folder, "metric_sweep", table)
    names = ("fewer_non_specific", "non_specific_varies_less", "static_image")
    assert [outcome(name, folder) for name in names] == [few, many, static]
    assert outcome("less_variety", folder) == (PART if max(spread) > 8.5 else HOLDS)


def views(dataset="mnist", **scores):
    "What a classifier says of images; the other rows have scores that must not be taken."
    names = {"low_active": ("low-active", 5), "random_images": ("random-images", 0)}
    base = dict(dataset=dataset, classifier=dataset, ice=1, ice_sd=1, fid=1, samples=9)
    rows = [dict(base, inception_score=v, **dict(zip(("method", "n_neurons"), names.get(m, (m, 0)))))
            for m, v in scores.items()]
    many = dict(base, method="low-active", n_neurons=25, inception_score=1.0)
    return [*rows, many, dict(rows[0], classifier="other", inception_score=99.0)]


def test_relative_spread_of_the_metrics(folder):
    table = sweep(FIRST)
    for c, share in (("recon_distance", 0.2), ("latent_5ns", 0.1), ("in_domain_score", 0.5)):
        table[f"{c}_sd"] = share * table[c].abs()
    write(folder, "metric_sweep", table)
    assert outcomes("spread_of_distance spread_of_scores", folder) == {HOLDS}
    view = dict(dataset="mnist", method="low-active", n_neurons=5, inception_score=7.5, ice=1.0)
    write(folder, "classifier_metrics", [dict(view, classifier="mnist", ice_sd=0.15),
                                         dict(view, classifier="fmnist", ice_sd=0.3)])
    assert outcome("spread_of_scores", folder) == PART
    assert "D_r 0.20 against ICE mnist 0.15" in evidence_text(cases_of("spread_of_scores", folder)).split(HELD)[0]


# -- an eleventh method and metric

def test_a_new_metric_enters_the_claims_about_all_of_them(folder, monkeypatch):
    new = replace(METRICS["in_domain_score"], name="surprise", label="surprise", short="surprise")
    monkeypatch.setitem(METRICS, "surprise", new)
    write(folder, "metric_sweep", sweep(FIRST))
    for name in ("novel", "grows", "among_the_top", "interpolation_is_opposite", "midpoints"):
        assert outcome(name, folder) == HOLDS and "surprise" in evidence_text(cases_of(name, folder))
    table = sweep(FIRST)
    table.loc[table.n_neurons > 0, "surprise"] = 99  # more is less novel, as declared
    write(folder, "metric_sweep", table)
    assert "surprise" in evidence_text(cases_of("novel", folder)).split(HELD)[0]


def test_a_new_method_enters_the_claims_about_all_of_them(folder, monkeypatch):
    new = replace(METHODS["low-active"], name="mine", label="my method", make=LowActive)
    declared = load_paper("das2020").turn_on() | {"mine": new}
    monkeypatch.setattr(Paper, "turn_on", lambda self: declared)
    write(folder, "metric_sweep", sweep(["mine", *FIRST], neurons_changed=4.0, image_spread=1.0))
    write(folder, "filter_rates", [dict(method="regular", passed=1.0), dict(method="mine", passed=0.5)])
    for name in ("less_variety", "static_image", "filtered", "unsupervised"):
        assert "my method" in evidence_text(cases_of(name, folder))
    assert outcome("fewest_neurons", folder) == FAILS  # it is the most novel now
    assert "8 of 8" in evidence_text(cases_of("grows", folder))


# -- the other tables

def distances(**values):
    names = {"low_active": "low-active", "non_specific": "non-specific", "random_off": "random-off"}
    return [{"dataset": "mnist", "method": names.get(m, m), "recon_distance": v} for m, v in values.items()]


def test_recon_distance(folder):
    write(folder, "recon_distance", distances(low_active=5.0, non_specific=4.0, noisy=2.0, random_off=4.5, regular=1.0))
    assert outcomes("most_distant farther_than_non_specific", folder) == {HOLDS}
    assert outcome("non_specific_distant", folder) == PART
    write(folder, "recon_distance", distances(low_active=0.5, noisy=2.0, random_off=4.5, regular=1.0))
    assert outcome("most_distant", folder) == FAILS
    assert outcomes("farther_than_non_specific non_specific_distant", folder) == {NO_DATA}


@pytest.mark.parametrize("scores,expected", [
    (dict(test=9.8, random_images=2.8, low_active=7.4), [HOLDS, HOLDS, HOLDS]),
    (dict(test=9.7, random_images=1.3, low_active=5.8), [HOLDS, FAILS, PART]),
    (dict(test=5.0, random_images=8.0, low_active=9.0), [FAILS, FAILS, FAILS]),
    (dict(test=9.8), [NO_DATA, NO_DATA, HOLDS])])
def test_inception_score(folder, scores, expected):
    write(folder, "classifier_metrics", views(**scores))
    names = ("inception_between", "inception_creative", "inception_references")
    assert [outcome(name, folder) for name in names] == expected
    assert outcome("inception_between", folder, "fmnist") == NO_DATA


def test_the_small_digits_stand_in_for_mnist_but_not_for_its_numbers(folder):
    write(folder, "classifier_metrics", views("digits", test=9.8, random_images=2.8, low_active=7.4), "digits")
    assert outcome("inception_between", folder, "digits") == HOLDS
    assert outcome("inception_creative", folder, "digits") == NO_DATA


def choices(random, hidden1, off50=2.0):
    "D_r by choice, value and method, as 10_sensitivity saves it."
    rows = [("low-active: others", "most correlated", "low-active", 4.0),
            ("low-active: others", "at random", "low-active", random), ("neurons turned off", "5", "turn-off", 1.1),
            ("neurons turned off", "50", "turn-off", off50), ("on-value", "2 x max", "low-active", 4.0),
            ("layer", "hidden1", "low-active", hidden1), ("layer", "hidden2", "low-active", 4.0),
            ("D_r encodes to", "the mean", "regular", 1.0), ("D_r encodes to", "a draw", "regular", 9.0)]
    return pd.DataFrame(rows, columns=["choice", "value", "method", "recon_distance"])


def test_choices(folder):
    write(folder, "sensitivity_choices", choices(4.2, 2.0))
    assert outcomes("remainder_at_random lower_layers turning_off", folder) == {HOLDS}
    write(folder, "sensitivity_choices", choices(5.0, 0.5))
    assert outcome("remainder_at_random", folder) == FAILS and outcome("lower_layers", folder) == PART
    write(folder, "sensitivity_choices", choices(4.2, 2.0, off50=1.05))
    assert outcome("turning_off", folder) == PART
    write(folder, "sensitivity_choices", choices(math.nan, math.nan))
    assert outcome("remainder_at_random", folder) == NO_DATA and outcome("lower_layers", folder) == HOLDS


def profile(values, regular):
    at = [*values.items(), (math.nan, regular)]
    return [dict(dataset="mnist", position=t, recon_distance=v, input_5ns=v, latent_5ns=v) for t, v in at]


def test_profile_of_interpolation(folder):
    names = "away_from_the_middle highest_in_the_middle random_points"
    write(folder, "interpolation", profile({0: 1.0, 0.25: 1.05, 0.5: 1.5, 0.75: 1.05, 1: 1.0}, 1.0))
    assert outcomes(names, folder) == {HOLDS}
    write(folder, "interpolation", profile({0: 2.0, 0.5: 1.0, 1: 2.0}, 1.0))
    assert outcomes(names, folder) == {FAILS}


def test_overhead_and_filter(folder):
    timed = [dict(method=m, plain_us_per_sample=10.0, creative_us_per_sample=c)
             for m, c in (("low-active", 10.9), ("correlation", 12.0))]
    write(folder, "benchmarks_decoding", timed, "all")
    assert outcome("overhead", folder) == PART
    assert evidence_text(cases_of("overhead", folder)) == "1 of 2 fail: correlation 1.20. Hold: low-active 1.09"
    rates = {"regular": 0.1, "low-active": 2.0, "noisy": 0.0}
    write(folder, "filter_rates", [dict(dataset="mnist", method=m, passed=p) for m, p in rates.items()])
    assert outcome("filtered", folder) == HOLDS


@pytest.mark.parametrize("load, expected", [(None, HOLDS), (1.0, HOLDS), (9.5, NO_DATA)])
def test_timings_of_a_busy_machine_prove_nothing(folder, load, expected):
    timed = [dict(method="low-active", plain_us_per_sample=10.0, creative_us_per_sample=10.1)]
    write(folder, "benchmarks_decoding", timed, "all")
    (folder / "all" / "benchmarks_decoding.json").write_text(json.dumps({"load": load}))
    assert outcome("overhead", folder) == expected


def test_time_grows_as_sorting(folder):
    rows = [("decoding", line, "neurons in the layer", p, s) for line in ("plain", "low-active")
            for p, s in ((100, 1.0), (1000, 14.0))]
    columns = ["task", "line", "against", "size", "seconds"]
    write(folder, "benchmarks_growth", pd.DataFrame(rows, columns=columns), "all")
    assert outcome("sorting", folder) == HOLDS and len(cases_of("sorting", folder)) == 1  # 10 log 1000 / log 100 = 15
    rows = [(*r[:4], r[4] * (1.1 if r[3] == 1000 else 1)) for r in rows]
    write(folder, "benchmarks_growth", pd.DataFrame(rows, columns=columns), "all")
    assert outcome("sorting", folder) == FAILS


def test_losses_and_facts(folder):
    printed = PAPER.table("vae_losses", "mnist")
    for factor, expected in ((1, HOLDS), (1.2, PART)):
        write(folder, "vae_losses", printed.assign(nll=printed.nll * factor))
        assert outcome("vae_losses", folder) == expected
    facts = PAPER.table("facts", "mnist")
    write(folder, "classifier", facts[facts.fact.str.startswith("classifier")])
    write(folder, "neurons", facts[facts.fact.str.contains("neurons")])
    assert outcomes("accuracies dead off", folder) == {HOLDS}
    write(folder, "classifier", [dict(fact="classifier_test_accuracy", dataset="mnist", value=0.98)])
    write(folder, "neurons", facts.assign(value=facts.value.where(facts.fact != "dead_neurons_layer3", 300)))
    assert [outcome(name, folder) for name in ("accuracies", "dead", "off")] == [FAILS, PART, HOLDS]


# -- the evidence

def test_a_table_of_another_shape_is_an_error(folder):
    write(folder, "classifier_metrics", [dict(dataset="mnist", method="test", ice=1, inception_score=9.0)])
    with pytest.raises(ValueError, match="mnist/classifier_metrics: no column classifier, n_neurons, ice_sd"):
        outcome("inception_between", folder)


@pytest.mark.parametrize("arguments,message", [
    (dict(settings="mnist"), "settings='mnist'"), (dict(settings=["minst"]), r"settings=\['minst'\].*mnist")])
def test_bad_settings(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message): Evidence("das2020", **arguments)


def test_shelves_of_a_run_and_the_released_ones():
    released, run = Evidence("das2020"), Evidence("das2020", ["digits"], "quick")
    assert released.path("metric_sweep", "mnist") == from_root(shelf("das2020", "mnist")) / "metric_sweep.csv"
    assert run.path("claims") == from_root("runs/quick/das2020/all/tables/claims.csv")
    assert len(released.table("metric_sweep", "mnist")) > 40 and list(released.parts()) == ["mnist/metric_sweep"]
    assert released.table("no_such_table", "mnist", ["method"]).columns.tolist() == ["method"]


def test_the_index_says_which_printed_table_a_result_repeats():
    for entry in load_paper("das2020").index.values():
        if not {"printed", "result"} <= set(entry): continue
        setting = entry.get("setting", "mnist")
        assert PAPER.table(entry["result"], setting).equals(PAPER.table(entry["printed"], setting))
    assert PAPER.table("metric_sweep", "digits").empty


def test_labels_of_people_are_preferred_and_simulated_columns_are_plain(folder):
    write(folder, "table1_simulated", [dict(method="low-active", creative_simulated=0.1)])
    simulated = evidence_in(folder)
    assert simulated.table("table1", "mnist").creative.tolist() == [0.1] and simulated.sources == {"simulated"}
    write(folder, "table1_people", [dict(method="low-active", creative=0.2)])
    people = evidence_in(folder)
    assert people.table("table1", "mnist").creative.tolist() == [0.2] and people.sources == {"people"}
    assert list(people.files) == ["mnist/table1_people"]


# -- tables that rest on labels

PEOPLES = [name for name, c in CLAIMS.items() if c.people]
TABLES = "table1 table2 table4 table8 table9 agreement tests creativity_facts".split()
LABELLED = [f"{d}/{t}_simulated" for d in ("mnist", "combined") for t in TABLES]


@pytest.fixture
def judged(folder):
    for name in LABELLED:
        for suffix in (".csv", ".json"):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(from_root("data/measured/das2020") / f"{name}{suffix}", folder / f"{name}{suffix}")
    return folder


@pytest.mark.parametrize("name", LABELLED)
def test_what_no_image_was_can_be_missing(judged, name):
    "No image passed the filter, none was judged garbage, a method was not in the pool: no case, and no failure."
    path = judged / f"{name}.csv"
    table, about = read_table(path), json.loads(path.with_suffix(".json").read_text())
    keys = {"method", "label", "creativity_filter", "statistic", "study", "baseline", "fact"}
    for column in set(table) & keys:
        for value in table[column].dropna().unique():
            save_table(table[table[column] != value], path, about)
            evidence = evidence_in(judged, "mnist", "combined")
            for claim in PEOPLES: list(CLAIMS[claim].cases(evidence))


def test_the_filter_helps_needs_filtered_images(judged):
    path = judged / "mnist" / "table8_simulated.csv"
    table, about = read_table(path), json.loads(path.with_suffix(".json").read_text())
    filtered = table[table.creativity_filter == 1].dropna(axis=1, how="all")
    assert len(cases_of("filter_helps", judged)) == len(filtered) > 0
    save_table(table[table.creativity_filter == 0], path, about)
    assert cases_of("filter_helps", judged) == []


def test_verdicts_on_simulated_labels_say_so(judged):
    table = claims_table(CLAIMS, evidence_in(judged, "mnist", "combined")).set_index(pd.Index(CLAIMS))
    people = table.loc[PEOPLES]
    assert set(people.verdict) <= {*SIMULATED.values(), NEEDS_PEOPLE} and (people.verdict == SIMULATED[HOLDS]).any()
    assert people[people.verdict != NEEDS_PEOPLE].evidence.str.startswith("simulated: ").all()
    assert not table.drop(PEOPLES).verdict.str.contains("simulated").any()
    assert not table.in_print.str.contains("simulated").any()


def test_the_combined_set_leads_by_one_printed_cell():
    cases = {c.text: c.holds for c in CLAIMS["most_creative_of_the_combined_set"].cases(PAPER)}
    assert [text for text, holds in cases.items()
            if not holds] == ["Table 4 0.26 against noisy 0.26"] and len(cases) == 6


# -- what the code itself shows

def test_only_the_non_specific_method_needs_labels(folder):
    before = torch.get_rng_state()
    assert outcome("off_the_shelf", folder) == HOLDS and outcome("unsupervised", folder) == PART
    refusing = [m for m in TURN_ON if claims_networks.needs_labels(METHODS[m].make(1))]
    assert refusing == ["non-specific"] and torch.equal(before, torch.get_rng_state())


def test_noise_turns_nothing_on():
    assert claims_networks.turn_on(PAPER) == [m for m in TURN_ON if m != "noisy"]


# -- the printed tables

@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_can_be_asked_of_the_printed_tables(name):
    cases = list(CLAIMS[name].cases(PAPER))
    assert all(c.text and c.where in ("", *PAPER.settings) for c in cases)
    if CLAIMS[name].people and cases: assert any(c.holds is not None for c in cases)


EXPECTED = {
    HOLDS: "meaningful most_creative prior_most_creative most_distant creative_metrics filter_helps "
           "noisy_is_nearer clusters_work "
    "highest_distance novel grows",
    PART: "novel_between novel_metrics same_trend combined_helps non_specific_creative significant "
          "fewest_neurons schemes_alike "
    "interpolation_is_opposite non_specific_stands_out levels_off among_the_top most_creative_of_the_combined_set",
    FAILS: "noisy_is_regular agreement",
    NO_DATA: "less_variety overhead",
}


@pytest.mark.parametrize("name,expected", [(name, v) for v, names in EXPECTED.items() for name in names.split()])
def test_verdicts_on_the_printed_tables(name, expected):
    "Counted by hand in the paper's tables."
    assert outcome(name) == expected


def test_printed_cases_counted_by_hand():
    cases = {(c.where, c.text): c.holds for c in CLAIMS["novel_metrics"].cases(PAPER)}
    failing = [k for k, holds in cases.items() if not holds]
    assert failing == [("fmnist", "Table 2 in-domain score 489 against 435")]
    p = {(c.where, c.text.split(" p =")[0]): c.holds for c in CLAIMS["significant"].cases(PAPER)}
    assert [k for k, holds in p.items() if not holds] == [("fmnist", "random off")]


# -- the table

COLUMNS = ["section", "sentence", "test", "evidence", "verdict", "in_print", "evidence_in_print"]


@pytest.fixture
def table(folder):
    write(folder, "metric_sweep", sweep(LAST))
    return claims_table(CLAIMS, evidence_in(folder))


def test_absent_tables_are_said_to_be_absent(folder):
    evidence = evidence_in(folder, "digits")
    table = claims_table(CLAIMS, evidence)
    machine = table[table.verdict != NEEDS_PEOPLE]
    assert set(machine.verdict) == {NO_DATA, HOLDS, PART}
    assert len(machine[machine.verdict != NO_DATA]) == 2  # the two that the code itself answers
    assert (machine.evidence[machine.verdict == NO_DATA] == "").all() and evidence.parts() == {}


def test_the_table_has_every_sentence_once_and_asks_people_nothing(table):
    assert list(table) == COLUMNS and len(table) == len(CLAIMS)
    assert table.sentence.is_unique and (table[["section", "sentence", "test"]] != "").all(axis=None)
    people = pd.Series([c.people for c in CLAIMS.values()])
    assert (table.verdict == NEEDS_PEOPLE).equals(people) and (table.evidence[people] == "").all()
    assert (table.in_print[[c.reference for c in CLAIMS.values()]] == IS_PRINTED).all()


def test_sections_are_in_order():
    first = [engine._first_section(c.section) for c in CLAIMS.values()]
    assert first == sorted(first) and first[0] == [] and first[-1] == [8, 11]


def test_print_does_not_depend_on_the_run(folder, table):
    other = claims_table(CLAIMS, Evidence("das2020", ["digits"], folder=folder))
    assert other.in_print.equals(table.in_print) and other.evidence_in_print.equals(table.evidence_in_print)
    assert not other.verdict.equals(table.verdict) and set(table.in_print) == {HOLDS, PART, FAILS, NO_PRINT, IS_PRINTED}


def test_the_paper_as_a_run_gets_its_own_verdicts(folder):
    "The printed sweeps, written as those of a run: here and in print are then the same wherever the shapes are."
    for d in SETTINGS: write(folder, "metric_sweep", PAPER.table("metric_sweep", d), d)
    assert sum("sweep" in t for t in printed_tables("das2020")) == len(SETTINGS)
    table = claims_table(CLAIMS, evidence_in(folder, *SETTINGS))
    both = table[table.verdict.isin([HOLDS, PART, FAILS]) & ~table.in_print.isin([NO_PRINT, IS_PRINTED])]
    needs_regular = "nterpolation|midpoint|clusters|regular|novel images"  # which the sweeps lack
    same = both[~both.sentence.str.contains(needs_regular)]
    assert len(same) > 10 and (same.verdict == same.in_print).all() and (same.evidence == same.evidence_in_print).all()


def test_the_table_can_be_saved_styled_and_counted(folder, table):
    save_table(table, folder / "all" / "claims.csv", {})
    back = evidence_in(folder).table("claims")
    assert back.fillna("").equals(table.fillna("").reset_index(drop=True))
    html = style_claims(back).to_html()
    assert "white-space: normal" in html and "#f7c9b4" in html and "nan" not in html and "row_heading" not in html
    counts = verdict_counts(back)
    assert counts.loc["all", "all"] == len(CLAIMS) and counts.loc[FAILS, "all"] == (back.verdict == FAILS).sum()


def test_what_is_styled_is_escaped():
    claim = Claims()
    claim("1", "<b>A</b>", "t")(lambda evidence: [Case("", "1 < 2 <i>", True)])
    html = style_claims(claims_table(claim, InPrint("das2020"))).to_html()
    assert "<b>A" not in html and "<i>" not in html and "1 &lt; 2" in html


def test_failures_in_words(table):
    words, failed, held = failures(table), table[table.verdict == FAILS], table[table.verdict == HOLDS]
    assert len(failed) and all(s in words for s in failed.sentence) and not any(s in words for s in held.sentence)


def test_nothing_failed_is_said_so():
    table = pd.DataFrame([["6", "s", "t", "f", HOLDS, HOLDS, "f"]], columns=COLUMNS)
    assert failures(table) == "Every sentence that was tested holds."


# -- the released table

def test_the_released_verdicts_are_those_of_the_released_tables():
    released = read_table(from_root(shelf("das2020")) / "claims.csv").fillna("")
    again = claims_table(CLAIMS, Evidence("das2020", SETTINGS))
    assert released[COLUMNS].equals(again.fillna("").reset_index(drop=True))
