"""Search of sketches."""

import itertools

import numpy as np
import pytest

from transforms.grouping import hyperplanes as module
from transforms.grouping.hyperplanes import (
    BITS,
    SKETCH_BYTES,
    WINDOW,
    normals,
    radius_bits,
    search,
    sketch,
)


def _units(count, dimensions=48, seed=1):
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _at(units, cosine, seed=2):
    """Vectors with a cosine to those given."""
    noise = _units(*units.shape, seed=seed).astype(np.float64)
    noise -= (noise * units).sum(axis=1, keepdims=True) * units
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return (cosine * units + np.sqrt(1 - cosine**2) * noise).astype(np.float32)


def _sketch(units):
    return sketch(units, normals(units.shape[1]))


def _bits(first, second):
    return np.bitwise_count(first ^ second).sum(axis=-1)


def _flipped(base, count, share, seed=4):
    noise = np.random.default_rng(seed).random((count, BITS)) < share
    return base ^ np.packbits(noise, axis=1)


def _pairs(found):
    return list(zip(found.rows.tolist(), found.columns.tolist(), strict=True))


def test_normals_depend_on_the_dimensions_alone_and_are_balanced():
    planes = normals(64)
    assert planes.shape == (64, BITS)
    assert set(np.unique(planes).tolist()) == {-1.0, 1.0}
    assert abs(planes.mean()) < 0.02
    assert np.array_equal(planes, normals(64))
    assert not np.array_equal(planes[:32], normals(32))


@pytest.mark.parametrize("cosine", [0.98, 0.9, 0.8, 0.3])
def test_the_distance_of_sketches_tells_the_angle(cosine):
    units = _units(400)
    share = _bits(_sketch(units), _sketch(_at(units, cosine))).mean() / BITS
    assert share == pytest.approx(np.arccos(cosine) / np.pi, abs=0.01)


def test_g2_sketches_do_not_depend_on_how_a_product_is_cut():
    units = _units(200, dimensions=300)
    planes = normals(300)
    whole = sketch(units, planes)
    assert whole.shape == (200, SKETCH_BYTES)
    for step in (1, 7, 64):
        parts = [sketch(units[start : start + step], planes) for start in range(0, 200, step)]
        assert np.array_equal(np.concatenate(parts), whole)
    exact = np.rint(units * np.float32(65536)).astype(np.int64) @ planes.astype(np.int64)
    assert np.array_equal(np.packbits(exact > 0, axis=1), whole)


@pytest.mark.parametrize(("similarity", "bits"), [(1.0, 0), (0.9, 158), (0.0, 528)])
def test_a_radius_is_what_a_cosine_leaves_and_a_deviation(similarity, bits):
    assert radius_bits(similarity) == bits


def test_a_search_of_few_finds_exactly_the_pairs_within_the_radius():
    units = _units(WINDOW, dimensions=8)
    sketches = _sketch(units)
    expected = [
        (i, j)
        for i, j in itertools.combinations(range(WINDOW), 2)
        if _bits(sketches[i], sketches[j]) <= 300
    ]
    assert 10 < len(expected) < 400
    # All are within one window, so only the first words could lose a pair, one in thousands.
    assert _pairs(search(sketches, np.arange(WINDOW), 300)) == expected


def test_a_search_of_many_finds_nearly_all_copies_and_nothing_far():
    units = _units(6000)
    copies = np.arange(0, 6000, 10)
    for cosine, least in ((0.98, 1.0), (0.95, 0.995), (0.92, 0.97)):
        sketches = np.concatenate([_sketch(units), _sketch(_at(units[copies], cosine))])
        found = search(sketches, np.arange(len(sketches)), radius_bits(0.9))
        planted = set(zip(copies.tolist(), range(6000, 6600), strict=True))
        assert len(planted & set(_pairs(found))) >= least * len(planted)
        bits = _bits(sketches[found.rows], sketches[found.columns])
        assert bits.max() <= radius_bits(0.9)
        assert not found.led.any()


def test_only_pairs_of_two_sides_are_found_where_sides_are_given():
    base = _sketch(_units(20))
    sketches = np.concatenate([base, _flipped(base, 20, 0.02), _flipped(base, 20, 0.02, seed=5)])
    sides = np.arange(60) >= 40
    every = set(_pairs(search(sketches, np.arange(60), 100)))
    assert len(every) == 60
    across = {(i, j) for i, j in every if sides[i] != sides[j]}
    assert set(_pairs(search(sketches, np.arange(60), 100, sides))) == across
    assert len(across) == 40


@pytest.mark.parametrize("share", [0.0, 0.01])
def test_near_identical_sketches_follow_few_leaders(share):
    random = np.random.default_rng(6)
    near = _flipped(_sketch(_units(1)), 3000, share)
    sketches = np.concatenate([near, _sketch(_units(500, seed=9))])
    precedence = random.permutation(len(sketches))
    found = search(sketches, precedence, 150)
    assert len(found.rows) < 40 * 3000
    assert not found.led[3000:].any()
    assert max(found.rows.max(), found.columns.max()) < 3000
    assert np.count_nonzero(found.led) > 2900
    if share == 0.0:
        first = int(precedence[:3000].argmin())
        assert set(_pairs(found)) == {
            (min(first, n), max(first, n)) for n in range(3000) if n != first
        }


def test_the_work_on_sketches_that_are_all_near_is_bounded(monkeypatch):
    measured = []
    distances = module._distances

    def counted(words, rows, columns):
        measured.append(len(rows))
        return distances(words, rows, columns)

    monkeypatch.setattr(module, "_distances", counted)
    counts = {}
    for count in (2000, 8000):
        measured.clear()
        search(_flipped(_sketch(_units(1)), count, 0.05), np.arange(count), 200)
        counts[count] = sum(measured)
    assert counts[8000] < 6 * counts[2000]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_sketches_for_a_pair_give_none(count):
    found = search(np.zeros((count, SKETCH_BYTES), np.uint8), np.arange(count), 100)
    assert _pairs(found) == []
    assert found.led.tolist() == [False] * count
