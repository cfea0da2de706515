"""Search of embeddings by cosine."""

from fractions import Fraction
from math import sqrt

import numpy as np
import pytest

from transforms.grouping import cosines as module
from transforms.grouping.cosines import (
    cosines,
    elect_leaders,
    near,
    near_one,
    near_pairs,
    vectors_of,
)


def _halves(count, dimensions=24, seed=1, centres=6, spread=0.5):
    """Unit vectors around some centres."""
    random = np.random.default_rng(seed)
    middle = random.standard_normal((centres, dimensions))
    vectors = middle[random.integers(0, centres, count)]
    vectors = vectors + spread * random.standard_normal((count, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def _brute(halves, similarity):
    """Pairs i < j by the definition, with Python's own exact sums of products."""
    rows = [[Fraction(float(value)) for value in row] for row in halves]

    def dot(a, b):
        return float(sum(x * y for x, y in zip(a, b, strict=True)))

    return {
        (i, j)
        for i, a in enumerate(rows)
        for j, b in enumerate(rows)
        if i < j and round(dot(a, b) / (sqrt(dot(a, a)) * sqrt(dot(b, b))), 4) >= similarity
    }


def _all(found):
    pairs = [tuple(map(int, pair)) for tile in found for pair in zip(*tile, strict=True)]
    assert len(pairs) == len(set(pairs))
    return set(pairs)


@pytest.mark.parametrize("similarity", [0.0, 0.8, 0.85])
@pytest.mark.parametrize("tiles", [(1024, 8192), (7, 13), (1, 1)])
def test_g2_near_pairs_are_those_of_the_definition_however_tiles_are_cut(
    monkeypatch, similarity, tiles
):
    monkeypatch.setattr(module, "_TILE_ROWS", tiles[0])
    monkeypatch.setattr(module, "_TILE_COLUMNS", tiles[1])
    halves = _halves(40, spread=0.45)
    expected = _brute(halves, similarity)
    assert len(expected) > 20
    assert _all(near_pairs(vectors_of(halves), similarity)) == expected
    left, right = vectors_of(halves[:15]), vectors_of(halves[15:])
    across = {(i, j - 15) for i, j in expected if i < 15 <= j}
    assert _all(near(left, right, similarity)) == across


def test_g7_a_cosine_equal_to_the_threshold_passes_and_one_step_above_does_not():
    vectors = vectors_of(_halves(60))
    rows, columns = np.triu_indices(60, 1)
    values = cosines(vectors, vectors, rows, columns)
    pairs = list(zip(rows.tolist(), columns.tolist(), strict=True))
    for value in np.unique(values)[-40:].tolist():
        at = {pair for pair, one in zip(pairs, values, strict=True) if one >= value}
        assert _all(near_pairs(vectors, value)) == at
        above = _all(near_pairs(vectors, round(value + 0.0001, 4)))
        assert above < at


def test_cosines_of_equal_vectors_are_one_whatever_their_length():
    halves = _halves(8)
    longer = np.concatenate([halves, (halves * np.float16(0.25))])
    vectors = vectors_of(longer)
    assert cosines(vectors, vectors, np.arange(8), np.arange(8, 16)).tolist() == [1.0] * 8
    assert _all(near_pairs(vectors, 1.0)) == {(n, n + 8) for n in range(8)}


def test_near_one_names_the_image_and_those_near_it():
    halves = _halves(30)
    others = np.arange(29, 3, -1)
    rows, columns = near_one(vectors_of(halves), 2, others, 0.8)
    expected = {j for i, j in _brute(halves, 0.8) if i == 2 and j > 3}
    assert set(rows.tolist()) == {2}
    assert set(columns.tolist()) == expected


def test_equal_images_follow_the_first_of_them():
    halves = np.concatenate([np.repeat(_halves(1), 50, axis=0), _halves(20, seed=2, centres=20)])
    precedence = np.random.default_rng(3).permutation(70)
    leaders = elect_leaders(vectors_of(halves), precedence, 0.9, 40)
    assert set(leaders[:50].tolist()) == {int(precedence[:50].argmin())}
    assert set(leaders[50:].tolist()) == {-1}


@pytest.mark.parametrize("sample", [4096, 120])
def test_each_follower_of_a_wide_neighbourhood_is_near_its_leader(monkeypatch, sample):
    monkeypatch.setattr(module, "_SAMPLE", sample)
    halves = _halves(400, centres=2, spread=0.55)
    vectors = vectors_of(halves)
    leaders = elect_leaders(vectors, np.arange(400), 0.8, 30)
    led = np.flatnonzero(leaders >= 0)
    assert len(led) > 200
    assert (cosines(vectors, vectors, led, leaders[led]) >= 0.8).all()
    own = np.unique(leaders[led])
    assert (leaders[own] == own).all()
    assert 1 < len(own) < len(led) / 3
    # Leaders are not near each other: the first would have taken the second.
    assert not _all(near_pairs(vectors.take(own), 0.8))


@pytest.mark.parametrize(("bound", "led"), [(49, 0), (48, 50)])
def test_g7_a_neighbourhood_as_large_as_the_bound_is_left_alone(bound, led):
    halves = np.concatenate([np.repeat(_halves(1), 50, axis=0), _halves(20, seed=2, centres=20)])
    leaders = elect_leaders(vectors_of(halves), np.arange(70), 0.9, bound)
    assert np.count_nonzero(leaders >= 0) == led
