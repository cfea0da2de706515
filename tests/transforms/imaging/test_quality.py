"""Quality: an original comes before its blurred and reduced copies; every measure is finite."""

from typing import NamedTuple

import cv2
import numpy as np
import pytest

from tests.transforms.imaging import pictures
from transforms.imaging.quality import histograms, measure, measure_batch, resolved_share


class _Facts(NamedTuple):
    width: int
    height: int


def _measure(picture: np.ndarray, full: tuple[int, int] | None = None):
    height, width = picture.shape[:2]
    return measure(picture, _Facts(*(full or (width, height))))


def _detailed(seed: int, height: int = 180, width: int = 240) -> np.ndarray:
    """Return a picture whose gradient has as much energy at Nyquist's frequency as elsewhere."""
    rng = np.random.default_rng(seed)
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    spectrum = np.fft.rfft2(rng.normal(size=(height, width)))
    spectrum /= np.maximum(np.hypot(y, x), 1.0 / width)
    plane = np.fft.irfft2(spectrum, (height, width))
    plane = 128.0 + 45.0 * plane / plane.std()
    return np.repeat(np.clip(plane, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("seed", range(4))
def test_an_enlarged_picture_resolves_less_than_its_original(seed: int) -> None:
    original = _detailed(seed)
    enlarged = cv2.resize(original, (408, 306), interpolation=cv2.INTER_CUBIC)
    assert resolved_share(original) == pytest.approx(1.0, abs=0.1)
    assert resolved_share(enlarged) < 0.5
    assert _measure(enlarged).effective_pixels < 0.5 * 408 * 306


@pytest.mark.parametrize("seed", range(4))
def test_blur_lowers_sharpness_and_effective_pixels(seed: int) -> None:
    original = _detailed(seed)
    before = _measure(original)
    for sigma in (1.0, 2.0):
        after = _measure(cv2.GaussianBlur(original, (0, 0), sigma))
        assert after.sharpness < before.sharpness
        assert after.effective_pixels < before.effective_pixels
        before = after


def test_effective_pixels_follow_the_full_size() -> None:
    picture = _detailed(0)
    half, quarter = _measure(picture, (480, 360)), _measure(picture, (240, 180))
    assert half.effective_pixels == pytest.approx(4 * quarter.effective_pixels, rel=1e-6)
    assert half.score > quarter.score


def test_noise_contrast_and_brightness_say_what_they_are_named_for() -> None:
    picture = cv2.GaussianBlur(_detailed(1), (0, 0), 3.0)
    grain = np.random.default_rng(1).normal(0.0, 12.0, picture.shape[:2])[..., None]
    noisy = np.clip(picture + grain, 0, 255).astype(np.uint8)
    assert _measure(picture).noise < 0.05
    assert _measure(noisy).noise == pytest.approx(12.0 / 25.0, abs=0.06)
    dim = (picture * 0.5).astype(np.uint8)
    assert _measure(dim).contrast == pytest.approx(0.5 * _measure(picture).contrast, abs=0.01)
    assert _measure(dim).brightness == pytest.approx(0.5 * _measure(picture).brightness, abs=0.01)


def test_histograms_count_every_second_row() -> None:
    grey = np.array([[1, 1, 7], [9, 9, 9], [7, 255, 0]], np.uint8)
    expected = np.zeros((2, 256))
    expected[0, [0, 1, 7, 255]] = 1, 2, 2, 1
    expected[1, 5] = 1
    np.testing.assert_array_equal(histograms([grey, np.full((2, 1), 5, np.uint8)]), expected)


def test_noise_of_a_window_is_not_that_of_the_next_in_the_batch() -> None:
    calm = np.full((80, 80), 100, np.uint8)
    wild = np.random.default_rng(2).integers(0, 256, (80, 80), dtype=np.uint8)
    greys = [calm, wild, calm]
    found = measure_batch(greys, histograms(greys), [_Facts(80, 80)] * 3)
    assert [quality.noise for quality in found] == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("side", [90, 110, 180])
def test_sharpness_is_taken_at_a_common_size(side: int) -> None:
    picture = cv2.GaussianBlur(_detailed(2, 360, 360), (0, 0), 4.0)
    reduced = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    assert _measure(reduced).sharpness == pytest.approx(_measure(picture).sharpness, abs=0.02)


def test_the_same_pixels_give_the_same_measures() -> None:
    picture = pictures.photograph(5)
    assert _measure(picture) == _measure(picture.copy())


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (2, 2), (15, 17), (16, 16)])
@pytest.mark.parametrize("value", [0, 77, 255])
def test_m4_m5_flat_and_tiny_pictures_have_finite_measures(
    shape: tuple[int, int], value: int
) -> None:
    quality = _measure(np.full((*shape, 3), value, np.uint8))
    assert quality.sharpness == 0.0
    assert quality.contrast == 0.0
    assert quality.noise == 0.0
    assert quality.brightness == pytest.approx(value / 255, abs=1e-4)
    assert quality.effective_pixels == shape[0] * shape[1]
    assert 0.0 <= quality.score <= 1.0


def test_a_batch_measures_each_image_as_if_it_were_alone() -> None:
    rng = np.random.default_rng(4)
    shapes = [(94, 125), (1, 1), (125, 94), (2, 300), (94, 125), (96, 96), (40, 17)]
    greys = [rng.integers(0, 256, shape).astype(np.uint8) for shape in shapes]
    greys += [np.full((94, 125), 90, np.uint8), _detailed(3)[..., 0]]
    facts = [_Facts(grey.shape[1], grey.shape[0]) for grey in greys]
    alone = [measure(grey, fact) for grey, fact in zip(greys, facts, strict=True)]
    assert measure_batch(greys, histograms(greys), facts) == alone
    assert measure_batch(greys[::-1], histograms(greys[::-1]), facts[::-1]) == alone[::-1]


@pytest.mark.parametrize(("height", "width"), [(16, 16), (80, 96), (96, 80), (256, 240)])
def test_the_resolved_share_is_that_of_the_whole_spectrum(height: int, width: int) -> None:
    picture = np.random.default_rng(height).integers(0, 256, (height, width)).astype(np.uint8)
    taper = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    power = np.abs(np.fft.rfft2((picture - picture.mean()) * taper)) ** 2
    down, across = np.fft.fftfreq(height)[:, None] * 2, np.fft.rfftfreq(width)[None, :] * 2
    ring = np.minimum((np.hypot(down, across) * 32).astype(int), 32).ravel()
    mean = np.bincount(ring, power.ravel(), 33) / np.maximum(np.bincount(ring, minlength=33), 1)
    energy = (mean[:32] * ((np.arange(32) + 0.5) / 32) ** 3)[2:]
    below = np.concatenate([[0.0, 0.0], np.cumsum(energy)])
    edge = np.interp(0.9 * below[-1], below, (np.arange(32) + 1) / 32)
    assert resolved_share(picture) == pytest.approx(min(1.0, edge / 0.9) ** 4, rel=1e-4)
