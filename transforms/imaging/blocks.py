"""Means of pixels by the one reduction that OpenCV does quickly: by whole factors."""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["block_means", "cell_means", "fitted_size"]

_LEAST_PIXELS: Final = 1.25  # of a side for each cell's: interpolation of fewer smoothes
_STEPS: Final = (2, 3)  # points of interpolation a side and cell; each sees two pixels a side


def fitted_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the width and height of a picture reduced to a longer side of at most ``side``.

    Args:
        width: pixels, at least 1.
        height: the same.
        side: pixels.

    Returns:
        Pixels, at least 1 each; as they are where the picture is small enough.
    """
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


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

    A cell's mean is that of four or nine points in it, which are interpolated. On reduced
    photographs this is within a grey level of the area mean and takes half the time. Large and thin
    pictures, and those hardly larger than the grid, are measured exactly.

    Args:
        pixels: uint8 [h, w] or [h, w, 3], h and w at least 1.
        side: of the grid, in cells.

    Returns:
        uint8 [side, side] or [side, side, 3].
    """
    shorter, longer = sorted(pixels.shape[:2])
    # Eight more bits: OpenCV's roundings on the way, which turn with no picture, then vanish.
    fine = np.left_shift(pixels, 8, dtype=np.uint16)
    steps = next((steps for steps in _STEPS if longer <= 2 * steps * side), 0)
    if steps and shorter >= _LEAST_PIXELS * side:
        points = (steps * side, steps * side)
        fine = np.asarray(cv2.resize(fine, points, interpolation=cv2.INTER_LINEAR), np.uint16)
    means = np.asarray(cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA), np.uint16)
    return ((means + np.uint16(128)) >> np.uint16(8)).astype(np.uint8)
