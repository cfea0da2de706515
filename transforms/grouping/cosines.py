"""Exhaustive search of embeddings by their cosine, and leaders of dense neighbourhoods.

Cosines are rounded to four decimals before they meet a threshold. Matrix products in float32 find
what may pass; what is within their error of the threshold is computed again, exactly: products of
float16 values are multiples of 2**-48, so that float64 adds them without rounding, in any order.
So neither the shape of a product nor the library behind it changes what is near.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

_DECIMALS: Final = 4
_TILE_ROWS: Final = 1024  # of the left side in one product
_TILE_COLUMNS: Final = 8192  # of the right side: 34 MB of cosines at once
_EXACT: Final = 1 << 21  # values computed again at once: 16 MB
# From so many images, evenly spread, densities are estimated.
_SAMPLE: Final = 4096
# The rounding of a product of unit vectors by d values, in the worst order: N. J. Higham, Accuracy
# and Stability of Numerical Algorithms, 3.1; and that of the unit vectors themselves.
_ROUNDING: Final = 2.0**-23

Places = tuple[NDArray[np.int64], NDArray[np.int64]]


class Vectors(NamedTuple):
    """Embeddings, and what their cosines are computed from."""

    halves: NDArray[np.float16]  # [n, d]
    units: NDArray[np.float32]  # [n, d], of length 1
    lengths: NDArray[np.float64]  # [n]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.halves)

    def take(self, rows: NDArray[np.int64] | slice) -> "Vectors":
        """Return some of them."""
        return Vectors(self.halves[rows], self.units[rows], self.lengths[rows])


def vectors_of(halves: NDArray[np.float16]) -> Vectors:
    """Return embeddings with their unit vectors.

    Args:
        halves: float16 [n, d], finite and not zero.
    """
    lengths = np.empty(len(halves), np.float64)
    units = np.empty(halves.shape, np.float32)
    for start in range(0, len(halves), _TILE_ROWS):
        part = halves[start : start + _TILE_ROWS].astype(np.float64)
        norms = np.sqrt((part * part).sum(axis=1))
        lengths[start : start + _TILE_ROWS] = norms
        units[start : start + _TILE_ROWS] = part / norms[:, None]
    return Vectors(halves, units, lengths)


def cosines(
    left: Vectors, right: Vectors, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the cosines of pairs, rounded to four decimals.

    Args:
        left: of the first of each pair.
        right: of the second.
        rows: int64 [n], of the left side.
        columns: int64 [n], of the right side.

    Returns:
        float64 [n]; the same whatever other pairs are asked for.
    """
    found = np.empty(len(rows), np.float64)
    step = max(1, _EXACT // max(1, left.halves.shape[1]))
    for start in range(0, len(rows), step):
        i, j = rows[start : start + step], columns[start : start + step]
        products = left.halves[i].astype(np.float64) * right.halves[j]
        found[start : start + step] = products.sum(axis=1) / (left.lengths[i] * right.lengths[j])
    return np.asarray(found.round(_DECIMALS), np.float64)


def near(left: Vectors, right: Vectors, similarity: float) -> Iterator[Places]:
    """Yield the pairs whose rounded cosine is at least ``similarity``, a tile at a time."""
    for row in range(0, len(left), _TILE_ROWS):
        some = left.take(slice(row, row + _TILE_ROWS))
        for column in range(0, len(right), _TILE_COLUMNS):
            rows, columns = _near(
                some, right.take(slice(column, column + _TILE_COLUMNS)), similarity
            )
            yield rows + row, columns + column


def _near(left: Vectors, right: Vectors, similarity: float) -> Places:
    """Return the pairs of one tile."""
    products = left.units @ right.units.T
    limit = similarity - 0.5 * 10.0**-_DECIMALS
    slack = (left.units.shape[1] + 2) * _ROUNDING
    rows, columns = np.nonzero(products >= np.float32(limit - slack))
    unsure = np.flatnonzero(products[rows, columns] <= np.float32(limit + slack))
    keep = np.ones(len(rows), np.bool_)
    keep[unsure] = cosines(left, right, rows[unsure], columns[unsure]) >= similarity
    return rows[keep], columns[keep]


def near_pairs(vectors: Vectors, similarity: float) -> Iterator[Places]:
    """Yield the near pairs among some vectors, row < column, each once."""
    for start in range(0, len(vectors), _TILE_ROWS):
        some = vectors.take(slice(start, start + _TILE_ROWS))
        for rows, columns in near(some, vectors.take(slice(start, None)), similarity):
            above = rows < columns
            yield rows[above] + start, columns[above] + start


def near_one(vectors: Vectors, image: int, others: NDArray[np.int64], similarity: float) -> Places:
    """Return the place of one image, again and again, and which of others are near it."""
    one = vectors.take(slice(image, image + 1))
    _, found = _near(one, vectors.take(others), similarity)
    return np.full(len(found), image), others[found]


def elect_leaders(
    vectors: Vectors, precedence: NDArray[np.int64], similarity: float, bound: int
) -> NDArray[np.int64]:
    """Elect the leaders of the images that have more than ``bound`` others near them.

    Of those, the first in the order leads, and takes all of them that are near it; so does each
    later one that no other took. An image without so many neighbours neither leads nor follows.
    How many there are is estimated by an even sample, which up to 4,096 images is all of them.

    Args:
        vectors: of n images.
        precedence: int64 [n], each image's place in the keep-best order.
        similarity: least cosine.
        bound: images.

    Returns:
        int64 [n]: the number of the leader (its own for a leader), -1 where no bound is applied.
    """
    leaders = np.full(len(vectors), -1, np.int64)
    if len(vectors) <= bound:
        return leaders
    sampled = np.linspace(0, len(vectors) - 1, min(len(vectors), _SAMPLE)).astype(np.int64)
    counts = np.zeros(len(vectors), np.int64)
    for rows, _ in near(vectors, vectors.take(sampled), similarity):
        counts += np.bincount(rows, minlength=len(vectors))
    # Each image is near itself, and in the sample or not, whatever its neighbourhood.
    counts[sampled] -= 1
    dense = np.flatnonzero(counts * len(vectors) > bound * len(sampled))
    left = dense[np.argsort(precedence[dense], kind="stable")]
    while len(left):
        _, led = near_one(vectors, int(left[0]), left, similarity)
        leaders[led] = left[0]
        left = left[leaders[left] < 0]
    return leaders
