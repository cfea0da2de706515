"""Matches of words, and the votes of those that agree."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.grouping import words as module
from transforms.grouping.words import (
    MATCH,
    MIRRORED,
    POSTING,
    Share,
    count_votes,
    find_pairs,
    match_words,
    postings,
    unit_maps,
    word_width,
)
from transforms.imaging.words import NO_MIRROR, ROW


def _points(seed, n=12):
    """Return the words of a made-up picture: ROW [n], of which none has a mirrored word."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(n, ROW)
    rows["word"] = rng.integers(0, 2**32, n, dtype=np.uint32)
    rows["x"], rows["y"] = rng.integers(20, 200, n), rng.integers(20, 160, n)
    rows["angle"] = rng.integers(0, 256, n)
    rows["level"] = NO_MIRROR + 1
    return rows


def _moved(rows, turn=0.0, scale=1.0, levels=0):
    """Return the same words where a similarity transform about (110, 90) takes them."""
    out = rows.copy()
    angle = turn / 256 * 2 * np.pi
    x, y = rows["x"] - 110.0, rows["y"] - 90.0
    out["x"] = np.clip(110 + scale * (np.cos(angle) * x - np.sin(angle) * y), 0, 255)
    out["y"] = np.clip(90 + scale * (np.sin(angle) * x + np.cos(angle) * y), 0, 255)
    out["angle"] = rows["angle"] + np.uint8(turn)
    out["level"] = rows["level"].astype(np.int64) + levels
    return out


def _worded(images):
    """Return the postings of images, and of each the number of its image."""
    words = [postings(rows)[0] for rows in images]
    return np.concatenate(words), np.repeat(np.arange(len(words)), [len(w) for w in words])


def _votes(*images, least=2):
    votes, _ = find_pairs(*_worded(images), 24, least)
    return list(zip(*(part.tolist() for part in votes[:3]), strict=True))


def _matches(words, number, width=32):
    """Return the pairs of all matches, in order, and how many words were cut."""
    found = list(match_words(words, number, width))
    pairs = [
        pair for one in found for pair in zip(one.first.tolist(), one.second.tolist(), strict=True)
    ]
    return sorted(pairs), sum(one.cut for one in found)


@pytest.mark.parametrize(
    ("turn", "scale", "levels"), [(0, 1.0, 0), (20, 0.9, 0), (128, 1.0, 0), (0, 0.77, -1)]
)
def test_a_similarity_transform_agrees(turn, scale, levels):
    rows = _points(1)
    (pair,) = _votes(rows, _moved(rows, turn, scale, levels))
    assert pair[:2] == (0, 1)
    assert pair[2] >= 7


def test_equal_words_at_other_places_do_not_agree():
    rows, other = _points(1), _points(2)
    other["word"] = rows["word"]
    assert all(votes <= 3 for _, _, votes in _votes(rows, other))


def test_equal_words_whose_own_angles_differ_do_not_agree():
    rows = _points(1)
    other = rows.copy()
    other["angle"] += np.arange(12, dtype=np.uint8) * 21
    assert _votes(rows, other, least=3) == []


def test_one_match_is_no_vote():
    rows = _points(1)
    other = _points(2)
    other["word"][0] = rows["word"][0]
    assert _votes(rows, other) == []


def _flipped(rows):
    """Return the words as a mirror image of 240 pixels would have them, with the right senses."""
    out = rows.copy()
    out["x"], out["angle"] = 239 - rows["x"], 128 - rows["angle"]
    return out


def _mirrored_pair():
    """Words with their mirrored forms, and those of the flipped picture, which has these forms."""
    rows = _points(1)
    with_mirror = rows.copy()
    with_mirror["mirrored"] = np.arange(12) * 2**20 + 7
    with_mirror["level"] -= NO_MIRROR
    other = _flipped(rows)
    other["word"] = with_mirror["mirrored"]
    return with_mirror, other


def test_mirrored_words_vote_below_zero_in_either_order():
    with_mirror, other = _mirrored_pair()
    assert [(a, b) for a, b, votes in _votes(with_mirror, other) if votes <= -7] == [(0, 1)]
    assert [(a, b) for a, b, votes in _votes(other, with_mirror) if votes <= -7] == [(0, 1)]


def test_postings_hold_both_senses():
    rows = _points(1, 3)
    rows["mirrored"][1] = 0xABCDEF01
    rows["level"][1] -= NO_MIRROR
    found, row = postings(rows)
    assert row.tolist() == [0, 1, 2, 1]
    assert found["word"].tolist() == [*rows["word"].tolist(), 0xABCDEF01]
    assert found["level"].tolist() == [1, 1, 1, 1 + MIRRORED]
    assert found["x"][3] == 255 - rows["x"][1]


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 6), max_size=8), max_size=6))
def test_all_pairs_of_a_word_are_matched(images):
    words = np.zeros(sum(map(len, images)), POSTING)
    words["word"] = [w for image in images for w in image]
    number = np.repeat(np.arange(len(images)), [len(image) for image in images])
    expected = sorted(
        (i, j)
        for (i, a), (j, b) in itertools.combinations(enumerate(images), 2)
        for one in a
        for other in b
        if one == other
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DF_CUT", 64)
        assert _matches(words, number) == (expected, 0)


def test_h5_a_word_of_very_many_images_is_matched_with_the_first_alone(monkeypatch):
    monkeypatch.setattr(module, "DF_CUT", 4)
    pairs, cut = _matches(np.zeros(100, POSTING), np.arange(100)[::-1])
    assert cut == 1
    assert pairs == [(0, n) for n in range(1, 100)] + [(1, n) for n in range(2, 100)]


def test_h5_very_many_copies_are_all_proposed_with_the_first():
    copies = 3 * module.DF_CUT
    found = {pair[:2] for pair in _votes(*[_points(1)] * copies, least=4)}
    assert found == {(0, n) for n in range(1, copies)} | {(1, n) for n in range(2, copies)}


@pytest.mark.parametrize("crowd", [module.DF_CUT // 2, module.DF_CUT])
def test_crowded_words_are_told_apart_by_more_bits(crowd):
    words = np.zeros(2 * crowd, POSTING)
    words["word"] = 0xABCD0000 + np.arange(2 * crowd) % 2 * 0x10
    pairs, cut = _matches(words, np.arange(2 * crowd), 16)
    every = list(itertools.combinations(range(2 * crowd), 2))
    alike = [pair for pair in every if (pair[0] - pair[1]) % 2 == 0]
    assert cut == 0
    assert pairs == (every if 2 * crowd <= module.DF_CUT else alike)


def _crowd():
    """Return the postings of six pictures and a turned copy of each, some words common to all."""
    rng = np.random.default_rng(3)
    images = [_points(seed, 60) for seed in range(6)]
    images += [_moved(images[seed], turn=10 * seed) for seed in range(6)]
    for rows in images:
        rows["word"][::5] = rng.integers(0, 4, 12, dtype=np.uint32) << 28
    return _worded(images)


@pytest.mark.parametrize("shares", [2, 4])
def test_shares_divide_the_pairs(shares):
    words, number = _crowd()
    number = np.random.default_rng(shares).permutation(12)[number]
    whole, cut = find_pairs(words, number, 20, 3)
    ends = list(zip(*(part.tolist() for part in whole), strict=True))
    found = [find_pairs(words, number, 20, 3, Share(one, shares)) for one in range(shares)]
    apart = [list(zip(*(part.tolist() for part in votes), strict=True)) for votes, _ in found]
    assert sorted(itertools.chain(*apart)) == ends
    assert all(apart)
    assert [each for _, each in found] == [cut] * shares


def test_pairs_do_not_depend_on_how_words_are_sliced(monkeypatch):
    words, number = _crowd()
    whole, cut = find_pairs(words, number, 20, 3)
    assert {(n, n + 6) for n in range(6)} <= set(zip(*(whole[:2]), strict=True))
    monkeypatch.setattr(module, "_SLICE", 50)
    monkeypatch.setattr(module, "_STEP", 100)
    for held in (0, 99):
        monkeypatch.setattr(module, "_HELD_SLICES", held)
        sliced, cut_again = find_pairs(words, number, 20, 3)
        assert [part.tolist() for part in sliced] == [part.tolist() for part in whole]
        assert cut_again == cut > 0
    made = list(match_words(words, number, 20))
    assert len(made) > 9
    joined = (np.concatenate([one[part] for one in made]) for part in range(3))
    counted = count_votes(*joined, 3)
    assert [part.tolist() for part in counted] == [part.tolist() for part in whole]


def test_votes_do_not_depend_on_the_order_of_matches():
    rng = np.random.default_rng(5)
    places = rng.integers(0, 256, (400, 8), np.uint8).view(MATCH).ravel()
    places["a"]["level"] %= 5
    places["b"]["level"] %= 5
    first, second = rng.integers(0, 3, 400), rng.integers(3, 6, 400)
    shuffled = rng.permutation(400)
    one = count_votes(first, second, places)
    other = count_votes(first[shuffled], second[shuffled], places[shuffled])
    assert [part.tolist() for part in one] == [part.tolist() for part in other]


def test_nothing_in_nothing_out():
    nothing = np.zeros(0, POSTING), np.zeros(0, np.int64)
    assert _matches(*nothing) == ([], 0)
    votes, cut = find_pairs(*nothing, 18, 2)
    assert (len(votes.first), cut) == (0, 0)


@pytest.mark.parametrize(("images", "width"), [(1, 18), (5000, 20), (10**6, 27), (10**9, 32)])
def test_words_grow_with_the_number_of_images(images, width):
    assert word_width(images) == width


def _unit_map(first, second):
    """Return the map between two images of 240x180 and 200x160 words' pixels."""
    votes, _ = find_pairs(*_worded([first, second]), 24, 2)
    best = int(np.abs(votes.votes).argmax())
    sizes = np.array([[240, 180]]), np.array([[200, 160]])
    return unit_maps(votes.transforms[[best]], votes.votes[[best]], *sizes)[0]


@pytest.mark.parametrize(("turn", "scale"), [(0, 1.0), (20, 0.9), (128, 1.0), (250, 0.8)])
def test_the_transform_takes_points_where_they_lie(turn, scale):
    rows = _points(1)
    moved = _moved(rows, turn, scale)
    found = _unit_map(rows, moved)
    places = np.stack([(rows["x"] + 0.5) / 240, (rows["y"] + 0.5) / 180], axis=1)
    there = places @ found[:, :2].T + found[:, 2]
    inside = (moved["x"] > 0) & (moved["y"] > 0) & (moved["x"] < 255) & (moved["y"] < 255)
    expected = np.stack([(moved["x"] + 0.5) / 200, (moved["y"] + 0.5) / 160], axis=1)
    np.testing.assert_allclose(there[inside], expected[inside], atol=0.012)


def test_the_transform_of_a_mirrored_picture_turns_x():
    with_mirror, other = _mirrored_pair()
    expected = [[-240 / 200, 0, 240 / 200], [0, 180 / 160, 0]]
    np.testing.assert_allclose(_unit_map(with_mirror, other), expected, atol=0.01)
