"""The grid of a JPEG in pixels that are stored without loss."""

import numpy as np
import pytest

from transforms.imaging.origin import _phases, shows_jpeg_grid


@pytest.mark.parametrize("size", [(64, 64), (75, 100), (101, 67)])
@pytest.mark.parametrize("axis", [0, 1])
def test_phases_are_means_of_clipped_third_differences(size: tuple[int, int], axis: int) -> None:
    rng = np.random.default_rng(3)
    luma = (rng.integers(0, 256, size) // rng.integers(1, 30, size)).astype(np.uint8)
    part = luma if axis == 0 else luma.T
    third = np.abs(np.diff(part.astype(np.int64), n=3, axis=1))
    means = np.minimum(third, 24).mean(axis=0)
    whole = len(means) // 8 * 8
    expected = means[:whole].reshape(-1, 8).mean(axis=0)
    np.testing.assert_allclose(_phases(luma, axis), expected / expected.mean(), rtol=1e-12)


@pytest.mark.parametrize("shift", [(0, 0), (3, 5), (7, 1)])
def test_blocks_are_seen_wherever_they_start(shift: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    smooth = np.add.outer(np.arange(200.0), np.arange(240.0)) / 3
    blocks = np.kron(rng.normal(0, 6, (25, 30)), np.ones((8, 8)))
    coded = np.rint(smooth + blocks + rng.normal(0, 1, smooth.shape)).clip(0, 255)
    assert shows_jpeg_grid(coded[shift[0] :, shift[1] :].astype(np.uint8))
    plain = np.rint(smooth + rng.normal(0, 6, smooth.shape)).clip(0, 255)
    assert not shows_jpeg_grid(plain[shift[0] :, shift[1] :].astype(np.uint8))


def test_a_small_picture_shows_no_grid() -> None:
    assert not shows_jpeg_grid(np.kron(np.eye(7, dtype=np.uint8) * 200, np.ones((8, 8), np.uint8)))
