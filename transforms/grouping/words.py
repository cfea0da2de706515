"""Pairs of images with words in common whose places agree on one similarity transform.

Equal words alone are weak: at 5,000 images and 20 bits, one random pair in fifteen has two in
common. Two matched points fix a similarity transform, and their own angles and levels say what it
must be; asking for that leaves one random pair in a hundred of those with two words (weak geometric
consistency: H. Jegou, M. Douze, C. Schmid, "Hamming embedding and weak geometric consistency for
large scale image search", ECCV 2008, doi 10.1007/978-3-540-88682-2_24).
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from transforms.imaging.words import NO_MIRROR, SCALE, WORD_BITS

__all__ = [
    "Matches",
    "Share",
    "Votes",
    "count_votes",
    "find_pairs",
    "match_words",
    "postings",
    "unit_maps",
    "word_width",
]

#: Postings of one word above which it is made longer, bit by bit, and above which those that are
#: equal in all bits match with the first few images alone. On three labelled sets, 16 finds as many
#: originals of copies as 64 without longer words; of 8,000 pictures of like shapes
#: (benchmarks/small.py) 63 chance pairs have four votes, not 421.
DF_CUT: Final = 16
#: The images to which the others with such a word are matched.
_LEADERS: Final = 2
# With w bits and 384 words an image, a word has 384 n / 2**w images by chance.
_BITS_OVER_COUNT: Final = 7
_MIN_WIDTH: Final = 18
_SLICE: Final = 1 << 16  # postings matched in one step, so that they stay in the cache
_HELD_SLICES: Final = 32  # most of which the pairs are not listed twice, but held
# Marks for each pair that recurs: of those that do not, one in 32 or more has one by chance.
_MARKS_OF_PAIR: Final = 32
_MOST_MARK_BITS: Final = 24
_STEP: Final = 1 << 18  # matches, before those of pairs that do not recur, of one step of votes
# Odd, so that multiplying by it modulo 2**64 is one to one: 2**64 over the golden ratio
# (D. Knuth, The Art of Computer Programming, volume 3, 6.4). The other undoes it.
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_UNMIX: Final = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
# A place has 27 bits that count: x, y, angle and three of the level.
_PLACE_BITS: Final = np.uint64(27)
_PLACE_MASK: Final = np.uint64((1 << 27) - 1)
_ORDER_MASK: Final = np.uint64((1 << 54) - 1)
_NONE: Final = np.uint64((1 << 64) - 1)
_MOST_MATCHES: Final = 8  # looked at for one pair
_CHUNK: Final = 1 << 13  # pairs looked at in one step, so that they stay in the cache
_ANGLE_LIMIT: Final = 14  # 256ths of a turn: 20 degrees
_TAN_DIRECTION_LIMIT: Final = np.float32(np.tan(np.deg2rad(25.0)))
_LEVEL_LIMIT: Final = 1  # levels by which two matches may differ in scale
# Ratio of squared lengths, against the levels: e to the 0.45 of the lengths.
_SQUARE_LIMIT: Final = np.float32(np.exp(2 * 0.45))
_LEAST_LENGTH: Final = 6.0  # pixels between two points of use
_TURN: Final = np.exp(np.arange(256) * (2j * np.pi / 256.0)).astype(np.complex64)
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


class Share(NamedTuple):
    """A part of all pairs of images; those of one number of shares divide them."""

    number: int
    shares: int  # a power of two


#: All pairs.
WHOLE: Final = Share(0, 1)


class Matches(NamedTuple):
    """Equal words of two images."""

    first: npt.NDArray[np.uint32]  # [m], the number of the image that comes first
    second: npt.NDArray[np.uint32]  # [m]
    places: npt.NDArray[np.void]  # MATCH [m]
    cut: int  # words that were too common for all their pairs to be made

    def part(self, some: slice) -> "Matches":
        """Return some of them."""
        return Matches(self.first[some], self.second[some], self.places[some], 0)


class Votes(NamedTuple):
    """Pairs of images with matches that agree."""

    first: _Index  # [k]
    second: _Index  # [k]
    votes: npt.NDArray[np.int16]  # [k], agreeing matches; negative if the second one is flipped
    transforms: npt.NDArray[np.int32]  # [k, 4], see ``FIXED_POINT``


def word_width(images: int) -> int:
    """Return how many bits of a word to match among that many images."""
    return min(WORD_BITS, max(_MIN_WIDTH, int(images).bit_length() + _BITS_OVER_COUNT))


def postings(rows: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.void], _Index]:
    """Return the postings of images.

    Args:
        rows: ``imaging.words.ROW`` [n].

    Returns:
        ``POSTING`` [m], those of the flipped pictures last; and int [m], the row of each.
    """
    flipped = np.flatnonzero(rows["level"] < NO_MIRROR)
    row = np.concatenate([np.arange(len(rows)), flipped])
    out = np.zeros(len(row), POSTING)
    for name in ("word", "x", "y", "angle"):
        out[name] = rows[name][row]
    out["level"] = (rows["level"] % NO_MIRROR)[row]
    other = out[len(rows) :]
    other["word"] = rows["mirrored"][flipped]
    other["level"] += MIRRORED
    _flip(other)
    return out, row


def _flip(places: npt.NDArray[np.void]) -> None:
    """Flip places left to right; only differences of x count, so any axis will do."""
    places["x"] = 255 - places["x"]
    places["angle"] = 128 - places["angle"]  # modulo 256


class _Equal(NamedTuple):
    """Two postings each of one word, of different images and not both flipped."""

    tag: npt.NDArray[np.uint32]  # [n], of each posting: twice its image's number, 1 more if flipped
    place: npt.NDArray[np.uint32]  # [n], of each posting
    a: npt.NDArray[np.int32]  # [m], into the postings
    b: npt.NDArray[np.int32]  # [m]
    cut: int  # see ``Matches``

    def hashed(self) -> npt.NDArray[np.uint32]:
        """Return hashes of the pairs of images and their senses, uint32 [m]."""
        tags = self.tag[self.a], self.tag[self.b]
        first, second = np.minimum(*tags), np.maximum(*tags)
        key = (first >> np.uint32(1)).astype(np.uint64) << np.uint64(32)
        # One of the two is flipped at most, and it does not matter which.
        key |= second | (first & np.uint32(1))
        key *= _MIX
        return np.asarray(key >> np.uint64(32), np.uint32)

    def matches(self, these: npt.NDArray[np.generic]) -> "Matches":
        """Return some of them with their places."""
        a, b = self.a[these], self.b[these]
        turned = self.tag[a] > self.tag[b]
        a, b = np.where(turned, b, a), np.where(turned, a, b)
        first, second = self.tag[a] >> np.uint32(1), self.tag[b] >> np.uint32(1)
        return Matches(first, second, _places(self.place[a], self.place[b]), self.cut)


def match_words(
    words: npt.NDArray[np.void], image: npt.NDArray[np.integer], width: int
) -> Iterator[Matches]:
    """Match equal words of different images.

    Words are compared in their first bits. Where more than ``DF_CUT`` postings have those in
    common, in one bit more, and so on: common shapes are told apart by more. Above ``DF_CUT``
    postings that are equal in all bits match with the first few images alone, so that the work
    stays linear; which they are is the same for every word that a group has in common.

    Args:
        words: ``POSTING`` [r].
        image: integers [r], the images' numbers, 0 to 2**31 - 1.
        width: bits to begin with, 1..32.

    Yields:
        Matches of parts of the words, in no order of meaning.
    """
    for key in _slices(words, width):
        equal = _equal(words, image, key, width)
        yield equal.matches(np.arange(len(equal.a)))


def find_pairs(
    words: npt.NDArray[np.void],
    image: npt.NDArray[np.integer],
    width: int,
    least: int,
    share: Share = WHOLE,
) -> tuple[Votes, int]:
    """Match words as ``match_words`` does, and count the votes as ``count_votes`` does.

    Most matches are the only one of their pair, and those are never made: first the pairs alone
    are listed, 4 bytes each, and then the matches of those that recur.

    Args:
        words: ``POSTING`` [r].
        image: integers [r], the images' numbers, 0 to 2**31 - 1.
        width: bits to begin with, 1..32.
        least: votes of a pair that is returned, at least 2.
        share: of the pairs.

    Returns:
        The pairs, and how many words were too common for all their pairs to be made.
    """
    slices = list(_slices(words, width))

    def equals() -> Iterator[_Equal]:
        return (_equal(words, image, key, width, share) for key in slices)

    held = [*equals()] if len(slices) <= _HELD_SLICES else None
    hashes = [equal.hashed() for equal in held or equals()]
    marks, bits = _recurring(hashes, least)
    steps: list[list[Matches]] = [[] for _ in range(2 + sum(map(len, hashes)) // _STEP)]
    cut = 0
    for equal, hashed in zip(held or equals(), hashes, strict=True):
        these = np.flatnonzero(marks[hashed >> np.uint32(32 - bits)])
        # In the order of the steps, each a range of hashes.
        step = hashed[these] // np.uint32((1 << 32) // len(steps) + 1)
        order = _order(step)
        ends = np.searchsorted(step[order], np.arange(len(steps)), "right").tolist()
        found = equal.matches(these[order])
        for some, start, end in zip(steps, [0, *ends], ends, strict=False):
            some.append(found.part(slice(start, end)))
        cut += equal.cut
    votes = [_of_senses(_joined(some), least) for some in steps]
    return _best_sense(Votes(*map(np.concatenate, zip(*votes, strict=True)))), cut


def _recurring(
    hashes: list[npt.NDArray[np.uint32]], least: int
) -> tuple[npt.NDArray[np.bool_], int]:
    """Return for the first bits of all hashes whether one of those is there so often; how many."""
    every = np.concatenate(hashes)
    every.sort()
    last = max(0, len(every) - least + 1)
    several = every[:last][every[:last] == every[least - 1 :]]
    several = several[np.diff(several, prepend=~several[:1]) != 0]
    bits = min(1 + (_MARKS_OF_PAIR * len(several)).bit_length(), _MOST_MARK_BITS)
    marks = np.zeros(1 << bits, np.bool_)
    marks[several >> np.uint32(32 - bits)] = True
    return marks, bits


def _slices(words: npt.NDArray[np.void], width: int) -> Iterator[npt.NDArray[np.uint64]]:
    """Yield word << 32 | row in ascending order, in parts that divide no word of that width."""
    key = words["word"].astype(np.uint64) << np.uint64(32)
    key |= np.arange(len(words), dtype=np.uint64)
    key.sort()
    inside = np.uint64(64 - width)
    ends = np.searchsorted(key, (key[_SLICE::_SLICE] >> inside) << inside)
    yield from np.split(key, ends)


def _equal(
    words: npt.NDArray[np.void],
    image: npt.NDArray[np.integer],
    key: npt.NDArray[np.uint64],
    width: int,
    share: Share = WHOLE,
) -> _Equal:
    """Return the equal words of a slice, of the images of a share."""
    row = (key & np.uint64(0xFFFFFFFF)).astype(np.int64)
    place = (words.view("<u8")[row] >> np.uint64(32)).astype(np.uint32)
    flipped = place >> np.uint32(31)  # the highest bit of the level
    tag = (image[row].astype(np.uint32) << np.uint32(1)) | flipped
    starts = _starts((key >> np.uint64(32)).astype(np.uint32), width)
    counts = np.diff(starts, append=len(key))
    pairs = [_within(starts[counts == count], count) for count in range(2, DF_CUT + 1)]
    common = np.flatnonzero(counts > DF_CUT)
    for start, count in zip(starts[common].tolist(), counts[common].tolist(), strict=True):
        pairs.append(start + _with_leaders(tag[start : start + count] >> np.uint32(1)))
    a, b = np.concatenate(pairs, axis=1)
    tag_a, tag_b = tag[a], tag[b]
    apart = (tag_a ^ tag_b) >> np.uint32(1)
    kept = (apart > 0) & (tag_a & tag_b & np.uint32(1) == 0)
    kept &= apart & np.uint32(share.shares - 1) == share.number
    return _Equal(tag, place, a[kept].astype(np.int32), b[kept].astype(np.int32), len(common))


def _within(starts: _Index, count: int) -> _Index:
    """Return all pairs of postings of words that have ``count`` each, int64 [2, m]."""
    pairs = np.stack(np.triu_indices(count, 1))
    return (starts[:, None] + pairs[:, None]).reshape(2, -1)


def _starts(word: npt.NDArray[np.uint32], width: int) -> _Index:
    """Return where words begin that are as long as they must be, see ``match_words``.

    Args:
        word: uint32 [n], ascending.
        width: bits to begin with.
    """
    if not len(word):
        return np.zeros(0, np.int64)
    differing = np.r_[np.uint32(0xFFFFFFFF), word[1:] ^ word[:-1]]
    begins = differing >> np.uint32(32 - width) > 0
    crowded = _crowded(begins)
    within, differing = begins[crowded], differing[crowded]
    for longer in range(width + 1, WORD_BITS + 1):
        still = _crowded(within)
        if not still.any():
            break
        within |= still & (differing >> np.uint32(32 - longer) > 0)
    begins[crowded] = within
    return np.flatnonzero(begins)


def _crowded(begins: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which postings are of a word that has too many, bool [n], by where words begin."""
    counts = np.diff(np.flatnonzero(begins), append=len(begins))
    return np.repeat(counts > DF_CUT, counts)


def _with_leaders(image: npt.NDArray[np.uint32]) -> _Index:
    """Return the pairs of a common word: every posting with those of the first images [2, m]."""
    leaders = np.flatnonzero(image <= np.unique(image)[:_LEADERS][-1])
    a, b = np.meshgrid(leaders, np.arange(len(image)), indexing="ij")
    kept = (a < b) | (image[b] > image[leaders].max())
    return np.stack([a[kept], b[kept]])


def _places(a: npt.NDArray[np.uint32], b: npt.NDArray[np.uint32]) -> npt.NDArray[np.void]:
    """Return where matched points lie, the first image never flipped; a and b as in postings."""
    out = np.stack([a, b], axis=1).view(MATCH).ravel()
    wrong = np.flatnonzero(a >> np.uint32(31))
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
        The pairs in ascending order. Of many matches a few, the finest, are looked at.
    """
    matches = Matches(first.astype(np.uint32), second.astype(np.uint32), places, 0)
    return _best_sense(_of_senses(matches, least))


def _joined(parts: list[Matches]) -> Matches:
    first, second = (np.concatenate([one[side] for one in parts]) for side in range(2))
    return Matches(first, second, np.concatenate([one.places for one in parts]), 0)


def _of_senses(matches: Matches, least: int) -> Votes:
    """Count as ``count_votes`` does, a pair as it is and flipped by themselves, in any order."""
    first, second, places, _ = matches
    bits = np.uint64(int(second.max(initial=0)).bit_length())
    key = (first.astype(np.uint64) << bits | second) << np.uint64(1)
    key |= places["b"]["level"] >= MIRRORED
    order = _order(key)
    key, ranked = key[order], _ranked(places.view("<u8")[order])
    starts = np.flatnonzero(np.diff(key, prepend=~key[:1]))
    counts = np.diff(starts, append=len(key))
    several = counts >= least
    chosen = _chosen(ranked, starts[several], counts[several])
    votes, transforms = _agreeing(chosen)
    kept = votes >= least
    top = order[starts[several][kept]]
    signed = np.where(places["b"]["level"][top] >= MIRRORED, -votes[kept], votes[kept])
    ends = first[top].astype(np.int64), second[top].astype(np.int64)
    return Votes(*ends, signed, transforms[kept])


def _order(key: npt.NDArray[np.unsignedinteger]) -> _Index:
    """Return what ``argsort`` does, five times faster if there is room for the index in the key."""
    bits = np.uint64(len(key).bit_length())
    if int(key.max(initial=0)) >> (64 - int(bits)):
        return np.argsort(key)
    both = key.astype(np.uint64) << bits | np.arange(len(key), dtype=np.uint64)
    both.sort()
    return np.asarray(both & (np.uint64(1) << bits) - np.uint64(1), np.int64)


def _ranked(places: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return numbers that stand for matches: fine points first, which lie where they are found.

    Matches of like levels are in an order that has nothing to do with where they lie.

    Args:
        places: uint64 [m], ``MATCH``.
    """
    a, b = places & _PLACE_MASK, (places >> np.uint64(32)) & _PLACE_MASK
    levels = (a >> np.uint64(24)) + (b >> np.uint64(24))
    return (levels << np.uint64(54)) | ((a | b << _PLACE_BITS) * _MIX & _ORDER_MASK)


def _unranked(ranked: npt.NDArray[np.uint64]) -> npt.NDArray[np.void]:
    """Return the ``MATCH`` of numbers from ``_ranked``, but for the mark of a flipped picture."""
    both = ranked * _UNMIX & _ORDER_MASK
    return ((both & _PLACE_MASK) | (both >> _PLACE_BITS << np.uint64(32))).view(MATCH)


def _chosen(
    ranked: npt.NDArray[np.uint64], starts: _Index, counts: _Index
) -> npt.NDArray[np.uint64]:
    """Choose the matches of each pair that are looked at: the finest, whatever their order.

    Args:
        ranked: uint64 [m], see ``_ranked``.
        starts: int [n], where the matches of each pair begin.
        counts: int [n], how many it has.

    Returns:
        uint64 [n, _MOST_MATCHES], different ones in ascending order, and then ``_NONE``.
    """
    column = np.arange(_MOST_MATCHES)
    out = ranked[starts[:, None] + np.minimum(column, counts[:, None] - 1)]
    many = np.flatnonzero(counts > _MOST_MATCHES)
    if len(many):
        counts = counts[many]
        begins = np.cumsum(counts) - counts
        rest = ranked[np.repeat(starts[many] - begins, counts) + np.arange(counts.sum())]
        for index in column:
            out[many, index] = least = np.minimum.reduceat(rest, begins)
            rest[rest == np.repeat(least, counts)] = _NONE
    out.sort(axis=1)
    # The same two points twice: in a mirrored pair, by the words of either.
    out[:, 1:][out[:, 1:] == out[:, :-1]] = _NONE
    out.sort(axis=1)
    return out


def _best_sense(of: Votes) -> Votes:
    """Order pairs; of one that agrees as it is and flipped, keep the sense with more votes."""
    order = np.lexsort((of.votes < 0, -np.abs(of.votes), of.second, of.first))
    first, second = of.first[order], of.second[order]
    top = (np.diff(first, prepend=-1) != 0) | (np.diff(second, prepend=-1) != 0)
    order = order[top]
    return Votes(first[top], second[top], of.votes[order], of.transforms[order])


def _agreeing(
    chosen: npt.NDArray[np.uint64],
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int32]]:
    """Return the largest number of agreeing matches of each pair, and their transform."""
    best, transforms = np.zeros(len(chosen), np.int16), np.zeros((len(chosen), 4), np.int32)
    counts = (chosen != _NONE).sum(axis=1)
    for count in range(2, _MOST_MATCHES + 1):
        these = np.flatnonzero(counts == count)
        for begin in range(0, len(these), _CHUNK):
            some = these[begin : begin + _CHUNK]
            of_pairs = _unranked(chosen[some, :count])
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
    turn = b["angle"] - a["angle"]  # modulo 256
    # A point found at a higher level is larger: the picture in which it is has the larger scale.
    levels = b["level"].astype(np.int8) - a["level"].astype(np.int8)
    # What takes a vector of the first image into the second, by each match alone.
    of_turn, of_levels = _TURN[turn], np.float32(SCALE) ** levels.astype(np.float32)
    cos, sin = of_turn.real * of_levels, of_turn.imag * of_levels
    agree, most = np.zeros(places.shape, np.bool_), np.zeros(len(places), np.int64)
    for seed in range(places.shape[1]):
        one = slice(seed, seed + 1)
        ax, ay, bx, by = xa - xa[:, one], ya - ya[:, one], xb - xb[:, one], yb - yb[:, one]
        wanted_x = cos[:, one] * ax - sin[:, one] * ay
        wanted_y = sin[:, one] * ax + cos[:, one] * ay
        along = wanted_x * bx + wanted_y * by
        across = np.abs(wanted_x * by - wanted_y * bx)
        long_a, long_b = ax * ax + ay * ay, bx * bx + by * by
        wanted = wanted_x * wanted_x + wanted_y * wanted_y
        good = (
            (long_a > _LEAST_LENGTH**2)
            & (long_b > _LEAST_LENGTH**2)
            & (np.abs((turn - turn[:, one]).view(np.int8).astype(np.int16)) <= _ANGLE_LIMIT)
            & (np.abs(levels - levels[:, one]) <= _LEVEL_LIMIT)
            & (across < along * _TAN_DIRECTION_LIMIT)
            & (long_b < wanted * _SQUARE_LIMIT)
            & (wanted < long_b * _SQUARE_LIMIT)
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
