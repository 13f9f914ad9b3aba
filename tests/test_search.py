"The archive against the plain algorithm, and the search against its promises."
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.spatial.distance import cdist

from creative_nb.search import VoronoiElites, illuminate


def plain(measures, objective, elites):
    "Again and again the less fit of the closest two goes; of two equals the older."
    kept = list(range(len(objective)))
    while len(kept) > elites:
        d = cdist(measures[kept], measures[kept])
        np.fill_diagonal(d, np.inf)
        i, j = sorted(np.unravel_index(d.argmin(), d.shape))
        kept.pop(j if objective[kept[j]] < objective[kept[i]] else i)
    return kept


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 4))
def test_the_archive_is_the_plain_algorithm(seed, elites, batches):
    random, archive, kept, number = np.random.default_rng(seed), VoronoiElites(1, 2, elites), np.empty((0, 4)), 0
    for _ in range(batches):
        n = int(random.integers(1, 8))
        measures, objective = random.random((n, 2)), random.random(n).round(1)
        solution = np.arange(number, number + n)[:, None].astype(float)
        number += n
        archive.add(solution, objective, measures)
        everything = np.concatenate([kept, np.column_stack([solution, objective, measures])])
        kept = everything[plain(everything[:, 2:], everything[:, 1], elites)]
        assert archive.data("solution")[:, 0].tolist() == kept[:, 0].tolist()


def test_what_has_no_fitness_is_left_out_and_wild_measures_are_refused():
    archive = VoronoiElites(2, 1, 5)
    status = archive.add(np.zeros((2, 2)), [np.nan, 1.0], np.array([[0.0], [1.0]]))["status"]
    assert len(archive) == 1 and status.tolist() == [0, 2]
    with pytest.raises(ValueError, match="measures: NaN or infinity"):
        archive.add(np.zeros((1, 2)), [1.0], np.array([[np.inf]]))


def test_a_search_stays_in_its_limits_repeats_itself_and_gets_fitter():
    limits, start = np.array([[0.0, 1.0]] * 3), np.random.default_rng(0).random((20, 3)) * 2
    seen = []
    def evaluate(x):
        seen.append(x.copy())
        return -((x - 0.5) ** 2).sum(1), x
    first = illuminate(evaluate, limits, start, generations=30, elites=20, children=8, seed=1)
    again = illuminate(evaluate, limits, start, generations=30, elites=20, children=8, seed=1)
    assert all(((x >= 0) & (x <= 1)).all() for x in seen)
    assert np.array_equal(first.data("solution"), again.data("solution"))
    other = illuminate(evaluate, limits, start, generations=30, elites=20, children=8, seed=2)
    assert not np.array_equal(first.data("solution"), other.data("solution"))
    with pytest.raises(ValueError, match=r"start.*expected \(N, 3\)"): illuminate(evaluate, limits, start[:, :2])
    with pytest.raises(ValueError, match="no genes make anything"):
        illuminate(lambda x: (np.full(len(x), np.nan), x), limits, start)
