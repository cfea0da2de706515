"""Wavelet keys against pywavelets, and their orientations against really turned pictures."""

import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.imaging import pictures
from transforms.imaging import orientation
from transforms.imaging.wavelet import (
    KEY_BITS,
    KEY_BYTES,
    ORIENTATIONS,
    grey_thumbnails,
    inverse_orientation,
    wavelet_keys,
    wavelet_keys_batch,
)


def _thumbnail(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 64), dtype=np.uint8)


def _distance(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.bitwise_count(a ^ b).sum())


@pytest.mark.parametrize("seed", range(5))
def test_key_is_the_signs_of_pywavelets(seed: int) -> None:
    thumbnail = _thumbnail(seed)
    approximation, level_4, level_3, *_ = pywt.wavedec2(thumbnail.astype(float), "haar", level=4)
    values = np.concatenate([band.ravel() for band in (*level_3, *level_4)])
    bits = np.unpackbits(wavelet_keys(thumbnail)[0][0])
    sure = np.abs(values) > 1e-6  # pywavelets does not keep zeros exact
    assert sure.sum() > 230
    np.testing.assert_array_equal(bits[:240][sure], (values > 0)[sure])
    np.testing.assert_array_equal(bits[240:], (approximation > np.median(approximation)).ravel())


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), spread=st.sampled_from([2, 16, 256]))
def test_each_orientation_is_the_key_of_the_turned_thumbnail(seed: int, spread: int) -> None:
    # A small spread gives many coefficients of exactly zero, whose sign a turn must keep.
    thumbnail = np.random.default_rng(seed).integers(0, spread, (64, 64), dtype=np.uint8)
    keys, texture = wavelet_keys(thumbnail)
    for value in ORIENTATIONS:
        turned_keys, turned_texture = wavelet_keys(orientation.apply(thumbnail, value))
        np.testing.assert_array_equal(turned_keys[0], keys[value - 1])
        assert turned_texture == pytest.approx(texture, abs=1e-4)


def test_batch_equals_one_by_one() -> None:
    thumbnails = np.stack([_thumbnail(seed) for seed in range(7)])
    keys, textures = wavelet_keys_batch(thumbnails)
    assert keys.shape == (7, 8, KEY_BYTES)
    for number, thumbnail in enumerate(thumbnails):
        one, texture = wavelet_keys(thumbnail)
        np.testing.assert_array_equal(keys[number], one)
        assert textures[number] == texture


def test_keys_of_copies_are_near_and_of_others_far() -> None:
    originals = [pictures.photograph(seed) for seed in range(8)]
    keys = [wavelet_keys(picture)[0][0] for picture in originals]
    for number, picture in enumerate(originals):
        for copy, limit in (
            (pictures.jpeg(picture, 40), 16),
            (pictures.resized(picture, 90, 70), 16),
            (pictures.gained(picture, (0.7, 0.7, 0.7)), 24),
            (pictures.grey(picture), 8),
            (pictures.captioned(picture), 48),
        ):
            key = wavelet_keys(copy)[0][0]
            assert _distance(key, keys[number]) <= limit
            for other in keys[:number] + keys[number + 1 :]:
                assert _distance(key, other) > 60


def test_inverse_orientation_undoes() -> None:
    thumbnail = _thumbnail(1)
    for value in ORIENTATIONS:
        back = orientation.apply(orientation.apply(thumbnail, value), inverse_orientation(value))
        np.testing.assert_array_equal(back, thumbnail)


def test_orientation_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"orientation must be 1\.\.8, got 9"):
        inverse_orientation(9)


def test_orientation_matrix_maps_pixels_as_apply_does() -> None:
    grid = np.arange(15, dtype=np.uint8).reshape(3, 5)
    for value in ORIENTATIONS:
        turned, matrix = orientation.apply(grid, value), orientation.matrix(value, 5, 3)
        for y in range(3):
            for x in range(5):
                u, v = matrix @ np.array([x, y, 1.0])
                assert turned[round(v), round(u)] == grid[y, x]


def test_m4_texture_is_low_where_a_key_says_nothing() -> None:
    y, x = np.mgrid[0:120, 0:160]
    flat = np.full((120, 160, 3), 87, np.uint8)
    gradient = np.repeat(((x + y) * 255 / 278).astype(np.uint8)[..., None], 3, axis=2)
    rng = np.random.default_rng(0)
    night = np.clip(rng.normal(4.0, 2.5, (480, 640, 3)), 0, 255).astype(np.uint8)
    for low in (flat, gradient, night):
        assert wavelet_keys(low)[1] <= 0.05
    for seed in range(5):
        assert wavelet_keys(pictures.photograph(seed))[1] >= 0.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3), (4000, 2)])
def test_m5_tiny_and_thin_pictures_have_keys(shape: tuple[int, int]) -> None:
    for value in (0, 128, 255):
        keys, texture = wavelet_keys(np.full((*shape, 3), value, np.uint8))
        assert keys.shape == (8, KEY_BITS // 8)
        assert texture == 0.0
        assert not keys.any()


def test_grey_and_colour_input_agree() -> None:
    thumbnail = _thumbnail(3)
    colour = np.repeat(thumbnail[..., None], 3, axis=2)
    for found, expected in zip(wavelet_keys(colour), wavelet_keys(thumbnail), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(grey_thumbnails([thumbnail, thumbnail.T])[0], thumbnail)
