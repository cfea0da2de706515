"""Exhaustive search of wavelet keys by Hamming distance over eight orientations."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 32
ORIENTATIONS = 8

# Rows of the left side compared at once: eight orientations of 64 rows against 4,096 keys keep the
# scratch arrays within the second-level cache (measured best of 16, 64 and 256).
_TILE_ROWS = 64


def distances(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the Hamming distances of every left key to every right key, in every orientation.

    Args:
        left: uint8 [n, 8, 32], each image's key in the eight orientations.
        right: uint8 [m, 32], each image's key as it stands.

    Returns:
        uint16 [n, 8, m], bits.
    """
    words_left = np.ascontiguousarray(left).view(np.uint64)
    words_right = np.ascontiguousarray(right).view(np.uint64)
    total = np.zeros((len(left), ORIENTATIONS, len(right)), np.uint16)
    for word in range(words_left.shape[-1]):
        total += np.bitwise_count(words_left[:, :, None, word] ^ words_right[None, None, :, word])
    return total


def pairs_within(
    left: NDArray[np.uint8],
    right: NDArray[np.uint8],
    radius: int,
    *,
    same: bool,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint16], NDArray[np.uint8]]]:
    """Yield all pairs whose least distance over the eight orientations is at most ``radius``.

    Args:
        left: uint8 [n, 8, 32].
        right: uint8 [m, 32].
        radius: bits, inclusive.
        same: the two sides are the same images; then only pairs with row < column are given.

    Yields:
        Rows int64 [k], columns int64 [k], distances uint16 [k], and orientations uint8 [k] (1..8;
        the first of equal ones), a tile of rows at a time.
    """
    for start in range(0, len(left), _TILE_ROWS):
        first = start + 1 if same else 0
        if first >= len(right):
            continue
        every = distances(left[start : start + _TILE_ROWS], right[first:])
        least = every.min(axis=1)
        hit = least <= radius
        if same:
            # Below the diagonal of this tile every pair has been seen from the other side.
            hit &= np.arange(len(least))[:, None] <= np.arange(least.shape[1])[None, :]
        rows, columns = np.nonzero(hit)
        if len(rows):
            orientation = every[rows, :, columns].argmin(axis=1).astype(np.uint8) + 1
            yield rows + start, columns + first, least[rows, columns], orientation
