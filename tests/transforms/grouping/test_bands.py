"""Keys in orbit order and the banded search."""

import numpy as np
import pytest

from tests.transforms.grouping.keys import compact_keys, flipped, random_keys, signs_of
from transforms.grouping import bands as module
from transforms.grouping.bands import (
    BANDS,
    band_keys,
    band_masks,
    band_width,
    pairs_in_bands,
    turn,
)
from transforms.grouping.hamming import distances, pairs_within
from transforms.imaging.orientation import ORIENTATIONS, apply
from transforms.imaging.wavelet import wavelet_keys


def _plain(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 32), dtype=np.uint8)


def _pairs(found):
    return {place for pairs in found for place in zip(*(f.tolist() for f in pairs), strict=True)}


@pytest.mark.parametrize("levels", [256, 3, 1])
def test_the_compact_form_keeps_all_eight_keys(levels):
    keys = random_keys(50, 1, levels)
    turned = turn(compact_keys(keys))
    # The order of the bits is another, the same in every orientation.
    assert np.array_equal(
        distances(turned[:, None], turned[None]),
        distances(keys.transpose(1, 0, 2)[:, None], keys.transpose(1, 0, 2)[None]),
    )
    assert np.array_equal(
        np.bitwise_count(turned[0]).sum(axis=1), np.bitwise_count(keys[:, 0]).sum(axis=1)
    )


@pytest.mark.parametrize("width", [16, 20, 24, 28])
def test_bands_have_their_width_and_differ(width):
    columns, masks = band_masks(width)
    assert np.bitwise_count(masks).sum(axis=1).tolist() == [width] * BANDS
    assert all(len(set(band)) == len(band) for band in columns.tolist())
    assert len({(*c, *m) for c, m in zip(columns.tolist(), masks.tolist(), strict=True)}) == BANDS


def test_bands_of_16_bits_share_no_bit():
    assert sorted(band_masks(16)[0].ravel().tolist()) == list(range(32))


def test_the_width_grows_with_the_number_of_keys():
    counts = [0, 10**5, 10**6, 10**7, 10**8, 10**9, 10**11]
    assert [band_width(count) for count in counts] == [16, 16, 16, 20, 24, 28, 28]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("width", [16, 20, 24, 28])
def test_a_turned_image_has_the_same_values(width, orientation):
    cells = np.random.default_rng(4).integers(0, 256, (16, 16), dtype=np.uint8)
    pixels = cells.repeat(4, axis=0).repeat(4, axis=1)
    both = np.stack([wavelet_keys(pixels)[0], wavelet_keys(apply(pixels, orientation))[0]])
    keys = band_keys(compact_keys(both), width)
    assert np.array_equal(keys.values[:, 0], keys.values[:, 1])


@pytest.mark.parametrize("width", [16, 20, 24, 28])
@pytest.mark.parametrize("rows", [1, 7, 50])
def test_values_are_the_least_over_the_orientations_and_frames_attain_them(
    monkeypatch, width, rows
):
    monkeypatch.setattr(module, "_ROWS", rows)
    signs = compact_keys(random_keys(50, 3, 3))
    keys = band_keys(signs, width)
    columns, masks = band_masks(width)
    for band in range(BANDS):
        masked = (keys.turned[..., columns[band]] & masks[band]).astype(np.int64)
        values = (masked << np.arange(masked.shape[2])[::-1] * 8).sum(axis=2)
        assert np.array_equal(keys.values[band], values.min(axis=0))
        assert np.array_equal(keys.frames[band], values.argmin(axis=0))


def test_some_of_the_images_have_the_keys_that_they_had_among_all():
    signs = compact_keys(random_keys(50, 4, 256))
    rows = np.array([3, 48, 7])
    some, alone = band_keys(signs, 16).take(rows), band_keys(signs[rows], 16)
    for one, other in zip(some, alone, strict=True):
        assert np.array_equal(one, other)
        assert one.flags.c_contiguous


@pytest.mark.parametrize("width", [16, 20, 24])
@pytest.mark.parametrize("chunk", [1 << 18, 7])
def test_banded_pairs_are_those_that_share_a_band(monkeypatch, width, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    plain = _plain(60, 1)
    turned = turn(signs_of(plain))
    plain = np.concatenate([plain, *(flipped(turned[n], 6 * n, n)[:20] for n in range(8))])
    keys = band_keys(signs_of(plain), width)
    every = _pairs(pairs_within(keys.turned, keys.turned[0], 60, same=True))
    shared = {p for p in every if (keys.values[:, p[0]] == keys.values[:, p[1]]).any()}
    found = list(pairs_in_bands(keys, keys, 60, same=True))
    assert sum(len(pairs.rows) for pairs in found) == len(_pairs(found))
    assert _pairs(found) == shared
    assert len(shared) > 150


def test_two_sides_give_the_pairs_of_their_union():
    plain = _plain(80, 2)
    plain = np.concatenate([plain, flipped(turn(signs_of(plain))[5], 9, 1)])
    keys = band_keys(signs_of(plain), 16)
    low, high = keys.take(np.arange(0, 100)), keys.take(np.arange(100, 160))
    across = {
        (i, j + 100, d, o) for i, j, d, o in _pairs(pairs_in_bands(low, high, 60, same=False))
    }
    whole = _pairs(pairs_in_bands(keys, keys, 60, same=True))
    assert across == {pair for pair in whole if pair[0] < 100 <= pair[1]}
    assert len(across) == 60


def test_no_keys_give_no_pairs():
    none = band_keys(np.empty((0, 64), np.uint8), 16)
    some = band_keys(signs_of(_plain(3, 1)), 16)
    assert not list(pairs_in_bands(none, none, 60, same=True))
    assert not list(pairs_in_bands(none, some, 60, same=False))
    assert not list(pairs_in_bands(some, none, 60, same=False))


@pytest.mark.parametrize(
    ("flips", "least"), [(0, 1.0), (8, 0.999), (16, 0.99), (24, 0.95), (31, 0.85)]
)
def test_recall_of_turned_copies_with_flipped_bits(flips, least):
    plain = _plain(1000, 3)
    copies = flipped(turn(signs_of(plain))[6], flips, 4)
    originals, copied = (band_keys(signs_of(keys), 16) for keys in (plain, copies))
    found = _pairs(pairs_in_bands(originals, copied, 60, same=False))
    assert sum(i == j and (d, o) == (flips, 7) for i, j, d, o in found) >= least * 1000
