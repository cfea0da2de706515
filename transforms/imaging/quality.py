"""Measures of technical quality of an image at a reduced size: stage 1's side of keep-best."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol, cast

import cv2
import numpy as np
import numpy.typing as npt

from transforms.imaging.blocks import block_means

__all__ = ["ImageFacts", "Quality", "histograms", "measure", "measure_batch", "resolved_share"]

_Grey = npt.NDArray[np.uint8]

_COMMON_PIXELS: Final = 8192  # area at which sharpness is measured; most reduced decodes have more
_WINDOW_SIDE: Final = 256  # pixels of the middle of an image whose spectrum is looked at
_QUICK_WINDOW_SIDE: Final = 64  # the same in stage 1, for noise too
_RINGS: Final = 32  # rings of spatial frequency from 0 to Nyquist's
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
    grey = _grey(pixels)
    return measure_batch([grey], histograms([grey]), [info])[0]


def histograms(greys: Sequence[_Grey]) -> npt.NDArray[np.float32]:
    """Count the grey levels of images in every second row, which tells as much as all of them.

    Args:
        greys: uint8 [h, w] each, h and w at least 1; at least one.

    Returns:
        Whole numbers, float32 [n, 256].
    """
    return np.stack([_histogram(grey[::2]) for grey in greys])


def measure_batch(
    greys: Sequence[_Grey], counts: npt.NDArray[np.float32], infos: Sequence[ImageFacts]
) -> list[Quality]:
    """Measure images from their reduced grey levels, each as if it were alone.

    What a reduced decode does not show is taken for resolved: blur of less than a reduced pixel
    and enlargements of an image that is still reduced after them are seen by ``resolved_share`` at
    the second read alone.

    Args:
        greys: uint8 [h, w] each, reduced or not, h and w at least 1.
        counts: their ``histograms``.
        infos: facts of the full images.

    Returns:
        The measures, all finite, rounded to 4 decimals but for ``effective_pixels`` (to 1).
    """
    passed = np.cumsum(counts, axis=1, dtype=np.float64)
    sizes = passed[:, -1:]
    # Grey levels by which 5 and 95 % of the pixels are passed.
    contrast = ((passed < 0.95 * sizes).sum(axis=1) - (passed < 0.05 * sizes).sum(axis=1)) / 255.0
    # Whole numbers up to the division, as are the sums above.
    brightness = (256.0 - passed.sum(axis=1) / sizes[:, 0]) / 255.0
    noise, share = np.empty((2, len(greys)))
    for rows, windows in _middles(greys):
        noise[rows] = np.minimum(1.0, _noise(windows) / 25.0)
        share[rows] = _resolved_shares(windows)
    measured = zip(
        greys, infos, *(v.tolist() for v in (share, contrast, brightness, noise)), strict=True
    )
    return [
        _quality(info.width * info.height * resolved, _sharpness(grey), *values)
        for grey, info, resolved, *values in measured
    ]


def _middles(greys: Sequence[_Grey]) -> Iterator[tuple[list[int], _Grey]]:
    """Yield the middles of images, up to the quick window's side, those of one size together.

    Yields:
        Which images, m of them, and their middles, uint8 [m, h, w].
    """
    windows: dict[tuple[int, ...], tuple[list[int], list[_Grey]]] = {}
    for row, grey in enumerate(greys):
        window = _middle(grey, [min(side, _QUICK_WINDOW_SIDE) for side in grey.shape])
        rows, parts = windows.setdefault(window.shape, ([], []))
        rows.append(row)
        parts.append(window)
    for rows, parts in windows.values():
        yield rows, np.stack(parts)


def _middle(greys: _Grey, shape: Sequence[int]) -> _Grey:
    """Return the middle of uint8 [..., h, w], of a shape that is no larger."""
    top, left = ((side - kept) // 2 for side, kept in zip(greys.shape[-2:], shape, strict=True))
    return greys[..., top : top + shape[0], left : left + shape[1]]


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
    grey = _grey(pixels)
    window = _middle(grey, [min(side, _WINDOW_SIDE) for side in grey.shape])
    return float(_resolved_shares(window[None])[0])


def _resolved_shares(windows: _Grey) -> npt.NDArray[np.float64]:
    """Return the resolved shares of windows uint8 [n, h, w], each as if it were alone."""
    shares = np.ones(len(windows))
    # Multiples of 16 are quick to transform.
    height, width = (side // 16 * 16 for side in windows.shape[1:])
    if not (height and width):
        return shares
    parts = _middle(windows, (height, width)).astype(np.float32)
    flat = parts.reshape(len(parts), -1)
    # Up to 256x256 whole numbers of 8 bits are added without rounding.
    flat -= flat.sum(axis=1, keepdims=True) / np.float32(flat.shape[1])
    extent = np.maximum(flat.max(axis=1), -flat.min(axis=1))
    tables = _spectrum_tables(height, width)
    parts *= tables.taper
    for part in parts:
        cv2.dft(part, part)
    power = np.take(flat, tables.order, axis=1)
    power *= power
    power *= tables.share
    rings = np.add.reduceat(power, tables.starts, axis=1)[:, :_RINGS]
    below = np.cumsum(rings * tables.weight, axis=1)
    goal = _ENERGY * below[:, -1:]
    # The ring that holds the edge; the first two weigh nothing, so that it has one before it.
    at = (below < goal).sum(axis=1, keepdims=True)
    ends = np.take_along_axis(below, np.maximum(np.hstack([at - 1, at]), 0), axis=1)
    told = (extent >= _FLAT_LEVELS) & (goal[:, 0] > 0.0)
    inner = (goal[told] - ends[told, :1]) / (ends[told, 1:] - ends[told, :1])
    edges = (at[told] + inner)[:, 0] / _RINGS
    shares[told] = np.minimum(1.0, edges / _RESOLVED) ** _EDGE_POWER
    return shares


class _SpectrumTables(NamedTuple):
    """What windows of one size are measured with; r is the number of rings and one more.

    OpenCV packs the half of a real image's spectrum that tells the rest into as many numbers as
    there are pixels ("CCS"): along a row real and imaginary parts of columns 1 to w/2 - 1 in turn,
    before them column 0 and behind them column w/2, which are packed so from top to bottom.
    """

    taper: npt.NDArray[np.float32]  # [h, w]
    order: npt.NDArray[np.intp]  # [h * w], packed numbers ring by ring
    share: npt.NDArray[np.float32]  # [h * w], how often each of those counts in the half
    starts: npt.NDArray[np.intp]  # [r], of the rings among those; the last lies beyond Nyquist's
    weight: npt.NDArray[np.float64]  # [r - 1], of the rings


@functools.lru_cache(maxsize=64)
def _spectrum_tables(height: int, width: int) -> _SpectrumTables:
    """Return the tables of windows of a size; both sides are even."""
    # Hann's window without its zeros at the ends.
    rows, columns = np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]
    taper = np.outer(rows, columns).astype(np.float32)
    down = np.minimum(np.arange(height), height - np.arange(height))[:, None]
    across = (np.arange(width)[None, :] + 1) // 2
    edge = np.isin(across, (0, width // 2))
    packed_down = np.where(edge, (np.arange(height)[:, None] + 1) // 2, down)
    share = np.where(edge & ~np.isin(packed_down, (0, height // 2)), 2.0, 1.0).astype(np.float32)
    ring = _rings(packed_down * (1.0 / height), across * (1.0 / width))
    order = np.argsort(ring, kind="stable")
    starts = np.searchsorted(ring[order], np.arange(_RINGS + 1))
    halves = np.arange(width // 2 + 1)[None, :]
    half = _rings(down * (1.0 / height), halves * (1.0 / width))
    count = np.bincount(half, minlength=_RINGS + 1)[:_RINGS]
    # Mean power of a ring, times frequency squared for the gradient, times the ring's length.
    weight = ((np.arange(_RINGS) + 0.5) / _RINGS) ** 3 / np.maximum(count, 1)
    # A ring without numbers is given those of the next; the first two hold ground and shading.
    weight[count == 0] = weight[:2] = 0.0
    return _SpectrumTables(taper, order, share.ravel()[order], starts, weight)


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
    grey = block_means(grey, math.isqrt(grey.size // _COMMON_PIXELS))
    height, width = grey.shape
    scale = math.sqrt(_COMMON_PIXELS / (height * width))
    if scale < 1.0:
        # What is left is less than a factor of two, for which two pixels a side are enough.
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    laplacian = cv2.Laplacian(grey, cv2.CV_16S)
    level = cv2.norm(laplacian, cv2.NORM_L1) / laplacian.size
    return float(level / (level + 16.0))


def _noise(windows: _Grey) -> npt.NDArray[np.float64]:
    """Return the deviation of the noise of each of the windows uint8 [n, h, w], grey levels.

    The median of the response to a second difference along both axes leaves edges out (after
    J. Immerkaer, "Fast noise variance estimation", CVIU 64(2), 1996).
    """
    n, height, width = windows.shape
    if min(height, width) < 3:
        return np.zeros(n)
    # One below the other; the first and the last row of each see their neighbours.
    response = cv2.Sobel(windows.reshape(-1, width), cv2.CV_16S, 2, 2)  # [1, -2, 1] on both axes
    inner = cv2.convertScaleAbs(response).reshape(windows.shape)[:, 1:-1]
    below = np.cumsum([_histogram(part) for part in inner], axis=1, dtype=np.float64)
    half = 0.5 * below[:, -1:]
    # Between whole numbers, so that a median of small integers does not jump.
    at = (below < half).sum(axis=1, keepdims=True)
    before = np.where(at > 0, np.take_along_axis(below, np.maximum(at - 1, 0), axis=1), 0.0)
    within = np.take_along_axis(below, at, axis=1) - before
    median = at - 0.5 + (half - before) / np.maximum(within, 1.0)
    return np.asarray(np.maximum(0.0, median[:, 0]) / (0.6745 * 6.0), np.float64)


def _histogram(grey: cv2.typing.MatLike) -> npt.NDArray[np.float32]:
    return cast("npt.NDArray[np.float32]", cv2.calcHist([grey], *_HISTOGRAM).ravel())
