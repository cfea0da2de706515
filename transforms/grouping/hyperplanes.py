"""Search of very many embeddings by the sides of random hyperplanes on which they lie.

Two vectors lie on different sides of a random hyperplane with a probability of their angle over pi
(M. S. Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002,
doi 10.1145/509907.509965). So 1,024 of them make a sketch of 128 bytes, of which the Hamming
distance tells the angle: within two degrees in two of three cases at a cosine of 0.9. Normals are
of +1 and -1 (D. Achlioptas, "Database-friendly random projections", JCSS 66, 2003,
doi 10.1016/S0022-0000(03)00025-4), and values are rounded to whole steps, so that projections
are sums of whole numbers that float32 holds: equal however a product is cut.

As in that paper, sketches are sorted by a part of their bits, once a table, and each meets those
that follow it: the bits in which neighbours agree grow with the logarithm of their number, and work
is bounded whatever the model. Where many agree in more bits than chance explains, leaders are
elected, and their near ones are proposed with them alone.
"""

import hashlib
import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

BITS: Final = 1024
SKETCH_BYTES: Final = BITS // 8
TABLES: Final = 32
#: Followers that a sketch meets in a table.
WINDOW: Final = 32
_WORDS: Final = SKETCH_BYTES // 8
# Rounded values of unit vectors: for d below 65,536 no projection reaches 2**24.
_STEPS: Final = 1 << 16
# A sketch agrees in so many bits more with its run than a window is long by chance alone.
_RUN_BITS: Final = 6
_ELECTIONS: Final = 4  # leaders of one run in one table
_CHUNK: Final = 1 << 15  # sketches compared with those that follow: 512 KB, in a core's cache
_MEASURED: Final = 1 << 16  # pairs measured at once: 16 MB
# Two words of sixteen say that a pair is far where they differ by this many standard deviations
# more than those of a pair at the radius: one such pair in 4,000.
_FIRST_WORDS: Final = 2
_DEVIATIONS: Final = 3.5
_HELD: Final = 1 << 20  # pairs, before those that several tables found are counted once

Places = tuple[NDArray[np.int64], NDArray[np.int64]]


class Found(NamedTuple):
    """What a search found."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]  # rows < columns
    led: NDArray[np.bool_]  # [n], whether an image was proposed with a leader instead of others


def normals(dimensions: int) -> NDArray[np.float32]:
    """Return the normals of the hyperplanes, +1 and -1, float32 [d, 1024].

    Args:
        dimensions: d, on which alone they depend.
    """
    seed = f"hyperplanes of {dimensions} dimensions".encode("ascii")
    data = hashlib.shake_256(seed).digest(dimensions * SKETCH_BYTES)
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).reshape(dimensions, BITS)
    return bits.astype(np.float32) * 2 - 1


def sketch(units: NDArray[np.float32], planes: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return on which side of each hyperplane vectors lie.

    Args:
        units: float32 [n, d], of length 1.
        planes: float32 [d, 1024] of ``normals``.

    Returns:
        uint8 [n, 128].
    """
    whole = np.rint(units * np.float32(_STEPS))
    return np.packbits(whole @ planes > 0, axis=1)


def radius_bits(similarity: float) -> int:
    """Return the distance of sketches up to which a pair is proposed.

    Args:
        similarity: the least cosine, 0..1.

    Returns:
        What is expected at that cosine and a standard deviation: five of six such pairs pass.
    """
    share = math.acos(min(max(similarity, -1.0), 1.0)) / math.pi
    return round(BITS * share + math.sqrt(BITS * share * (1 - share)))


def search(
    sketches: NDArray[np.uint8],
    precedence: NDArray[np.int64],
    radius: int,
    sides: NDArray[np.bool_] | None = None,
) -> Found:
    """Find near pairs of sketches in bounded time.

    Args:
        sketches: uint8 [n, 128], in an order that is a function of the set.
        precedence: int64 [n], each image's place in the keep-best order.
        radius: bits, inclusive.
        sides: bool [n]; where given, only pairs of two sides are returned.

    Returns:
        The pairs, each once, in ascending order.
    """
    words = np.ascontiguousarray(sketches).view(np.uint64)
    led = np.zeros(len(words), np.bool_)
    codes, held = [np.empty(0, np.int64)], 0
    for table in range(TABLES):
        order, keys = _sorted(words, np.flatnonzero(~led), table)
        for rows, columns in (
            *_follow_leaders(words, order, keys, precedence, radius, led),
            *_meet_next(words, order[~led[order]], table, radius, sides),
        ):
            if sides is not None:
                apart = sides[rows] != sides[columns]
                rows, columns = rows[apart], columns[apart]
            low, high = np.minimum(rows, columns), np.maximum(rows, columns)
            codes.append(low * len(words) + high)
            held += len(low)
            if held > max(_HELD, len(codes[0])):
                codes, held = [np.unique(np.concatenate(codes))], 0
    rows, columns = np.divmod(np.unique(np.concatenate(codes)), max(1, len(words)))
    return Found(rows, columns, led)


def _sorted(
    words: NDArray[np.uint64], rows: NDArray[np.int64], table: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return some rows in the order of one table, and their keys: 64 bits from its own on."""
    word, half = divmod(table, 2)
    keys = words[rows, word].byteswap()
    if half:
        after = words[rows, (word + 1) % _WORDS].byteswap()
        keys = keys << np.uint64(32) | after >> np.uint64(32)
    order = np.argsort(keys, kind="stable")
    return rows[order], keys[order]


def _distances(
    words: NDArray[np.uint64], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the Hamming distances of pairs."""
    bits = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), _MEASURED):
        part = slice(start, start + _MEASURED)
        bits[part] = np.bitwise_count(words[rows[part]] ^ words[columns[part]]).sum(axis=1)
    return bits


def _follow_leaders(
    words: NDArray[np.uint64],
    order: NDArray[np.int64],
    keys: NDArray[np.uint64],
    precedence: NDArray[np.int64],
    radius: int,
    led: NDArray[np.bool_],
) -> Iterator[Places]:
    """Yield pairs of leaders and those near them, and note who follows.

    A run is what agrees in so many first bits that by chance it has fewer than two. Of one that is
    longer than a window, the first in the keep-best order leads what is near it, if that is more
    than a window.
    """
    run_bits = math.ceil(math.log2(max(len(order) / WINDOW, 1.0))) + _RUN_BITS
    prefix = keys >> np.uint64(64 - min(run_bits, 64))
    starts = np.flatnonzero(np.r_[True, prefix[1:] != prefix[:-1]]) if len(keys) else keys
    sizes = np.diff(starts, append=len(keys)).astype(np.int64)
    run = np.repeat(np.arange(len(sizes)), sizes)
    crowded = (sizes > WINDOW)[run]
    rows, run = order[crowded], run[crowded]
    first = np.lexsort((precedence[rows], run))
    rows, run = rows[first], run[first]
    for _ in range(_ELECTIONS):
        if not len(rows):
            return
        heads = np.flatnonzero(np.r_[True, run[1:] != run[:-1]])
        sizes = np.diff(heads, append=len(rows))
        leaders = np.repeat(rows[heads], sizes)
        near = (_distances(words, rows, leaders) <= radius) & (rows != leaders)
        yield leaders[near], rows[near]
        many = np.repeat(np.add.reduceat(near.astype(np.int64), heads) > WINDOW, sizes)
        led[rows[near & many]] = True
        left = ~(near & many) & (rows != leaders)
        rows, run = rows[left], run[left]


def _meet_next(
    words: NDArray[np.uint64],
    order: NDArray[np.int64],
    table: int,
    radius: int,
    sides: NDArray[np.bool_] | None,
) -> Iterator[Places]:
    """Yield the near pairs of each sketch and those that follow it in the order of one table."""
    share = radius / BITS
    bits = _FIRST_WORDS * 64
    first_limit = bits * share + _DEVIATIONS * math.sqrt(bits * share * (1 - share))
    # Not of the bits in which neighbours agree in any case.
    chosen = [(table // 2 + 2 + word) % _WORDS for word in range(_FIRST_WORDS)]
    columns = [np.ascontiguousarray(words[order, word]) for word in chosen]
    side = None if sides is None else sides[order]
    for start in range(0, len(order), _CHUNK):
        for shift in range(1, WINDOW + 1):
            end = min(start + _CHUNK, len(order) - shift)
            if end <= start:
                break
            here, there = slice(start, end), slice(start + shift, end + shift)
            differing = np.zeros(end - start, np.uint8)
            for column in columns:
                differing += np.bitwise_count(column[here] ^ column[there])
            passed = differing <= first_limit
            if side is not None:
                passed &= side[here] != side[there]
            places = np.flatnonzero(passed) + start
            rows, others = order[places], order[places + shift]
            near = _distances(words, rows, others) <= radius
            yield rows[near], others[near]
