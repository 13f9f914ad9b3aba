"""Measures of diversity and fidelity against definitions written out, other libraries, and what must hold."""
import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from creative_nb.diversity import (half_samples, of_spectrum, pairwise, precision_recall, pure_diversity, solow_polasky,
                                   spanning_length, vendi_score, weitzman)

FEW = settings(deadline=None, max_examples=40)


def drawn_points(n, d, seed, whole):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(4, (n, d), generator=random).float() if whole else torch.randn(n, d, generator=random)


POINTS = st.builds(drawn_points, st.integers(2, 9), st.integers(1, 4), st.integers(0, 10_000), st.booleans())


def printed_algorithm(distances) -> float:
    "The greedy tree over the whole matrix, one step after the other, as PlatEMO's text describes it."
    d = distances.numpy().astype(float).copy()
    n, total = len(d), 0.0
    np.fill_diagonal(d, np.inf)
    joined = np.eye(n, dtype=bool)
    for _ in range(n - 1):
        while True:
            near, which = d.min(1), d.argmin(1)
            i = int(near.argmax())
            j = int(which[i])
            if d[j, i] != -np.inf: d[j, i] = np.inf
            if d[i, j] != -np.inf: d[i, j] = np.inf
            if connected_components(joined)[1][i] != connected_components(joined)[1][j]: break
        joined[i, j] = joined[j, i] = True
        d[i] = -np.inf
        total += near[i]
    return total


@FEW
@given(POINTS, st.sampled_from(["l2", "hamming", "minkowski"]))
def test_pure_diversity_is_the_printed_algorithm(points, distance):
    d = pairwise(points, distance)
    assert pure_diversity(d) == pytest.approx(printed_algorithm(d), rel=1e-12, abs=1e-12)


@FEW
@given(POINTS)
def test_trees_and_weitzman(points):
    d = pairwise(points)
    spread = d + 1e-6 * (1 - torch.eye(len(d)))  # scipy takes a distance of about 0 for no edge
    assert spanning_length(d) == pytest.approx(minimum_spanning_tree(spread.numpy()).sum(), abs=1e-5)
    assert weitzman(d) >= spanning_length(d) - 1e-9
    assert pure_diversity(d) >= spanning_length(d) - 1e-9


def test_weitzman_is_its_recursion():
    d = pairwise(torch.randn(6, 3, generator=torch.Generator().manual_seed(0))).numpy()
    def along(order): return sum(min(d[x, y] for y in order[:i]) for i, x in enumerate(order) if i)
    assert weitzman(torch.from_numpy(d)) == pytest.approx(max(along(order) for order in permutations(range(6))))


def test_large_sets_take_seconds():
    points = torch.rand(1500, 20, generator=torch.Generator().manual_seed(0))
    d = pairwise(points)
    assert pure_diversity(d) == pytest.approx(spanning_length(d), rel=0.05)


@pytest.mark.parametrize("q", [0.5, 1.0, 2.0, math.inf])
@pytest.mark.parametrize("shape", [(30, 4), (5, 12)])
def test_vendi_score_is_that_of_the_kernel(q, shape):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    unit = x / x.norm(dim=1, keepdim=True)
    values = np.linalg.eigvalsh((unit @ unit.T).numpy() / len(x)).clip(1e-15)
    expected = {1.0: np.exp(-(values * np.log(values)).sum()), math.inf: 1 / values.max()}.get(q)
    if expected is None: expected = (values**q).sum() ** (1 / (1 - q))
    assert vendi_score(x, q=q) == pytest.approx(expected, rel=1e-6)
    assert 1 <= vendi_score(x, q=q) <= min(shape) + 1e-9
    assert vendi_score(torch.cat([x, x]), q=q) == pytest.approx(vendi_score(x, q=q)), "doubles add no kinds"


def test_vendi_score_of_the_reference_package():
    reference = pytest.importorskip("vendi_score.vendi")
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    k = (-pairwise(x).square() / 2).exp().numpy()
    assert vendi_score(x, "rbf") == pytest.approx(reference.score_K(k), rel=1e-9)


def by_definition(real, generated, k):
    d = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=2)
    radius = lambda x: np.sort(d(x, x), 1)[:, k]
    r, g, between = radius(real), radius(generated), d(real, generated)
    inside = between < r[:, None]
    return {"precision": inside.any(0).mean(), "density": inside.sum(0).mean() / k,
            "recall": (between < g[None]).any(1).mean(), "coverage": (between.min(1) < r).mean()}


@pytest.mark.parametrize("k", [1, 5])
def test_precision_recall_density_coverage_by_definition(k):
    random = torch.Generator().manual_seed(3)
    real, made = torch.randn(60, 3, generator=random), torch.randn(45, 3, generator=random) * 0.7 + 0.3
    assert precision_recall(real, made, k) == pytest.approx(by_definition(real.numpy(), made.numpy(), k))
    same = precision_recall(real, real.clone(), k)
    assert same["precision"] == same["recall"] == same["coverage"] == 1


def test_precision_recall_of_the_reference_package():
    prdc = pytest.importorskip("prdc")
    random = torch.Generator().manual_seed(4)
    real, made = torch.randn(80, 5, generator=random), torch.randn(80, 5, generator=random) * 0.8
    expected = prdc.compute_prdc(real.double().numpy(), made.double().numpy(), nearest_k=5)
    assert precision_recall(real, made) == pytest.approx(expected)


@FEW
@given(POINTS)
def test_solow_polasky_counts_kinds(points):
    d, different = pairwise(points), len(points.unique(dim=0))
    assert solow_polasky(d, 1e4) == pytest.approx(different, abs=0.1) or d[d > 0].min() < 1e-2
    assert 1 - 1e-9 <= solow_polasky(d, 1.0) <= different + 1e-9
    assert solow_polasky(torch.zeros(4, 4)) == pytest.approx(1)


def test_bad_input():
    with pytest.raises(ValueError, match="distances"): pure_diversity(torch.tensor([[0.0, 1], [2, 0]]))
    with pytest.raises(ValueError, match="distances"): spanning_length(torch.tensor([[0.0, math.nan], [math.nan, 0]]))
    with pytest.raises(ValueError, match="15 points"): weitzman(torch.zeros(15, 15))
    with pytest.raises(ValueError, match="no direction"): vendi_score(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="k=5"): precision_recall(torch.rand(5, 2), torch.rand(9, 2))
    with pytest.raises(ValueError, match="x"): pairwise(torch.tensor([[math.nan]]))
    assert pure_diversity(torch.zeros(1, 1)) == spanning_length(torch.zeros(1, 1)) == weitzman(torch.zeros(1, 1)) == 0
    assert vendi_score(torch.ones(1, 2)) == pytest.approx(1) and of_spectrum(torch.ones(1)) == 1


def test_constant_sets_have_no_diversity():
    x = torch.ones(20, 3)
    d = pairwise(x)
    assert pure_diversity(d) == spanning_length(d) == 0 and vendi_score(x) == pytest.approx(1)
    assert solow_polasky(d) == pytest.approx(1)


def test_half_samples_are_of_different_images():
    sizes = half_samples(lambda i: len(i.unique()), 11, draws=5)
    assert sizes.tolist() == [5] * 5
    assert half_samples(lambda i: i[0], 50, 3, seed=1).tolist() == half_samples(lambda i: i[0], 50, 3, seed=1).tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_rows_of_zeros_and_ones_take_a_short_way_to_the_same_distances(seed):
    bits = (torch.rand(7, 30, generator=torch.Generator().manual_seed(seed)) < 0.5).double()
    numbers = torch.where(bits == 1, 3.0, 2.0).double()  # as far apart, entry by entry, but no zeros and ones
    for distance in ("l2", "hamming", "minkowski"):
        assert torch.allclose(pairwise(bits, distance), pairwise(numbers, distance), rtol=1e-9)
