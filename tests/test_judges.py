"""Scores of sets by class against torchmetrics and by hand."""
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.exceptions import NotFittedError

from creative_nb.data import load_data
from creative_nb.judges import MEASURES, TOGETHER, Judge, SetScores, judge_of, looked_at, measure_label
from creative_nb.models import Classifier
from creative_nb.pairs import Perceptual, in_domain, ms_ssim, ms_ssim_scales, pair_means, random_pairs


@pytest.fixture(scope="module")
def judged():
    torch.manual_seed(0)
    data = load_data("digits")
    judge = judge_of(Classifier().eval(), "a classifier")
    return data, judge, SetScores(judge, pairs=40, splits=3).fit(data.train.images, data.train.labels)


def of_classes(data, classes, n):
    return torch.stack([data.test.images[data.test.labels == k][:n] for k in classes])


def test_scores_are_those_of_torchmetrics(judged):
    from torchmetrics.image.fid import FrechetInceptionDistance
    data, judge, scores = judged
    images = of_classes(data, (0, 1, 2), 30)
    row = scores.score(images, [0, 1, 2]).iloc[-1]

    class Features(torch.nn.Module):
        num_features = 200
        def forward(self, x): return judge.features(x.float())
    fid = FrechetInceptionDistance(feature=Features(), normalize=True, input_img_size=(1, 28, 28))
    fid.set_dtype(torch.float64)
    own = torch.isin(data.train.labels, torch.tensor([0, 1, 2]))
    with torch.no_grad():
        fid.update(data.train.images[own], real=True)
        fid.update(images.flatten(0, 1), real=False)
    assert row.fid == pytest.approx(fid.compute().item(), rel=1e-2)  # covariances of too few images are singular
    _, logits = looked_at(judge, images.flatten(0, 1))
    p = logits.double().softmax(1)
    assert 1 <= row.inception_score <= np.exp((p * (p / p.mean(0)).log()).sum(1).mean()) + 0.3


def test_accuracy_gap_and_names_by_hand(judged):
    data, judge, scores = judged
    images = of_classes(data, (3, 5), 20)
    always = lambda x: torch.nn.functional.one_hot(torch.full((len(x),), 3), 10).float()
    table = scores.score(images, [3, 5], always).set_index("class")
    answers = looked_at(judge, images.flatten(0, 1))[1].argmax(1).view(2, 20)
    for i, k in enumerate((3, 5)):
        assert table.accuracy[k] == (answers[i] == k).double().mean().item()
        assert table.optimised_accuracy[k] == (k == 3) and table.fooling_gap[k] == (k == 3) - table.accuracy[k]
    assert table.accuracy["all"] == pytest.approx(table.accuracy[[3, 5]].mean())
    assert math.isnan(scores.score(images, [3, 5]).optimised_accuracy.iloc[0])
    for name in MEASURES: assert "{" not in measure_label(name, judge)
    assert "a classifier" in measure_label("fid", judge) and "a classifier" in measure_label("perceptual", judge)
    assert TOGETHER <= set(MEASURES)


def test_an_inception_score_of_sorted_classes_is_that_of_shuffled_ones(judged):
    "Ten splits of images sorted by class would each hold one class, and score 1."
    data, judge, _ = judged
    sure = Judge("sure", lambda x: x.flatten(1)[:, :10], lambda f: 50 * f, judge.perceptual)
    images = torch.zeros(10, 20, 1, 28, 28)
    for k in range(10): images[k, :, 0, 0, k] = 1.0
    scores = SetScores(sure, pairs=5).fit(images.flatten(0, 1), torch.arange(10).repeat_interleave(20))
    assert scores.score(images, list(range(10))).inception_score.iloc[-1] > 6


def test_bad_requests(judged):
    data, judge, scores = judged
    with pytest.raises(NotFittedError): SetScores(judge).score(data.test.images[None, :5], [0])
    with pytest.raises(ValueError, match="no real images of 12"): scores.score(of_classes(data, (1,), 20), [12])
    with pytest.raises(ValueError, match="n=1"): random_pairs(1, 5)
    with pytest.raises(ValueError, match="side=4"): ms_ssim_scales(4)
    small = Perceptual("for large images", lambda a, b: a.mean(1), side=64)
    with pytest.raises(ValueError, match="64 pixels"): small(data.test.images[:2], data.test.images[:2])


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 40), st.integers(1, 100), st.integers(0, 10))
def test_pairs_are_of_two_images(n, pairs, seed):
    found = random_pairs(n, pairs, seed)
    assert found.shape == (pairs, 2) and (found[:, 0] != found[:, 1]).all() and 0 <= found.min() and found.max() < n
    assert torch.equal(found, random_pairs(n, pairs, seed))


@pytest.mark.parametrize("side", [28, 64])
def test_distances_of_pairs_are_symmetric_and_zero_for_the_same(side):
    torch.manual_seed(1)
    a, b = torch.rand(2, 6, 1, side, side)
    distance = in_domain(Classifier((1, side, side)).eval(), "x")
    assert torch.allclose(distance(a, b), distance(b, a), atol=1e-5) and distance(a, a).abs().max() < 1e-6
    assert torch.allclose(ms_ssim(a, b), ms_ssim(b, a), atol=1e-5)
    assert torch.allclose(ms_ssim(a, a), torch.ones(6), atol=1e-5)
    assert (ms_ssim(a, a * 0.9 + 0.05) > ms_ssim(a, b)).all()
    assert distance(a, a + 0.01 * (b - a)).mean() < distance(a, b).mean()


def test_one_scale_is_ssim_by_hand():
    "At one scale SSIM of two flat images has a closed form."
    a, b = (torch.full((1, 1, 8, 8), v, dtype=torch.float64) for v in (0.4, 0.6))
    c1 = 0.01**2
    assert ms_ssim(a, b).item() == pytest.approx((2 * 0.24 + c1) / (0.16 + 0.36 + c1), rel=1e-4)


def test_means_of_pairs_do_not_depend_on_the_batch(judged):
    data, judge, _ = judged
    images = data.test.images[:30]
    found = pair_means(images, judge.perceptual, 250, seed=3)
    pairs = random_pairs(30, 250, 3)
    one = torch.cat([judge.perceptual(images[i][None], images[j][None]) for i, j in pairs[:20]])
    many = judge.perceptual(images[pairs[:20, 0]], images[pairs[:20, 1]])
    assert torch.allclose(one, many, atol=1e-4) and found["perceptual"] > 0
