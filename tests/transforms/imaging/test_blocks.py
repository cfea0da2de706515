"""Means of blocks and cells against the exact area means."""

import cv2
import numpy as np
import pytest

from tests.transforms.imaging import pictures
from transforms.imaging import orientation
from transforms.imaging.blocks import area_means, block_means, cell_means


def _exact(pixels: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(pixels.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)


def test_blocks_are_means_and_what_is_left_over_is_left_out_at_both_ends() -> None:
    picture = np.arange(7 * 8, dtype=np.uint8).reshape(7, 8) * 2
    found = block_means(picture, 3)
    expected = picture[:6, 1:7].reshape(2, 3, 2, 3).mean(axis=(1, 3))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("factor", "shape"), [(1, (4, 6, 3)), (2, (2, 3, 3)), (9, (1, 1, 3))])
def test_a_factor_is_no_more_than_the_shorter_side(
    factor: int, shape: tuple[int, int, int]
) -> None:
    picture = np.full((4, 6, 3), 80, np.uint8)
    np.testing.assert_array_equal(block_means(picture, factor), np.full(shape, 80, np.uint8))


@pytest.mark.parametrize("shape", [(94, 125), (83, 125), (167, 250), (225, 151), (80, 80)])
@pytest.mark.parametrize("side", [48, 64])
def test_cells_of_reduced_photographs_are_near_their_area_means(
    shape: tuple[int, int], side: int
) -> None:
    picture = pictures.resized(pictures.photograph(2, 500, 380), shape[1], shape[0])
    found = cell_means([picture], side)[0].astype(np.float32)
    assert found.shape == (side, side, 3)
    assert np.abs(found - _exact(picture, side)).mean() < 1.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 70), (40, 60), (64, 64), (600, 400)])
def test_small_large_and_thin_pictures_are_measured_exactly(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    expected = cv2.resize(picture.astype(np.float64), (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(cell_means([picture], 64)[0] - expected).max() <= 0.51  # rounding alone


def test_a_turned_picture_has_the_turned_cells() -> None:
    grey = cv2.cvtColor(pictures.photograph(3), cv2.COLOR_RGB2GRAY)[:94, :125]
    cells = cell_means([grey], 64)[0].astype(int)
    for value in orientation.ORIENTATIONS:
        turned = cell_means([np.ascontiguousarray(orientation.apply(grey, value))], 64)[0]
        back = orientation.apply(turned, orientation.inverse_orientation(value))
        np.testing.assert_array_equal(back, cells)


@pytest.mark.parametrize("side", [6, 24])
def test_area_means_are_those_of_the_shared_areas_whatever_the_size(side: int) -> None:
    made = np.random.default_rng(4)
    shapes = [(94, 125), (1, 1), (5, 300), (240, 7), (24, 48)]
    greys = [made.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    found = area_means(greys, side)
    assert found.shape == (len(shapes), side, side, 1)
    for means, grey in zip(found[..., 0], greys, strict=True):
        # Each pixel as a block of side x side, so that the cells are whole blocks.
        large = grey.astype(np.int64).repeat(side, axis=0).repeat(side, axis=1)
        cells = large.reshape(side, grey.shape[0], side, grey.shape[1]).mean(axis=(1, 3))
        np.testing.assert_allclose(means, cells, rtol=1e-12)


def test_area_means_of_colours_are_those_of_each_channel_and_of_no_other_image() -> None:
    colours = [pictures.photograph(seed)[: 90 + seed, :120] for seed in range(3)]
    found = area_means(colours, 24)
    for channel in range(3):
        alone = area_means([colours[1][..., channel]], 24)
        np.testing.assert_array_equal(found[1, ..., channel], alone[0, ..., 0])


def test_a_sum_beyond_32_bits_is_no_mean_gone_wrong() -> None:
    white = np.full((2, 1 << 22), 255, np.uint8)
    white[:, -100_000:] = 7
    found = area_means([white], 6)
    assert found[0, 0, 0, 0] == 255.0
    assert 7.0 < found[0, 0, -1, 0] < 255.0
    np.testing.assert_allclose(found.mean(), white.mean(), rtol=1e-12)
