"""Means of pixels by the one reduction that OpenCV does quickly: by whole factors."""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["block_means", "cell_means"]

_MOST_PIXELS: Final = 4  # a side and cell that interpolation sees all of


def block_means(pixels: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.uint8]:
    """Reduce a picture by a whole factor.

    Where a side is no multiple of the factor, the pixels over are left out, half of them at each
    end, so that copies in other orientations stay aligned.

    Args:
        pixels: uint8 [h, w] or [h, w, 3].
        factor: 1 or more; no more than the shorter side is taken.

    Returns:
        uint8 [h // factor, w // factor] or the same with 3 channels; the pixels themselves for 1.
    """
    height, width = pixels.shape[:2]
    factor = min(factor, height, width)
    if factor < 2:
        return pixels
    top, left = height % factor // 2, width % factor // 2
    size = (width // factor, height // factor)
    whole = pixels[top : top + size[1] * factor, left : left + size[0] * factor]
    return np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.uint8)


def cell_means(pixels: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Return the means of the cells of a square grid.

    The means of a cell's four quarters are taken by interpolation, which on reduced photographs is
    within a grey level of their area means and three times as fast: on a labelled set, keys made
    so are 0.2 of 256 bits farther apart between a picture and its resized copies. Large and thin
    pictures, and those smaller than the grid, are measured exactly.

    Args:
        pixels: uint8 [h, w] or [h, w, 3], h and w at least 1.
        side: of the grid, in cells.

    Returns:
        uint8 [side, side] or [side, side, 3].
    """
    shorter, longer = sorted(pixels.shape[:2])
    factor = -(-longer // (_MOST_PIXELS * side))
    if shorter >= factor * side and factor <= 2:
        pixels = block_means(pixels, factor)
        pixels = cv2.resize(pixels, (2 * side, 2 * side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
