"""Wavelet keys: 256 signs of Haar coefficients, in the eight orientations of EXIF.

A key is made from a 64x64 grey thumbnail (``imaging.blocks``). Its bits, most significant first:

====== ====================================================================================
bits   meaning: 1 where the coefficient is greater than zero
====== ====================================================================================
192    detail of level 3 (8x8 each, row by row): top - bottom, left - right, diagonal
48     detail of level 4 (4x4 each): top - bottom, left - right, diagonal
16     approximation of level 4 (4x4): 1 where it is greater than the median of the sixteen
====== ====================================================================================

The details are those of ``pywt.wavedec2(thumbnail, "haar")`` up to a positive factor, kept here as
integers so that a coefficient of zero is zero in every orientation. A turn or mirror permutes the
coefficients and changes signs, so that one set of coefficients gives all eight keys (C. E. Jacobs,
A. Finkelstein, D. H. Salesin, "Fast multiresolution image querying", SIGGRAPH 1995, uses the signs
of Haar coefficients as a picture's signature; the choice of levels is measured in docs/DESIGN.md).
"""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from transforms.imaging import orientation
from transforms.imaging.blocks import cell_means

__all__ = [
    "KEY_BITS",
    "KEY_BYTES",
    "ORIENTATIONS",
    "THUMBNAIL_SIDE",
    "grey_thumbnails",
    "inverse_orientation",
    "wavelet_keys",
    "wavelet_keys_batch",
    "wavelet_signs",
]

KEY_BITS: Final = 256
KEY_BYTES: Final = KEY_BITS // 8
THUMBNAIL_SIDE: Final = 64
ORIENTATIONS: Final = orientation.ORIENTATIONS
inverse_orientation = orientation.inverse_orientation

_DETAILS: Final = 240
# A detail below one grey level between the means of two halves of a block is within what 8-bit
# rounding, JPEG and sensor noise do to flat areas, so that its sign says nothing.
_STABLE_GREY_LEVELS: Final = 1.0
# Two halves of 32 pixels at level 3 and of 128 at level 4: their means differ by detail / pixels.
_STABLE_LIMITS: Final = _STABLE_GREY_LEVELS * np.repeat([32.0, 128.0], [192, 48]).astype(np.float32)
# Where each of the six bands of details begins.
_BANDS: Final = (0, 64, 128, 192, 208, 224)


def _coefficients(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return Haar coefficients as whole numbers.

    Args:
        thumbnails: uint8 [n, 64, 64].

    Returns:
        float32 [n, 256]: details of level 3 and 4, then the approximation of level 4, as sums and
        differences of pixels. They stay below 2**20, so that float32 holds them exactly.
    """
    # Sums of 4x4 pixels, which 16 bits hold, are the approximation of level 2. Additions of whole
    # slices are cheaper than matrices here, and BLAS would start threads for a batch.
    wide = thumbnails.astype(np.uint16)
    rows = wide[:, 0::4] + wide[:, 1::4] + wide[:, 2::4] + wide[:, 3::4]
    sums = rows[..., 0::4] + rows[..., 1::4] + rows[..., 2::4] + rows[..., 3::4]
    bands = []
    level = sums.astype(np.int32)
    for _ in range(2):
        top, bottom = level[:, 0::2], level[:, 1::2]
        low, high = top + bottom, top - bottom
        bands += [
            high[..., 0::2] + high[..., 1::2],
            low[..., 0::2] - low[..., 1::2],
            high[..., 0::2] - high[..., 1::2],
        ]
        level = low[..., 0::2] + low[..., 1::2]
    flat = [band.reshape(len(thumbnails), -1) for band in (*bands, level)]
    return np.concatenate(flat, axis=1).astype(np.float32)


def _orientation_table() -> npt.NDArray[np.intp]:
    """Return where each bit of each orientation comes from: intp [8, 256] into +/- coefficients.

    Index i < 256 means coefficient i, i + 256 its negative.
    """
    table = np.empty((8, KEY_BITS), np.intp)
    for index, value in enumerate(ORIENTATIONS):
        start = 0
        for side in (8, 4):
            cells = orientation.cell_permutation(side, value)
            size = side * side
            swap, flip_y, flip_x = orientation.axes(value)
            # Detail along y of the turned picture is that along x of the picture if axes swap.
            vertical, horizontal = (1, 0) if swap else (0, 1)
            signs = (flip_y, flip_x, flip_y != flip_x)
            for band, (source, negate) in enumerate(
                zip((vertical, horizontal, 2), signs, strict=True)
            ):
                begin = start + band * size
                table[index, begin : begin + size] = (
                    start + source * size + cells + (KEY_BITS if negate else 0)
                )
            start += 3 * size
        table[index, start:] = start + orientation.cell_permutation(4, value)
    return table


ORIENTATION_TABLE: Final = _orientation_table()


def grey_thumbnails(greys: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Return the grey thumbnails that keys are made from.

    Args:
        greys: uint8 [h, w] each, h and w at least 1; at least one.

    Returns:
        uint8 [n, 64, 64].
    """
    return cell_means(greys, THUMBNAIL_SIDE).astype(np.uint8)


def _texture(details: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the information of the detail signs as a share of its maximum.

    Signs of details below the noise carry none, and a gradient gives every block the same sign. The
    measure is the entropy of (+, -) within each of the six bands, over the stable details alone.

    Args:
        details: float32 [n, 240].

    Returns:
        float64 [n] in 0..1.
    """
    positive = np.add.reduceat(details >= _STABLE_LIMITS, _BANDS, axis=1, dtype=np.float32)
    negative = np.add.reduceat(details <= -_STABLE_LIMITS, _BANDS, axis=1, dtype=np.float32)
    stable = np.maximum(positive + negative, 1.0)
    p, q = positive / stable, negative / stable
    entropy = -p * np.log2(np.maximum(p, 1e-12)) - q * np.log2(np.maximum(q, 1e-12))
    bits = (stable * entropy).sum(axis=1, dtype=np.float64)
    return np.asarray(np.clip(bits / _DETAILS, 0.0, 1.0), np.float64)


def wavelet_signs(
    thumbnails: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Return the signs of the coefficients of many thumbnails, from which all their keys follow.

    Args:
        thumbnails: uint8 [n, 64, 64], from ``grey_thumbnails``.

    Returns:
        Signs, bool [n, 512]: the bits of the key of each picture as it is, then 1 where the detail
        is less than zero (of the approximation never). Textures, float64 [n] in 0..1 rounded to 4
        decimals; see ``wavelet_keys``.
    """
    coefficients = _coefficients(thumbnails)
    signs = np.zeros((len(thumbnails), 2 * KEY_BITS), np.bool_)
    details = coefficients[:, :_DETAILS]
    signs[:, :_DETAILS] = details > 0
    signs[:, KEY_BITS : KEY_BITS + _DETAILS] = details < 0
    approximation = coefficients[:, _DETAILS:]
    ordered = np.sort(approximation, axis=1)
    signs[:, _DETAILS:KEY_BITS] = 2 * approximation > (ordered[:, 7] + ordered[:, 8])[:, None]
    return signs, np.round(_texture(details), 4)


def wavelet_keys_batch(
    thumbnails: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Return the keys of many thumbnails, uint8 [n, 8, 32], and textures; see ``wavelet_keys``."""
    signs, textures = wavelet_signs(thumbnails)
    return np.packbits(signs[:, ORIENTATION_TABLE], axis=-1), textures


def wavelet_keys(pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], float]:
    """Return the wavelet key of an image in the eight orientations, and its texture.

    Args:
        pixels: uint8 [h, w, 3] RGB or [h, w] grey, h and w at least 1.

    Returns:
        Keys, uint8 [8, 32]: row o - 1 is the key of the image after EXIF orientation o is applied
        to it, so that row 0 is the image as it is. Texture in 0..1: the share of the key's detail
        bits that carry information; near 0 for flat, near-black and plain gradient pictures, whose
        keys must not be trusted alone.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels
    keys, texture = wavelet_keys_batch(grey_thumbnails([np.asarray(grey, np.uint8)]))
    return keys[0], float(texture[0])
