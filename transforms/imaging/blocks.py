"""Means of pixels by the one reduction that OpenCV does quickly: by whole factors."""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["area_means", "block_means", "cell_means", "fitted_size"]

_LEAST_PIXELS: Final = 1.25  # of a side for each cell's: interpolation of fewer smoothes
_SUMMED_PIXELS: Final = (1 << 31) // 256  # whose sum 32 bits hold
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


def cell_means(images: Sequence[npt.NDArray[np.uint8]], side: int) -> npt.NDArray[np.uint16]:
    """Return the means of the cells of a square grid.

    A cell's mean is that of four or nine points in it, which are interpolated. On reduced
    photographs this is within a grey level of the area mean and takes half the time. Large and thin
    pictures, and those hardly larger than the grid, are measured exactly.

    Args:
        images: uint8 [h, w] each, or [h, w, 3] each; h and w at least 1; at least one.
        side: of the grid, in cells.

    Returns:
        Whole grey levels, uint16 [n, side, side] or [n, side, side, 3]; no image depends on the
        others.
    """
    means = np.empty((len(images), side, side, *images[0].shape[2:]), np.uint16)
    for cells, pixels in zip(means, images, strict=True):
        shorter, longer = sorted(pixels.shape[:2])
        # Eight more bits: OpenCV's roundings on the way, which turn with no picture, then vanish.
        fine = np.multiply(pixels, np.uint16(256))
        steps = next((steps for steps in _STEPS if longer <= 2 * steps * side), 0)
        if steps and shorter >= _LEAST_PIXELS * side:
            points = (steps * side, steps * side)
            fine = np.asarray(cv2.resize(fine, points, interpolation=cv2.INTER_LINEAR), np.uint16)
        cv2.resize(fine, (side, side), dst=cells, interpolation=cv2.INTER_AREA)
    means += np.uint16(128)
    means >>= np.uint16(8)
    return means


def area_means(images: Sequence[npt.NDArray[np.uint8]], side: int) -> npt.NDArray[np.float64]:
    """Return the means of the cells of a square grid, to which pixels count by their shared area.

    A cell's sum is a difference of sums from the picture's corner to the corners of the cell, and
    one to a place within a pixel lies between those around it (F. C. Crow, "Summed-area tables for
    texture mapping", SIGGRAPH 1984). All is whole numbers up to the division by the area.

    Args:
        images: uint8 [h, w] each, or [h, w, c] each; h and w at least 1; at least one.
        side: of the grid, in cells.

    Returns:
        float64 [n, side, side, c], c = 1 for the first; no image depends on the others.
    """
    channels = 1 if images[0].ndim == 2 else images[0].shape[2]
    sizes = np.array([pixels.shape[:2] for pixels in images])
    # The pixel corners before and behind each corner of a cell, along y and x, and how far the
    # latter lies between them, in parts of a pixel's side over ``side``.
    whole, parts = np.divmod(sizes[..., None] * np.arange(side + 1), side)
    around = np.stack([whole, np.minimum(whole + 1, sizes[..., None])], axis=-1)
    rows, columns = np.moveaxis(around.reshape(len(images), 2, -1), 1, 0)
    places = rows[:, :, None] * (sizes[:, 1, None, None] + 1) + columns[:, None]
    sums = np.empty((*places.shape, channels), np.int64)
    for found, place, pixels in zip(sums, places, images, strict=True):
        depth = cv2.CV_32S if pixels.size < channels * _SUMMED_PIXELS else cv2.CV_64F
        found[:] = cv2.integral(pixels, sdepth=depth).reshape(-1, channels).take(place, axis=0)
    grid = sums.reshape(len(images), side + 1, 2, side + 1, 2, channels)
    down, across = parts[:, 0, :, None, None, None], parts[:, 1, None, :, None]
    between = grid[:, :, 0] * (side - down) + grid[:, :, 1] * down
    lines = between[:, :, :, 0] * (side - across) + between[:, :, :, 1] * across
    # So scaled, a cell has the area of the picture.
    areas = sizes.prod(axis=1)[:, None, None, None]
    return np.asarray(np.diff(np.diff(lines, axis=1), axis=2) / areas, np.float64)
