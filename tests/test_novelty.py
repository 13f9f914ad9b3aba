"Novelty metrics: slow oracles in float64, other libraries, closed forms, properties, and the numbers the paper "
"prints for real MNIST."
import math
import warnings
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.stats
import torch
from torch import nn
from creative_nb import neighbours as engine
from creative_nb.core import repo_root, save_tensors, standard_normal
from creative_nb.models import VAE, Classifier
from creative_nb.neighbours import NearestNeighbours, smallest
from creative_nb.distributions import (Gaussian, classifier_entropy, fid, fit_gaussian, frechet_distance,
                                       inception_score, random_images)
from creative_nb.novelty import CreativityFilter, InDomainScore, Novelty, reconstruction_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import OneClassSVM

needs_mnist = pytest.mark.skipif(not (repo_root() / "data/raw/MNIST/raw").is_dir(),
                                 reason="real MNIST is not in data/raw")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
fast = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 10_000)


def brute(x: torch.Tensor, reference: torch.Tensor, k: int) -> torch.Tensor:
    "Distances to the k nearest distinct rows, by direct differences in float64."
    x, reference = x.flatten(1).double(), reference.flatten(1).double().unique(dim=0)
    return torch.stack([(reference - row).square().sum(1).sqrt().sort().values[:k] for row in x])


class SmallBuffers(NearestNeighbours):
    block, elements = 2**6, 2**12


# ---- nearest neighbours

@fast
@given(seed=seeds, n=st.integers(1, 12), m=st.integers(2, 90), width=st.integers(1, 30),
       scale=st.sampled_from([1e-3, 1.0, 1e3]),
       offset=st.sampled_from([0.0, 1.0, 1e3]))
def test_neighbours_equal_float64_brute_force(seed, n, m, width, scale, offset):
    x, reference = (standard_normal(k, (width,), seed, p) * scale + offset for k, p in ((n, "x"), (m, "reference")))
    reference = torch.cat([reference, reference[:m // 2]])  # duplicates
    x[0] = reference[0]
    neighbours = NearestNeighbours(reference)
    k = min(5, len(neighbours))
    distances, found = neighbours.query(x, k)
    torch.testing.assert_close(distances.double(), brute(x, reference, k), rtol=6e-6, atol=0)
    # each index is of a point at that distance, and no point is reported twice
    torch.testing.assert_close((x[:, None].double() - reference[found]).norm(dim=2), distances.double(), rtol=1e-6,
                               atol=0)
    assert all(len(set(row)) == k for row in found.tolist())
    assert distances[0, 0] == 0


@fast
@given(seed=seeds, rows=st.integers(1, 5), width=st.integers(1, 600), m=st.integers(1, 20),
       values=st.sampled_from([3, 10**6]))
def test_smallest_are_those_of_a_sort(seed, rows, width, m, values):
    d = torch.from_numpy(np.random.default_rng(seed).integers(0, values, (rows, width))).float()
    found, places = smallest(d, m := min(m, width))
    assert found.equal(d.sort(1).values[:, :m]) and found.equal(d.gather(1, places))
    assert all(len(set(row)) == m for row in places.tolist())


@pytest.mark.parametrize("spread", [10, 0.1, 1e-4])
def test_tight_clusters_far_apart_are_resolved(spread):
    "The float32 product cannot rank points within a cluster; the search notices and repeats in float64."
    centres = standard_normal(4, (8,), 0, "centres") * 100
    reference = (centres[:, None] + spread * standard_normal(4 * 300, (8,), 1).view(4, 300, 8)).flatten(0, 1)
    x = centres + spread * standard_normal(4, (8,), 2)
    neighbours = NearestNeighbours(reference)
    distances, _ = neighbours.query(x, 5)
    torch.testing.assert_close(distances.double(), brute(x, reference, 5), rtol=6e-6, atol=0)
    sure = neighbours._refine(x, *neighbours._nominate(x, 13), 5)[2]
    assert bool(sure.all()) == (spread == 10)


def test_a_coarse_product_is_noticed(monkeypatch):
    "As with TF32 or bfloat16 products: the nominations are poor, the answer is not."
    addmm = torch.addmm
    coarse = lambda *a, **k: addmm(*a, **k).bfloat16().to(a[1].dtype) if a[1].dtype == torch.float32 else addmm(*a, **k)
    reference, x = standard_normal(3000, (6,), 0), standard_normal(200, (6,), 1)
    monkeypatch.setattr(torch, "addmm", coarse)
    torch.testing.assert_close(NearestNeighbours(reference).query(x, 5)[0].double(), brute(x, reference, 5), rtol=6e-6,
                               atol=0)


def test_neighbours_equal_scikit_learn():
    reference, x = standard_normal(2000, (1, 7, 9), 0), standard_normal(150, (1, 7, 9), 1)
    distances, found = NearestNeighbours(reference).query(x, 7)
    expected, which = (
        NearestNeighbors(n_neighbors=7, algorithm="brute")
        .fit(reference.flatten(1).double())
        .kneighbors(x.flatten(1).double())
    )
    np.testing.assert_allclose(distances, expected, rtol=1e-6)
    assert (found.numpy() == which).all()


@fast
@given(seed=seeds)
def test_neither_order_nor_chunks_of_queries_matter(seed):
    reference, x = standard_normal(1500, (5,), seed, "reference"), standard_normal(40, (5,), seed, "x")
    whole, order = NearestNeighbours(reference), torch.from_numpy(np.random.default_rng(seed).permutation(40))
    scores, chunked, permuted = whole.scores(x), SmallBuffers(reference).scores(x), whole.scores(x[order])
    for name in scores:
        torch.testing.assert_close(chunked[name], scores[name], rtol=1e-6, atol=0)
        torch.testing.assert_close(permuted[name], scores[name][order], rtol=1e-6, atol=0)


def test_indices_are_of_the_reference_as_given():
    points = torch.tensor([[5.], [0.], [5.], [0.], [1.]])
    distances, found = NearestNeighbours(points).query(torch.tensor([[4.9], [0.2]]), 3)
    assert found.tolist() == [[0, 4, 1], [1, 4, 0]] and len(NearestNeighbours(points)) == 3


def test_duplicates_are_found_by_content_whatever_their_hash(monkeypatch):
    rows = (standard_normal(400, (9,), 0) > 0).float()
    rows[3:5] = torch.tensor([[0.0], [-0.0]])
    expected = np.sort(np.unique(rows.numpy() + 0.0, axis=0, return_index=True)[1])
    assert NearestNeighbours(rows).rows.tolist() == expected.tolist() and len(expected) < 400
    monkeypatch.setattr(engine, "_row_hash", lambda rows: torch.arange(len(rows)) // 2)  # collisions
    assert NearestNeighbours(torch.tensor([[1.], [2], [3], [3]])).rows.tolist() == [0, 1, 2]


def test_binary_images_with_many_ties():
    reference, x = ((standard_normal(n, (30,), n) > 0).float() for n in (800, 50))
    assert torch.equal(NearestNeighbours(reference).query(x, 5)[0].double().square().round(),
                       brute(x, reference, 5).square().round())


def test_within_never_counts_a_point_itself():
    reference = standard_normal(200, (4,), 0)
    within = NearestNeighbours(torch.cat([reference, reference])).within(3)
    distances = torch.cdist(reference.double(), reference.double(),
                            compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(math.inf)
    torch.testing.assert_close(within.double(), distances.sort(1).values[:, :3], rtol=1e-6, atol=0)


def test_within_is_computed_only_where_needed_and_once():
    neighbours, asked = NearestNeighbours(standard_normal(500, (3,), 0)), []
    query = neighbours._query
    neighbours._query = lambda x, k: (asked.append(len(x)), query(x, k))[1]
    x = standard_normal(4, (3,), 1)
    first = neighbours.scores(x)
    assert len(asked) == 2 and asked[1] <= 20
    again = neighbours.scores(x)
    assert len(asked) == 3 and all(torch.equal(first[k], again[k]) for k in first)
    neighbours.within()
    assert sum(asked[3:]) == 500 - asked[1]


def slow_kns(x, points, k):
    "The definition, one image at a time."
    total = []
    for query in x.double():
        order = (points - query).norm(dim=1).argsort()[:k]
        top = (points[order] - query).norm(dim=1).mean()
        bottom = []
        for i in order:
            d = (points - points[i]).norm(dim=1)
            d[i] = math.inf
            bottom.append(d.sort().values[:k].mean())
        total.append(top / torch.stack(bottom).mean())
    return torch.stack(total)


@fast
@given(seed=seeds, k=st.integers(1, 6), m=st.integers(8, 40))
def test_novelty_score_equals_its_definition(seed, k, m):
    points, x = standard_normal(m, (3,), seed, "points"), standard_normal(5, (3,), seed, "x")
    ours = NearestNeighbours(points).scores(x, (k,))
    torch.testing.assert_close(ours[f"{k}ns"].double(), slow_kns(x, points.double(), k), rtol=1e-5, atol=0)
    torch.testing.assert_close(ours[f"{k}nn"].double(), brute(x, points, k)[:, -1], rtol=1e-5, atol=0)


@fast
@given(seed=seeds, exponent=st.integers(-20, 20))
def test_novelty_score_has_no_unit(seed, exponent):
    points, x = standard_normal(60, (4,), seed, "points"), standard_normal(6, (4,), seed, "x")
    one, other = NearestNeighbours(points).scores(x), NearestNeighbours(points * 2.0**exponent).scores(
        x * 2.0**exponent
    )
    for k in (1, 5):
        torch.testing.assert_close(one[f"{k}ns"], other[f"{k}ns"], rtol=1e-5, atol=0)
        torch.testing.assert_close(one[f"{k}nn"] * 2.0**exponent, other[f"{k}nn"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("call, what", [
    (lambda n: n.query(torch.zeros(2, 4), 1), "rows of 3 values"),
    (lambda n: n.query(torch.full((2, 3), math.nan), 1), "2 of 2 rows hold NaN"),
    (lambda n: n.query(torch.zeros(0, 3), 1), "N >= 1"),
    (lambda n: n.query(torch.zeros(2, 3), 11), "k=11: expected 1 to 10"),
    (lambda n: n.query(torch.zeros(2, 3), 0), "k=0"),
    (lambda n: n.within(10), "k=10: expected less than 10"),
    (lambda n: n.scores(torch.zeros(2, 3), (10,)), "expected less than 10"),
    (lambda n: NearestNeighbours(n.reference, within=torch.zeros(3, 5)), "within has 3 rows"),
    (lambda n: NearestNeighbours(torch.zeros(3, 2, dtype=torch.long)), "reference: expected a floating tensor"),
])
def test_neighbours_refuse_bad_input(call, what):
    with pytest.raises(ValueError, match=what): call(NearestNeighbours(standard_normal(10, (3,), 0)))


# ---- reconstruction distance and entropy

def test_reconstruction_distance_is_the_l2_norm():
    x, y = standard_normal(6, (1, 4, 4), 0), standard_normal(6, (1, 4, 4), 1)
    np.testing.assert_allclose(reconstruction_distance(x, y), np.linalg.norm((x - y).flatten(1).double(), axis=1),
                               rtol=1e-6)
    with pytest.raises(ValueError, match="reconstructions of shape"): reconstruction_distance(x, y.flatten(1))


@fast
@given(seed=seeds, classes=st.integers(2, 30), exponent=st.floats(-3, 37))
def test_entropy_is_finite_and_within_bounds(seed, classes, exponent):
    entropy = classifier_entropy(standard_normal(20, (classes,), seed) * 10**exponent)
    assert entropy.isfinite().all() and (entropy >= 0).all() and (entropy <= math.log2(classes)).all()


def test_entropy_equals_scipy_and_ignores_shifts():
    logits = standard_normal(50, (10,), 0).double() * 3
    np.testing.assert_allclose(classifier_entropy(logits), scipy.stats.entropy(logits.softmax(1), base=2, axis=1),
                               rtol=1e-10)
    torch.testing.assert_close(classifier_entropy(logits + 700), classifier_entropy(logits))
    with pytest.raises(ValueError, match="logits: expected 2 dimensions"): classifier_entropy(torch.zeros(2, 3, 4))


# ---- in-domain score

@pytest.fixture(scope="module")
def svm_and_latents():
    latents = standard_normal(1500, (8,), 0)
    return InDomainScore().fit(latents), latents


def test_in_domain_score_equals_decision_function(svm_and_latents):
    svm, latents = svm_and_latents
    x = torch.cat([standard_normal(300, (8,), 1), 4 * standard_normal(100, (8,), 2), 50 * standard_normal(10, (8,), 3),
                   svm.support_[:5].float()])
    expected = OneClassSVM(kernel="rbf", gamma=0.1, nu=0.15).fit(latents.double()).decision_function(x.double())
    np.testing.assert_allclose(svm.score(x), expected, rtol=1e-5, atol=1e-8 * np.abs(expected).max())


def test_in_domain_score_survives_saving_and_ignores_batches(svm_and_latents):
    svm, latents = svm_and_latents
    again = InDomainScore.from_tensors(svm.tensors())
    assert (again.gamma, again.nu) == (0.1, 0.15) and torch.equal(again.score(latents), svm.score(latents))
    torch.testing.assert_close(torch.cat([svm.score(x) for x in latents[:9].split(2)]), svm.score(latents)[:9])


@pytest.mark.parametrize("nu", [0.05, 0.3])
def test_nu_bounds_the_fraction_outside(nu):
    latents = standard_normal(800, (3,), 0)
    assert (InDomainScore(nu=nu).fit(latents).score(latents) < -1e-3).double().mean() <= nu


def test_in_domain_score_refuses_bad_input(svm_and_latents):
    with pytest.raises(NotFittedError): InDomainScore().score(torch.zeros(2, 8))
    with pytest.raises(ValueError, match="rows of 8 values"): svm_and_latents[0].score(torch.zeros(2, 7))
    with pytest.raises(ValueError, match="gamma=0"): InDomainScore(gamma=0)
    with pytest.raises(ValueError, match="nu=1.5"): InDomainScore(nu=1.5)
    with pytest.raises(ValueError, match="NaN"): InDomainScore().fit(torch.full((5, 2), math.nan))


# ---- FID and Inception Score

def features(n, width, seed):
    return standard_normal(n, (width,), seed, "features") @ standard_normal(width, (width,), seed, "mixing") + seed % 3


def test_fid_of_diagonal_gaussians_in_closed_form():
    mean = standard_normal(2, (6,), 0).double()
    sd = standard_normal(2, (6,), 1).double().abs()
    expected = (mean[0] - mean[1]).square().sum() + (sd[0] - sd[1]).square().sum()
    ours = frechet_distance(*(Gaussian(m, s.square().diag()) for m, s in zip(mean, sd, strict=True)))
    assert math.isclose(ours, expected.item(), rel_tol=1e-10)


def test_fid_equals_scipy_and_torch_fidelity():
    metric_fid = pytest.importorskip("torch_fidelity.metric_fid")
    a, b = features(900, 40, 1), features(700, 40, 2)
    stats = [{"mu": x.double().mean(0).numpy(), "sigma": np.cov(x.double().numpy(), rowvar=False)} for x in (a, b)]
    reference = next(iter(metric_fid.fid_statistics_to_metric(*stats, verbose=False).values()))
    assert math.isclose(fid(a, b), reference, rel_tol=1e-6)
    root = scipy.linalg.sqrtm(stats[0]["sigma"] @ stats[1]["sigma"]).real.trace()
    by_hand = (np.square(stats[0]["mu"] - stats[1]["mu"]).sum() + stats[0]["sigma"].trace() + stats[1]["sigma"].trace()
               - 2 * root)
    assert math.isclose(fid(a, b), by_hand, rel_tol=1e-8)


def test_fid_equals_torchmetrics():
    image = pytest.importorskip("torchmetrics.image.fid")
    class Identity(torch.nn.Module):
        num_features = 12
        def forward(self, x): return x
    a, b = features(300, 12, 4), features(400, 12, 5)
    metric = image.FrechetInceptionDistance(feature=Identity())
    metric.update(a, real=True)
    metric.update(b, real=False)
    assert math.isclose(fid(a, b), metric.compute().item(), rel_tol=1e-5)


@fast
@given(seed=seeds, width=st.integers(1, 12))
def test_fid_is_symmetric_zero_on_itself_and_adds_a_translation(seed, width):
    a, b = features(60, width, seed).double(), features(50, width, seed + 1).double()
    shift = standard_normal(1, (width,), seed, "shift")[0].double()
    scale = (a.var(0).sum() + b.var(0).sum()).item()
    assert math.isclose(fid(a, b), fid(b, a), rel_tol=1e-9, abs_tol=1e-9 * scale)
    assert fid(a, a) <= 1e-9 * scale
    assert math.isclose(fid(a, a + shift), shift.square().sum().item(), rel_tol=1e-7, abs_tol=1e-9 * scale)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(60))
    assert math.isclose(fid(a[order], b), fid(a, b), rel_tol=1e-8, abs_tol=1e-9 * scale)


def test_a_singular_covariance_is_announced_and_survived():
    a, b = features(20, 30, 1), features(40, 30, 2)
    with pytest.warns(UserWarning, match="20 samples of 30 features: the covariance is singular"): few = fit_gaussian(a)
    assert frechet_distance(few, few) < 1e-6 * few.covariance.trace()
    root = scipy.linalg.sqrtm((few.covariance @ fit_gaussian(b).covariance).numpy()).real.trace()
    exact = ((few.mean - fit_gaussian(b).mean).square().sum() + few.covariance.trace()
             + fit_gaussian(b).covariance.trace() - 2 * root)
    assert math.isclose(frechet_distance(few, fit_gaussian(b)), exact.item(), rel_tol=1e-4)
    with pytest.raises(ValueError, match="at least 2"): fit_gaussian(a[:1])
    with pytest.raises(ValueError, match="b has 29 features"): frechet_distance(few, fit_gaussian(b[:, :29]))


def test_fid_of_features_that_never_vary_or_depend_on_each_other():
    g = torch.Generator().manual_seed(4)
    a, b = (torch.randn(400, 6, generator=g, dtype=torch.float64) @ torch.randn(6, 6, generator=g, dtype=torch.float64)
            for _ in range(2))
    plain, zero = fid(a, b), torch.zeros(400, 1, dtype=torch.float64)
    assert math.isclose(fid(torch.cat([a, zero + 0.1], 1), torch.cat([b, zero + 0.3], 1)), plain + 0.04, rel_tol=1e-9)
    assert fit_gaussian(torch.cat([a, zero + 0.1], 1)).covariance[-1].eq(0).all()
    twice = [torch.cat([x, x], 1) for x in (a, b)]  # of half the rank: no Cholesky factor, or one of rounding errors
    assert math.isclose(fid(*twice), 2 * plain, rel_tol=1e-6)
    assert math.isclose(fid(torch.cat([a, zero], 1), torch.cat([b, b[:, :1]], 1)),
                        plain + b[:, 0].mean().square().item() + b[:, 0].var().item(), rel_tol=1e-5)
    assert fid(zero, zero) == 0


def test_covariance_does_not_depend_on_batches():
    x = standard_normal(25_000, (3,), 0) + 100
    ours = fit_gaussian(x)
    np.testing.assert_allclose(ours.covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours.mean, x.double().mean(0), rtol=1e-12)


@pytest.mark.parametrize("splits", [1, 7])
def test_inception_score_equals_torch_fidelity(splits):
    metric_isc = pytest.importorskip("torch_fidelity.metric_isc")
    logits = 3 * standard_normal(500, (10,), 0)
    mean, sd = metric_isc.isc_features_to_metric(logits, splits=splits, shuffle=False).values()
    np.testing.assert_allclose(inception_score(logits, splits), (mean, sd), rtol=1e-10, atol=1e-12)


def test_inception_score_in_closed_form():
    assert math.isclose(inception_score(1e30 * torch.eye(7).repeat(3, 1))[0], 7)
    assert inception_score(torch.ones(8, 10)) == (1, 0)
    half = torch.tensor([[0.75, 0.25], [0.25, 0.75]]).log()
    assert math.isclose(inception_score(half)[0], math.exp(0.75 * math.log(1.5) + 0.25 * math.log(0.5)), rel_tol=1e-6)
    for splits in (0, 3):
        with pytest.raises(ValueError, match=f"splits={splits}"): inception_score(half, splits)


@fast
@given(seed=seeds, classes=st.integers(2, 12))
def test_inception_score_is_between_one_and_the_classes(seed, classes):
    assert 1 - 1e-12 <= inception_score(5 * standard_normal(30, (classes,), seed))[0] <= classes + 1e-9


# ---- random images and the filter

def test_random_images_have_the_moments_of_the_training_images():
    train = (0.5 + 0.05 * features(4000, 6, 2) / 3).view(4000, 1, 2, 3).clamp(0.05, 0.95)
    flat = train.flatten(1)
    for covariance in (False, True):
        images = random_images(train, 20_000, seed=1, covariance=covariance)
        assert images.shape == (20_000, 1, 2, 3) and 0 <= images.min() and images.max() <= 1
        torch.testing.assert_close(images.flatten(1).mean(0), flat.mean(0), rtol=0, atol=0.01)
        expected = flat.T.cov() if covariance else flat.var(0).diag()
        torch.testing.assert_close(images.flatten(1).T.cov(), expected, rtol=0, atol=0.05 * expected.max().item())
    assert torch.equal(random_images(train, 3, 1), random_images(train, 9, 1)[:3])
    assert not torch.equal(random_images(train, 3, 1), random_images(train, 3, 2))
    with pytest.raises(ValueError, match="n=0"): random_images(train, 0, 1)


def test_filter_is_the_printed_rule():
    regular = {k: standard_normal(501, (1,), i)[:, 0].exp() for i, k in enumerate(CreativityFilter.distances)}
    scores = {k: standard_normal(400, (1,), i + 9)[:, 0].exp() * 4 for i, k in enumerate(CreativityFilter.distances)}
    scores["ice"] = standard_normal(400, (1,), 99)[:, 0].abs()
    fitted = CreativityFilter().fit(regular, torch.tensor([0.2, 0.4]), torch.tensor([1.0, 2.0]))
    expected = []
    for i in range(400):
        ok = 0.3 < scores["ice"][i] < 1.5
        for k, values in regular.items():
            q1, q2, q3 = np.quantile(values.double(), [0.25, 0.5, 0.75])
            ok = ok and scores[k][i].item() > q2 + 1.75 * (q3 - q1)
        expected.append(bool(ok))
    assert fitted.passes(scores).tolist() == expected and 0 < sum(expected) < 400


def test_filter_says_what_is_wrong():
    regular, ice = {k: torch.ones(5) for k in CreativityFilter.distances}, torch.tensor([1.0])
    with pytest.raises(NotFittedError): CreativityFilter().passes({})
    with pytest.raises(ValueError, match="expected at least one of input_1nn"):
        CreativityFilter().fit({"ice": ice}, ice, ice)
    with pytest.raises(ValueError, match="test_ice.*expected finite numbers in a row, 1 or more"):
        CreativityFilter().fit(regular, torch.zeros(0), ice)
    with pytest.raises(ValueError, match="input_1nn"):
        CreativityFilter().fit(regular | {"input_1nn": torch.tensor([math.nan])}, ice, ice)
    with pytest.warns(UserWarning, match="no image can pass"): fitted = CreativityFilter().fit(regular, ice + 1, ice)
    with pytest.raises(ValueError, match="scores has no ice, recon_distance"):
        fitted.passes({"input_1nn": ice, "latent_1nn": ice})


# ---- all together

SHAPE, KEYS = (1, 8, 8), {"in_domain_score", "recon_distance", "ice"} | {
    f"{s}_{k}{t}" for s in ("input", "latent") for k in (1, 5) for t in ("nn", "ns")
}


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    vae = VAE(SHAPE, hidden=(20,), latent=5).eval()
    train, x = (torch.from_numpy(np.random.default_rng(s).random((n, *SHAPE), dtype=np.float32))
                for s, n in ((0, 300), (1, 45)))
    return vae, Classifier(SHAPE).eval(), train, x


@pytest.fixture(scope="module")
def fitted(models):
    vae, classifier, train, _ = models
    return Novelty(vae.encode, vae.decode, classifier).fit(train)


def test_every_column_is_its_metric(models, fitted):
    vae, classifier, train, x = models
    scores = fitted.score(x)
    assert set(scores) == KEYS
    assert all(v.shape == (45,) and v.dtype == torch.float32 and v.device.type == "cpu" and not v.requires_grad
               for v in scores.values())
    with torch.no_grad(): z, train_z = vae.encode(x), vae.encode(train)
    expected = {"ice": classifier_entropy(classifier(x)).float(),
                "in_domain_score": InDomainScore().fit(train_z).score(z).float(),
                "recon_distance": reconstruction_distance(x, vae.decode(z))}
    for space, q, ref in (("input", x, train), ("latent", z, train_z)):
        for k in (1, 5):
            expected[f"{space}_{k}nn"] = brute(q, ref, k)[:, -1].float()
            expected[f"{space}_{k}ns"] = slow_kns(q.flatten(1), ref.flatten(1).double(), k).float()
    for name in KEYS:
        torch.testing.assert_close(scores[name], expected[name].detach(), rtol=1e-4, atol=1e-5, msg=lambda m,
                                   n=name: f"{n}: {m}")


def test_batches_do_not_matter(models, fitted):
    vae, classifier, train, x = models
    small, scores = Novelty(vae.encode, vae.decode, classifier, batch_size=7).fit(train).score(x), fitted.score(x)
    for name in KEYS: torch.testing.assert_close(small[name], scores[name], rtol=1e-4, atol=1e-4)


def test_each_function_sees_each_image_once(models):
    vae, classifier, train, x = models
    seen = {"encode": 0, "decode": 0, "classifier": 0}
    def counted(name, f):
        def call(batch):
            seen[name] += len(batch)
            return f(batch)
        return call
    novelty = Novelty(counted("encode", vae.encode), counted("decode", vae.decode), counted("classifier", classifier),
                      batch_size=20)
    novelty.fit(train)
    assert seen == {"encode": 300, "decode": 0, "classifier": 0}
    novelty.score(x)
    assert seen == {"encode": 345, "decode": 45, "classifier": 45}


def test_known_latents_are_not_computed_again(models, fitted):
    vae, classifier, train, x = models
    novelty = Novelty(vae.encode, vae.decode, classifier)
    novelty.encode = None  # would fail if it were called
    with pytest.raises(ValueError, match="latents without encode"): novelty.fit(train, fitted.latents_)
    novelty.encode = vae.encode
    scores = novelty.fit(train, fitted.latents_).score(x)
    assert all(torch.equal(scores[k], v) for k, v in fitted.score(x).items())


def test_metrics_of_what_there_is(models, fitted):
    vae, classifier, train, x = models
    all_scores = fitted.score(x)
    for functions, missing in (((None, None, classifier), {"in_domain_score", "recon_distance"}
                                | {k for k in KEYS if k.startswith("latent")}),
                               ((vae.encode, None, None), {"recon_distance", "ice"})):
        scores = Novelty(*functions).fit(train).score(x)
        assert set(scores) == KEYS - missing
        for name in scores: torch.testing.assert_close(scores[name], all_scores[name], rtol=1e-5, atol=1e-5)


def test_foreign_latents_of_any_shape(models):
    *_, train, x = models
    encode, decode = lambda x: x[:, :, ::2, ::2], lambda z: z.repeat_interleave(2, 2).repeat_interleave(2, 3)
    scores = Novelty(encode, decode).fit(train).score(x)
    torch.testing.assert_close(scores["recon_distance"], (x - decode(encode(x))).flatten(1).norm(dim=1))


def test_networks_are_evaluated_and_left_as_they_were(models, fitted):
    vae, classifier, train, x = models
    expected = fitted.score(x)
    try:
        vae.train()
        classifier.train()
        scores = fitted.score(x)
        assert vae.training and classifier.training and vae.decoder.hidden1[2].training
    finally:
        vae.eval()
        classifier.eval()
    assert all(torch.equal(scores[k], expected[k]) for k in KEYS)


def test_saved_and_loaded_scores_the_same(models, fitted, tmp_path):
    vae, classifier, train, x = models
    fitted.save(tmp_path / "n.safetensors")
    again = Novelty.load(tmp_path / "n.safetensors", vae.encode, vae.decode, classifier, images=train)
    calls = []
    for neighbours in (again.input_neighbours_, again.latent_neighbours_):
        neighbours._query = lambda x, k, q=neighbours._query: (calls.append(len(x)), q(x, k))[1]
    scores = again.score(x)
    assert calls == [45, 45]  # nothing within the reference is computed again
    assert all(torch.equal(scores[k], v) for k, v in fitted.score(x).items())
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "n.safetensors").read_bytes()


def test_load_refuses_what_was_not_fitted(models, fitted, tmp_path):
    vae, _, train, x = models
    path = tmp_path / "n.safetensors"
    fitted.save(path)
    with pytest.raises(ValueError, match="not the training images"):
        Novelty.load(path, vae.encode, images=train.flip(0))
    with pytest.raises(ValueError, match="not the encoder"):
        Novelty.load(path, VAE(SHAPE, hidden=(20,), latent=5).eval().encode, images=train)
    with pytest.raises(ValueError, match="not the encoder"): Novelty.load(path, lambda x: x.flatten(1), images=train)
    Novelty().fit(train).save(path)
    with pytest.raises(ValueError, match="not the encoder"): Novelty.load(path, vae.encode, images=train)
    assert "ice" not in Novelty.load(path, images=train).score(x)
    save_tensors(path, {"a": torch.zeros(1)}, {"kind": "VAE"})
    with pytest.raises(ValueError, match="holds a 'VAE'"): Novelty.load(path, images=train)
    with pytest.raises(FileNotFoundError): Novelty.load(tmp_path / "none", images=train)


@pytest.mark.parametrize("images, what", [
    (torch.zeros(4, 64), "expected 4 dimensions"),
    (torch.rand(5, *SHAPE), "expected more than 5 distinct ones, got 5"),
    (torch.full((9, *SHAPE), math.nan), "9 of 9 rows hold NaN"),
    (torch.zeros(0, *SHAPE), "N >= 1"),
    (np.zeros((9, *SHAPE)), "expected a Tensor"),
])
def test_fit_refuses_bad_images_before_any_work(images, what):
    def encode(x): raise AssertionError("too late")
    with pytest.raises((ValueError, TypeError), match=what): Novelty(encode).fit(images)


def test_novelty_says_what_is_wrong(models, fitted):
    vae, _, train, x = models
    with pytest.raises(NotFittedError): Novelty().score(x)
    with pytest.raises(NotFittedError): Novelty().save("nowhere")
    with pytest.raises(ValueError, match="decode without encode"): Novelty(None, vae.decode)
    with pytest.raises(ValueError, match="batch_size=0"): Novelty(batch_size=0)
    with pytest.raises(ValueError, match="expected one for each of the 300 images, got 299"):
        Novelty(vae.encode).fit(train, fitted.latents_[1:])
    with pytest.raises(ValueError, match=r"expected \(N, 1, 8, 8\)"): fitted.score(x[:, :, 1:])
    with pytest.raises(ValueError, match="1 of 45 rows"):
        fitted.score(torch.where(torch.arange(45).view(-1, 1, 1, 1) == 3, math.inf, x))


def test_no_warning_is_the_rule(models, fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.score(models[-1])


@needs_gpu
def test_gpu_equals_cpu(models, fitted):
    vae, classifier, train, x = models
    expected = fitted.score(x)
    try:
        novelty = Novelty(vae.cuda().encode, vae.decode, classifier.cuda()).fit(train, fitted.latents_)
        scores = novelty.score(x)
    finally:
        vae.cpu()
        classifier.cpu()
    for name in KEYS: torch.testing.assert_close(scores[name], expected[name], rtol=1e-3, atol=1e-3)
    reference, q = standard_normal(70_000, (30,), 0), standard_normal(500, (30,), 1)
    torch.testing.assert_close(NearestNeighbours(reference.cuda()).query(q)[0].cpu(),
                               NearestNeighbours(reference).query(q)[0], rtol=1e-6, atol=0)


# ---- real images

@needs_mnist
@pytest.mark.real_data
def test_raw_mnist_gives_the_printed_novelty_scores():
    "Every fifth test image against the first 55,000 training images: das2020 prints 1.096 and 1.079 for all of them."
    from torchvision.datasets import MNIST
    train, test = (MNIST(repo_root() / "data/raw", train=t).data.unsqueeze(1).float() / 255 for t in (True, False))
    neighbours = NearestNeighbours(train[:55_000])
    scores = {k: v.mean().item() for k, v in neighbours.scores(test[::5]).items()}  # all 10,000 give 1.0959 and 1.0837
    assert math.isclose(scores["1ns"], 1.0973, abs_tol=2e-4) and math.isclose(scores["5ns"], 1.0816, abs_tol=2e-4)
    assert math.isclose(scores["1ns"], 1.096, rel_tol=0.01) and math.isclose(scores["5ns"], 1.079, rel_tol=0.01)
    few = test[:40]
    expected, _ = (
        NearestNeighbors(n_neighbors=5, algorithm="brute")
        .fit(train[:55_000].flatten(1).double())
        .kneighbors(few.flatten(1).double())
    )
    np.testing.assert_allclose(neighbours.query(few, 5)[0], expected, rtol=1e-6)


# ---- what strangers bring

@pytest.mark.parametrize("scale", [1e-24, 1e-12, 1e12, 1e20, 2.0**-100])
def test_distances_scale_with_the_data(scale):
    a, q = standard_normal(40, (6,), 0), standard_normal(5, (6,), 1)
    plain, index = NearestNeighbours(a).query(q, 3)
    found, same = NearestNeighbours(a * scale).query(q * scale, 3)
    assert torch.allclose(found.double() / scale, plain.double(), rtol=1e-4) and torch.equal(index, same)
    within = NearestNeighbours(a * scale).within(2).double() / scale
    assert torch.allclose(within, NearestNeighbours(a).within(2).double(), rtol=1e-4)
    ours, expected = (NearestNeighbours(a * s).scores(q * s)["5ns"] for s in (scale, 1))
    assert torch.allclose(ours, expected, rtol=1e-4)


def test_samples_far_larger_than_the_reference():
    a, q = standard_normal(40, (6,), 0), standard_normal(5, (6,), 1)
    far = NearestNeighbours(a).query(q * 1e25, 1)[0].squeeze(1).double()
    assert torch.allclose(far, (q.double() * 1e25).norm(dim=1), rtol=1e-4)


@pytest.mark.parametrize("spoil", [lambda m, c: (m * math.nan, c), lambda m, c: (m, c * math.inf),
                                   lambda m, c: (m[:-1], c), lambda m, c: (m, c[0]), lambda m, c: m])
def test_frechet_distance_of_broken_statistics(spoil):
    good = fit_gaussian(standard_normal(50, (3,), 0))
    with pytest.raises(ValueError, match="^b[:=].*expected"): frechet_distance(good, spoil(*good))
    assert frechet_distance(good, tuple(part.numpy() for part in good)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("f", [classifier_entropy, inception_score])
def test_one_logit_is_no_classifier(f):
    with pytest.raises(ValueError, match=r"logits=Tensor of shape \(5, 1\): expected .* 2 classes or more"):
        f(torch.randn(5, 1))


@pytest.mark.parametrize("returns,error", [
    (lambda x: (x.flatten(1), x.flatten(1)), "encode returns a tuple: expected one tensor"),
    (lambda x: SimpleNamespace(embedding=x), "encode returns a SimpleNamespace: expected one tensor"),
    (lambda x: x.flatten(1)[:-1], r"encode returns Tensor .* for \d+ rows: expected one each"),
    (lambda x: x.flatten(1) @ torch.ones(3, 2), "encode=.*: expected a function of tensors such as Tensor of shape")])
def test_what_an_encoder_returns(returns, error):
    x = torch.rand(50, *SHAPE)
    with pytest.raises((TypeError, ValueError), match=error): Novelty(returns).fit(x)


def test_a_network_behind_a_function_is_put_in_evaluation_mode():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(math.prod(SHAPE), 4)).train()
    x, ways = torch.rand(50, *SHAPE), {"function": lambda x: net(x), "partial": partial(net), "method": net.forward}
    for name, encode in ways.items():
        novelty = Novelty(encode).fit(x)
        a, b = (novelty.score(x)["latent_1nn"] for _ in range(2))
        assert torch.equal(a, b) and net.training, name


def test_filter_takes_tables():
    scores = {"ice": [0.5, 1.5, 2.5], "input_1nn": [9.0, 9, 9], "recon_distance": [9.0, 9, 9]}
    regular = {"input_1nn": [1.0, 2, 3, 4, 5], "recon_distance": [1.0, 2, 3, 4, 9]}
    def passes(make):
        return CreativityFilter().fit(make(regular), torch.tensor([0.1]), np.array([2.0])).passes(make(scores)).tolist()
    ways = [lambda d: {k: torch.tensor(v) for k, v in d.items()}, pd.DataFrame, dict,
            lambda d: {k: pd.Series(v, index=list("edcba")[:len(v)]) for k, v in d.items()}]
    assert [passes(make) for make in ways] == [[True, True, False]] * 4


@pytest.mark.parametrize("scores,message", [
    ({"ice": [1.0, math.nan], "input_1nn": [1.0, 2]}, "scores.'ice'.=.*finite"),
    ({"ice": [1.0], "input_1nn": [1.0, 2]}, "scores: lengths 1, 2, expected one length"),
    ({"ice": pd.Series([1.0, 2]), "input_1nn": pd.Series([1.0, 2], index=[1, 0])}, "columns with the same row labels"),
    ({"ice": ["a", "b"], "input_1nn": [1.0, 2]}, "scores.'ice'.=.*expected numbers")])
def test_filter_refuses_what_does_not_go_together(scores, message):
    fitted = CreativityFilter().fit({"input_1nn": [1.0, 2, 3]}, [0.1], [2.0])
    with pytest.raises(ValueError, match=message): fitted.passes(scores)


@pytest.mark.skipif(find_spec("faiss") is None, reason="faiss is not installed")
@pytest.mark.parametrize("width", [3, 50])
def test_faiss_finds_the_same_neighbours(monkeypatch, width):
    a, q = standard_normal(3000, (width,), 0), standard_normal(2100, (width,), 1)
    a[100:200], q[:50] = a[200:300], a[250:300]  # copies, and samples that are reference points
    monkeypatch.setattr(engine, "_seconds", lambda f, *args: f.__name__ == "_nominate_by_faiss")  # ours is faster
    ours = NearestNeighbours(a).query(q, 5)
    monkeypatch.setattr(engine, "_seconds", lambda f, *args: f.__name__ == "_nominate")
    theirs = (searched := NearestNeighbours(a)).query(q, 5)
    assert searched._faiss_is_faster and all(map(torch.equal, ours, theirs))


def test_probabilities_are_no_logits():
    with pytest.raises(ValueError, match="probabilities, expected their logarithms"):
        classifier_entropy(standard_normal(9, (4,), 0).softmax(1))
    classifier_entropy(standard_normal(9, (4,), 0).log_softmax(1))


def test_images_in_other_units_are_told():
    with pytest.warns(UserWarning, match="images: values from .* to 25.*so distances are in these units"):
        Novelty().fit(torch.rand(50, *SHAPE) * 255)
