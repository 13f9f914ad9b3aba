"Consensus, agreement and self-consistency against slow oracles and other libraries."
import itertools, warnings
from collections import Counter

import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from scipy import stats
from statsmodels.stats.inter_rater import fleiss_kappa

from creative_nb.agreement import (AGREEMENT, _agreement, _agreement_terms, _over_images, agreement, consensus,
                                   self_consistency)
from creative_nb.labels import check_labels
from people import MAIN, label_tables, table

some = settings(max_examples=20, deadline=None)


# ---- consensus ----

@some
@given(label_tables(), st.integers(1, 4), st.randoms())
def test_consensus_against_counting(labels, minimum, dice):
    found = consensus(labels, minimum=minimum)
    assert list(found.columns) == [*MAIN, "raters", "consensus", "status"] and set(found.index) == set(labels["item"])
    for item, row in found.iterrows():
        votes = Counter(r.label for r in labels.itertuples() if r.item == item and r.repeat == 0)
        best = [k for k, v in votes.items() if v == max(votes.values())]
        status = "too few" if not votes or votes[best[0]] < minimum else "agreed" if len(best) == 1 else "tie"
        assert (row.status, row.consensus, row.raters) == (status, best[0] if status == "agreed" else "", votes.total())
        assert all(row[k] == votes[k] for k in MAIN)
    people = sorted(set(labels.annotator))
    renamed = dict(zip(people, dice.sample([f"p{i}" for i in range(len(people))], len(people))))
    rows = dice.sample(range(len(labels)), len(labels))
    shuffled = labels.assign(annotator=labels.annotator.map(renamed)).iloc[rows]
    pd.testing.assert_frame_equal(consensus(shuffled, minimum=minimum), found)


def test_nine_annotators_and_four_labels_always_have_three_votes():
    spreads = itertools.combinations_with_replacement("1234", 9)
    found = consensus(table(**{"".join(spread): spread for spread in spreads}))
    assert len(found) == 220 and found.raters.eq(9).all() and set(found.status) == {"agreed", "tie"}


def test_a_share_of_the_raters_treats_images_alike():
    found = consensus(table(a="111......", b="111222333", c="12......."), minimum=1 / 3)
    assert found.status.to_dict() == {"a": "agreed", "b": "tie", "c": "tie"}
    whole = table(**{"".join(s): s for s in itertools.combinations_with_replacement("1234", 9)})
    pd.testing.assert_frame_equal(consensus(whole, minimum=1 / 3), consensus(whole, minimum=3))


@pytest.mark.parametrize("votes, said", [(dict(a="111", b="11."), "2 to 3 raters.*minimum=1/3"),
                                         (dict(a="11", b="12"), "no image has 3 raters.*minimum=2")])
def test_unequal_and_few_raters_are_warned_about(votes, said):
    with pytest.warns(UserWarning, match=said): consensus(table(**votes))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        consensus(table(**votes), minimum=0.5)
        consensus(table(a="111", b="112"))


@pytest.mark.parametrize("minimum", [0, -1, 2.5])
def test_consensus_refuses(minimum):
    with pytest.raises(ValueError, match="minimum"): consensus(table(a="1"), minimum=minimum)


def test_consensus_of_the_earlier_questionnaire():
    labels = table(a="111").replace("creative", "garbage")
    assert consensus(labels, "earlier").consensus["a"] == "garbage"
    with pytest.raises(ValueError, match="label"): consensus(labels)
    with pytest.raises(ValueError, match="questionnaire"): consensus(labels, "pilot")


# ---- agreement ----

def slow_agreement(votes: np.ndarray) -> tuple[float, ...]:
    "Kappa, alpha, pairwise agreement and AC1 by looking at every pair of answers."
    units = [[label for label, n in enumerate(row) for _ in range(n)] for row in votes]
    share = lambda pairs: np.mean([a == b for a, b in pairs])
    agree = np.mean([share(itertools.permutations(u, 2)) for u in units])
    p = np.mean([np.bincount(u, minlength=votes.shape[1]) / len(u) for u in units], axis=0)
    pooled = [a for u in units for a in u]
    disagree = sum(sum(a != b for a, b in itertools.permutations(u, 2)) / (len(u) - 1) for u in units) / len(pooled)
    by_chance = np.mean([a != b for a, b in itertools.permutations(pooled, 2)])
    any_key = (p * (1 - p)).sum() / (len(p) - 1)
    return (agree - (p @ p)) / (1 - p @ p), 1 - disagree / by_chance, agree, (agree - any_key) / (1 - any_key)


ROWS = st.lists(st.integers(0, 4), min_size=4, max_size=4).filter(lambda row: sum(row) >= 2)
VOTES = st.lists(ROWS, min_size=1, max_size=8).map(np.array)
VARIED = VOTES.filter(lambda v: (v.sum(0) > 0).sum() > 1)


@given(VARIED)
def test_agreement_against_pairs(votes):
    found = _agreement(_agreement_terms(votes))
    np.testing.assert_allclose(found, slow_agreement(votes), rtol=1e-9, atol=1e-12)
    assert (found <= 1 + 1e-12).all() and found[2] >= 0


@given(st.integers(2, 9), st.data())
def test_equal_raters_are_what_statsmodels_says(raters, data):
    one_item = st.lists(st.integers(0, 3), min_size=raters, max_size=raters)
    answers = np.array(data.draw(st.lists(one_item, min_size=2, max_size=10)))
    votes = np.stack([(answers == k).sum(1) for k in range(4)], 1)
    kappa = _agreement(_agreement_terms(votes))[0]
    if (votes.sum(0) > 0).sum() == 1: assert np.isnan(kappa)
    else:
        np.testing.assert_allclose(kappa, fleiss_kappa(votes), atol=1e-12)
        assert -1 / (raters - 1) - 1e-12 <= kappa <= 1 + 1e-12


@given(VARIED)
def test_alpha_is_what_the_krippendorff_package_says(votes):
    krippendorff = pytest.importorskip("krippendorff")
    alpha = _agreement(_agreement_terms(votes))[1]
    expected = krippendorff.alpha(value_counts=votes, level_of_measurement="nominal")
    np.testing.assert_allclose(alpha, expected, atol=1e-12)


def test_missing_answers_and_single_raters_are_left_out():
    krippendorff = pytest.importorskip("krippendorff")
    labels = table(a="1122", b="33.3", c=".12.", d="4...", e="2222")
    wide = labels.pivot(index="annotator", columns="item", values="label")
    wide = wide.map(MAIN.index, na_action="ignore").to_numpy(float)
    found = agreement(labels)
    assert found["items"].eq(4).all() and found.annotators.eq(4).all() and list(found.index) == list(AGREEMENT)
    alpha = krippendorff.alpha(wide, level_of_measurement="nominal")
    assert found.value["krippendorff_alpha"] == pytest.approx(alpha, abs=1e-12)


def test_repeats_do_not_count():
    labels = check_labels(table(a="12", b="34", c="11"))
    repeated = pd.concat([labels, labels.assign(repeat=1, label="creative")])
    pd.testing.assert_frame_equal(agreement(repeated), agreement(labels))


def random_votes(n: int, seed: int) -> np.ndarray:
    "Images that differ in how sure one can be of them; nine answers each."
    g = np.random.default_rng(seed)
    return np.stack([g.multinomial(9, g.dirichlet([0.5] * 4)) for _ in range(n)])


def as_labels(votes: np.ndarray) -> pd.DataFrame:
    return table(**{f"i{n}": "".join(str(k + 1) * v for k, v in enumerate(row)) for n, row in enumerate(votes)})


def test_gwets_coefficient_by_hand():
    "Three people, four labels: 1 1 1, 1 1 2, 3 3 3."
    found = agreement(table(a="111", b="112", c="333")).value
    agree = (1 + 1 / 3 + 1) / 3
    shares = np.array([5, 1, 3, 0]) / 9
    chance = (shares * (1 - shares)).sum() / 3
    assert found["gwet_ac1"] == pytest.approx((agree - chance) / (1 - chance))


def test_gwets_coefficient_where_kappa_is_paradoxical():
    "Two people, 118 of 125 images alike and of one label: kappa is next to nothing, AC1 is not."
    votes = np.array([[2, 0]] * 118 + [[1, 1]] * 7)
    kappa, _, share, ac1 = _agreement(_agreement_terms(votes))
    p = 243 / 250
    assert kappa < 0 and share == pytest.approx(118 / 125)
    assert ac1 == pytest.approx((118 / 125 - 2 * p * (1 - p)) / (1 - 2 * p * (1 - p))) and ac1 > 0.94


def test_intervals_against_a_loop():
    votes = random_votes(40, 0)
    without = np.array([fleiss_kappa(np.delete(votes, i, 0)) for i in range(40)])
    half = stats.t.ppf(0.95, 39) * np.sqrt(39 / 40 * ((without - without.mean()) ** 2).sum())
    found = agreement(as_labels(votes), confidence=0.9).loc["fleiss_kappa"]
    value = fleiss_kappa(votes)
    np.testing.assert_allclose([found.value, found.low, found.high], [value, value - half, value + half])


def test_intervals_over_people_against_a_loop():
    labels = as_labels(random_votes(15, 1))
    values = [agreement(labels[labels.annotator != name]).value for name in sorted(set(labels.annotator))]
    found, without = agreement(labels), np.array(values)
    error = np.sqrt(8 / 9 * ((without - without.mean(0)) ** 2).sum(0))
    np.testing.assert_allclose(found.high_people - found.low_people, 2 * stats.t.ppf(0.975, 8) * error)


@pytest.mark.parametrize("images, least", [(20, 0.91), (60, 0.92)])
def test_intervals_hold_what_they_promise(images, least):
    truth = np.array(_agreement(_agreement_terms(random_votes(20000, 99))))
    terms = (_agreement_terms(random_votes(images, seed)) for seed in range(300))
    low, high = np.array([_over_images(t, 0.95) for t in terms]).swapaxes(0, 1)
    inside = ((low <= truth) & (truth <= high)).mean(0)
    assert (inside >= least).all() and (inside <= 0.985).all()


def test_intervals_depend_on_the_confidence_and_on_no_chance():
    labels = as_labels(random_votes(20, 3))
    pd.testing.assert_frame_equal(agreement(labels), agreement(labels))
    wide, narrow = agreement(labels, confidence=0.99), agreement(labels, confidence=0.5)
    assert ((wide.low < narrow.low) & (narrow.high < wide.high)).all()
    assert ((wide.low_people < narrow.low_people) & (narrow.high_people < wide.high_people)).all()


def test_two_people_have_no_interval_for_other_people():
    found = agreement(table(a="11", b="12", c="22"))
    assert found.low_people.isna().all() and found.low.notna().all()


def test_all_differ_and_all_agree():
    differ = agreement(table(a="1234", b="1234")).value.round(9).tolist()
    assert differ == [-0.333333333, round(1 - 1 / (24 / 28), 9), 0, -0.333333333]
    perfect = agreement(table(a="111", b="22.", c="333"))
    assert perfect.value.eq(1).all() and perfect.low.eq(1).all() and perfect.high.eq(1).all()


def test_undefined_values_are_nan_and_say_why():
    with pytest.warns(UserWarning, match="every label is 'creative'") as caught:
        found = agreement(table(a="111", b="11."))
    numbers = ["value", "low", "high"]
    assert len(caught) == 1 and found.loc[["fleiss_kappa", "krippendorff_alpha"], numbers].isna().all(axis=None)
    assert found.loc["pairwise_agreement", ["value", "low", "high"]].eq(1).all()
    with pytest.warns(UserWarning, match="no interval") as caught: found = agreement(table(a="112", b="1"))
    assert len(caught) == 1 and found["items"].eq(1).all() and found.low.isna().all() and found.value.notna().all()


@pytest.mark.parametrize("labels", [table(a="1", b="2"), table(a="1", b=".2", c="..3")])
def test_agreement_needs_two_raters(labels):
    with pytest.raises(ValueError, match="two annotators"): agreement(labels)


@pytest.mark.parametrize("change", [dict(confidence=95), dict(confidence=0)])
def test_agreement_refuses(change):
    with pytest.raises(ValueError, match=next(iter(change))): agreement(table(a="12", b="11"), **change)


# ---- self-consistency ----

def twice(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([first.assign(repeat=0), second.assign(repeat=1)])


def test_self_consistency_by_hand():
    labels = twice(table(a="12", b="12", c="21", d="31", e="44", f="1."), table(a="12", b="13", c="22", d=".1", g="1."))
    found = self_consistency(labels)
    assert found.loc["rater 0", ["repeats", "same"]].tolist() == [3, 3]
    assert found.loc["rater 1", ["repeats", "same", "share"]].tolist() == [4, 2, 0.5]
    assert found.loc["rater 0", "kappa"] == 1
    assert found.loc["rater 1", "kappa"] == pytest.approx((0.5 - 0.375) / (1 - 0.375))
    z, n, p = 1.959963984540054, 4, 0.5
    centre = (p + z * z / 2 / n) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / 4 / n / n) ** 0.5
    assert found.loc["rater 1", ["low", "high"]].tolist() == pytest.approx([centre - half, centre + half])


def test_who_always_presses_1():
    labels = twice(table(a="12", b="13"), table(a="12", b="14"))
    with pytest.warns(UserWarning, match="'rater 0' is undefined") as caught: found = self_consistency(labels)
    assert len(caught) == 1 and found.share.tolist() == [1, 0.5] and found.kappa.isna().tolist() == [True, False]


def test_no_repeats_is_an_empty_table():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for labels in (table(a="12"), table(a="12").assign(repeat=1), twice(table(a="1"), table(b="1"))):
            found = self_consistency(labels)
            assert found.empty and found.index.name == "annotator"
            assert found.columns.tolist() == ["repeats", "same", "share", "low", "high", "kappa"]


def test_self_consistency_takes_either_questionnaire():
    earlier = table(a="22", b="11").replace("novel_not_creative", "garbage")
    assert self_consistency(twice(earlier, earlier)).share.eq(1).all()
    with pytest.raises(ValueError, match="label"): self_consistency(twice(earlier, earlier.replace("garbage", "nice")))
