"""Measures of technical quality of an image at a reduced size: stage 1's side of keep-best."""

import math
from typing import Final, NamedTuple, Optional, Protocol

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["ImageFacts", "Quality", "measure"]

_COMMON_PIXELS: Final = 16384  # area at which sharpness is measured: 128x128 of any shape
_LEVELS: Final = 3


class ImageFacts(Protocol):
    """What ``measure`` reads of ``imaging.decode.ImageInfo``."""

    @property
    def width(self) -> int:
        """Width of the full image, pixels."""

    @property
    def height(self) -> int:
        """Height of the full image, pixels."""

    @property
    def jpeg_quality(self) -> Optional[int]:
        """IJG quality 1..100, or None."""


class Quality(NamedTuple):
    """Technical quality of one image; larger is more of the thing named."""

    sharpness: float  # 0..1, fine detail at a common size against contrast
    contrast: float  # 0..1, 5th to 95th percentile of luma
    brightness: float  # 0..1, mean luma
    noise: float  # 0..1, 1 is a standard deviation of 25 grey levels
    effective_pixels: float  # estimate of the resolved pixels of the full image
    score: float  # 0..1, a summary for people


def measure(
    pixels: npt.NDArray[np.uint8], info: ImageFacts, *, size_bytes: int = 0
) -> Quality:
    """Measure an image from its reduced pixels.

    Args:
        pixels: uint8 [h, w, 3] RGB, reduced or not.
        info: facts of the full image.
        size_bytes: of the file; 0 if unknown. Tells an enlarged JPEG from a resolved one.

    Returns:
        The measures, all finite, rounded to 4 decimals but for ``effective_pixels`` (to 1).
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA)
    ordered = np.sort(small, axis=None)
    contrast = float(int(ordered[3891]) - int(ordered[204])) / 255.0
    brightness = float(ordered.mean()) / 255.0
    resolved = _resolved_share(grey)
    full = info.width * info.height
    shown = pixels.shape[0] * pixels.shape[1]
    effective = full * resolved if resolved < 1.0 and shown else float(full)
    noise = min(1.0, _noise(grey) / 25.0)
    sharpness = _sharpness(grey)
    score = (
        0.4 * min(1.0, math.log2(1.0 + effective) / 24.0)
        + 0.3 * sharpness
        + 0.2 * contrast
        + 0.1 * (1.0 - noise)
    )
    return Quality(
        sharpness=round(sharpness, 4),
        contrast=round(contrast, 4),
        brightness=round(brightness, 4),
        noise=round(noise, 4),
        effective_pixels=round(effective, 1),
        score=round(min(1.0, score), 4),
    )


def _sharpness(grey: npt.NDArray[np.uint8]) -> float:
    height, width = grey.shape
    scale = math.sqrt(_COMMON_PIXELS / (height * width))
    if scale < 1.0:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    laplacian = cv2.Laplacian(grey, cv2.CV_32F)
    level = float(np.mean(np.abs(laplacian)))
    return level / (level + 16.0)


def _noise(grey: npt.NDArray[np.uint8]) -> float:
    """Return the deviation of noise, grey levels (J. Immerkaer, CVIU 64(2), 1996)."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(cv2.filter2D(grey, cv2.CV_32F, kernel))
    return float(np.median(response)) / (0.6745 * 6.0)


def _resolved_share(grey: npt.NDArray[np.uint8]) -> float:
    """Return the share of the shown pixels that carry detail, from Haar energies by level."""
    level = grey.astype(np.float32)
    energies = []
    for _ in range(_LEVELS):
        height, width = level.shape
        if height < 2 or width < 2:
            return 1.0
        level = level[: height // 2 * 2, : width // 2 * 2]
        a, b = level[0::2, 0::2], level[0::2, 1::2]
        c, d = level[1::2, 0::2], level[1::2, 1::2]
        energies.append(
            float(np.mean(np.abs(a + b - c - d)) + np.mean(np.abs(a - b + c - d))) / 4.0
        )
        level = 0.25 * (a + b + c + d)
    ratio = (energies[0] + 0.05) / (energies[1] + 0.05)
    return min(1.0, ratio / 0.7) ** 2
