"""Leaders of dense neighbourhoods, so that near-identical images cost what their number costs.

Where more than a bound of images lie within the search radius of one image, all pairs among them
would be quadratic. There leaders are elected in the keep-best order, and an image that joins a
leader is paired with it alone. An image without so many neighbours neither leads nor follows.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from transforms.grouping.bands import BANDS, BandedKeys
from transforms.grouping.hamming import distances

# With so many images, evenly spread, a density is estimated: within 6 % at a bound of 256 in 1,024.
_SAMPLE: Final = 1024
# A dense neighbourhood of copies has at least this share of its images in one bucket of a band: 0.6
# of those with 3 % of their bits flipped, 0.2 of those with 10 %.
_BUCKET_SHARE: Final = 4
# Of a crowded bucket, the images that are asked whether they are in a dense neighbourhood.
_ASKED: Final = 4


def elect_leaders(
    keys: BandedKeys, precedence: NDArray[np.int64], radius: int, bound: int
) -> NDArray[np.int64]:
    """Elect the leaders of the images that have more than ``bound`` others within ``radius``.

    Buckets of the bands only name where to look. Of a dense neighbourhood, the first image in the
    order leads and takes all within half the radius; so does each later one with more than the
    bound of unled images that near. The others that are dense themselves follow the first leader
    within the radius. So every follower is dense: it was counted, or it is half the radius from an
    image that has more than the bound within half the radius.

    Args:
        keys: of n images, valued in bands.
        precedence: int64 [n], each image's place in the keep-best order.
        radius: bits, of the search.
        bound: images.

    Returns:
        int64 [n]: the number of the leader (its own for a leader), -1 where no bound is applied.
    """
    leaders = np.full(keys.images, -1, np.int64)
    election = _Election(keys, radius, bound, leaders)
    for band in range(BANDS):
        for bucket in _crowded(keys.values[band], bound // _BUCKET_SHARE):
            members = bucket[leaders[bucket] < 0]
            members = members[np.argsort(precedence[members], kind="stable")]
            for asked in members[:_ASKED].tolist():
                if leaders[asked] >= 0 or not election.is_dense(asked)[0]:
                    continue
                near = np.flatnonzero((election.bits(asked) <= radius) & (leaders < 0))
                election.cover(near[np.argsort(precedence[near], kind="stable")])
    return leaders


def _crowded(values: NDArray[np.uint16 | np.uint32], bound: int) -> Iterator[NDArray[np.int64]]:
    """Yield the images of each bucket that has more than a bound of them."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=np.int64(-1)))
    sizes = np.diff(starts, append=len(values))
    for start, size in zip(starts[sizes > bound], sizes[sizes > bound], strict=True):
        yield order[start : start + size]


class _Election:
    """The state of one election: who leads whom so far."""

    def __init__(
        self, keys: BandedKeys, radius: int, bound: int, leaders: NDArray[np.int64]
    ) -> None:
        self.keys, self.radius, self.leaders = keys, radius, leaders
        self.rows = np.linspace(0, keys.images - 1, min(keys.images, _SAMPLE)).astype(np.int64)
        # Word by word, since nearly all the time of an election goes into comparing these.
        words = np.take(keys.turned, self.rows, axis=1).view(np.uint64)
        self.sample = np.ascontiguousarray(words.transpose(2, 0, 1))
        self.limit = bound * len(self.rows) / max(keys.images, 1)  # of images in the sample

    def bits(self, image: int) -> NDArray[np.uint16]:
        """Return the least distances of all images to one, uint16 [n]."""
        return np.asarray(
            distances(self.keys.turned, self.keys.turned[0, image]).min(axis=0), np.uint16
        )

    def is_dense(self, image: int) -> tuple[bool, bool]:
        """Tell whether more than the bound lie within the radius, and so many unled within half.

        Both are estimated by an even sample of the images.
        """
        words = np.ascontiguousarray(self.keys.turned[0, image]).view(np.uint64)
        differing = np.zeros(self.sample.shape[1:], np.uint16)
        for one, other in zip(self.sample, words, strict=True):
            differing += np.bitwise_count(one ^ other)
        bits = differing.min(axis=0)
        unled = self.leaders[self.rows[bits <= self.radius // 2]] < 0
        return (
            bool(np.count_nonzero(bits <= self.radius) > self.limit),
            bool(np.count_nonzero(unled) > self.limit),
        )

    def cover(self, images: NDArray[np.int64]) -> None:
        """Give each dense image of a neighbourhood, taken in their order, a leader."""
        leading = np.empty(0, np.int64)
        for image in images.tolist():
            if self.leaders[image] >= 0:
                continue
            wide, tight = self.is_dense(image)
            if tight:
                near = (self.leaders < 0) & (self.bits(image) <= self.radius // 2)
                self.leaders[near] = image
            elif wide:
                turned = self.keys.turned[:, leading]
                bits = distances(turned, self.keys.turned[0, image]).min(axis=0)
                first = leading[bits <= self.radius][:1]
                self.leaders[image] = first[0] if len(first) else image
            if self.leaders[image] == image:
                leading = np.append(leading, image)
