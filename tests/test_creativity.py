"The classifier of creativity and its cross-validation: other libraries, slow oracles, leaks, faults."
import json
import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from creative_nb import creativity
from creative_nb.creativity import (STRENGTHS, CreativityClassifier, CrossValidation, coefficient_path,
                                    cross_validate_creativity, plot_calibration, plot_path)
from judged_images import simulated
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold

matplotlib.use("agg")


# --- the classifier


@pytest.fixture(scope="module")
def scores():
    random = np.random.default_rng(3)
    creative = random.random(220) < 0.3
    values = random.standard_normal((220, 4)) + creative[:, None] * [1.0, 0.6, 0, 0]
    values[:, 1] += values[:, 0]
    return pd.DataFrame(values * [1, 5, 0.01, 300] + [0, 3, 0.1, 400], columns=["a", "b", "c", "d"]), creative


def test_coefficients_are_those_of_statsmodels(scores):
    frame, creative = scores
    model = CreativityClassifier().fit(frame, creative)
    x = ((frame - frame.mean()) / frame.std(ddof=0)).to_numpy()
    alpha = np.r_[0, np.full(4, 1 / model.strength_)]  # the intercept is free
    logit = sm.Logit(creative.astype(float), sm.add_constant(x))
    other = logit.fit_regularized(alpha=alpha, disp=0, acc=1e-12, maxiter=2000)
    np.testing.assert_allclose([model.intercept_, *model.coefficients_], other.params, atol=2e-3)


def test_strength_is_the_one_a_slow_search_finds(scores):
    frame, creative = scores
    model = CreativityClassifier(seed=4).fit(frame, creative)
    x, losses = ((frame - frame.mean()) / frame.std(ddof=0)).to_numpy(), []
    for c in STRENGTHS:
        folds = StratifiedKFold(5, shuffle=True, random_state=4).split(x, creative)
        model_at = lambda c: LogisticRegression(C=c, l1_ratio=1.0, solver="saga", max_iter=10_000, random_state=0)
        fits = [(model_at(c).fit(x[a], creative[a]), b) for a, b in folds]
        losses.append(np.mean([log_loss(creative[b], m.predict_proba(x[b])) for m, b in fits]))
    assert model.strength_ == STRENGTHS[int(np.argmin(losses))]


def test_units_and_order_of_columns_do_not_matter(scores):
    frame, creative = scores
    model = CreativityClassifier(["a", "b", "c", "d"]).fit(frame, creative)
    other = CreativityClassifier(["a", "b", "c", "d"]).fit((frame * 1000 + 5)[["d", "c", "b", "a"]], creative)
    np.testing.assert_allclose(other.coefficients_, model.coefficients_, atol=1e-6)
    np.testing.assert_allclose(other.predict_proba(frame * 1000 + 5),
        model.predict_proba(frame[["c", "a", "d", "b"]].assign(more="x")), atol=1e-6)


def test_probabilities_and_ranking(scores):
    frame, creative = scores
    model = CreativityClassifier().fit(frame, creative)
    p = model.predict_proba(frame)
    assert p.shape == (220, 2) and np.allclose(p.sum(1), 1) and abs(p[:, 1].mean() - creative.mean()) < 0.01
    assert roc_auc_score(creative, p[:, 1]) > 0.7
    tensors = {k: torch.tensor(frame[k].to_numpy()) for k in frame}
    assert np.array_equal(model.predict_proba(tensors), p)
    order = model.rank(tensors)
    assert sorted(order) == list(range(220)) and (np.diff(p[order, 1]) <= 0).all()
    assert model.rank(frame, top=7).tolist() == order[:7].tolist()
    same = {k: v[:1].expand(5) for k, v in tensors.items()}
    assert model.rank(same).tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(np.concatenate([model.predict_proba(frame[i:i + 3]) for i in range(0, 220, 3)]), p)
    images = torch.arange(220)
    assert images[model.rank(tensors, 3)].tolist() == order[:3].tolist()


def test_useless_and_constant_metrics():
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.standard_normal((300, 8)), columns=list("abcdefgh")).assign(constant=3.0)
    model = CreativityClassifier().fit(frame, random.random(300) < 0.4)
    assert model.coefficients_["constant"] == 0 and (model.coefficients_ == 0).sum() >= 5
    assert np.isfinite(model.predict_proba(frame)).all()


def test_saved_and_loaded(scores, tmp_path):
    frame, creative = scores
    model = CreativityClassifier(["b", "a"], seed=2).fit(frame, creative)
    path = tmp_path / "model.json"
    model.save(path)
    again = CreativityClassifier.load(path)
    assert np.array_equal(again.predict_proba(frame), model.predict_proba(frame))
    assert again.coefficients_.equals(model.coefficients_)
    assert (again.metrics, again.seed, again.strength_) == (("b", "a"), 2, model.strength_)
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes() and len(list(tmp_path.iterdir())) == 2


def test_failed_save_leaves_the_old_file(scores, tmp_path, monkeypatch):
    model = CreativityClassifier().fit(*scores)
    path = tmp_path / "model.json"
    model.save(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError): model.save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["model.json"]


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", json.dumps({"kind": "Novelty"})])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(ValueError, match="model.json"): CreativityClassifier.load(tmp_path / "model.json")


def test_classifier_says_what_is_wrong(scores, tmp_path):
    frame, creative = scores
    for call in (lambda m: m.predict_proba(frame), lambda m: m.rank(frame), lambda m: m.save(tmp_path / "x")):
        with pytest.raises(NotFittedError): call(CreativityClassifier())
    assert not list(tmp_path.iterdir())
    model = CreativityClassifier().fit(frame, creative)
    with pytest.raises(ValueError, match="no column d: expected a, b, c, d"):
        model.predict_proba(frame.drop(columns="d"))
    with pytest.raises(ValueError, match="b is NaN or infinite for 1 of 220"):
        model.predict_proba(frame.assign(b=[math.inf, *[1.0] * 219]))
    with pytest.raises(ValueError, match="b is NaN"): model.fit(frame.assign(b=math.nan), creative)
    with pytest.raises(ValueError, match="0 of 220 are"): model.fit(frame, np.zeros(220, bool))
    with pytest.raises(ValueError, match="1 of 220 are"): model.fit(frame, np.arange(220) == 7)
    with pytest.raises(ValueError, match="220 booleans, got int"): model.fit(frame, creative.astype(int))
    with pytest.raises(ValueError, match="groups of shape"): model.fit(frame, creative, groups=[1, 2])
    with pytest.raises(ValueError, match="top=0"): model.rank(frame, top=0)
    with pytest.raises(ValueError, match="different names"): CreativityClassifier([]).fit(frame, creative)


def test_path_begins_with_nothing_and_ends_unpenalised(scores):
    frame, creative = scores
    path = coefficient_path(frame, creative, decades=5, points=12)
    x = (frame - frame.mean()) / frame.std(ddof=0)
    free = sm.Logit(creative.astype(float), sm.add_constant(x.to_numpy())).fit(disp=0)
    assert (path.iloc[0] == 0).all() and (path.abs().sum(axis=1).diff().dropna() > -1e-3).all()
    np.testing.assert_allclose(path.iloc[-1], free.params[1:], atol=0.01)


# --- cross-validation


@pytest.fixture(scope="module")
def judged(): return simulated(260, seed=5)


@pytest.fixture(scope="module")
def result(judged): return cross_validate_creativity(judged, ["a", "b", "in_domain_score"], folds=5, repeats=2)


def test_every_image_is_held_out_once_a_repeat(judged, result):
    agreed = judged[judged.consensus != ""]
    for _, rows in result.probabilities.groupby("repeat"):
        assert sorted(rows.row) == list(agreed.index)
        assert (rows.set_index("row").creative.sort_index() == (agreed.consensus == "creative")).all()
        shares = rows.groupby("fold").creative.mean()
        assert shares.max() - shares.min() < 0.05
    first, second = (r.set_index("row").fold.sort_index() for _, r in result.probabilities.groupby("repeat"))
    assert (first != second).any()


def test_by_hand(judged, result):
    "The first fold again in plain steps: scale, choose C and fit on the training rows, then look at the held-out ones."
    metrics, rows = ["a", "b", "in_domain_score"], result.probabilities.query("repeat == 0")
    agreed = judged[judged.consensus != ""]
    held = agreed.index.isin(rows.query("fold == 0").row)
    creative = (agreed.consensus == "creative").to_numpy()
    train, y = agreed.loc[~held, metrics], creative[~held]
    mean, sd = train.mean(), train.std(ddof=0)
    x, new, losses = ((train - mean) / sd).to_numpy(), ((agreed.loc[held, metrics] - mean) / sd).to_numpy(), []
    options = dict(l1_ratio=1.0, solver="saga", max_iter=10_000, random_state=0)
    fit = lambda c, x, y: LogisticRegression(C=c, **options).fit(x, y)
    for c in STRENGTHS:
        inner = StratifiedKFold(5, shuffle=True, random_state=0).split(x, y)
        losses.append(np.mean([log_loss(y[b], fit(c, x[a], y[a]).predict_proba(x[b])) for a, b in inner]))
    p = fit(STRENGTHS[int(np.argmin(losses))], x, y).predict_proba(new)[:, 1]
    ours = rows.query("fold == 0").set_index("row").loc[agreed.index[held], "all metrics"]
    np.testing.assert_allclose(ours, p, atol=1e-3)
    single = sm.Logit(y.astype(float), sm.add_constant(x[:, 0])).fit(disp=0).predict(sm.add_constant(new[:, 0]))
    np.testing.assert_allclose(rows.query("fold == 0").set_index("row").loc[agreed.index[held], "a"], single, atol=1e-3)
    assert (rows.query("fold == 0").majority == y.mean()).all()


def test_measures_are_recomputed(result):
    for r in result.folds.itertuples():
        rows = result.probabilities.query("repeat == @r.repeat and fold == @r.fold")
        p, y = rows[r.model], rows.creative
        said = p > 0.5
        recall = [(said == y)[y == c].mean() for c in (False, True)]
        np.testing.assert_allclose([r.images, r.accuracy, r.balanced_accuracy, r.brier],
            [len(y), (said == y).mean(), np.mean(recall), ((p - y) ** 2).mean()])
        wins = [(a > b) + 0.5 * (a == b) for a in p[y] for b in p[~y]]
        assert np.isclose(r.auc, np.mean(wins))


def test_summary_is_over_folds_and_over_repeats(result):
    assert set(result.summary.model) == {"all metrics", "a", "b", "in_domain_score", "majority"}
    assert len(result.summary) == 5 * 4
    row = result.summary.set_index(["model", "measure"]).loc[("a", "auc")]
    values = result.folds.query("model == 'a'")
    means = values.groupby("repeat").auc.mean()
    np.testing.assert_allclose([row["mean"], row.sd_folds, row.sd_repeats],
        [values.auc.mean(), values.auc.std(), means.std()])
    best = result.summary.query("measure == 'auc'").set_index("model")["mean"]
    assert best["all metrics"] > best["in_domain_score"] + 0.1 and best["majority"] == 0.5


def test_a_held_out_image_has_no_part_in_its_model(judged, result):
    "Another metric value of one image changes its own prediction in its fold, and nobody else's there."
    row = result.probabilities.row[0]
    wild = judged.copy()
    wild.loc[row, "a"] = 1e6
    other = cross_validate_creativity(wild, ["a", "b", "in_domain_score"], folds=5, repeats=1).probabilities
    before = result.probabilities.query("repeat == 0")
    assert (other.row.to_numpy() == before.row.to_numpy()).all()
    changed = (other[["all metrics", "a"]] != before[["all metrics", "a"]]).any(axis=1)
    fold = other.fold[other.row == row].iloc[0]
    assert set(other.row[changed & (other.fold == fold)]) == {row} and changed[other.fold != fold].all()


def test_same_seed_same_folds(judged, result):
    again = cross_validate_creativity(judged, ["a", "b", "in_domain_score"], folds=5, repeats=1)
    pd.testing.assert_frame_equal(again.probabilities, result.probabilities.query("repeat == 0"))
    other = cross_validate_creativity(judged, ["a"], folds=5, repeats=1, seed=1)
    assert (other.probabilities.row.to_numpy() != result.probabilities.query("repeat == 0").row.to_numpy()).any()


def copies_of_noise(n: int = 24, times: int = 4, width: int = 12) -> tuple[pd.DataFrame, list[str]]:
    random = np.random.default_rng(1)
    noise = pd.DataFrame(random.standard_normal((n, width)), columns=[f"n{i}" for i in range(width)])
    noise = noise.assign(item=range(n), consensus=np.where(np.arange(n) % 2, "creative", "inconclusive"))
    return pd.concat([noise] * times, ignore_index=True), [f"n{i}" for i in range(width)]


def test_copies_on_both_sides_look_like_skill():
    copies, metrics = copies_of_noise()
    auc = {}
    for groups in (None, "item"):
        found = cross_validate_creativity(copies, metrics, folds=3, repeats=1, groups=groups)
        auc[groups] = found.folds.query("model == 'all metrics'").auc.mean()
        spread = copies["item"].loc[found.probabilities.row].to_numpy()
        assert (found.probabilities.fold.groupby(spread).nunique().max() == 1) == (groups == "item")
    assert auc[None] > 0.9 and 0.3 < auc["item"] < 0.7


def test_choice_of_strength_keeps_groups_together():
    copies, metrics = copies_of_noise()
    creative = copies.consensus == "creative"
    together = CreativityClassifier(metrics).fit(copies, creative, copies["item"])
    apart = CreativityClassifier(metrics).fit(copies, creative)
    assert together.strength_ <= 0.1 < 3 < apart.strength_


def test_what_counts_as_not_creative(judged):
    result = lambda **options: cross_validate_creativity(judged, ["a"], folds=3, repeats=1, **options)
    rows = lambda **options: set(result(**options).probabilities.row)
    assert rows() == set(judged.index[judged.consensus != ""])
    two = judged.consensus.isin(["creative", "not_novel_or_creative"])
    assert rows(against=["not_novel_or_creative"]) == set(judged.index[two])
    found = cross_validate_creativity(judged, ["a"], folds=3, repeats=1, positive="inconclusive").probabilities
    assert found.creative.sum() == (judged.consensus == "inconclusive").sum()


@pytest.mark.parametrize("options, said", [
    (dict(folds=100), "folds=100: expected at least as many images of either class"),
    (dict(folds=1), "folds=1"), (dict(repeats=0), "repeats=0"),
    (dict(positive="beauty"), "got 0 of one; 'beauty'"), (dict(against=[]), "against="),
    (dict(metrics=["a", "ice_fmnist"]), "ice_fmnist is NaN"), (dict(metrics=["x"]), "no column x"),
    (dict(groups="person"), "no column person"), (dict(metrics=[]), "at least one")])
def test_cross_validation_says_what_is_wrong(judged, options, said):
    with pytest.raises(ValueError, match=said): cross_validate_creativity(judged, **{"metrics": ["a"], **options})


def test_fold_of_one_class_has_no_auc():
    measures = creativity._measures(np.zeros(4, bool), np.array([0.1, 0.2, 0.3, 0.6]))
    assert math.isnan(measures["auc"]) and math.isnan(measures["balanced_accuracy"]) and measures["accuracy"] == 0.75
    assert np.isclose(measures["brier"], (0.01 + 0.04 + 0.09 + 0.36) / 4)


def test_probabilities_are_calibrated_where_the_model_is_true():
    random = np.random.default_rng(0)
    x = random.standard_normal(1500)
    p = 1 / (1 + np.exp(1 - 1.5 * x))
    consensus = np.where(random.random(1500) < p, "creative", "inconclusive")
    made = pd.DataFrame({"a": x, "item": range(1500), "consensus": consensus})
    found = cross_validate_creativity(made, ["a"], folds=5, repeats=1).probabilities
    np.testing.assert_allclose(found["all metrics"], p[found.row], atol=0.1)


# --- plots


@pytest.fixture
def ax():
    from matplotlib import pyplot as plt
    yield plt.subplots()[1]
    plt.close("all")


def test_plots_show_the_numbers(ax, result, scores):
    plot_calibration(result, bins=4, ax=ax)
    observed, predicted = calibration_curve(result.probabilities.creative, result.probabilities["all metrics"],
        n_bins=4, strategy="quantile")
    np.testing.assert_array_equal(ax.lines[-1].get_xydata(), np.stack([predicted, observed], 1))
    with pytest.raises(ValueError, match="model='x'"): plot_calibration(result, "x")
    ax.clear()
    path = coefficient_path(*scores, points=4)
    plot_path(path, 0.5, ax)
    assert [line.get_label() for line in ax.lines[:4]] == list(path) and list(ax.lines[4].get_xdata()) == [0.5, 0.5]


def test_result_can_be_narrowed(result):
    few = CrossValidation(result.folds[result.folds.model == "a"], result.probabilities)
    assert set(few.summary.model) == {"a"}


def test_classes_go_to_images_by_name(scores):
    frame, creative = scores
    frame = frame.set_axis([f"i{n}" for n in range(220)])
    named, groups = pd.Series(creative, frame.index), pd.Series(range(220), frame.index)
    plain = CreativityClassifier().fit(frame, creative, np.arange(220)).coefficients_
    mixed = CreativityClassifier().fit(frame, named.sort_values(), groups.sample(frac=1, random_state=0))
    pd.testing.assert_series_equal(mixed.coefficients_, plain)
    pd.testing.assert_frame_equal(coefficient_path(frame, named.sort_values(), points=3),
                                  coefficient_path(frame, creative, points=3))
    with pytest.raises(ValueError, match="creative: expected a Series with the index"):
        CreativityClassifier().fit(frame, named.reset_index(drop=True))
    with pytest.raises(ValueError, match="groups: expected a Series"):
        CreativityClassifier().fit(frame, named, groups.reset_index(drop=True))


@pytest.mark.parametrize("call, said", [
    (lambda f, y: CreativityClassifier("a"), "metrics='a'"),
    (lambda f, y: CreativityClassifier(["a", "a"]), "metrics="),
    (lambda f, y: CreativityClassifier(seed=-1), "seed=-1"), (lambda f, y: CreativityClassifier(seed=2**32), "seed="),
    (lambda f, y: CreativityClassifier(seed="a"), "seed='a'"),
    (lambda f, y: CreativityClassifier().fit(None, y), "scores="),
    (lambda f, y: CreativityClassifier().fit(torch.zeros(220), y), "scores="),
    (lambda f, y: CreativityClassifier().fit({"a": torch.zeros(220, 2)}, y), "scores of shapes"),
    (lambda f, y: CreativityClassifier().fit({"a": np.zeros(220), "b": np.zeros(3)}, y), "scores of shapes"),
    (lambda f, y: CreativityClassifier().fit(f.assign(a="x"), y), "a is NaN"),
    (lambda f, y: CreativityClassifier().fit({}, y), "metrics="),
    (lambda f, y: CreativityClassifier().fit(f, None), "creative="),
    (lambda f, y: CreativityClassifier().fit(f, y).rank(f, 1.5), "top=1.5"),
    (lambda f, y: CreativityClassifier().fit(f, y).save("x.json", why=object()), "about="),
    (lambda f, y: coefficient_path(f, y, decades=-1), "decades=-1"),
    (lambda f, y: coefficient_path(f, y, decades=0), "decades=0"),
    (lambda f, y: coefficient_path(f, y, decades=math.nan), "decades=nan"),
    (lambda f, y: coefficient_path(f, y, points=0), "points=0"),
    (lambda f, y: coefficient_path(f, np.zeros(220, bool)), "0 of 220"), (lambda f, y: plot_path(None), "path=None"),
    (lambda f, y: plot_path(f, chosen=-1), "chosen=-1")])
def test_calls_that_are_refused(scores, call, said):
    with pytest.raises((TypeError, ValueError), match=said): call(*scores)


@pytest.mark.parametrize("change, said", [
    (dict(metrics=None), "metrics"), (dict(mean_=[1.0]), "mean_"), (dict(scale_=[1.0, 0.0]), "scale_"),
    (dict(coefficients_=["1", "2"]), "coefficients_"), (dict(intercept_=math.nan), "intercept_"),
    (dict(seed="a"), "seed"), (dict(strength_=-1.0), "strength_")])
def test_damaged_files_are_refused(scores, tmp_path, change, said):
    path = tmp_path / "model.json"
    CreativityClassifier(["b", "a"]).fit(*scores).save(path)
    saved = json.loads(path.read_text())
    path.write_text("\ufeff" + json.dumps(saved), encoding="utf-8")
    CreativityClassifier.load(path)
    path.write_text(json.dumps(saved | change))
    with pytest.raises(ValueError, match=f"path=.*model.json is damaged: {said}"): CreativityClassifier.load(path)
    path.write_text(json.dumps({k: v for k, v in saved.items() if k != said}))
    with pytest.raises(ValueError, match=f"model.json is damaged: no {said}"): CreativityClassifier.load(path)
    with pytest.raises(FileNotFoundError, match="path="): CreativityClassifier.load(tmp_path / "none.json")


@pytest.mark.parametrize("wrong", [
    dict(folds=2.5), dict(repeats=1.5), dict(seed=-1), dict(positive=""), dict(groups=""),
    dict(against="inconclusive"), dict(metrics="a"), dict(judged=None)])
def test_settings_of_a_cross_validation_that_are_refused(judged, wrong):
    good = dict(judged=judged, metrics=["a"])
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(wrong))}="):
        cross_validate_creativity(**good | wrong)


def test_a_calibration_needs_bins_and_a_model(result):
    for wrong in (dict(bins=0), dict(bins=1.5), dict(model="fold"), dict(model=None), dict(ax=3)):
        with pytest.raises((TypeError, ValueError), match=f"{next(iter(wrong))}="): plot_calibration(result, **wrong)


# --- is one model better?


def results(*models: list[float], folds: int = 5, measure: str = "accuracy") -> CrossValidation:
    rows = [{"model": name, "repeat": i // folds, "fold": i % folds, measure: v}
            for name, values in zip("abc", models) for i, v in enumerate(values)]
    return CrossValidation(pd.DataFrame(rows), pd.DataFrame())


def test_the_corrected_interval_by_hand():
    random = np.random.default_rng(0)
    a, b = random.normal(0.8, 0.05, 20), random.normal(0.75, 0.05, 20)
    found, d = results(list(a), list(b)).difference("a", "b", confidence=0.9), a - b
    half = stats.t.ppf(0.95, 19) * d.std(ddof=1) * np.sqrt(1 / 20 + 1 / 4)
    expected = [d.mean(), d.mean() - half, d.mean() + half]
    assert [found[k] for k in ("difference", "low", "high")] == pytest.approx(expected)
    assert found["p"] == pytest.approx(2 * stats.t.sf(abs(d.mean()) / (half / stats.t.ppf(0.95, 19)), 19))
    back = results(list(b), list(a)).difference("a", "b", confidence=0.9)
    assert back["high"] == pytest.approx(-found["low"]) and back["p"] == pytest.approx(found["p"])


HIGH, LOW = [0.9, 0.91, 0.9, 0.92, 0.9], [0.5, 0.52, 0.51, 0.5, 0.5]


@pytest.mark.parametrize("a, b, measure, verdict", [(HIGH, LOW, "accuracy", "a better"),
    (HIGH, LOW, "brier", "b better"),
    ([0.6, 0.5, 0.7, 0.4, 0.6], [0.5, 0.6, 0.6, 0.5, 0.5], "auc", "not decided"), (LOW, LOW, "auc", "not decided")])
def test_verdicts_of_two_models(a, b, measure, verdict):
    found = results(a, b, measure=measure).difference("a", "b", measure)
    assert found["verdict"] == verdict and (found["p"] < 0.05) == (verdict != "not decided")


def test_models_and_measures_that_are_not_there():
    of = results([0.5, 0.6], [0.6, 0.7])
    with pytest.raises(ValueError, match="b='z'"): of.difference("a", "z")
    with pytest.raises(ValueError, match="got 0"): results([math.nan] * 5, [0.5] * 5).difference("a", "b")


# --- several classes

THREE = ("creative", "novel_not_creative", "not_novel_or_creative")


def test_two_classes_of_the_many_are_those_of_two():
    random = np.random.default_rng(1)
    p, label = random.dirichlet([1, 1], 40), random.choice(["no", "yes"], 40)
    many = creativity._class_measures(label, p, np.array(["no", "yes"]))
    two = creativity._measures(label == "yes", p[:, 1])
    assert list(many.values()) == pytest.approx(list(two.values()))


def test_measures_of_three_classes_against_scikit_learn():
    random = np.random.default_rng(2)
    classes = np.array(["a", "b", "c"])
    p, label = random.dirichlet([1, 1, 1], 60), random.choice(classes, 60)
    found = creativity._class_measures(label, p, classes)
    assert found["auc"] == pytest.approx(roc_auc_score(label, p, multi_class="ovr"))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(label, classes[p.argmax(1)]))


@pytest.fixture(scope="module")
def three_kinds():
    random = np.random.default_rng(0)
    kind = random.integers(0, 3, 90)
    values = random.standard_normal((90, 2)) + np.array([[3, 0], [-3, 0], [0, 3]])[kind]
    rest = pd.DataFrame({"item": range(90, 99), "consensus": "inconclusive", "x": 0.0, "y": 0.0})
    judged = pd.DataFrame({"item": range(90), "consensus": np.array(THREE)[kind], "x": values[:, 0], "y": values[:, 1]})
    return pd.concat([judged, rest], ignore_index=True)


def test_three_kinds_are_told_apart(three_kinds):
    found = creativity.cross_validate_classes(three_kinds, ["x", "y"], THREE, folds=3)
    mean = found.summary.pivot(index="model", columns="measure", values="mean")
    assert mean.accuracy["all metrics"] > 0.9 > mean.accuracy["x"] > mean.accuracy["majority"]
    assert mean.loc["majority", ["balanced_accuracy", "auc"]].tolist() == pytest.approx([1 / 3, 0.5])
    assert sorted(found.probabilities.row) == list(range(90))
    assert found.difference("all metrics", "majority")["verdict"] == "all metrics better"
    again = creativity.cross_validate_classes(three_kinds, ["x", "y"], THREE, folds=3)
    pd.testing.assert_frame_equal(found.folds, again.folds)


def test_copies_of_an_image_stay_on_one_side():
    names = [f"n{i}" for i in range(12)]
    noise = pd.DataFrame(np.random.default_rng(0).random((30, 12)), columns=names)
    noise = noise.assign(item=range(30), consensus=list(THREE) * 10)
    copies = pd.concat([noise] * 3, ignore_index=True)
    auc = lambda groups: creativity.cross_validate_classes(copies, names, THREE, 3, groups=groups).summary.query(
        "model == 'all metrics' and measure == 'auc'")["mean"].item()
    assert auc("item") < 0.7 < auc(None)


def test_a_class_with_too_few_images(three_kinds):
    with pytest.raises(ValueError, match="folds=10: .*got 9 of 'inconclusive'"):
        creativity.cross_validate_classes(three_kinds, ["x", "y"], ("creative", "inconclusive"))
    with pytest.raises(ValueError, match="classes"): creativity.cross_validate_classes(three_kinds, ["x"], ["creative"])
