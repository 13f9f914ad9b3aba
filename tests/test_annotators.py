"Each annotator looked at: the model of Dawid and Skene, the table by annotator, and who is left out."
import numpy as np
import pandas as pd
import pytest

from creative_nb.agreement import consensus, self_consistency
from creative_nb.annotators import _longest_run, _with_others, annotator_table, dawid_skene
from creative_nb.preregistration import Rules
from people import MAIN, table


def study(seed: int, bad: bool = True, images: int = 300) -> tuple[pd.DataFrame, pd.Series]:
    "Nine people, of whom two always press 1 and one presses at random if `bad`, and the truth."
    random = np.random.default_rng(seed)
    truth = random.choice(4, images, p=[0.2, 0.4, 0.3, 0.1])
    sees = random.random((9, images)) < 0.65
    said = np.where(sees, truth, random.integers(0, 4, (9, images)))
    if bad: said[0], said[1], said[2] = 0, 0, random.integers(0, 4, images)
    items = [f"i{n:03}" for n in range(images)]
    rows = [(f"p{a}", i, MAIN[k]) for a in range(9) for i, k in zip(items, said[a])]
    return pd.DataFrame(rows, columns=["annotator", "item", "label"]), pd.Series(np.array(MAIN)[truth], items)


def slow_dawid_skene(labels: pd.DataFrame, steps: int) -> pd.DataFrame:
    "The same model by loops over answers."
    items, people = sorted(set(labels["item"])), sorted(set(labels.annotator))
    votes = pd.crosstab(labels["item"], labels.label).reindex(columns=MAIN, fill_value=0)
    true = votes.div(votes.sum(axis=1), axis=0)
    for _ in range(steps):
        said = {(a, j): dict.fromkeys(MAIN, 0.5 / 4) for a in people for j in MAIN}
        for r in labels.itertuples():
            for j in MAIN: said[r.annotator, j][r.label] += true.loc[r.item, j]
        new = {i: dict(true.mean()) for i in items}
        for r in labels.itertuples():
            for j in MAIN: new[r.item][j] *= said[r.annotator, j][r.label] / sum(said[r.annotator, j].values())
        true = pd.DataFrame(new).T.reindex(columns=MAIN)
        true = true.div(true.sum(axis=1), axis=0)
    return true


def test_dawid_skene_against_loops():
    labels, _ = study(0, images=12)
    found = dawid_skene(labels, steps=3).probabilities
    np.testing.assert_allclose(found, slow_dawid_skene(labels, 3).loc[found.index], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_three_bad_annotators_move_the_consensus_and_not_the_model(seed):
    labels, truth = study(seed)
    model, votes = dawid_skene(labels), consensus(labels)
    assert (model.labels == truth).mean() > (votes.consensus == truth).mean() + 0.05
    share = lambda found: (found == "creative").mean()
    assert share(votes.consensus) - share(truth) > max(0.03, abs(share(model.labels) - share(truth)))
    found = annotator_table(labels)
    assert set(found.index[found.false_creative > 0.9]) == {"p0", "p1"}
    assert set(found.right.nsmallest(3).index) == {"p0", "p1", "p2"}


def test_without_bad_annotators_the_model_is_close_to_the_vote():
    labels, truth = study(9, bad=False)
    assert (dawid_skene(labels).labels == consensus(labels).consensus).mean() > 0.93


def test_habits_by_hand():
    labels = table(a="11", b="12", c="12", d="14").assign(seconds=[0.5, 3, 0.5, 3, 2, 3, 2, 3], repeat=0)
    again = table(a="14", b="12").assign(seconds=1.0, repeat=1)
    found = annotator_table(pd.concat([labels, again]), total=8)
    one, two = found.loc["rater 0"], found.loc["rater 1"]
    assert (one.answered, one.of, one.creative, one.longest_run, one.repeats, one.same) == (4, 8, 1, 6, 2, 1)
    assert one.under_one_second == pytest.approx(2 / 6) and np.isnan(one.kappa)
    assert (two.creative, two.novel_not_creative, two.same, two.longest_run) == (0.25, 0.5, 0.5, 2)
    assert (one.others, two.others) == (0.25, 0.25)


def test_kappa_with_oneself_is_that_of_self_consistency():
    random = np.random.default_rng(0)
    rows = [("p", f"i{i}", r, MAIN[random.integers(0, 3)]) for i in range(30) for r in (0, 1)]
    labels = pd.DataFrame(rows, columns=["annotator", "item", "repeat", "label"])
    found, expected = annotator_table(labels).loc["p"], self_consistency(labels).loc["p"]
    assert found.kappa == pytest.approx(expected.kappa) and found.kappa_low < found.kappa < found.kappa_high
    assert found.same == expected.share and np.isnan(found.others)


def test_times_order_the_answers():
    labels = table(a="1", b="2", c="1", d="2").assign(time=["2026-01-04", "2026-01-01", "2026-01-03", "2026-01-02"])
    assert annotator_table(labels).longest_run.item() == 2 and _longest_run(labels.label) == 1


def test_level_labels_count_half():
    given = np.eye(4)[[[0, 0, 1]]]
    assert _with_others(given).tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("rules, left_out", [({}, []), ({"answered": 0.6}, ["rater 1"]),
    ({"one_label": 0.9}, ["rater 0"]), ({"longest_run": 3}, ["rater 0"]), ({"under_one_second": 0.5}, ["rater 2"]),
    ({"right": 1.0}, ["rater 0", "rater 1", "rater 2"]),
    ({"answered": 0.6, "one_label": 0.9}, ["rater 0", "rater 1"])])
def test_rules(rules, left_out):
    labels = table(a="112", b="1.2", c="1.2", d="121").assign(seconds=5.0)
    labels.loc[labels.annotator == "rater 2", "seconds"] = 0.4
    assert list(Rules(**rules).excluded(annotator_table(labels))) == left_out


def test_what_is_unknown_breaks_no_rule():
    found = annotator_table(table(a="12", b="12"))
    assert not Rules(same=1.0, under_one_second=0.0).excluded(found)
    with pytest.raises(ValueError, match="table: no column others"): Rules().excluded(found.drop(columns="others"))
