"Power by formula and by simulation, and plans that are kept."
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import GofChisquarePower

from creative_nb.annotators import Rules
from creative_nb.panel import Panel, PrintedStudy
from creative_nb.planning import Plan, images_for_power, planned_comparisons, power_of_images, simulated_power
from creative_nb.published import printed_table
from people import MAIN

TABLE1 = printed_table("das2020", "table1_human_labels")
EARLIER = PrintedStudy("das2020", "earlier", "table9_labels_vs_metrics", "table8_prior_human_study", 10,
                       {"mnist": 55_000, "fmnist": 55_000, "combined": 110_000})
A, B = [0.27, 0.52, 0.14, 0.07], [0.17, 0.62, 0.16, 0.05]


@pytest.mark.parametrize("dataset, power, needed, of_nine", [("mnist", 0.82, 77, 123), ("fmnist", 0.25, 327, 511),
    ("combined", 0.14, 628, 981)])
def test_what_the_printed_fractions_need(dataset, power, needed, of_nine):
    table = planned_comparisons(TABLE1, MAIN).set_index(["dataset", "baseline"]).loc[(dataset, "random-off")]
    assert (round(table.power, 2), table.needed, table.needed_family) == (power, needed, of_nine)


@pytest.mark.parametrize("power, level", [(0.8, 0.05), (0.9, 0.01), (0.5, 0.05)])
def test_the_number_of_images_is_the_first_that_is_enough(power, level):
    n = images_for_power(A, B, power, level)
    assert power_of_images(A, B, n, level) >= power > power_of_images(A, B, n - 1, level)
    a, b = np.array(A), np.array(B)
    effect = (((a - b) ** 2 / (a + b)).sum() / 2) ** 0.5
    assert power_of_images(A, B, n, level) == pytest.approx(GofChisquarePower().power(effect, 2 * n, level, n_bins=4))


def test_the_formula_against_studies_drawn():
    random, found = np.random.default_rng(0), []
    for _ in range(1500):
        counts = np.array([random.multinomial(300, A), random.multinomial(300, B)])
        found.append(stats.chi2_contingency(counts, correction=False).pvalue < 0.05)
    assert np.mean(found) == pytest.approx(power_of_images(A, B, 300), abs=0.04)


def test_ends():
    assert images_for_power(A, A) == np.inf and power_of_images(A, A, 500) == pytest.approx(0.05)
    assert images_for_power([1.0, 0.0], [1.0, 0.0]) == np.inf and power_of_images([1.0], [1.0], 5) == 0.05
    assert images_for_power(A, B, power=0.01) == 1 and images_for_power(A, B, family=9) > images_for_power(A, B)


def test_simulated_studies():
    panel = Panel(EARLIER, "main", "fmnist", annotators=5)
    far = simulated_power(panel, [0.9, 0.0, 0.1, 0.0], [0.05, 0.0, 0.95, 0.0], images=100, studies=4)
    assert far.power["answers, clustered"] >= 0.75 and far.low.between(0, 1).all() and (far.high <= 1).all()
    pd.testing.assert_frame_equal(simulated_power(panel, A, B, 10, 2), simulated_power(panel, A, B, 10, 2))
    with pytest.raises(ValueError, match="images=3"): simulated_power(panel, A, B, images=3)
    with pytest.raises(ValueError, match="label='nice'"): simulated_power(panel, A, B, images=9, label="nice")
    five = [0.2] * 5
    with pytest.raises(ValueError, match="shares"): simulated_power(panel, five, five, images=9, studies=1)


def plan(**more) -> Plan:
    usual = dict(hypotheses=["More creative."], tests=["answer_differences"], images=80, people=9, stop="All done.")
    return Plan(**usual | more)


@pytest.mark.parametrize("more", [{}, dict(minimum=1 / 3), dict(rules=Rules(answered=0.8, longest_run=9), notes="Ä")])
def test_a_plan_comes_back_as_it_was(tmp_path, more):
    one, path = plan(**more), tmp_path / "plan.json"
    one.save(path)
    one.save(path)
    assert Plan.load(path) == one and Plan.load(path).digest == one.digest == json.loads(path.read_text())["digest"]


def test_every_part_counts_in_the_hash():
    changes = [dict(hypotheses=["Less creative."]), dict(tests=["chi2"]), dict(images=81), dict(people=8),
               dict(stop="Now."), dict(minimum=4), dict(rules=Rules(others=0.5)), dict(notes="x")]
    assert len({plan().digest, *(plan(**c).digest for c in changes)}) == 9


def test_a_plan_is_not_written_over_or_edited(tmp_path):
    path = tmp_path / "plan.json"
    plan().save(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="another plan"): replace(plan(), people=5).save(path)
    assert path.read_bytes() == before
    path.write_text(path.read_text().replace('"people": 9', '"people": 5'))
    with pytest.raises(ValueError, match="edited since"): Plan.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"digest": "x"}', "{\"digest\": \"x\", \"rules\": {\"beauty\": 1}}"])
def test_other_files_are_no_plans(tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ValueError, match="path=.*expected a file of Plan.save"): Plan.load(tmp_path / "p.json")
    with pytest.raises(FileNotFoundError, match="path="): Plan.load(tmp_path / "none.json")


def test_deviations_are_told():
    rules = Rules(answered=0.5)
    found = plan().deviations({"people": 7, "images": 80, "rules": rules})
    assert found.part.tolist() == ["people", "rules"] and found.done[0] == "7" and "answered=0.5" in found.done[1]
    assert plan().deviations({"people": 9}).empty
    with pytest.raises(ValueError, match="beauty"): plan().deviations({"beauty": 1})


@pytest.mark.parametrize("wrong", [dict(hypotheses=[]), dict(tests=[]), dict(people=0), dict(minimum=2.5),
    dict(stop=" ")])
def test_a_plan_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))): plan(**wrong)
