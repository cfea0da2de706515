"""Moments and tones of the blocks of an aligned luma."""

import numpy as np
import pytest

from transforms.imaging.alignment import CELL, GROUND, bimodality, commonest, plane_of, tone_share


def test_the_commonest_grey_is_a_window_of_levels() -> None:
    grey = np.full((16, 32), 200, np.uint8)
    grey[:, :8] = 40
    grey[:, 8:16] = 200 - GROUND + 1
    assert commonest(grey) == (0.75, 200 - GROUND + 1)


def test_the_share_of_a_tone_is_that_of_its_pixels_in_each_block() -> None:
    grey = np.full((16, 24), 100, np.uint8)
    grey[:, :4] = 100 + GROUND
    grey[:, 8:12] = 100 + GROUND - 1
    np.testing.assert_allclose(tone_share(grey, 100, CELL), [[0.75, 1.0]], atol=1e-6)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_two_tones_are_bimodal_whatever_their_shares(share: float) -> None:
    rng = np.random.default_rng(1)
    grey = np.where(rng.random((32, 32)) < share, 30, 210).astype(np.uint8)
    np.testing.assert_allclose(bimodality(plane_of(grey, CELL), CELL), 1.0, atol=0.01)


def test_bimodality_is_that_of_the_moments_and_at_most_one() -> None:
    rng = np.random.default_rng(2)
    grey = np.clip(rng.normal(90.0, 25.0, (48, 64)), 0, 255).astype(np.uint8)
    found = bimodality(plane_of(grey, CELL), CELL)
    part = grey[8:24, 16:32].astype(np.float64)
    part = (part - part.mean()) / part.std()
    expected = ((part**3).mean() ** 2 + 1.0) / (part**4).mean()
    assert found[1, 2] == pytest.approx(expected, abs=1e-3)
    flat = bimodality(plane_of(np.full((48, 64), 250, np.uint8), CELL), CELL)
    assert np.isfinite(flat).all()
    assert max(float(found.max()), float(flat.max())) <= 1.0
