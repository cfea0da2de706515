"""Banded search of wavelet keys: pairs that agree on a band of bits in some orientation.

A turn or mirror moves each bit of a key within an *orbit* of eight (or four) places and may negate
it. So keys are kept in *orbit order*, one orbit (or two of four) a byte, the bytes in a fixed
pseudo-random order: any choice of bytes is a band that is closed under the eight orientations and
mixes levels and places. The least value of a band over the orientations is the same for an image
and its turned copies; two images that agree on a band up to orientation share it, and the
orientations that attain it align the two. One value an image and band thus does the work of eight
queries, and one comparison of aligned keys that of eight (hashing by random bits: P. Indyk,
R. Motwani, "Approximate nearest neighbors", STOC 1998).

A key of an image of which some coefficients are zero is not given by its plain form alone: a zero
is "not greater than zero" in every orientation. The compact form holds the bits of the positive
and of the negative coefficients, 64 bytes, from which all eight keys follow.
"""

import hashlib
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transforms.grouping.hamming import (
    KEY_BYTES,
    ORIENTATIONS,
    Pairs,
    deciding_words,
    measure,
    within,
)
from transforms.imaging.wavelet import ORIENTATION_TABLE

BANDS: Final = 16
COMPACT_BYTES: Final = 2 * KEY_BYTES
_BITS: Final = 8 * KEY_BYTES
_WIDTHS: Final = (16, 20, 24, 28)
# Random keys that an image may meet in one band; each costs about 10 ns.
_CHANCE_PAIRS: Final = 64
_CHUNK: Final = 1 << 18  # pairs compared at once: 40 MB of scratch memory
_ROWS: Final = 4096  # keys turned and valued at once: 1 MB, which stays in a core's cache


def _digest(*numbers: int) -> bytes:
    return hashlib.sha256(repr(numbers).encode("ascii")).digest()


def _orbit_order() -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the bits of a key in orbit order [256], and which bytes are two orbits of four [32].

    The pseudo-random order of the bytes is that of the SHA-256 of their first bits.
    """
    columns = (ORIENTATION_TABLE % _BITS).T.tolist()
    orbits = sorted({tuple(sorted(set(places))) for places in columns})
    fours = [orbit for orbit in orbits if len(orbit) == 4]
    fours.sort(key=lambda orbit: _digest(orbit[0]))
    pairs = [a + b for a, b in zip(fours[::2], fours[1::2], strict=True)]
    whole = [orbit for orbit in orbits if len(orbit) == 8] + pairs
    whole.sort(key=lambda places: _digest(places[0]))
    return np.array(whole, np.intp).ravel(), np.array([places in pairs for places in whole])


_ORDER, _HALVES = _orbit_order()
_SIGNS: Final = np.concatenate([_ORDER, _BITS + _ORDER])


def _turning_tables() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return what a byte of positive, and of negative, signs adds to a turned key's byte.

    Returns:
        Twice uint64 [32, 256]: byte in orbit order, value of the byte. Each holds the bytes of the
        eight orientations, in the order of memory.
    """
    place = np.empty(_BITS, np.intp)
    place[_ORDER] = np.arange(_BITS)
    sources = ORIENTATION_TABLE[:, _ORDER]
    within_byte = (place[sources % _BITS] % 8).reshape(ORIENTATIONS, KEY_BYTES, 8)
    negated = (sources >= _BITS).reshape(ORIENTATIONS, KEY_BYTES, 1, 8)
    values = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    moved = values[:, within_byte].transpose(1, 2, 0, 3)
    positive, negative = (
        np.ascontiguousarray(np.packbits(moved * bits, axis=-1)[..., 0].transpose(1, 2, 0))
        for bits in (~negated, negated)
    )
    return positive.view(np.uint64)[..., 0], negative.view(np.uint64)[..., 0]


_FROM_POSITIVE, _FROM_NEGATIVE = _turning_tables()


def compact(signs: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the compact form of keys.

    Args:
        signs: bool [n, 512] of ``imaging.wavelet.wavelet_signs``.

    Returns:
        uint8 [n, 64]: bits of the positive, then of the negative coefficients, in orbit order.
    """
    return np.packbits(signs[:, _SIGNS], axis=1)


def turn(signs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the keys of compact forms in the eight orientations, in orbit order.

    Args:
        signs: uint8 [n, 64] of ``compact``.

    Returns:
        uint8 [8, n, 32].
    """
    turned = np.empty((ORIENTATIONS, len(signs), KEY_BYTES), np.uint8)
    for start in range(0, len(signs), _ROWS):
        rows = signs[start : start + _ROWS]
        eight = np.empty((len(rows), KEY_BYTES), np.uint64)
        for byte in range(KEY_BYTES):
            positive = _FROM_POSITIVE[byte].take(rows[:, byte])
            negative = _FROM_NEGATIVE[byte].take(rows[:, KEY_BYTES + byte])
            eight[:, byte] = positive | negative
        by_row = eight.view(np.uint8).reshape(len(rows), KEY_BYTES, ORIENTATIONS)
        turned[:, start : start + _ROWS] = by_row.transpose(2, 0, 1)
    return turned


def band_width(keys: int) -> int:
    """Return the bits of a band for that many keys: an image meets few others by chance.

    Among n random keys in eight orientations an image meets 8 n / 2**width others in a band, half
    of them from its own side. The width grows with log2 n, by orbits of four bits.
    """
    return next((width for width in _WIDTHS if 4 * keys <= _CHANCE_PAIRS << width), _WIDTHS[-1])


def band_masks(width: int) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """Return the bytes of each band and which of their bits count.

    Bands take the bytes that fewest bands before them took, so at 16 bits they are disjoint.

    Args:
        width: 16, 20, 24 or 28 bits; four bits more than whole bytes are an orbit of four.

    Returns:
        Bytes in orbit order, intp [16, b], and masks, uint8 [16, b].
    """
    whole, rest = divmod(width, 8)
    halves, eights = np.flatnonzero(_HALVES), np.flatnonzero(~_HALVES)
    pool = eights if rest else np.arange(KEY_BYTES)
    used = np.zeros(KEY_BYTES, np.int64)
    columns, masks = [], []
    for band in range(BANDS):
        # A stable sort; rolled, so that equally used bytes meet others than before.
        order = sorted(np.roll(pool, 5 * band).tolist(), key=used.__getitem__)
        chosen, mask = order[:whole], [0xFF] * whole
        used[chosen] += 1
        if rest:
            chosen = [int(halves[band % len(halves)]), *chosen]
            mask = [0xF0 if band // len(halves) % 2 else 0x0F, *mask]
        columns.append(chosen)
        masks.append(mask)
    return np.array(columns, np.intp), np.array(masks, np.uint8)


class BandedKeys(NamedTuple):
    """The keys of some images, and their values in each band."""

    turned: NDArray[np.uint8]  # [8, n, 32], in orbit order
    values: NDArray[np.uint16 | np.uint32]  # [16, n], the least over the orientations
    frames: NDArray[np.uint8]  # [16, n]: the first orientation, 0..7, that attains it

    @property
    def images(self) -> int:
        """How many there are."""
        return int(self.turned.shape[1])

    def take(self, rows: NDArray[np.int64]) -> "BandedKeys":
        """Return the keys of some of the images."""
        # Unlike an index, np.take leaves the orientations one after the other in memory.
        return BandedKeys(
            np.take(self.turned, rows, axis=1),
            np.take(self.values, rows, axis=1),
            np.take(self.frames, rows, axis=1),
        )


def band_keys(signs: NDArray[np.uint8], width: int, bands: int = BANDS) -> BandedKeys:
    """Turn compact forms and value them in bands of ``width`` bits.

    Args:
        signs: uint8 [n, 64] of ``compact``.
        width: of a band, see ``band_masks``.
        bands: the first so many of the 16.
    """
    turned = turn(signs)
    columns, masks = band_masks(width)
    # numpy sorts 16 bits by radix, eight times as fast as more.
    values = np.empty((bands, len(signs)), np.uint16 if width <= 16 else np.uint32)
    frames = np.empty((bands, len(signs)), np.uint8)
    # It rides below the value, so that one minimum finds both.
    kind = np.uint32 if 8 * columns.shape[1] + 3 <= 32 else np.uint64
    orientation = np.arange(ORIENTATIONS)[:, None].astype(kind)
    for start in range(0, len(signs), _ROWS):
        part = slice(start, start + _ROWS)
        by_byte = np.ascontiguousarray(turned[:, part].transpose(2, 0, 1))
        for band in range(bands):
            value = np.zeros(by_byte.shape[1:], kind)
            for byte, mask in zip(columns[band], masks[band], strict=True):
                value = value << 8 | (by_byte[byte] & mask)
            least = np.bitwise_or(value << 3, orientation).min(axis=0)
            values[band, part], frames[band, part] = least >> 3, least & 7
    return BandedKeys(turned, values, frames)


def pairs_in_bands(
    left: BandedKeys, right: BandedKeys, radius: int, *, same: bool
) -> Iterator[Pairs]:
    """Yield the pairs within a radius that agree on some band, each once.

    Args:
        left: the images that are turned when a pair is measured.
        right: the others, valued in the same bands.
        radius: bits, inclusive.
        same: the two sides are the same images; then only pairs with row < column are given.

    Yields:
        Pairs, a few hundred thousand candidates at a time.
    """
    found = []
    for band in range(BANDS):
        for rows, columns in _aligned_pairs(left, right, band, radius, same):
            found.append(rows * right.images + columns)
        found = [np.unique(np.concatenate(found))] if found else []
    for start in range(0, len(found[0]) if found else 0, _CHUNK):
        rows, columns = np.divmod(found[0][start : start + _CHUNK], right.images)
        yield from within(measure(left.turned, right.turned[0], rows, columns), radius)


def _aligned_pairs(
    left: BandedKeys, right: BandedKeys, band: int, radius: int, same: bool
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the pairs that share a band's value and are near when it aligns them.

    The first words of a key, all that most pairs take to be told apart, are compared first.
    """
    order_left, keys_left, values_left = _sorted_by_value(left, band)
    if same:
        order_right, keys_right, values_right = order_left, keys_left, values_left
        starts = np.arange(1, left.images + 1)
    else:
        order_right, keys_right, values_right = _sorted_by_value(right, band)
        starts = np.searchsorted(values_right, values_left, "left")
    counts = np.searchsorted(values_right, values_left, "right") - starts
    first = deciding_words(radius)
    for rows, columns in _runs(starts, counts):
        near = _differing(keys_left, keys_right, rows, columns, range(first)) <= radius
        rows, columns = rows[near], columns[near]
        near = _differing(keys_left, keys_right, rows, columns, range(4)) <= radius
        rows, columns = order_left[rows[near]], order_right[columns[near]]
        if same:
            rows, columns = np.minimum(rows, columns), np.maximum(rows, columns)
        yield rows, columns


def _sorted_by_value(
    keys: BandedKeys, band: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint16 | np.uint32]]:
    """Return the order of the images by value, their aligned keys [4, n] and the values."""
    order = np.argsort(keys.values[band], kind="stable")
    # A key as one item: numpy takes those three times as fast as rows of bytes.
    whole = keys.turned.reshape(ORIENTATIONS * keys.images, KEY_BYTES).view(f"V{KEY_BYTES}")
    places = keys.frames[band].take(order).astype(np.intp) * keys.images + order
    aligned = whole.ravel().take(places).view(np.uint64).reshape(-1, KEY_BYTES // 8)
    return order, np.ascontiguousarray(aligned.T), keys.values[band].take(order)


def _runs(
    starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield every (i, starts[i] + k), k < counts[i], a bounded number at a time."""
    ends = np.cumsum(counts)
    shift = starts - (ends - counts)
    for begin in range(0, int(ends[-1]) if len(ends) else 0, _CHUNK):
        places = np.arange(begin, min(begin + _CHUNK, int(ends[-1])))
        low, high = np.searchsorted(ends, [begin, places[-1]], "right")
        span = slice(low, high + 1)
        before = ends[span] - counts[span]
        in_chunk = np.minimum(ends[span], begin + len(places)) - np.maximum(before, begin)
        rows = np.repeat(np.arange(low, high + 1), in_chunk)
        yield rows, places + np.repeat(shift[span], in_chunk)


def _differing(
    left: NDArray[np.uint64],
    right: NDArray[np.uint64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    words: range,
) -> NDArray[np.uint16]:
    total = np.zeros(len(rows), np.uint16)
    for word in words:
        total += np.bitwise_count(left[word].take(rows) ^ right[word].take(columns))
    return total
