"""Pairs of images with words in common whose places agree on one similarity transform.

Equal words alone are weak: at 5,000 images and 20 bits, one random pair in fifteen has two in
common. Two matched points fix a similarity transform, and their own angles and levels say what it
must be; asking for that leaves one random pair in a hundred of those with two words (weak geometric
consistency: H. Jegou, M. Douze, C. Schmid, "Hamming embedding and weak geometric consistency for
large scale image search", ECCV 2008, doi 10.1007/978-3-540-88682-2_24).
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from transforms.imaging.words import NO_MIRROR, SCALE, WORD_BITS

__all__ = ["Matches", "Votes", "count_votes", "match_words", "unit_maps", "word_width"]

#: Images with one word above which its pairs are no longer all made.
DF_CUT: Final = 64
#: The images to which the others with such a word are matched.
_LEADERS: Final = 2
# With w bits and 384 words an image, a word has 384 n / 2**w images by chance.
_BITS_OVER_COUNT: Final = 8
_MIN_WIDTH: Final = 18
_MOST_MATCHES: Final = 8  # looked at for one pair
_CHUNK: Final = 1 << 17  # pairs looked at in one step
_ANGLE_STEP: Final = 2.0 * np.pi / 256.0
_ANGLE_LIMIT: Final = np.deg2rad(20.0)
_DIRECTION_LIMIT: Final = np.deg2rad(25.0)
_LEVEL_LIMIT: Final = 1  # levels by which two matches may differ in scale
_LENGTH_LIMIT: Final = 0.45  # natural logarithm of the ratio of lengths, against the levels
_LEAST_LENGTH: Final = 6.0  # pixels between two points of use
#: A word of one image as it is matched; ``level`` has ``MIRRORED`` added if the word, x and angle
#: are those of the flipped picture.
POSTING: Final = np.dtype(
    [("word", "<u4"), ("x", "u1"), ("y", "u1"), ("angle", "u1"), ("level", "u1")]
)
MIRRORED: Final = 128
_PLACE: Final = [("x", "u1"), ("y", "u1"), ("angle", "u1"), ("level", "u1")]
#: A point of the first image at x + iy, in the pixels in which words lie, is at z (x + iy) + t of
#: the second, or of the second flipped so that x is 255 - x; a transform is the real and imaginary
#: parts of z and t in parts of this size.
FIXED_POINT: Final = 1 << 16
#: Two matched points: of the first image as it is, of the second flipped if its level says so.
MATCH: Final = np.dtype([("a", _PLACE), ("b", _PLACE)])

_Index = npt.NDArray[np.int64]


class Matches(NamedTuple):
    """Equal words of two images."""

    first: _Index  # [m], the image that comes first
    second: _Index  # [m]
    places: npt.NDArray[np.void]  # MATCH [m]
    cut: int  # words that were too common for all their pairs to be made


class Votes(NamedTuple):
    """Pairs of images with matches that agree."""

    first: _Index  # [k]
    second: _Index  # [k]
    votes: npt.NDArray[np.int16]  # [k], agreeing matches; negative if the second one is flipped
    transforms: npt.NDArray[np.int32]  # [k, 4], see ``FIXED_POINT``


def word_width(images: int) -> int:
    """Return how many bits of a word to match among that many images."""
    return min(WORD_BITS, max(_MIN_WIDTH, int(images).bit_length() + _BITS_OVER_COUNT))


def postings(rows: npt.NDArray[np.void], width: int) -> npt.NDArray[np.void]:
    """Return the postings of one image.

    Args:
        rows: ``imaging.words.ROW`` [n].
        width: bits of a word to keep, 1..32.

    Returns:
        ``POSTING`` [m], those of the flipped picture last.
    """
    flipped = rows[rows["level"] < NO_MIRROR]
    out = np.zeros(len(rows) + len(flipped), POSTING)
    plain, other = out[: len(rows)], out[len(rows) :]
    shift = np.uint32(WORD_BITS - width)
    plain["word"], other["word"] = rows["word"] >> shift, flipped["mirrored"] >> shift
    for name in ("x", "y", "angle"):
        plain[name], other[name] = rows[name], flipped[name]
    plain["level"] = rows["level"] % NO_MIRROR
    other["level"] = flipped["level"] + MIRRORED
    _flip(other)
    return out


def _flip(places: npt.NDArray[np.void]) -> None:
    """Flip places left to right; only differences of x count, so any axis will do."""
    places["x"] = 255 - places["x"]
    places["angle"] = 128 - places["angle"]  # modulo 256


def match_words(words: npt.NDArray[np.void], image: npt.NDArray[np.integer]) -> Matches:
    """Match equal words of different images.

    A word of more than ``DF_CUT`` postings matches all its images with the first few alone, so that
    the work stays linear; which they are is the same for every word that a group has in common.

    Args:
        words: ``POSTING`` [r].
        image: integers [r], the images' numbers, at least 0.

    Returns:
        The matches, in no order of meaning.
    """
    order = np.lexsort((image, words["word"]))
    words, image = words[order], image[order].astype(np.int64)
    starts = np.flatnonzero(np.r_[True, words["word"][1:] != words["word"][:-1]][: len(words)])
    counts = np.diff(np.r_[starts, len(words)])
    rows_a, rows_b = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for count in np.unique(counts):
        if 2 <= count <= DF_CUT:
            i, j = np.triu_indices(int(count), 1)
            begin = starts[counts == count][:, None]
            rows_a.append((begin + i).ravel())
            rows_b.append((begin + j).ravel())
    common = np.flatnonzero(counts > DF_CUT)
    for start, count in zip(starts[common].tolist(), counts[common].tolist(), strict=True):
        a, b = _with_leaders(np.asarray(image[start : start + count], np.int64))
        rows_a.append(start + a)
        rows_b.append(start + b)
    a, b = np.concatenate(rows_a), np.concatenate(rows_b)
    turned = words["level"] >= MIRRORED
    kept = (image[a] != image[b]) & ~(turned[a] & turned[b])
    a, b = a[kept], b[kept]
    return Matches(image[a], image[b], _places(words[a], words[b]), len(common))


def _with_leaders(image: npt.NDArray[np.int64]) -> tuple[_Index, _Index]:
    """Return the pairs of a common word: every posting with those of the first images."""
    leaders = np.flatnonzero(image <= np.unique(image)[:_LEADERS][-1])
    a, b = np.meshgrid(leaders, np.arange(len(image)), indexing="ij")
    kept = a < b
    return a[kept], b[kept]


def _places(a: npt.NDArray[np.void], b: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Return where matched points lie, the first image never flipped."""
    out = np.zeros(len(a), MATCH)
    for side, rows in (("a", a), ("b", b)):
        for name in ("x", "y", "angle", "level"):
            out[side][name] = rows[name]
    wrong = out["a"]["level"] >= MIRRORED
    both = out[wrong]
    for side in ("a", "b"):
        _flip(both[side])
        both[side]["level"] ^= MIRRORED
    out[wrong] = both
    return out


def count_votes(
    first: npt.NDArray[np.integer],
    second: npt.NDArray[np.integer],
    places: npt.NDArray[np.void],
    least: int = 2,
) -> Votes:
    """Count for each pair of images the matches that agree on one similarity transform.

    Args:
        first: integers [m], the images' numbers.
        second: integers [m], of the images that come second.
        places: ``MATCH`` [m].
        least: votes of a pair that is returned, at least 2.

    Returns:
        The pairs in ascending order. Of many matches a few are looked at.
    """
    images = int(second.max(initial=0)) + 1
    flipped = places["b"]["level"] >= MIRRORED
    key = (first.astype(np.int64) * images + second) * 2 + flipped
    # Most random matches are the only one of their pair: they go before anything is looked at.
    _, back, number = np.unique(key, return_inverse=True, return_counts=True)
    several = number[back] >= least
    key, places = key[several], places[several]
    order = np.lexsort((places.view("<u8"), key))
    key, places = key[order], places[order]
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]][: len(key)])
    votes, transforms = _agreeing(places, starts, np.diff(np.r_[starts, len(key)]))
    kept = votes >= least
    return _best_sense(key[starts[kept]], votes[kept], transforms[kept], images)


def _best_sense(
    key: _Index, votes: npt.NDArray[np.int16], transforms: npt.NDArray[np.int32], images: int
) -> Votes:
    """Keep, of a pair that agrees as it is and flipped, the sense with more votes."""
    signed = np.where(key % 2 == 1, -votes, votes).astype(np.int16)
    pair = key // 2
    order = np.lexsort((key % 2, -votes, pair))
    pair = pair[order]
    top = np.r_[True, pair[1:] != pair[:-1]][: len(pair)]
    pair, order = pair[top], order[top]
    return Votes(pair // images, pair % images, signed[order], transforms[order])


def _agreeing(
    places: npt.NDArray[np.void], starts: _Index, counts: _Index
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int32]]:
    """Return the largest number of agreeing matches of each pair, and their transform."""
    best, transforms = np.zeros(len(starts), np.int16), np.zeros((len(starts), 4), np.int32)
    looked = np.minimum(counts, _MOST_MATCHES)
    for count in np.unique(looked).tolist():
        these = np.flatnonzero(looked == count)
        for begin in range(0, len(these), _CHUNK):
            some = these[begin : begin + _CHUNK]
            of_pairs = places[starts[some][:, None] + np.arange(count)]
            agree = _agree(of_pairs)
            best[some] = agree.sum(axis=1)
            several = np.flatnonzero(best[some] > 1)
            transforms[some[several]] = _fitted(of_pairs[several], agree[several])
    return best, transforms


def _agree(places: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Return the most matches that agree, of MATCH [n, k]: each in turn is taken for the transform.

    Returns:
        bool [n, k]; the earliest of several sets of one size.
    """
    a, b = places["a"], places["b"]
    xa, ya, xb, yb = (
        side[name].astype(np.float32) for side, name in ((a, "x"), (a, "y"), (b, "x"), (b, "y"))
    )
    turn = (b["angle"].astype(np.int16) - a["angle"]).astype(np.float32) * np.float32(_ANGLE_STEP)
    # A point found at a higher level is larger: the picture in which it is has the larger scale.
    levels = (b["level"] % MIRRORED).astype(np.float32) - a["level"]
    agree, most = np.zeros(places.shape, np.bool_), np.zeros(len(places), np.int64)
    for seed in range(places.shape[1]):
        one = slice(seed, seed + 1)
        ax, ay, bx, by = xa - xa[:, one], ya - ya[:, one], xb - xb[:, one], yb - yb[:, one]
        long_a, long_b = np.hypot(ax, ay), np.hypot(bx, by)
        apart = (long_a > _LEAST_LENGTH) & (long_b > _LEAST_LENGTH)
        length = np.log(np.maximum(long_b, 1.0) / np.maximum(long_a, 1.0))
        direction = np.arctan2(by, bx) - np.arctan2(ay, ax)
        good = (
            apart
            & (_turned(turn - turn[:, one]) < _ANGLE_LIMIT)
            & (np.abs(levels - levels[:, one]) <= _LEVEL_LIMIT)
            & (_turned(direction - turn[:, one]) < _DIRECTION_LIMIT)
            & (np.abs(length - levels[:, one] * np.float32(np.log(SCALE))) < _LENGTH_LIMIT)
        )
        good[:, seed] = True
        count = good.sum(axis=1)
        better = count > most
        agree[better], most[better] = good[better], count[better]
    return agree


def _fitted(places: npt.NDArray[np.void], agree: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Fit a similarity transform to the matches that agree, int32 [n, 4], see ``FIXED_POINT``.

    The scale is the ratio of the deviations, so that exchanging the images inverts the transform.
    """
    a, b = (places[side]["x"] + 1j * places[side]["y"] for side in ("a", "b"))
    weights = agree / agree.sum(axis=1, keepdims=True)
    mean_a, mean_b = (weights * a).sum(axis=1), (weights * b).sum(axis=1)
    apart_a, apart_b = a - mean_a[:, None], b - mean_b[:, None]
    both = (weights * apart_b * np.conj(apart_a)).sum(axis=1)
    scale = np.sqrt(
        (weights * np.abs(apart_b) ** 2).sum(axis=1) / (weights * np.abs(apart_a) ** 2).sum(axis=1)
    )
    z = scale * both / np.maximum(np.abs(both), 1e-9)
    t = mean_b - z * mean_a
    parts = np.stack([z.real, z.imag, t.real, t.imag], axis=1)
    return np.asarray(np.rint(parts * FIXED_POINT), np.int32)


def unit_maps(
    transforms: npt.NDArray[np.int32],
    votes: npt.NDArray[np.integer],
    sizes_a: npt.NDArray[np.integer],
    sizes_b: npt.NDArray[np.integer],
) -> npt.NDArray[np.float64]:
    """Return transforms as maps between pictures of side 1.

    Args:
        transforms: int32 [n, 4] of ``Votes``.
        votes: int [n] of the same.
        sizes_a: int [n, 2], width and height, pixels, in which the words of a lie.
        sizes_b: int [n, 2], the same of b.

    Returns:
        float64 [n, 2, 3], affine maps over (x, y, 1), x and y from 0 to 1 over each picture.
    """
    parts = transforms / FIXED_POINT
    maps = np.empty((len(parts), 2, 3))
    maps[:, 0] = np.stack([parts[:, 0], -parts[:, 1], parts[:, 2]], axis=1)
    maps[:, 1] = np.stack([parts[:, 1], parts[:, 0], parts[:, 3]], axis=1)
    flipped = np.asarray(votes) < 0
    maps[flipped, 0] *= -1.0
    maps[flipped, 0, 2] += 255.0
    # The centre of the first pixel is at 0, its outer corner at the border of the picture.
    maps[:, :, 2] += 0.5 - 0.5 * maps[:, :, :2].sum(axis=2)
    maps[:, :, :2] *= np.asarray(sizes_a, np.float64)[:, None, :]
    return np.asarray(maps / np.asarray(sizes_b, np.float64)[:, :, None], np.float64)


def _turned(angle: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the size of an angle, radians, 0..pi."""
    return np.asarray(np.abs(np.remainder(angle + np.pi, 2.0 * np.pi) - np.pi), np.float32)
