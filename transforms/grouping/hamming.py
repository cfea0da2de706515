"""Exhaustive search of wavelet keys by Hamming distance over eight orientations."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 32
ORIENTATIONS = 8

# Of a tile: its scratch memory, 11 bytes a pair of keys, stays within a core's cache.
_TILE_PAIRS = 1 << 16
_TILE_COLUMNS = 2048
_LEAST_BUFFER = 16  # elements, the least that numpy takes
_MEASURED = 1 << 16  # pairs at once: 40 MB of scratch memory
_WORD_BITS = 64
_WORDS = KEY_BYTES * 8 // _WORD_BITS
# Of the words that are looked at first, the distance of random keys is normal with a mean of half
# their bits; with this many standard deviations of room one pair in 4,000 passes by chance, or one
# in 160, in each orientation.
_DEVIATIONS = 3.5
_FEW_DEVIATIONS = 2.5


class Pairs(NamedTuple):
    """Pairs of images found near, one a place."""

    rows: NDArray[np.int64]  # of the left side
    columns: NDArray[np.int64]  # of the right side
    bits: NDArray[np.uint16]  # least Hamming distance over the orientations of the left side
    orientations: NDArray[np.uint8]  # 1..8: the first that attains it


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
    # A third of the time of a sum along so short an axis; three words fit a byte, four do not.
    three = differing[..., 0] + differing[..., 1] + differing[..., 2]
    return np.asarray(three.astype(np.uint16) + differing[..., 3], np.uint16)


def measure(
    left: NDArray[np.uint8],
    right: NDArray[np.uint8],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> Pairs:
    """Measure pairs exactly.

    Args:
        left: uint8 [8, n, 32], the keys of the left side in the eight orientations.
        right: uint8 [m, 32], the keys of the right side as they stand.
        rows: int64 [k] into the left side.
        columns: int64 [k] into the right side.

    Returns:
        The pairs in the order given.
    """
    bits = np.empty(len(rows), np.uint16)
    orientations = np.empty(len(rows), np.uint8)
    for start in range(0, len(rows), _MEASURED):
        part = slice(start, start + _MEASURED)
        turned = distances(np.take(left, rows[part], axis=1), np.take(right, columns[part], axis=0))
        bits[part], orientations[part] = turned.min(axis=0), turned.argmin(axis=0) + 1
    return Pairs(rows, columns, bits, orientations)


def deciding_words(radius: int, deviations: float = _DEVIATIONS) -> int:
    """Return how many 64-bit words of a key tell nearly all random pairs to be beyond a radius."""
    for words in range(1, _WORDS):
        bits = words * _WORD_BITS
        if bits / 2 - deviations * bits**0.5 / 2 >= radius:
            return words
    return _WORDS


def _least(
    left: NDArray[np.uint64],
    right: NDArray[np.uint64],
    scratch: list[NDArray[np.unsignedinteger]],
) -> NDArray[np.unsignedinteger]:
    """Return the least distances of the first words of pairs over the orientations, [t, c].

    Args:
        left: uint64 [8, w, t, 1]: word by word.
        right: uint64 [w, c]: so too, so that each comparison runs along memory.
        scratch: arrays of at least t * c: uint64, then three of a type that holds 64 w, the last
            of which holds what is returned.
    """
    tile = (left.shape[2], right.shape[1])
    size = tile[0] * tile[1]
    differing, counted, total, least = (array[:size].reshape(tile) for array in scratch)
    least[:] = np.iinfo(least.dtype).max
    with np.errstate():  # which ends what is set within
        # Of rows of which three fit its buffer, numpy 2.4 makes copies, at four times the time.
        np.setbufsize(_LEAST_BUFFER)
        for turned in left:
            for word, (one, other) in enumerate(zip(turned, right, strict=True)):
                np.bitwise_xor(one, other, out=differing)
                np.bitwise_count(differing, out=counted if word else total)
                if word:
                    np.add(total, counted, out=total)
            np.minimum(least, total, out=least)
    return least


def pairs_within(
    left: NDArray[np.uint8], right: NDArray[np.uint8], radius: int, *, same: bool
) -> Iterator[Pairs]:
    """Yield all pairs whose least distance over the eight orientations is at most ``radius``.

    The first words of the keys bound the distance from below and rule out nearly all pairs, and the
    next word those that pass by chance; what they leave is measured.

    Args:
        left: uint8 [8, n, 32], each image's key in the eight orientations.
        right: uint8 [m, 32], each image's key as it stands.
        radius: bits, inclusive.
        same: the two sides are the same images; then only pairs with row < column are given.

    Yields:
        Pairs, a tile at a time.
    """
    words = deciding_words(radius, _FEW_DEVIATIONS)
    whole_left = np.ascontiguousarray(np.ascontiguousarray(left).view(np.uint64).swapaxes(1, 2))
    whole_right = np.ascontiguousarray(np.ascontiguousarray(right).view(np.uint64).T)
    words_left, words_right = whole_left[:, :words, :, None], whole_right[:words]
    kind = np.uint8 if words < _WORDS else np.uint16  # four words differ in up to 256 bits
    scratch: list[NDArray[np.unsignedinteger]] = [
        np.empty(_TILE_PAIRS, t) for t in (np.uint64, kind, kind, kind)
    ]
    start = 0
    while start < left.shape[1]:
        first = start + 1 if same else 0
        height = _TILE_PAIRS // max(1, min(len(right) - first, _TILE_COLUMNS))
        tile = words_left[:, :, start : start + height]
        for begin in range(first, len(right), _TILE_COLUMNS):
            least = _least(tile, words_right[:, begin : begin + _TILE_COLUMNS], scratch)
            near = np.flatnonzero(least <= radius)
            rows, columns = np.divmod(near, least.shape[1])
            rows, columns = rows + start, columns + begin
            if words < _WORDS and len(rows):
                turned = whole_left[:, words].take(rows, axis=1)
                following = np.bitwise_count(turned ^ whole_right[words].take(columns))
                # A byte holds both: three words decide for a radius of less than 96.
                near = least.ravel()[near] + following.min(axis=0) <= radius
                rows, columns = rows[near], columns[near]
            if same:  # below the diagonal every pair has been seen from the other side
                above = rows < columns
                rows, columns = rows[above], columns[above]
            if len(rows):
                yield from within(measure(left, right, rows, columns), radius)
        start += height


def within(pairs: Pairs, radius: int) -> Iterator[Pairs]:
    """Yield the pairs of at most ``radius`` bits, if there are any."""
    near = pairs.bits <= radius
    if near.any():
        yield Pairs(
            pairs.rows[near], pairs.columns[near], pairs.bits[near], pairs.orientations[near]
        )
