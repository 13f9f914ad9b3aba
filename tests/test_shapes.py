"The shape domain against plain twins: matplotlib's point-in-polygon, flood fill by SciPy, a rotation by half a turn."
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from matplotlib.path import Path as Polygon
from scipy import ndimage

from creative_nb import shapes as module
from creative_nb.data import load_data
from creative_nb.shapes import (LIMITS, largest_piece, outlines, point_symmetry, random_genomes, rasterise, shapes,
                                thresholded)


def test_a_pixel_is_inside_where_matplotlib_says_so():
    points = outlines(random_genomes(12, seed=3))
    size = 32
    middle = (np.arange(size) + 0.5) / size - 0.5
    x, y = np.meshgrid(middle, middle)
    for outline, mask in zip(points, rasterise(points, size)):
        crossings = Polygon(np.vstack([outline, outline[:1]]), closed=True)
        inside = crossings.contains_points(np.column_stack([x.ravel(), y.ravel()])).reshape(size, size)
        differ = (inside != mask).sum()  # matplotlib counts windings where an outline crosses itself
        if not crosses_itself(outline): assert differ <= 1


def crosses_itself(outline):
    edges = np.stack([outline, np.roll(outline, -1, 0)], 1)
    def side(p, q, r): return np.sign((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))
    n = len(edges)
    for i in range(0, n, 5):
        for j in range(i + 2, n - (i == 0)):
            (a, b), (c, d) = edges[i], edges[j]
            if side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0: return True
    return False


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_largest_piece_is_one_piece_without_holes(seed):
    masks = np.random.default_rng(seed).random((4, 12, 12)) < 0.5
    for mask, kept in zip(masks, largest_piece(masks)):
        pieces, n = ndimage.label(mask, np.ones((3, 3)))
        sizes = np.bincount(pieces.ravel())[1:]
        assert ndimage.label(kept, np.ones((3, 3)))[1] == 1 and (ndimage.binary_fill_holes(kept) == kept).all()
        first = pieces[kept & mask]
        assert sizes[first[0] - 1] == sizes.max()


def test_a_shape_turned_by_half_a_turn_is_as_symmetric():
    genomes = random_genomes(40, seed=1)
    turned = genomes.copy()
    turned[:, :8], turned[:, 8:] = np.roll(genomes[:, :8], 4, 1), np.roll(genomes[:, 8:], 4, 1)
    a, b = point_symmetry(shapes(genomes)), point_symmetry(shapes(turned))
    assert np.nanmax(abs(a - b)) < 0.05
    even = np.concatenate([np.tile([0.9, 0.3, 0.7, 0.5], 2), np.zeros(8)])[None]
    assert point_symmetry(shapes(even, 256))[0] > 0.97 > point_symmetry(shapes(even))[0] > np.nanmean(a)


def test_the_compiled_walk_is_the_plain_one(monkeypatch):
    masks = shapes(random_genomes(16, seed=5))
    fast = point_symmetry(masks)
    module._fast.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "numba", None)
    assert module._fast() == (module._walk, module._asymmetry)
    assert np.array_equal(fast, point_symmetry(masks), equal_nan=True)
    module._fast.cache_clear()


def test_pieces_specks_and_nothing():
    masks = np.zeros((4, 20, 20), bool)
    masks[0, 2:9, 2:9], masks[0, 12:18, 12:18] = True, True  # two pieces
    masks[1, 5, 5] = True  # a speck
    masks[2, 3:12, 3:12], masks[2, 15, 15] = True, True  # a piece and a speck
    assert np.isnan(point_symmetry(masks)).tolist() == [True, True, False, True]


def test_starts_are_spread_and_within_their_limits():
    genomes = random_genomes(256, seed=2)
    assert (genomes >= LIMITS[:, 0]).all() and (genomes <= LIMITS[:, 1]).all()
    shares = (genomes - LIMITS[:, 0]) / np.ptp(LIMITS, axis=1)
    assert abs(np.histogram(shares[:, 3], 8, (0, 1))[0] - 32).max() <= 2
    assert not np.array_equal(genomes, random_genomes(256, seed=3))


def test_a_grey_image_becomes_a_shape_by_its_own_maximum():
    image = torch.tensor([[[[0.1, 0.2], [0.19, 0.05]]]])
    assert thresholded(image, 0.9).tolist() == [[[False, True], [True, False]]]
    with pytest.raises(ValueError, match="threshold"): thresholded(image, 1.0)


def test_the_data_set():
    data = load_data("shapes")
    assert data.image_shape == (1, 64, 64) and set(data.train.images.unique().tolist()) == {0.0, 1.0}
    assert math.isclose(data.train.images.mean(), data.test.images.mean(), rel_tol=0.05)
