"""Means of whole blocks of pixels: the one reduction that OpenCV does quickly."""

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["block_means"]


def block_means(pixels: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.uint8]:
    """Reduce a picture by a whole factor.

    Where a side is no multiple of the factor, the pixels over are left out, half of them at each
    end, so that copies in other orientations stay aligned. OpenCV's area means take several times
    as long where the factor is not a whole number.

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
