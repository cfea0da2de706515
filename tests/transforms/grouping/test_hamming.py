"""Exhaustive search by Hamming distance."""

import numpy as np
import pytest

from tests.transforms.grouping.keys import flipped
from transforms.grouping import hamming as module
from transforms.grouping.hamming import deciding_words, distances, measure, pairs_within


def _turned(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (8, count, 32), dtype=np.uint8)


def _brute(left, right, radius, same):
    found = set()
    for i in range(left.shape[1]):
        for j in range(i + 1 if same else 0, len(right)):
            bits = [int(np.unpackbits(left[o, i] ^ right[j]).sum()) for o in range(8)]
            if min(bits) <= radius:
                found.add((i, j, min(bits), bits.index(min(bits)) + 1))
    return found


@pytest.mark.parametrize("radius", [0, 20, 60, 110, 256])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize(("columns", "pairs"), [(8192, 1 << 16), (16, 16), (16, 50), (30, 90)])
def test_pairs_within_equals_brute_force(monkeypatch, radius, same, columns, pairs):
    monkeypatch.setattr(module, "_TILE_COLUMNS", columns)
    monkeypatch.setattr(module, "_TILE_PAIRS", pairs)
    left = _turned(40, 1)
    left[:, 5] = left[:, 3]
    left[0, 6:12] = flipped(left[4, :6], 20, 3)
    right = left[0] if same else np.concatenate([_turned(30, 2)[0], left[2, :5]])
    found = [
        (int(i), int(j), int(d), int(o))
        for pairs in pairs_within(left, right, radius, same=same)
        for i, j, d, o in zip(*pairs, strict=True)
    ]
    assert len(found) == len(set(found))
    assert set(found) == _brute(left, right, radius, same)


def test_measure_names_the_first_orientation_of_equal_ones():
    left = np.zeros((8, 2, 32), np.uint8)
    left[0] = 0xFF
    right = np.zeros((1, 32), np.uint8)
    right[0, 0] = 1
    pairs = measure(left, right, np.array([1]), np.array([0]))
    assert [field.tolist() for field in pairs] == [[1], [0], [1], [2]]


def test_distances_count_up_to_every_bit():
    assert distances(np.zeros((3, 32), np.uint8), np.full(32, 0xFF, np.uint8)).tolist() == [256] * 3


@pytest.mark.parametrize(
    ("radius", "words"), [(18, 1), (19, 2), (44, 2), (60, 3), (71, 3), (72, 4)]
)
def test_a_wider_radius_takes_more_words_to_decide(radius, words):
    assert deciding_words(radius) == words
