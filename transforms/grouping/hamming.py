"""Exhaustive search of wavelet keys by Hamming distance over eight orientations."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 32
ORIENTATIONS = 8

# Rows of the left side compared at once: 32 rows against 8,192 keys take 2 MB of scratch memory.
_TILE_ROWS = 32


def distances(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the Hamming distances of pairs of keys, by numpy's rules of broadcasting.

    Args:
        left: uint8 [..., 32].
        right: uint8 [..., 32].

    Returns:
        uint16 [...], bits.
    """
    differing = np.bitwise_count(
        np.ascontiguousarray(left).view(np.uint64) ^ np.ascontiguousarray(right).view(np.uint64)
    )
    return np.asarray(differing.sum(axis=-1), np.uint16)


def _least_distances(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Return the least distance over the orientations, uint16 [n, m], with little scratch memory.

    Args:
        left: uint64 [n, 8, 4].
        right: uint64 [4, m]: word by word, so that each comparison runs along memory.
    """
    least = np.full((len(left), right.shape[1]), 256, np.uint16)
    total = np.empty_like(least)
    for orientation in range(ORIENTATIONS):
        total[:] = np.bitwise_count(left[:, orientation, 0, None] ^ right[0])
        for word in range(1, len(right)):
            total += np.bitwise_count(left[:, orientation, word, None] ^ right[word])
        np.minimum(least, total, out=least)
    return least


def pairs_within(
    left: NDArray[np.uint8],
    right: NDArray[np.uint8],
    radius: int,
    *,
    same: bool,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint16], NDArray[np.uint8]]]:
    """Yield all pairs whose least distance over the eight orientations is at most ``radius``.

    Args:
        left: uint8 [n, 8, 32], each image's key in the eight orientations.
        right: uint8 [m, 32], each image's key as it stands.
        radius: bits, inclusive.
        same: the two sides are the same images; then only pairs with row < column are given.

    Yields:
        Rows int64 [k], columns int64 [k], distances uint16 [k], and orientations uint8 [k] (1..8;
        the first of equal ones), a tile of rows at a time.
    """
    words_left = np.ascontiguousarray(left).view(np.uint64)
    words_right = np.ascontiguousarray(np.ascontiguousarray(right).view(np.uint64).T)
    for start in range(0, len(left), _TILE_ROWS):
        first = start + 1 if same else 0
        if first >= len(right):
            continue
        least = _least_distances(words_left[start : start + _TILE_ROWS], words_right[:, first:])
        hit = least <= radius
        if same:
            # Below the diagonal of this tile every pair has been seen from the other side.
            hit &= np.arange(len(least))[:, None] <= np.arange(least.shape[1])[None, :]
        rows, columns = np.nonzero(hit)
        if len(rows):
            bits = least[rows, columns]
            rows, columns = rows + start, columns + first
            turned = distances(left[rows], right[columns][:, None])
            yield rows, columns, bits, turned.argmin(axis=1).astype(np.uint8) + 1
