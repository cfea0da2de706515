"""A compact colour layout of an image, and a comparison that tells casts from hue turns.

The descriptor is a 6x6 grid of area means in YCbCr (ITU-R BT.601, full range), which is linear in
RGB: a colour cast (a gain per channel) moves the chroma of a cell by a multiple of its luma, a
change of saturation scales it, and a turn of the hue rotates it. The comparison therefore fits each
of the two harmless changes and looks at what they leave unexplained.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from transforms.imaging import orientation as _orientation
from transforms.imaging.blocks import area_means

__all__ = [
    "DESCRIPTOR_BYTES",
    "GRID_SIDE",
    "HINT_RECOLOURED",
    "HINT_SAME_COLOURS",
    "REJECT_SIMILARITY",
    "ColorComparison",
    "chroma_similarity",
    "color_descriptor",
    "color_descriptors",
    "compare",
    "luma_chroma",
]

GRID_SIDE: Final = 6
_CELLS: Final = GRID_SIDE * GRID_SIDE
#: uint8 [3, 36] flattened: luma, Cb + 128, Cr + 128 of the cells row by row.
DESCRIPTOR_BYTES: Final = 3 * _CELLS

HINT_SAME_COLOURS: Final = 0
HINT_RECOLOURED: Final = 1

#: Below, a pair within 60 bits is no copy: 0.9993 and 0.9997 of the true ones of two labelled sets
#: stay, 0.47 of the false ones and 0.9 of the hue turns go. It says nothing of pairs that are not
#: aligned as a whole: 0.14 to 0.18 of the crops and screenshots beyond 60 bits lie below.
REJECT_SIMILARITY: Final = 0.5

# RGB to (Y, Cb, Cr), ITU-R BT.601 full range as in JFIF.
_YCBCR: Final = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.168736, -0.331264, 0.5],
        [0.5, -0.418688, -0.081312],
    ]
)
_PARTS: Final = 64  # of a level, to which the mean of a cell is rounded
# The same as fixed-point numbers for such parts, with the offset of chroma and half a level to
# round.
_FIXED_BITS: Final = 20
_FIXED_YCBCR: Final = np.rint(_YCBCR * ((1 << _FIXED_BITS) / _PARTS)).astype(np.int32)
_FIXED_OFFSETS: Final = (np.array([0, 256, 256], np.int32) + 1) << (_FIXED_BITS - 1)
# A caption or logo may hide 14 % of the area, in cells that it touches only in part too.
_TRIMMED_CELLS: Final = 9
_BREAK_TIES: Final = 1e-12 * np.arange(_CELLS)
_LUMA_NOISE: Final = 3.0  # grey levels: rounding, JPEG
_CHROMA_NOISE: Final = 3.0  # chroma levels: JPEG 20 quantises chroma by steps of up to 40
_CAST_LIMIT: Final = 0.2  # chroma moved per luma: gains of 1.2 and 0.82 move Cr by 0.175 Y
# Cb + i Cr of a grey under the sepia matrix of the W3C's Filter Effects 1, 8.3: RGB gains of 1.351,
# 1.203 and 0.937, of length 1.
_SEPIA: Final = complex(-0.855, 0.518)
# Brown photographs are explained less well, and their hue may be turned.
_SEPIA_SHARE: Final = 0.97
_FLAT_LEVELS: Final = 6.0  # grey levels of contrast below which a layout says nothing


class ColorComparison(NamedTuple):
    """How the colour layouts of n pairs agree.

    Attributes:
        similarity: the lesser of those of luma and chroma, float64 [n] in 0..1, 4 decimals.
        chroma: of chroma alone, float64 [n] in 0..1, 4 decimals; tones that are clipped leave it.
        hint: uint8 [n], HINT_SAME_COLOURS or HINT_RECOLOURED (cast, grey, saturation, tone).
    """

    similarity: npt.NDArray[np.float64]
    chroma: npt.NDArray[np.float64]
    hint: npt.NDArray[np.uint8]


def color_descriptor(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the colour layout of an image.

    Args:
        pixels: uint8 [h, w, 3] RGB, h and w at least 1.

    Returns:
        uint8 [108]: luma, Cb + 128 and Cr + 128 of a 6x6 grid, row by row.
    """
    descriptor: npt.NDArray[np.uint8] = color_descriptors([pixels])[0]
    return descriptor


def color_descriptors(images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Return the colour layouts of n images, uint8 [n, 108]; see ``color_descriptor``."""
    # Whole numbers from here on, so that no layout depends on what is measured with it.
    cells = np.rint(area_means(images, GRID_SIDE) * _PARTS).astype(np.int32)
    cells = cells.reshape(len(images), _CELLS, 3)
    planes = cells @ _FIXED_YCBCR.T + _FIXED_OFFSETS
    descriptors = np.clip(planes >> _FIXED_BITS, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(descriptors.transpose(0, 2, 1)).reshape(len(images), -1)


def luma_chroma(
    rgb: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.complex128]]:
    """Return luma, 0..255, and chroma Cb + i Cr, about 0, of colours float64 [n, 3] RGB."""
    planes = rgb @ _YCBCR.T
    return planes[:, 0], planes[:, 1] + 1j * planes[:, 2]


def chroma_similarity(
    chroma_a: npt.NDArray[np.complex128],
    chroma_b: npt.NDArray[np.complex128],
    luma_a: npt.NDArray[np.float64],
    luma_b: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Compare the chroma of cells, forgiving grey, saturation and casts but no turn of the hue.

    Three hypotheses are fitted by least squares, and the best one counts. *Saturation*: the weaker
    chroma is k times the stronger with 0 <= k <= 1. *Cast*: one chroma is k times the other plus c
    times luma, with 0.7 <= k <= 1.4 and |c| <= 0.2. *Sepia*: one chroma is a brown multiple of luma
    and nothing else, whatever the other is. The similarity is one minus the unexplained share of
    the energy.

    Args:
        chroma_a: complex128 [n, m], Cb + i Cr of m cells of n pairs.
        chroma_b: the same of the other image.
        luma_a: float64 [n, m], 0..255.
        luma_b: the same of the other image.
        weights: float64 [n, m], 0 for cells to leave out.

    Returns:
        Similarity, float64 [n] in 0..1, and whether the colours were changed, bool [n].
    """
    parts = [luma_a, luma_b, chroma_a.real, chroma_a.imag, chroma_b.real, chroma_b.imag]
    planes = np.stack(parts, axis=1)
    # Products of the planes, mean over the cells: all that the hypotheses need is among them.
    products = (planes * weights[:, None]) @ planes.swapaxes(1, 2)
    products /= np.maximum(weights.sum(axis=1), 1e-9)[:, None, None]
    energy_a, energy_b = (products[:, i, i] + products[:, i + 1, i + 1] for i in (2, 4))
    cross = products[:, 2, 4] + products[:, 3, 5]
    low, high = np.minimum(energy_a, energy_b), np.maximum(energy_a, energy_b)
    floor = _CHROMA_NOISE**2
    # Saturation: |low - k high|^2 has its least at k = cross / high.
    k = np.clip(cross / (high + floor), 0.0, 1.0)
    left = np.maximum(low - 2 * k * cross + k * k * high - floor, 0.0)
    saturation = 1.0 - left / (low + floor)
    # Cast: the chroma of the other minus k times this one, against luma.
    ratio = np.sqrt((energy_b + floor) / (energy_a + floor))
    # The gain is shared by both sides, so that exchanging a and b changes nothing.
    root = np.sqrt(np.clip(ratio, 0.7, 1.0 / 0.7))
    shared = _Lit(products, (0, 1))
    change = energy_b / root**2 + energy_a * root**2 - 2.0 * cross
    along = shared.along(4) / root - shared.along(2) * root
    cast = 1.0 - _beyond_cast(change, along, shared.energy) / (0.5 * (energy_a + energy_b) + floor)
    # Sepia: one chroma is a brown multiple of luma, so its own colours are gone.
    browns = []
    for luma, chroma, energy in ((0, 2, energy_a), (1, 4, energy_b)):
        lit = _Lit(products, (luma,))
        browns.append(
            _beyond_cast(energy, lit.along(chroma), lit.energy, _SEPIA) / (energy + floor)
        )
    toned = 1.0 - np.minimum(*browns)
    toned = np.where(toned >= _SEPIA_SHARE, toned, 0.0)
    similarity = np.clip(np.maximum(np.maximum(saturation, cast), toned), 0.0, 1.0)
    moved = energy_b + energy_a - 2.0 * cross
    return similarity, moved > 0.02 * high + 2.0 * floor


class _Lit:
    """The mean of some planes, luma, and its products with others, of n pairs.

    Attributes:
        energy: float64 [n], mean square of the luma.
    """

    def __init__(self, products: npt.NDArray[np.float64], planes: tuple[int, ...]) -> None:
        self._rows = products[:, planes].mean(axis=1)
        self.energy = self._rows[:, planes].mean(axis=1)

    def along(self, plane: int) -> npt.NDArray[np.complex128]:
        """Return the mean product with chroma, Cb in ``plane`` and Cr in the next, [n]."""
        return np.asarray(self._rows[:, plane] + 1j * self._rows[:, plane + 1], np.complex128)


def _beyond_cast(
    energy: npt.NDArray[np.float64],
    along: npt.NDArray[np.complex128],
    luma: npt.NDArray[np.float64],
    direction: complex | None = None,
) -> npt.NDArray[np.float64]:
    """Return the mean energy of chroma that no allowed multiple of luma explains, [n].

    Args:
        energy: of the chroma, mean over the cells.
        along: mean product of luma and chroma.
        luma: mean square of luma.
        direction: of length 1: the multiple is along it; None for any.
    """
    slope = along / np.maximum(luma, 1e-9)
    if direction is not None:
        slope = np.maximum((slope * np.conj(direction)).real, 0.0) * direction
    slope = slope * np.minimum(1.0, _CAST_LIMIT / np.maximum(np.abs(slope), 1e-9))
    left = energy - 2.0 * (np.conj(slope) * along).real + np.abs(slope) ** 2 * luma
    return np.asarray(np.maximum(left - _CHROMA_NOISE**2, 0.0), np.float64)


def compare(
    a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], orientation: npt.NDArray[np.integer]
) -> ColorComparison:
    """Compare pairs of descriptors after turning each ``a``.

    Luma is fitted by a gain and an offset over the cells that agree best (27 of 36, so that a
    caption or logo is left out); chroma by ``chroma_similarity`` over the same cells. The
    similarity is the lesser of the two.

    Args:
        a: uint8 [n, 108].
        b: uint8 [n, 108].
        orientation: int [n], EXIF orientations 1..8 that turn a into b.

    Returns:
        What agrees; no row depends on the others.
    """
    turned = a.reshape(-1, 3, _CELLS).astype(np.float64)
    for value in _orientation.ORIENTATIONS[1:]:
        rows = np.flatnonzero(np.asarray(orientation) == value)
        turned[rows] = turned[rows][..., _orientation.cell_permutation(GRID_SIDE, value)]
    planes_a, planes_b = turned, b.reshape(-1, 3, _CELLS).astype(np.float64)
    luma_a, luma_b = planes_a[:, 0], planes_b[:, 0]
    luma, gain, offset, weights = _luma_similarity(luma_a, luma_b)
    chroma_a = (planes_a[:, 1] - 128.0) + 1j * (planes_a[:, 2] - 128.0)
    chroma_b = (planes_b[:, 1] - 128.0) + 1j * (planes_b[:, 2] - 128.0)
    chroma, moved = chroma_similarity(chroma_a, chroma_b, luma_a, luma_b, weights)
    chroma = np.round(chroma, 4)
    similarity = np.minimum(np.round(np.clip(luma, 0.0, 1.0), 4), chroma)
    toned = (np.abs(np.log(np.maximum(gain, 1e-3))) > 0.1) | (np.abs(offset) > 8.0)
    hint = np.where(moved | toned, HINT_RECOLOURED, HINT_SAME_COLOURS).astype(np.uint8)
    return ColorComparison(similarity, chroma, hint)


def _luma_similarity(
    luma_a: npt.NDArray[np.float64], luma_b: npt.NDArray[np.float64]
) -> tuple[
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
]:
    """Return correlation over the best cells, gain, offset at mid grey, and the cells' weights.

    Where neither layout has contrast, the correlation is void, and the nearness of the mean luma
    takes its place.
    """
    weights = np.ones_like(luma_a)
    for _ in range(2):
        _, variance_a, variance_b, mean_a, mean_b = _moments(luma_a, luma_b, weights)
        # In units of each one's deviation, so that exchanging a and b changes nothing.
        unit_a = (luma_a - mean_a[:, None]) / np.sqrt(variance_a + _LUMA_NOISE**2)[:, None]
        unit_b = (luma_b - mean_b[:, None]) / np.sqrt(variance_b + _LUMA_NOISE**2)[:, None]
        left = np.abs(unit_a - unit_b)
        # Ties go by position, so the weights are a function of the two descriptors alone.
        left -= _BREAK_TIES
        last = _CELLS - _TRIMMED_CELLS - 1
        weights = (left <= np.partition(left, last, axis=1)[:, last, None]).astype(np.float64)
    covariance, variance_a, variance_b, mean_a, mean_b = _moments(luma_a, luma_b, weights)
    gain = _gain(covariance, variance_a, variance_b)
    floor = _LUMA_NOISE**2
    correlation = (covariance + floor) / np.sqrt((variance_a + floor) * (variance_b + floor))
    variance = np.sqrt(variance_a * variance_b)
    trust = variance / (variance + _FLAT_LEVELS**2)
    near = np.exp(-np.abs(mean_a - mean_b) / 32.0)
    similarity = np.clip(trust * correlation + (1.0 - trust) * near, 0.0, 1.0)
    return similarity, gain, mean_b - mean_a, weights


def _gain(
    covariance: npt.NDArray[np.float64],
    variance_a: npt.NDArray[np.float64],
    variance_b: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return the gain as a ratio of deviations, so that exchanging a and b inverts it."""
    floor = _LUMA_NOISE**2
    ratio = np.sqrt((variance_b + floor) / (variance_a + floor))
    return np.asarray(np.where(covariance >= 0, ratio, 0.0), np.float64)


def _moments(
    luma_a: npt.NDArray[np.float64],
    luma_b: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], ...]:
    """Return covariance, the two variances and the two means over weighted cells, each [n]."""
    total = weights.sum(axis=1)
    mean_a, mean_b = (np.einsum("nm,nm->n", weights, luma) / total for luma in (luma_a, luma_b))
    apart_a, apart_b = luma_a - mean_a[:, None], luma_b - mean_b[:, None]
    weighted = weights * apart_a
    return (
        np.einsum("nm,nm->n", weighted, apart_b) / total,
        np.einsum("nm,nm->n", weighted, apart_a) / total,
        np.einsum("nm,nm,nm->n", weights, apart_b, apart_b) / total,
        mean_a,
        mean_b,
    )
