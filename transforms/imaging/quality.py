"""Measures of technical quality of an image at a reduced size: stage 1's side of keep-best."""

import functools
import math
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, cast

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["ImageFacts", "Quality", "measure", "measure_batch", "resolved_share"]

_Grey = npt.NDArray[np.uint8]

_COMMON_PIXELS: Final = 8192  # area at which sharpness is measured; a reduced decode has more
_WINDOW_SIDE: Final = 256  # pixels of the middle of an image whose spectrum is looked at
_QUICK_WINDOW_SIDE: Final = 96  # the same in stage 1, where the shorter side is about as long
_RINGS: Final = 32  # rings of spatial frequency from 0 to Nyquist's
_RING_ENDS: Final = np.arange(1.0, _RINGS + 1) / _RINGS
# The energy of the gradient is even over the frequencies of a resolved photograph, so that nine
# tenths of it lie below 0.9 of Nyquist's (median of 250 photographs at 125x94: 0.91).
_ENERGY: Final = 0.9
_RESOLVED: Final = 0.9
# Spectra end softly: at a full decode, an enlargement by 1.7 moves the edge by 1.35 only. The
# square of the share of area makes up for it: 0.82 of 125 enlargements come out level with their
# original (within a quarter octave) or below it, and every blurred copy far below.
_EDGE_POWER: Final = 4.0
_FLAT_LEVELS: Final = 4.0  # grey levels about the mean within which a window has no spectrum
_HISTOGRAM: Final = ([0], None, [256], [0.0, 256.0])  # what OpenCV is asked for
# The histogram of a response that is zero all over.
_NO_RESPONSE: Final[npt.NDArray[np.float32]] = np.eye(1, 256, dtype=np.float32)[0]


class ImageFacts(Protocol):
    """What ``measure`` reads of ``imaging.decode.ImageInfo``."""

    @property
    def width(self) -> int:
        """Width of the full image, pixels."""

    @property
    def height(self) -> int:
        """Height of the full image, pixels."""


class Quality(NamedTuple):
    """Technical quality of one image; larger is more of the thing named."""

    sharpness: float  # 0..1, fine detail at a common size
    contrast: float  # 0..1, 5th to 95th percentile of luma
    brightness: float  # 0..1, mean luma
    noise: float  # 0..1, 1 is a standard deviation of 25 grey levels or more
    effective_pixels: float  # estimate of the resolved pixels of the full image
    score: float  # 0..1, a summary for people


def measure(pixels: npt.NDArray[np.uint8], info: ImageFacts) -> Quality:
    """Measure an image from its reduced pixels; see ``measure_batch``.

    Args:
        pixels: uint8 [h, w, 3] RGB or [h, w] grey, reduced or not, h and w at least 1.
        info: facts of the full image.
    """
    return measure_batch([_grey(pixels)], [info])[0]


def measure_batch(greys: Sequence[_Grey], infos: Sequence[ImageFacts]) -> list[Quality]:
    """Measure images from their reduced grey levels, each as if it were alone.

    What a reduced decode does not show is taken for resolved: blur of less than a reduced pixel
    and enlargements of an image that is still reduced after them are seen by ``resolved_share`` at
    the second read alone.

    Args:
        greys: uint8 [h, w] each, reduced or not, h and w at least 1.
        infos: facts of the full images.

    Returns:
        The measures, all finite, rounded to 4 decimals but for ``effective_pixels`` (to 1).
    """
    counts = np.stack([_histogram(grey) for grey in greys]).astype(np.float64)
    sizes = np.array([grey.size for grey in greys], np.float64)
    below = np.cumsum(counts, axis=1) / sizes[:, None]
    # Grey levels by which 5 and 95 % of the pixels are passed.
    contrast = ((below < 0.95).sum(axis=1) - (below < 0.05).sum(axis=1)) / 255.0
    brightness = counts @ np.arange(256.0) / sizes / 255.0
    noise = np.minimum(1.0, _noise(greys) / 25.0)
    return [
        _quality(
            info.width * info.height * _resolved_share(grey, _QUICK_WINDOW_SIDE),
            _sharpness(grey),
            *values,
        )
        for grey, info, values in zip(
            greys,
            infos,
            zip(contrast.tolist(), brightness.tolist(), noise.tolist(), strict=True),
            strict=True,
        )
    ]


def _quality(
    effective: float, sharpness: float, contrast: float, brightness: float, noise: float
) -> Quality:
    # Weights of a summary for people; no decision rests on them.
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


def resolved_share(pixels: npt.NDArray[np.uint8]) -> float:
    """Return the share of an image's pixels that carry detail of their own.

    The edge of the spectrum is the frequency below which nine tenths of the gradient's energy lie,
    in a window of up to 256x256 pixels in the middle. A resolved picture reaches 0.9 of Nyquist's
    frequency; the edge of a blurred or enlarged one lies lower.

    Args:
        pixels: uint8 [h, w, 3] RGB or [h, w] grey, h and w at least 1.

    Returns:
        In 0..1; 1 for images too small or too flat to tell.
    """
    return _resolved_share(_grey(pixels), _WINDOW_SIDE)


def _resolved_share(grey: _Grey, window: int) -> float:
    """Return the resolved share of the middle of an image, up to ``window`` pixels a side."""
    # Multiples of 16 are quick to transform.
    height, width = (min(side, window) // 16 * 16 for side in grey.shape)
    if not (height and width):
        return 1.0
    top, left = (grey.shape[0] - height) // 2, (grey.shape[1] - width) // 2
    middle = grey[top : top + height, left : left + width]
    mean = np.float32(cv2.sumElems(middle)[0] / middle.size)
    part = np.subtract(middle, mean, dtype=np.float32)
    if cv2.norm(part, cv2.NORM_INF) < _FLAT_LEVELS:
        return 1.0
    taper, ring, share, weight = _spectrum_tables(height, width)
    part *= taper
    spectrum = cv2.dft(part)
    power = np.multiply(spectrum, spectrum, out=part)
    power *= share
    below = np.cumsum(np.bincount(ring, power.ravel(), _RINGS + 1)[:_RINGS] * weight)
    if not below[-1] > 0.0:
        return 1.0
    edge = float(np.interp(_ENERGY * below[-1], below, _RING_ENDS))
    return float(min(1.0, edge / _RESOLVED) ** _EDGE_POWER)


@functools.lru_cache(maxsize=64)
def _spectrum_tables(
    height: int, width: int
) -> tuple[
    npt.NDArray[np.float32],
    npt.NDArray[np.intp],
    npt.NDArray[np.float32],
    npt.NDArray[np.float64],
]:
    """Return what a window of a size is measured with; both sides are even.

    OpenCV packs the half of a real image's spectrum that tells the rest into as many numbers as
    there are pixels ("CCS"): along a row real and imaginary parts of columns 1 to w/2 - 1 in turn,
    before them column 0 and behind them column w/2, which are packed so from top to bottom.

    Returns:
        The taper, float32 [h, w]; the ring of each packed number, [h * w]; how often
        it counts in the half, float32 [h, w]; the weights of the rings.
    """
    # Hann's window without its zeros at the ends.
    rows, columns = np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]
    taper = np.outer(rows, columns).astype(np.float32)
    down = np.minimum(np.arange(height), height - np.arange(height))[:, None]
    across = (np.arange(width)[None, :] + 1) // 2
    edge = np.isin(across, (0, width // 2))
    packed_down = np.where(edge, (np.arange(height)[:, None] + 1) // 2, down)
    share = np.where(edge & ~np.isin(packed_down, (0, height // 2)), 2.0, 1.0).astype(np.float32)
    ring = _rings(packed_down * (1.0 / height), across * (1.0 / width))
    halves = np.arange(width // 2 + 1)[None, :]
    half = _rings(down * (1.0 / height), halves * (1.0 / width))
    count = np.bincount(half, minlength=_RINGS + 1)[:_RINGS]
    # Mean power of a ring, times frequency squared for the gradient, times the ring's length.
    weight = ((np.arange(_RINGS) + 0.5) / _RINGS) ** 3 / np.maximum(count, 1)
    weight[:2] = 0.0  # the ground and slow shading
    return taper, ring, share, weight


def _rings(
    down: npt.NDArray[np.floating], across: npt.NDArray[np.floating]
) -> npt.NDArray[np.intp]:
    """Return the ring of each frequency, in cycles a pixel; ``_RINGS`` beyond Nyquist's."""
    frequency = np.sqrt((2.0 * down) ** 2 + (2.0 * across) ** 2)
    return np.minimum((frequency * _RINGS).astype(np.intp), _RINGS).ravel()


def _grey(pixels: npt.NDArray[np.uint8]) -> _Grey:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels
    return np.asarray(grey, np.uint8)


def _sharpness(grey: _Grey) -> float:
    """Return mean absolute Laplacian at a common area, as a share: 16 grey levels are one half."""
    height, width = grey.shape
    scale = math.sqrt(_COMMON_PIXELS / (height * width))
    if scale < 1.0:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    laplacian = cv2.Laplacian(grey, cv2.CV_16S)
    level = cv2.norm(laplacian, cv2.NORM_L1) / laplacian.size
    return float(level / (level + 16.0))


def _noise(greys: Sequence[_Grey]) -> npt.NDArray[np.float64]:
    """Return the deviation of each image's noise, grey levels.

    The median of the response to a second difference along both axes leaves edges out (after
    J. Immerkaer, "Fast noise variance estimation", CVIU 64(2), 1996).
    """
    counts = np.stack([_response_histogram(grey) for grey in greys]).astype(np.float64)
    below = np.cumsum(counts, axis=1)
    half = 0.5 * below[:, -1]
    # Between whole numbers, so that a median of small integers does not jump.
    at = (below < half[:, None]).sum(axis=1)
    rows = np.arange(len(greys))
    before = np.where(at > 0, below[rows, at - 1], 0.0)
    median = at - 0.5 + (half - before) / np.maximum(below[rows, at] - before, 1.0)
    return np.asarray(np.maximum(0.0, median) / (0.6745 * 6.0), np.float64)


def _response_histogram(grey: _Grey) -> npt.NDArray[np.float32]:
    if min(grey.shape) < 3:
        return _NO_RESPONSE
    response = cv2.Sobel(grey, cv2.CV_16S, 2, 2)  # [1, -2, 1] along both axes
    return _histogram(cv2.convertScaleAbs(response))


def _histogram(grey: cv2.typing.MatLike) -> npt.NDArray[np.float32]:
    return cast(npt.NDArray[np.float32], cv2.calcHist([grey], *_HISTOGRAM).ravel())
