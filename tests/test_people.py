"People are random, too: regressions clustered by image and person, and their promises under simulated nulls."
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from creative_nb.people import (_clustered, answer_differences, answer_fractions, by_minimum,
                                equivalence, to_long)
from creative_nb.question import QUESTIONS
from people import MAIN

METHODS = np.array(["low-active", "random-off"])


def study(random, images=80, people=9, taste=0.0, image=1.0, shares=(0.22, 0.4, 0.33, 0.05), effect=0.0):
    "(images of both, people) numbers of labels, and the method of each image; no method is better on the average."
    method = np.repeat([0, 1], images)
    own = image * random.standard_normal((2 * images, 1, 4)) + 0.5 * random.standard_normal((1, people, 4))
    appeal = taste * random.standard_normal((people, 4)) + np.array([effect, 0, 0, 0])
    utility = np.log(shares) + own + (0.5 - method)[:, None, None] * appeal
    return (utility + random.gumbel(size=utility.shape)).argmax(-1), method


def long(chosen, method, keep=None) -> pd.DataFrame:
    items, people = (i.ravel() for i in np.indices(chosen.shape))
    frame = pd.DataFrame({"annotator": [f"p{a}" for a in people], "item": [f"i{i:04}" for i in items], "dataset": "d",
                          "method": METHODS[method[items]], "label": np.array(MAIN)[chosen.ravel()]})
    return frame if keep is None else frame[keep.ravel()]


def p_of(chosen, method, keep=None, label=0) -> float:
    items, people = (i.ravel() for i in np.indices(chosen.shape))
    keep = np.ones(chosen.size, bool) if keep is None else keep.ravel()
    x = sm.add_constant((method[items] == 0).astype(float))[keep]
    b, se, df = _clustered((chosen == label).ravel().astype(float)[keep], x, items[keep], people[keep])
    return 2 * stats.t.sf(abs(b) / se, df) if se > 0 else 1.0


# nine more designs are in the chapter
DESIGNS = {"strong tastes": dict(taste=1.0), "20 people, few images": dict(people=20, images=30, taste=0.5),
           "images of many kinds": dict(image=2.0),
           "a rare label": dict(shares=(0.06, 0.5, 0.4, 0.04), taste=0.5)}


@pytest.mark.parametrize("name", DESIGNS)
def test_true_nulls_are_rejected_in_3_to_7_percent(name):
    "With 1,000 studies a size of 5 % comes out between 3.4 and 6.6 % nearly always."
    random = np.random.default_rng(sum(map(ord, name)))
    size = np.mean([p_of(*study(random, **DESIGNS[name])) < 0.05 for _ in range(1000)])
    assert 0.03 <= size <= 0.07


def test_true_nulls_with_two_thirds_of_the_answers_missing():
    random, found = np.random.default_rng(7), []
    for _ in range(1000):
        chosen, method = study(random, taste=0.5)
        found.append(p_of(chosen, method, random.random(chosen.shape) < 0.35) < 0.05)
    assert 0.03 <= np.mean(found) <= 0.07


def test_all_answers_have_more_power_than_the_consensus_where_tastes_are_alike():
    random, found = np.random.default_rng(1), []
    for _ in range(150):
        chosen, method = study(random, effect=0.7)
        votes = (chosen[..., None] == np.arange(4)).sum(1)
        tables = np.array([np.bincount(votes[method == m].argmax(1), minlength=4) for m in (0, 1)])
        chi = stats.chi2_contingency(tables[:, tables.any(0)], correction=False).pvalue
        found.append((p_of(chosen, method) < 0.05, chi < 0.05))
    own, chi = np.mean(found, axis=0)
    assert own > chi + 0.1


def slow_error(frame: pd.DataFrame) -> tuple[float, float]:
    "Difference of creative and its error, from sums over images, people and answers."
    y, x = (frame.label == "creative").to_numpy(float), (frame.method == "low-active").to_numpy(float)
    b, weight = y[x == 1].mean() - y[x == 0].mean(), (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    influence = pd.Series(weight * (y - y.mean() - b * (x - x.mean())), frame.index)
    squares = [(influence.groupby(frame[c]).sum() ** 2).sum() for c in ("item", "annotator")]
    people = frame.annotator.nunique()
    return b, (people / (people - 1) * (sum(squares) - (influence**2).sum())) ** 0.5


@pytest.mark.parametrize("seed", range(4))
def test_the_table_against_sums_written_out(seed):
    random = np.random.default_rng(seed)
    frame = long(*study(random, taste=0.7), random.random((160, 9)) < (1, 0.6)[seed % 2])
    found = answer_differences(frame, MAIN, baselines=["random-off"]).set_index("label").loc["creative"]
    b, error = slow_error(frame)
    assert found.difference == pytest.approx(b) and found.se == pytest.approx(error)
    assert 8 <= found.df <= 158 and found.low == pytest.approx(b - stats.t.ppf(0.975, found.df) * error)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(b) / error, found.df)) and found.p_adjusted >= found.p


def test_the_order_of_rows_and_the_names_of_people_do_not_matter():
    frame = long(*study(np.random.default_rng(3), taste=0.5))
    other = frame.sample(frac=1, random_state=1).replace({"annotator": {f"p{a}": f"q{9 - a}" for a in range(9)}})
    one, two = (answer_differences(f, MAIN, baselines=["random-off"]) for f in (frame, other))
    pd.testing.assert_frame_equal(one, two)


def test_repeats_do_not_count():
    frame = long(*study(np.random.default_rng(3))).assign(repeat=0)
    both = pd.concat([frame, frame.head(50).assign(repeat=1, label="creative")])
    one, two = (answer_differences(f, MAIN, baselines=["random-off"]) for f in (frame, both))
    pd.testing.assert_frame_equal(one, two)


def test_fractions_cover_what_other_people_and_images_would_give():
    random, inside = np.random.default_rng(5), []
    truth = np.mean([(study(random, taste=0.5)[0] == 0).mean() for _ in range(200)])
    for _ in range(200):
        row = answer_fractions(long(*study(random, taste=0.5)), MAIN).iloc[0]
        inside.append(row.creative_low <= truth <= row.creative_high)
    assert 0.9 <= np.mean(inside) <= 0.99


def test_equivalence_is_found_at_its_level_where_the_difference_is_the_margin():
    random, n = np.random.default_rng(0), 2000
    se = 0.02
    drawn = pd.DataFrame({"difference": 0.1 + se * random.standard_t(30, n), "se": se, "df": 30.0, "p": 0.5})
    size = (equivalence(drawn).p_equivalent < 0.05).mean()
    assert 0.035 < size < 0.065


@pytest.mark.parametrize("difference, se, verdict", [(0.0, 0.02, "equivalent"), (0.0, 0.2, "not decided"),
    (0.4, 0.02, "different"), (0.05, 0.01, "different, by less than the margin")])
def test_verdicts(difference, se, verdict):
    row = pd.DataFrame({"difference": [difference], "se": se, "df": 20.0, "p": 2 * stats.t.sf(difference / se, 20)})
    assert equivalence(row).verdict.item() == verdict


def test_a_verdict_goes_by_the_adjusted_p():
    p = {"p": [0.01, 0.01], "p_adjusted": [0.01, 0.12]}
    rows = pd.DataFrame({"difference": [0.4, 0.4], "se": 0.15, "df": 20.0, **p})
    assert equivalence(rows).verdict.tolist() == ["different", "not decided"]


def test_twelve_equivalences_are_a_family_of_their_own():
    "Each alone has p = 0.03; where the differences are a family, so are the equivalences, and none is found by chance."
    rows = pd.DataFrame({"difference": np.zeros(12), "se": 0.05, "df": 30.0, "p": 1.0})
    alone, family = equivalence(rows), equivalence(rows.assign(p_adjusted=1.0))
    assert set(alone.verdict) == {"equivalent"} and set(family.verdict) == {"not decided"}
    np.testing.assert_allclose(family.p_equivalent_adjusted, (12 * family.p_equivalent).clip(upper=1))
    sure = equivalence(rows.assign(p_adjusted=1.0, se=[0.005] + [0.05] * 11))
    assert sure.verdict.tolist() == ["equivalent"] + ["not decided"] * 11


def test_answers_that_never_differ_have_no_p():
    frame = long(*study(np.random.default_rng(3)))
    apart = frame.assign(label=np.where(frame.method == "low-active", "creative", "inconclusive"))
    found = equivalence(answer_differences(apart, MAIN, baselines=["random-off"]))
    assert found.difference.tolist() == [1, 0, 0, -1] and found.p.isna().all() and set(found.verdict) == {"not decided"}


@pytest.mark.parametrize("change, said", [(lambda f: f[f.annotator < "p2"], "2 annotators"),
    (lambda f: f[f["item"] < "i0004"], "4 images"),
    (lambda f: f.drop(columns="item"), "no column item"), (lambda f: f.assign(label="nice"), "label='nice'"),
    (lambda f: pd.concat([f, f]), "got two")])
def test_tables_that_are_none(change, said):
    frame = change(long(*study(np.random.default_rng(0))))
    with pytest.raises(ValueError, match=said): answer_differences(frame, MAIN, baselines=["random-off"])


def wide() -> tuple[pd.DataFrame, pd.DataFrame]:
    frame = long(*study(np.random.default_rng(2), images=30, people=6))
    manifest = frame[["item", "dataset", "method"]].drop_duplicates(ignore_index=True).assign(ice=0.5)
    return frame[["annotator", "item", "label"]], manifest


def test_the_long_table():
    labels, manifest = wide()
    timed = labels.assign(time=[f"2026-01-01T{n % 24:02}:{n // 24:02}" for n in range(len(labels))])
    found = to_long(timed, manifest)
    assert len(found) == len(labels) and {"position", "method", "ice", "seconds"} <= set(found)
    for _, own in found.groupby("annotator"):
        assert sorted(own.position) == list(range(1, 61)) and own.sort_values("position").time.is_monotonic_increasing
    with pytest.raises(ValueError, match="twice"): to_long(labels, pd.concat([manifest, manifest]))
    with pytest.raises(ValueError, match="of the pool"): to_long(labels, manifest.head(3))


def test_the_sensitivity_to_the_votes_needed():
    labels, manifest = wide()
    found = by_minimum(labels, manifest, (1, 4)).set_index(["minimum", "method"])
    assert found.lost["4"].gt(found.lost["1"]).all() and set(found.index.unique("minimum")) == {"1", "4", "all answers"}
    merged = labels.merge(manifest, on="item")
    every = (merged.label == "creative").groupby(merged.method).mean()
    np.testing.assert_allclose(found.creative["all answers"], every[found.loc["all answers"].index])


def test_exchanged_panels_are_read_as_they_were_made():
    manifest = pd.DataFrame({"item": ["a", "b"], "dataset": "d", "method": "pair", "exchanged": [0, 1]})
    keys = dict(enumerate(QUESTIONS["diversity"].labels, 1))
    labels = pd.DataFrame({"annotator": "p", "item": ["a", "b"], "label": [keys[1], keys[1]], "side": [1, 1]})
    long = to_long(labels, manifest, "diversity").set_index("item")
    assert long.label.tolist() == [keys[1], keys[5]] and long["side"].tolist() == [1, 0]


@pytest.mark.parametrize("images, others, fewest", [(17, 8, 9), (80, 19, 20), (100, 24, 25)])
def test_a_method_of_far_fewer_images_is_refused(images, others, fewest):
    chosen, method = np.zeros((images + others, 4), int), np.repeat([0, 1], [images, others])
    with pytest.raises(ValueError, match=f"expected at least {fewest}, beside {images}"):
        answer_differences(long(chosen, method), MAIN, METHODS[0], [METHODS[1]])
