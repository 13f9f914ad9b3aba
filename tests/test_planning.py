"Power by formula and by simulation."
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import GofChisquarePower

from creative_nb.panel import Panel, PrintedStudy
from creative_nb.planning import images_for_power, planned_comparisons, power_of_images, simulated_power
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
    assert images_for_power([1.0, 0.0], [1.0, 0.0]) == np.inf
    assert power_of_images([1.0], [1.0], 5) == 0  # of one label alone the test never rejects
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
