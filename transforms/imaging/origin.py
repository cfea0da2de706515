"""Traces of lossy coding: the quality of a JPEG's tables, and the JPEG grid in a lossless file."""

import functools
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["ijg_quality", "shows_jpeg_grid"]

# Luminance table of ITU-T T.81, table K.1, in natural order: what libjpeg scales by its quality.
_LUMINANCE: Final = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_BLOCK: Final = 8
_MAX_SIDE: Final = 1024  # pixels of the part that is looked at
_MIN_SIDE: Final = 64  # below it there are too few blocks for a mean
_THIRD: Final = np.array([[-1.0, 3.0, -3.0, 1.0]])  # third differences, centred on the third value
_CLIP: Final = 24  # grey levels; edges of the picture must not outweigh those of blocks
_OWN_GRID: Final = 0.03  # excess of the grid from the corner, columns and rows added
_ANY_GRID: Final = 0.06  # mean excess of a grid that starts anywhere, as after a crop


@functools.cache
def _tables() -> npt.NDArray[np.int64]:
    """Return libjpeg's luminance tables of quality 1..100 (jcparam.c), int64 [100, 64]."""
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    table = (np.asarray(_LUMINANCE).reshape(1, 64) * scale[:, None] + 50) // 100
    return np.asarray(np.clip(table, 1, 255), np.int64)


@functools.lru_cache(maxsize=256)
def _nearest(table: tuple[int, ...]) -> int:
    distance = np.abs(_tables() - np.asarray(table, np.int64)).sum(axis=1)
    return int(distance.argmin()) + 1


def ijg_quality(table: Sequence[int]) -> int | None:
    """Estimate the quality that made a luminance quantisation table.

    Args:
        table: 64 values in natural order.

    Returns:
        The quality 1..100 whose table by libjpeg is nearest (L1), or None if there are not 64
        values. Tables of other makers get the quality of the most alike table of libjpeg.
    """
    if len(table) != _BLOCK * _BLOCK:
        return None
    return _nearest(tuple(table))


def shows_jpeg_grid(luma: npt.NDArray[np.uint8]) -> bool:
    """Return whether pixels that were stored without loss show the 8x8 grid of a JPEG before.

    Third differences across the borders of blocks are larger than within them. Their mean is
    taken for each of the eight phases of columns and rows; a grid makes one phase stand out over
    the next best. Thresholds are calibrated on 496 ImageNet photographs halved with Lanczos: 2 % of
    them show a grid; after a JPEG of quality 50, 70, 80, 90 and 95 100, 99, 93, 77 and 45 % do,
    and 81 % of those of quality 75 whose grid was shifted by a crop.

    Args:
        luma: [h, w]; at most the middle 1024 x 1024 pixels are looked at.
    """
    height, width = luma.shape
    if min(height, width) < _MIN_SIDE:
        return False
    # The cut starts at a multiple of 8, so that a grid from the corner stays one.
    top = (height - min(height, _MAX_SIDE)) // 2 // _BLOCK * _BLOCK
    left = (width - min(width, _MAX_SIDE)) // 2 // _BLOCK * _BLOCK
    part = luma[top : top + _MAX_SIDE, left : left + _MAX_SIDE]
    columns, rows = _phases(part, 0), _phases(part, 1)
    own = columns + rows
    if own[-2] - np.delete(own, -2).max() > _OWN_GRID:
        return True
    excess = sum(float(np.sort(phase)[-1] - np.sort(phase)[-2]) for phase in (columns, rows))
    return excess / 2.0 > _ANY_GRID


def _phases(part: npt.NDArray[np.uint8], axis: int) -> npt.NDArray[np.float64]:
    """Return the mean clipped third difference by column modulo 8, relative to their mean.

    Entry 6 is centred on the border between columns 7 and 8 (mod 8).

    Args:
        part: [h, w].
        axis: 0 for differences along the rows, 1 for those down the columns.
    """
    kernel = _THIRD if axis == 0 else _THIRD.T
    # Integers throughout, so that the sums are exact in any order.
    third = cv2.convertScaleAbs(cv2.filter2D(part, cv2.CV_16S, kernel))
    _, clipped = cv2.threshold(third, _CLIP, _CLIP, cv2.THRESH_TRUNC)
    sums = cv2.reduce(clipped, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()
    means = sums[2:-1] / part.shape[axis]  # without those that reach beyond the border
    whole = len(means) // _BLOCK * _BLOCK
    phases = np.asarray(means[:whole].reshape(-1, _BLOCK).mean(axis=0), np.float64)
    total = float(phases.mean())
    if total > 0.0:
        phases /= total
    return phases
