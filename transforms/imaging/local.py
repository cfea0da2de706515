"""Local features of a thumbnail, and the verification of a pair by an aligned comparison.

``verify`` lays one picture over the other (as a whole where an orientation is known, else by
matched points and a robust similarity transform), and compares them block by block: the normalised
cross-correlation of luma where there is texture, the tone where there is none, and the chroma.
"""

import dataclasses
import functools
import math
import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Optional

import cv2
import numpy as np
import numpy.typing as npt

from transforms.grouping.relations import RELATIONS as ALL_RELATIONS
from transforms.imaging import color, orientation

__all__ = [
    "ACCEPT_SCORE",
    "KINDS",
    "RELATIONS",
    "REVIEW_SCORE",
    "LocalEvidence",
    "LocalFeatures",
    "LocalSettings",
    "Picture",
    "extract",
    "verify",
]

KINDS: Final = ("orb", "sift")
# What pixels can tell: the exact levels are decided by hashes.
RELATIONS: Final = tuple(name for name in ALL_RELATIONS if name not in ("exact", "pixels"))
ACCEPT_SCORE: Final = 0.5
REVIEW_SCORE: Final = 0.35

_HEADER: Final = struct.Struct("<4sBBHHH")  # magic, kind, descriptor length, points, width, height
_MAGIC: Final = b"BDL2"
_POINT_FIELDS: Final = 5
_Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]
_Bytes = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]

_ORB_CONTRASTS: Final = (20, 8)  # of FAST, grey levels; the second for smooth and dark pictures
_ORB_ENOUGH: Final = 0.6  # share of the points asked for that the first must find
_ORB_STEP: Final = 1.4  # from one level of the pyramid to the next
_ORB_LIMIT: Final = 66  # bits of 256 of a match
_SIFT_LIMIT: Final = 300  # Euclidean distance of a match, descriptors of length 512
_TURN_BINS: Final = 24
_SIZE_BINS: Final = 6  # half octaves to either side
_FEW_INLIERS: Final = 10  # below, a fit may be chance, so that more must agree
_FEW_OVERLAP: Final = 0.85
_SURE_INLIERS: Final = 15  # points that rule out the other sense
_SAME_PLACE: Final = 1.5  # pixels at the corners; a crop that counts as one moves them by two
_BETTER: Final = 0.02  # by how much points must raise the score of the comparison as a whole
_MAX_SCALE: Final = 7.0  # of one thumbnail against the other
_LEAST_AREA: Final = 0.05  # share of a picture that must be common
_PART: Final = 2
_CELL: Final = 8  # pixels; a block is 2x2 cells, one block begins at every cell
_LEAST_SIDE: Final = 64  # pixels of the frame of comparison
_LEAST_TEXTURED: Final = 12  # blocks below which the correlation says nothing
_AGREE: Final = 0.6  # normalised cross-correlation of a block that agrees
_ALIGNED: Final = 0.85  # share of agreeing blocks that no better alignment would raise
_TEXTURE: Final = 6.0  # grey levels of deviation of a textured block
# Each kind of evidence is scaled so that its own limit is a score of one half.
_ACCEPT_OVERLAP: Final = 0.4  # share of the textured blocks that agree
_ACCEPT_LARGEST: Final = 0.25  # share of the largest piece that differs: logo 0.11, caption 0.15
_ACCEPT_INNER: Final = 0.05  # share of the largest such piece away from the border
_ACCEPT_CHROMA: Final = 0.7  # 88 of 90 hue turns lie below 0.67, 0.999 of the copies above 0.77
_ACCEPT_AREA: Final = 0.6  # common share of the better covered picture: a copy lies in the other
_SAME_CHROMA: Final = 4.5  # mean square of a step that JPEG explains: no need to ask for a cast
_MARGIN: Final = 2  # blocks from the border within which a piece counts as touching it
_TONE: Final = 40.0  # grey levels between flat blocks that differ
_FLAT_LEVELS: Final = 4.0  # levels between blocks at which two flat pictures have a score of 0
_GRAIN: Final = 1.0  # grey levels of deviation of a flat block that holds grain
_GRAIN_SCORE: Final = 0.45
_PAPER: Final = 0.6  # share of one ground at which the strict comparison begins
_PAPER_DOUBT: Final = 0.5  # the same, that a sample of the pixels might raise to it
_PAPER_DIFFER: Final = 0.008  # share of textured blocks that may differ on such a ground
# Below this longer side, in pixels, forms filled in differently reached 0.67 and copies 0.67 to 1.
_READABLE_SIDE: Final = 200
_UNREADABLE_LIMIT: Final = 0.75
_WHOLE_AREA: Final = 0.97  # common share at which neither picture is cut
_MOST_PIECES: Final = 16  # of those that differ, the largest
_OTHER_SIDE: Final = 0.1  # of the blocks drawn over one picture, those drawn over the other
_CHANGED: Final = 24  # grey levels of a pixel that something covers
_DRAWN: Final = 0.4  # share of one tone in a drawn thing, and by how much it exceeds the other's
_DRAWN_MORE: Final = 0.2
_PLAIN: Final = 0.9  # share of one tone in a plain ground
_GROUND: Final = 17  # levels
_NO_COUNTS: Final = np.zeros(1, np.float32)
_FRAME_LEVELS: Final = 6.0  # levels within which the ground of a frame is one colour after JPEG
_OVERLAY_SHARE: Final = 0.02  # share of blocks that differ in an overlaid picture


@dataclasses.dataclass(frozen=True)
class LocalSettings:
    """What ``verify`` asks of a pair.

    Attributes:
        accept_score: a pair at or above is a copy.
        review_score: a pair at or above, but below ``accept_score``, is for a person to judge.
        direct_score: at or above, the comparison as a whole is taken and points are not matched.
        min_inliers: matched points that a transform must explain.
        inlier_pixels: largest error of an inlier, pixels of the thumbnail.
    """

    accept_score: float = ACCEPT_SCORE
    review_score: float = REVIEW_SCORE
    direct_score: float = 0.85
    min_inliers: int = 6
    inlier_pixels: float = 4.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("accept_score", "review_score", "direct_score"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must be in 0..1, got {value!r}")
        if self.review_score > self.accept_score:
            raise ValueError(
                f"review_score must not exceed accept_score, got {self.review_score!r} > "
                f"{self.accept_score!r}"
            )
        if self.min_inliers < 3:
            raise ValueError(f"min_inliers must be at least 3, got {self.min_inliers!r}")
        if not self.inlier_pixels > 0.0:
            raise ValueError(f"inlier_pixels must be above 0, got {self.inlier_pixels!r}")


@dataclasses.dataclass(frozen=True, eq=False)
class LocalFeatures:
    """Points of one thumbnail with their descriptors.

    Attributes:
        kind: "orb" (32 bytes, compared by Hamming distance) or "sift" (128, by Euclid's).
        size: width and height of the thumbnail, pixels.
        points: float32 [n, 5]: x and y of pixel centres, the diameter of the described patch in
            pixels, its direction in degrees, and the level of the pyramid that it was found on.
        descriptors: uint8 [n, 32 or 128].
    """

    kind: str
    size: tuple[int, int]
    points: _Floats
    descriptors: _Bytes

    def pack(self) -> bytes:
        """Return the features as bytes: a header of 12 bytes, then the two arrays."""
        header = _HEADER.pack(
            _MAGIC,
            KINDS.index(self.kind),
            self.descriptors.shape[1],
            len(self.points),
            self.size[0],
            self.size[1],
        )
        return header + self.points.astype("<f4").tobytes() + self.descriptors.tobytes()

    @classmethod
    def unpack(cls, data: bytes) -> "LocalFeatures":
        """Return features from ``pack``.

        Raises:
            ValueError: if ``data`` is not of this form.
        """
        if len(data) < _HEADER.size or data[:4] != _MAGIC:
            raise ValueError(f"features must begin with {_MAGIC!r}, got {data[:4]!r}")
        _, kind, length, count, width, height = _HEADER.unpack_from(data)
        row = 4 * _POINT_FIELDS
        expected = _HEADER.size + count * (row + length)
        if kind >= len(KINDS) or len(data) != expected:
            raise ValueError(f"features must have {expected!r} bytes, got {len(data)!r}")
        points = np.frombuffer(data, "<f4", count * _POINT_FIELDS, _HEADER.size)
        found = np.frombuffer(data, np.uint8, count * length, _HEADER.size + count * row)
        return cls(
            KINDS[kind],
            (width, height),
            points.reshape(count, _POINT_FIELDS).astype(np.float32),
            found.reshape(count, length),
        )


class Picture:
    """A thumbnail with its features, and what several comparisons need of it, made once each."""

    def __init__(self, thumb: _Bytes | Callable[[], _Bytes], features: LocalFeatures) -> None:
        """Take a thumbnail, or what decodes it, and its features.

        Args:
            thumb: uint8 [h, w, 3] RGB, or a function that gives it, called when it is first
                needed: most pairs of different pictures are told apart by their points alone.
            features: of the thumbnail.
        """
        self._thumb = thumb
        self.features = features

    @functools.cached_property
    def rgb(self) -> _Bytes:
        """The thumbnail: uint8 [h, w, 3]."""
        return self._thumb() if callable(self._thumb) else self._thumb

    @functools.cached_property
    def grey(self) -> _Bytes:
        """Its luma: uint8 [h, w]."""
        return _grey(self.rgb)

    @functools.cached_property
    def mirrored(self) -> LocalFeatures:
        """The features of the same points in the picture flipped left to right."""
        return _mirrored(self)

    @functools.cached_property
    def halved(self) -> _Bytes:
        """The luma at half the size: uint8 [(h + 1) // 2, (w + 1) // 2]."""
        height, width = self.grey.shape
        return _reduced(self.grey, (width + 1) // 2, (height + 1) // 2)

    @functools.cached_property
    def grid(self) -> "_Grid":
        """The cells that a comparison on this picture's own pixels looks at."""
        height, width = self.grey.shape
        across, down = _enlargement((height, width))
        return _Grid((across, down), height * down // _CELL, width * across // _CELL)

    @functools.cached_property
    def plane(self) -> "_Plane":
        """The luma of the cells of ``grid`` at 1 / ``_PART``, with its moments."""
        size = _CELL // _PART
        return _plane(_fixed(self, self.grey, size), size)

    @functools.cached_property
    def fine(self) -> "_Plane":
        """The same at the full size, smoothed; only pages, forms and flat pictures need it."""
        return _plane(_smooth(_fixed(self, self.grey, _CELL)), _CELL)

    @functools.cached_property
    def colours(self) -> _Floats:
        """The mean colours of the blocks of ``grid``: float32 [rows, columns, 3]."""
        return _mean2(_fixed(self, self.rgb, 1).astype(np.float32))

    @functools.cached_property
    def ground(self) -> float:
        """The share of its pixels within eight levels of its commonest grey."""
        return _commonest(self.grey)

    @functools.cached_property
    def coarse(self) -> tuple[_Bytes, int]:
        """The colours at a quarter of the size, or less reduced if they are few, and the factor."""
        height, width = self.grey.shape
        part = max(1, min(4, min(height, width) // 16))
        whole = self.rgb[: height // part * part, : width // part * part]  # a factor of exactly 4
        return _reduced(whole, width // part, height // part), part


class LocalEvidence(NamedTuple):
    """What the aligned comparison of a and b found."""

    inliers: int  # matched points that agree with the transform; 0 if points were not matched
    overlap: float  # share of the textured blocks that agree, 0..1, 4 decimals
    area_a: float  # share of a that the transform lays over b
    area_b: float  # share of b that a covers
    chroma: float  # agreement of the colours, 0..1, 4 decimals
    relation: str  # one of RELATIONS
    derived: int  # +1: a is a crop, overlay or bordered form of b; -1: b of a; 0: neither
    score: float  # 0..1, 4 decimals: meets accept_score and review_score


_NO_EVIDENCE: Final = LocalEvidence(0, 0.0, 0.0, 0.0, 0.0, "similar", 0, 0.0)


# ------------------------------------------------------------------------------- features
def extract(thumb: _Bytes, *, kind: str = "orb", max_points: int = 200) -> LocalFeatures:
    """Return the local features of a thumbnail.

    Args:
        thumb: uint8 [h, w, 3] RGB or [h, w] grey, at most 65,535 pixels a side.
        kind: "orb" or "sift".
        max_points: strongest points to keep.

    Raises:
        ValueError: if ``kind`` is unknown or ``max_points`` is below 1.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS!r}, got {kind!r}")
    if max_points < 1:
        raise ValueError(f"max_points must be at least 1, got {max_points!r}")
    grey = _grey(thumb)
    height, width = grey.shape
    found = None
    if min(height, width) >= 32:  # else nothing fits into the patch of a descriptor
        found = (_orb if kind == "orb" else _sift)(grey, max_points)
    if found is None:
        none = np.zeros((0, 32 if kind == "orb" else 128), np.uint8)
        found = np.zeros((0, _POINT_FIELDS), np.float32), none
    return LocalFeatures(kind, (width, height), *found)


def _orb(grey: _Bytes, max_points: int) -> Optional[tuple[_Floats, _Bytes]]:
    """Return points and descriptors; corners come from a lower contrast where few stand out."""
    keypoints: Sequence[cv2.KeyPoint] = ()
    descriptors = None
    for contrast in _ORB_CONTRASTS:
        orb = _orb_of(max_points, contrast)
        keypoints, descriptors = orb.detectAndCompute(grey, None)
        if len(keypoints) >= _ORB_ENOUGH * max_points:
            break
    if descriptors is None or not len(keypoints):
        return None
    points, found = _as_array(keypoints), np.asarray(descriptors, np.uint8)
    if len(points) > max_points:  # OpenCV keeps all that tie with the weakest
        order = np.argsort([-k.response for k in keypoints], kind="stable")[:max_points]
        points, found = points[order], found[order]
    return points, found


def _orb_of(max_points: int, contrast: int) -> cv2.ORB:
    # FAST's own score repeats as well as Harris's, 0.999 against 0.996 of 691 crops, borders and
    # screenshots. Levels 1.4 apart cost half of the usual eight 1.2 apart and find as much.
    return cv2.ORB.create(
        nfeatures=max_points, scaleFactor=_ORB_STEP, nlevels=4, edgeThreshold=16, patchSize=31,
        scoreType=cv2.ORB_FAST_SCORE, fastThreshold=contrast,
    )  # fmt: skip


def _sift(grey: _Bytes, max_points: int) -> Optional[tuple[_Floats, _Bytes]]:
    sift = cv2.SIFT.create(nfeatures=max_points)
    keypoints, descriptors = sift.detectAndCompute(grey, None)
    if descriptors is None or not len(keypoints):
        return None
    # OpenCV keeps more than asked where several orientations share a place.
    found = np.clip(np.rint(descriptors[:max_points]), 0, 255).astype(np.uint8)
    return _as_array(keypoints[:max_points]), found


def _as_array(keypoints: Sequence[cv2.KeyPoint]) -> _Floats:
    rows = [(*k.pt, k.size, k.angle, k.octave) for k in keypoints]
    return np.array(rows, np.float32).reshape(-1, _POINT_FIELDS)


def _mirrored(picture: Picture) -> LocalFeatures:
    """Return the features of a picture flipped left to right, in its own pixels."""
    features = picture.features
    if not len(features.points):
        return features
    points = features.points.copy()
    points[:, 0] = features.size[0] - 1 - points[:, 0]
    points[:, 3] = (180.0 - points[:, 3]) % 360.0
    if features.kind == "sift":
        # [4 rows, 4 columns, 8 angles]: a mirror flips one axis of the grid and negates the angle.
        grid = features.descriptors.reshape(-1, 4, 4, 8)[:, ::-1, :, (-np.arange(8)) % 8]
        flipped = np.ascontiguousarray(grid.reshape(len(points), 128))
        return dataclasses.replace(features, points=points, descriptors=flipped)
    keypoints = [
        cv2.KeyPoint(x, y, size, angle, 0.0, int(level), number)
        for number, (x, y, size, angle, level) in enumerate(points.tolist())
    ]
    orb = _orb_of(len(points), _ORB_CONTRASTS[0])
    kept, descriptors = orb.compute(np.ascontiguousarray(picture.grey[:, ::-1]), keypoints)
    if descriptors is None:
        return dataclasses.replace(
            features, points=points[:0], descriptors=features.descriptors[:0]
        )
    order = np.array([k.class_id for k in kept], np.intp)
    return dataclasses.replace(
        features, points=points[order], descriptors=np.asarray(descriptors, np.uint8)
    )


# ------------------------------------------------------------------------------- verification
def verify(
    a: Picture,
    b: Picture,
    *,
    settings: Optional[LocalSettings] = None,
    orientation_hint: Optional[int] = None,
    mirrored: Optional[bool] = None,
) -> LocalEvidence:
    """Compare two pictures after laying one over the other.

    The two are put into a fixed order first, so that exchanging a and b (and inverting the hint)
    exchanges ``area_a`` with ``area_b``, negates ``derived`` and changes nothing else.

    Args:
        a: a picture with features.
        b: another, with features of the same kind.
        settings: what to ask; the defaults if None.
        orientation_hint: EXIF orientation 1..8 that turns a into b as a whole, or None if the two
            are not known to be aligned. It is tried first and need not be right.
        mirrored: whether b shows a mirrored, where that is known: points are matched in this sense
            alone. None tries both, that of the hint first.

    Raises:
        ValueError: if the kinds of the features differ.
    """
    settings = settings or LocalSettings()
    kinds = a.features.kind, b.features.kind
    if kinds[0] != kinds[1]:
        raise ValueError(f"features must be of one kind, got {kinds[0]!r}, {kinds[1]!r}")
    first = orientation_hint is not None and orientation.is_mirror(orientation_hint)
    senses = (first, not first) if mirrored is None else (mirrored,)
    if _comes_first(b, a):
        hint = orientation_hint and orientation.inverse_orientation(orientation_hint)
        found = _verify(b, a, settings, hint, senses)
        return found._replace(area_a=found.area_b, area_b=found.area_a, derived=-found.derived)
    return _verify(a, b, settings, orientation_hint, senses)


def _comes_first(a: Picture, b: Picture) -> bool:
    """Return whether a is before b in an order that depends on what they show alone."""
    if a.features.size != b.features.size:
        return a.features.size < b.features.size
    for of_a, of_b in (
        (a.features.points, b.features.points),
        (a.features.descriptors, b.features.descriptors),
    ):
        bytes_a, bytes_b = of_a.tobytes(), of_b.tobytes()
        if bytes_a != bytes_b:
            return bytes_a < bytes_b
    return a.rgb.tobytes() < b.rgb.tobytes()


def _verify(
    a: Picture,
    b: Picture,
    settings: LocalSettings,
    hint: Optional[int],
    senses: tuple[bool, ...],
) -> LocalEvidence:
    best, whole = _NO_EVIDENCE, None
    if hint is not None:
        whole = _whole_transform(a.grey.shape, b.grey.shape, hint)
        best = _compare(a, b, whole, 0, settings)
        # A mild crop agrees as a whole but for its border: its points tell it from an overlay.
        if best.score >= settings.direct_score and best.relation != "overlaid":
            return best
        if best.score < settings.review_score and best.overlap >= _ALIGNED:
            return best  # well aligned already: what differs is what the two show
    for mirror in senses:
        fitted = _fit(a, b, mirror, settings)
        if fitted is None:
            continue
        if (
            whole is not None
            and best.score >= settings.accept_score
            and _misfit(a, fitted[0], whole) <= _SAME_PLACE
        ):
            return best  # points say the same
        evidence = _compare(a, b, fitted[0], fitted[1], settings)
        # A score that ends the pair is a bound, which no other has to exceed.
        if (
            evidence.score > best.score + _BETTER
            or best.score < settings.review_score <= evidence.score
            or best is _NO_EVIDENCE
        ):
            best = evidence
        if best.score >= settings.review_score or fitted[1] >= _SURE_INLIERS:
            break
    return best


def _misfit(a: Picture, first: _Doubles, second: _Doubles) -> float:
    """Return how far apart two maps lay the corners of a picture, at most, in pixels."""
    step = first - second
    width, height = a.features.size
    return float(np.abs(_corners(width, height) @ step[:, :2].T + step[:, 2]).max())


def _whole_transform(shape_a: tuple[int, ...], shape_b: tuple[int, ...], value: int) -> _Doubles:
    """Return the affine map of pixel centres that turns a and stretches it over the whole of b."""
    height, width = shape_a[:2]
    turn = orientation.matrix(value, width, height)
    if orientation.axes(value)[0]:
        height, width = width, height
    return _compose(_scaling(shape_b[1] / width, shape_b[0] / height), turn)


def _scaling(x: float, y: float) -> _Doubles:
    """Return the affine map of pixel centres under a resize by factors x and y."""
    return np.array([[x, 0.0, 0.5 * x - 0.5], [0.0, y, 0.5 * y - 0.5]])


def _compose(second: _Doubles, first: _Doubles) -> _Doubles:
    out = second[:, :2] @ first
    out[:, 2] += second[:, 2]
    return np.asarray(out, np.float64)


def _invert(transform: _Doubles) -> _Doubles:
    return np.asarray(cv2.invertAffineTransform(transform), np.float64)


def _determinant(transform: _Doubles) -> float:
    (a, b, _), (c, d, _) = transform.tolist()
    return float(a * d - b * c)


def _size_ratio(transform: _Doubles) -> float:
    """Return the linear scale of an affine map: the root of its change of area."""
    return math.sqrt(abs(_determinant(transform)))


def _distances(a: _Bytes, b: _Bytes, kind: str) -> npt.NDArray[np.generic]:
    """Return all distances of two sets of descriptors, Hamming or squared Euclid: [n, m]."""
    if kind == "orb":
        words_a = a.view(np.uint64)
        words_b = np.ascontiguousarray(b.view(np.uint64).T)
        # As bytes: only a picture's exact negative, at 256 bits, would come out as 0.
        out = np.bitwise_count(words_a[:, :1] ^ words_b[0])
        both, count = np.empty(out.shape, np.uint64), np.empty_like(out)
        for word in range(1, len(words_b)):
            np.bitwise_xor(words_a[:, word, None], words_b[word], out=both)
            out += np.bitwise_count(both, out=count)
        return np.asarray(out, np.uint8)
    fa, fb = a.astype(np.float32), b.astype(np.float32)
    squares = (fa * fa).sum(axis=1)[:, None] + (fb * fb).sum(axis=1)[None, :]
    return np.asarray(np.rint(squares - 2.0 * (fa @ fb.T)), np.int32)


def _matches(a: _Bytes, b: _Bytes, kind: str) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the numbers of descriptors that are each other's nearest, two of intp [n]."""
    distances = _distances(a, b, kind)
    limit = _ORB_LIMIT if kind == "orb" else _SIFT_LIMIT * _SIFT_LIMIT
    nearest = np.minimum(distances.min(axis=1), limit)
    mutual = (distances == nearest[:, None]) & (distances == distances.min(axis=0))
    return np.divmod(np.flatnonzero(mutual), len(b))


def _consistent(turn: _Floats, growth: _Floats) -> _Mask:
    """Return the matches that agree about a turn and a change of size: bool [n].

    Each match tells both alone, from the direction and the size of its two patches. The commonest
    answer, in bins of 15 degrees and half an octave with their neighbours, counts.

    Args:
        turn: float32 [n], degrees.
        growth: float32 [n], octaves.
    """
    turns = np.floor(turn * (_TURN_BINS / 360.0)).astype(np.intp) % _TURN_BINS
    sizes = np.clip(np.rint(growth * 2.0), -_SIZE_BINS, _SIZE_BINS).astype(np.intp) + _SIZE_BINS + 1
    width = 2 * _SIZE_BINS + 3
    votes = np.bincount(turns * width + sizes, minlength=_TURN_BINS * width)
    votes = votes.reshape(_TURN_BINS, width)
    votes = np.concatenate([votes[-1:], votes, votes[:1]])
    votes = votes[:-2] + votes[1:-1] + votes[2:]
    votes = votes[:, :-2] + votes[:, 1:-1] + votes[:, 2:]
    best_turn, best_size = divmod(int(votes.argmax()), width - 2)
    near = (turns - best_turn + 1) % _TURN_BINS <= 2
    return np.asarray(near & (np.abs(sizes - best_size - 1) <= 1), np.bool_)


def _fit(
    a: Picture, b: Picture, mirror: bool, settings: LocalSettings
) -> Optional[tuple[_Doubles, int]]:
    """Return a similarity transform from a to b with the number of matches that agree with it."""
    least = settings.min_inliers
    if min(len(a.features.points), len(b.features.points)) < least:
        return None
    of_a, of_b = a.mirrored if mirror else a.features, b.features
    if len(of_a.points) < least:
        return None
    first, second = _matches(of_a.descriptors, of_b.descriptors, of_a.kind)
    if len(first) < least:
        return None
    points_a, points_b = of_a.points[first], of_b.points[second]
    kept = _consistent(points_b[:, 3] - points_a[:, 3], np.log2(points_b[:, 2] / points_a[:, 2]))
    if np.count_nonzero(kept) < least:
        return None
    # OpenCV seeds the generator of its RANSAC with a constant on every call.
    found, _ = cv2.estimateAffinePartial2D(
        points_a[kept, :2], points_b[kept, :2], method=cv2.RANSAC,
        ransacReprojThreshold=settings.inlier_pixels, maxIters=100, confidence=0.995,
        refineIters=10,
    )  # fmt: skip
    if found is None or not np.isfinite(found).all():
        return None
    transform = np.asarray(found, np.float64)
    if not 1.0 / _MAX_SCALE <= _size_ratio(transform) <= _MAX_SCALE:
        return None
    # Directions and sizes are rough, so that all matches are asked in the end.
    misfit = points_a[:, :2] @ transform[:, :2].T + transform[:, 2] - points_b[:, :2]
    count = int(np.count_nonzero((misfit * misfit).sum(axis=1) <= settings.inlier_pixels**2))
    if count < least:
        return None
    if mirror:
        transform = _compose(transform, orientation.matrix(2, *a.features.size))
    return transform, count


def _grey(thumb: _Bytes) -> _Bytes:
    grey = cv2.cvtColor(thumb, cv2.COLOR_RGB2GRAY) if thumb.ndim == 3 else thumb
    return np.asarray(grey, np.uint8)


# ------------------------------------------------------------------------------- comparison
class _Grid(NamedTuple):
    """The cells of the picture that is not moved."""

    enlarged: tuple[int, int]  # factors along x and y of the frame against the picture
    rows: int  # cells
    columns: int


class _Plane(NamedTuple):
    """The aligned luma of one picture, and the moments of its blocks, float32 [rows, columns]."""

    grey: _Bytes
    mean: _Floats
    deviation: _Floats


@dataclasses.dataclass(frozen=True, eq=False)
class _Blocks:
    """Two aligned pictures in blocks of 16x16 pixels, one block at every 8 pixels: [rows, columns].

    ``agree``, ``differ`` and neither (flat in both, the same tone) share the blocks ``inside``.
    """

    a: _Plane
    b: _Plane
    ncc: _Floats  # normalised cross-correlation of the blocks
    inside: _Mask  # both pictures cover the block

    @functools.cached_property
    def textured(self) -> _Mask:
        """Inside, and one of the two has texture."""
        return self.inside & (np.maximum(self.a.deviation, self.b.deviation) >= _TEXTURE)

    @functools.cached_property
    def agree(self) -> _Mask:
        """Textured, and alike."""
        return self.textured & (self.ncc >= _AGREE)

    @functools.cached_property
    def differ(self) -> _Mask:
        """Textured and unlike, or flat and of another tone."""
        differ = self.textured & ~self.agree
        basis = self.agree if np.count_nonzero(self.agree) >= _LEAST_TEXTURED else self.inside
        if basis.any():
            misfit = _tone_misfit(self.a.mean, self.b.mean, basis)
            differ = differ | (self.inside & ~self.textured & (misfit > _TONE))
        return differ


class _Frame(NamedTuple):
    """How the finer picture is laid onto the coarser one, whose grid is compared."""

    moved: Picture
    fixed: Picture
    matrix: _Doubles  # from pixels of moved to those of the frame
    rows: int  # cells
    columns: int
    in_b: bool  # b is the fixed one


def _compare(
    a: Picture, b: Picture, transform: _Doubles, inliers: int, settings: LocalSettings
) -> LocalEvidence:
    """Return the evidence of one transform from a to b, the cheapest first.

    What ends below ``review_score`` is not looked at further: its score is then an upper bound.
    """
    areas = _areas(a.grey.shape, b.grey.shape, transform)
    if min(areas) < _LEAST_AREA:
        return _NO_EVIDENCE
    frame = _frame(a, b, transform)
    blocks = _align(frame)
    textured = int(np.count_nonzero(blocks.textured))
    inside = int(np.count_nonzero(blocks.inside))
    if not inside:
        return _NO_EVIDENCE
    overlap, chroma, moved = 0.0, 0.0, False
    if textured < _LEAST_TEXTURED * max(1.0, inside / 400.0):
        score = chroma = _flat_score(frame, blocks) if _keeps_shape(transform) else 0.0
    else:
        overlap = float(np.count_nonzero(blocks.agree)) / textured
        score = min(_graded(overlap, _ACCEPT_OVERLAP), _graded(max(areas), _ACCEPT_AREA))
        if 0 < inliers < _FEW_INLIERS:
            score = min(score, _graded(overlap, _FEW_OVERLAP))
        if score >= settings.review_score:
            score = min(score, _pieces_score(blocks))
        if score >= settings.review_score:
            chroma, moved = _chroma(frame, blocks)
            score = min(score, _graded(chroma, _ACCEPT_CHROMA))
        if score >= settings.review_score and _paper_share(frame, blocks.inside) >= _PAPER:
            score = min(score, _paper_score(frame, _align(frame, 1), settings.review_score))
    relation, derived = "similar", 0
    if score >= settings.review_score:
        relation, derived = _relation(frame, transform, areas, blocks, moved)
    return LocalEvidence(
        inliers, round(overlap, 4), round(areas[0], 4), round(areas[1], 4), round(chroma, 4),
        relation, derived, round(score, 4),
    )  # fmt: skip


def _areas(
    shape_a: tuple[int, ...], shape_b: tuple[int, ...], transform: _Doubles
) -> tuple[float, float]:
    """Return the shares of a and of b that the two have in common."""
    (height, width), (frame_height, frame_width) = shape_a[:2], shape_b[:2]
    there = _corners(width, height) @ transform[:, :2].T + transform[:, 2]
    common, _ = cv2.intersectConvexConvex(
        there.astype(np.float32), _corners(frame_width, frame_height).astype(np.float32)
    )
    mapped = abs(_determinant(transform)) * height * width
    if mapped <= 0.0:
        return 0.0, 0.0
    return min(1.0, common / mapped), min(1.0, common / (frame_height * frame_width))


def _corners(width: int, height: int) -> _Doubles:
    right, bottom = width - 0.5, height - 0.5
    return np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])


def _frame(a: Picture, b: Picture, transform: _Doubles) -> _Frame:
    """Choose the coarser picture as the one that is not moved."""
    in_b = _size_ratio(transform) <= 1.0
    moved, fixed = (a, b) if in_b else (b, a)
    matrix = transform if in_b else _invert(transform)
    (across, down), rows, columns = fixed.grid
    if across > 1 or down > 1:
        matrix = _compose(_scaling(across, down), matrix)
    return _Frame(moved, fixed, matrix, rows, columns, in_b)


def _align(frame: _Frame, part: int = _PART) -> _Blocks:
    """Lay the two pictures over each other in blocks, at 1 / ``part`` of their size, 1 smoothed."""
    cell = _CELL // part
    grey = _moved(frame, part)
    if part == _PART:
        planes = _plane(grey, cell), frame.fixed.plane
    else:
        planes = _plane(_smooth(grey), cell), frame.fixed.fine
    a, b = planes if frame.in_b else planes[::-1]
    return _Blocks(a, b, _correlation(a, b, cell), _inside(frame))


def _moved(frame: _Frame, part: int) -> _Bytes:
    """Return the luma of the moved picture in the frame, at 1 / ``part`` of its size.

    Half the size is without the finest grain: the noise of a copy, a misfit of half a pixel.
    """
    width, height = frame.columns * _CELL // part, frame.rows * _CELL // part
    source, matrix = frame.moved.grey, _compose(_scaling(1.0 / part, 1.0 / part), frame.matrix)
    shrink = _size_ratio(matrix)
    if shrink < 0.8:  # averages before it samples, against aliasing
        shape = source.shape
        if shrink > 0.35:
            source = frame.moved.halved
        else:
            source = _reduced(
                source, max(1, round(shape[1] * shrink)), max(1, round(shape[0] * shrink))
            )
        across, down = shape[1] / source.shape[1], shape[0] / source.shape[0]
        matrix = _compose(matrix, _scaling(across, down))
    moved = cv2.warpAffine(
        source, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.uint8)


def _fixed(picture: Picture, pixels: _Bytes, size: int) -> _Bytes:
    """Return the part of a picture that the cells of its grid cover, a cell in size x size."""
    (across, down), rows, columns = picture.grid
    if across > 1 or down > 1:
        enlarged = (pixels.shape[1] * across, pixels.shape[0] * down)
        pixels = np.asarray(cv2.resize(pixels, enlarged, interpolation=cv2.INTER_LINEAR), np.uint8)
    return _reduced(pixels[: rows * _CELL, : columns * _CELL], columns * size, rows * size)


def _enlargement(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return factors along x and y that give a tiny or thin frame 3x3 cells or more."""
    whole = max(1, min(-(-_LEAST_SIDE // min(shape)), 512 // max(shape)))
    return max(whole, -(-3 * _CELL // shape[1])), max(whole, -(-3 * _CELL // shape[0]))


def _keeps_shape(transform: _Doubles) -> bool:
    """Return whether a map stretches no direction by over 3 % against the other."""
    stretch = np.linalg.svd(transform[:, :2], compute_uv=False)
    return bool(stretch[0] <= 1.03 * stretch[1])


def _reduced(pixels: _Bytes, width: int, height: int) -> _Bytes:
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _cell_colours(frame: _Frame) -> _Floats:
    """Return the mean colours of the blocks of the moved picture: float32 [rows, columns, 3].

    Colours vary slowly, so those of all but small pictures are warped at a quarter of the size.
    """
    small, part = frame.moved.coarse
    matrix = _compose(frame.matrix, _scaling(part, part))
    matrix = _compose(_scaling(2.0 / _CELL, 2.0 / _CELL), matrix)
    warped = cv2.warpAffine(
        small, matrix, (frame.columns * 2, frame.rows * 2), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    cells = cv2.resize(warped, (frame.columns, frame.rows), interpolation=cv2.INTER_AREA)
    return _mean2(np.asarray(cells, np.float32))


def _inside(frame: _Frame) -> _Mask:
    """Return the blocks whose four corners fall into the moved picture."""
    back = _invert(frame.matrix)
    shape = frame.moved.grey.shape
    height, width = frame.rows * float(_CELL), frame.columns * float(_CELL)
    whole = True
    for (of_x, of_y, shift), side in zip(back.tolist(), shape[::-1], strict=True):
        first = shift - 0.5 * (of_x + of_y) + 0.5  # of the corner of the frame, from the border
        spans = first, first + of_x * width, first + of_y * height
        least = min(*spans, spans[1] + spans[2] - first)
        most = max(*spans, spans[1] + spans[2] - first)
        whole = whole and least >= -0.5 and most <= side + 0.5
    if whole:
        return np.ones((frame.rows - 1, frame.columns - 1), np.bool_)
    x = np.arange(frame.columns + 1) * float(_CELL) - 0.5
    y = np.arange(frame.rows + 1) * float(_CELL) - 0.5
    good = np.ones((frame.rows + 1, frame.columns + 1), np.bool_)
    for row, side in zip(back, shape[::-1], strict=True):
        place = row[0] * x + (row[1] * y + row[2])[:, None]
        good &= np.abs(place - 0.5 * (side - 1)) <= 0.5 * (side + 1)
    return np.asarray(good[:-2, :-2] & good[2:, :-2] & good[:-2, 2:] & good[2:, 2:], np.bool_)


def _mean2(cells: _Floats) -> _Floats:
    """Return the means of 2x2 cells along the first two axes."""
    pairs = cells[:-1] + cells[1:]
    return np.asarray(0.25 * (pairs[:, :-1] + pairs[:, 1:]), np.float32)


def _plane(grey: _Bytes, cell: int) -> _Plane:
    """Return an aligned luma with the moments of its blocks of 2x2 cells."""
    levels = _levels(grey)
    mean = _block_means(levels, cell)
    square = _block_means(levels * levels, cell)
    return _Plane(grey, mean, np.sqrt(np.maximum(square - mean * mean, 0.0)))


def _levels(grey: _Bytes) -> _Floats:
    """Return levels about mid grey, so that float32 keeps what a flat block varies."""
    return np.subtract(grey, 128.0, dtype=np.float32)


def _block_means(values: _Floats, cell: int) -> _Floats:
    """Return the means of the blocks of 2x2 cells: float32 [rows, columns]."""
    size = (values.shape[1] // cell, values.shape[0] // cell)
    return _mean2(np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32))


def _correlation(a: _Plane, b: _Plane, cell: int) -> _Floats:
    """Return the normalised cross-correlation of the blocks: float32 [rows, columns]."""
    both = _block_means(_levels(a.grey) * _levels(b.grey), cell)
    # The floor keeps the rounding of flat blocks from counting as structure.
    ncc = (both - a.mean * b.mean) / np.maximum(a.deviation * b.deviation, 4.0)
    return np.asarray(ncc, np.float32)


def _tone_misfit(mean_a: _Floats, mean_b: _Floats, basis: _Mask) -> _Floats:
    """Return how far the blocks' means are from one change of brightness and contrast.

    The gain is the ratio of the deviations, so that exchanging a and b changes nothing.
    """
    some_a, some_b = mean_a[basis], mean_b[basis]
    middle_a, middle_b = some_a.mean(), some_b.mean()
    some_a, some_b = some_a - middle_a, some_b - middle_b
    deviation_a = math.sqrt(float(some_a @ some_a) / some_a.size)
    deviation_b = math.sqrt(float(some_b @ some_b) / some_b.size)
    root = min(max((deviation_b + 4.0) / (deviation_a + 4.0), 0.4), 2.5) ** 0.5
    return np.asarray(np.abs((mean_b - middle_b) / root - (mean_a - middle_a) * root), np.float32)


def _colours(frame: _Frame) -> tuple[_Floats, _Floats]:
    """Return the mean colours of the blocks of a and b, each float32 [rows, columns, 3]."""
    moved, fixed = _cell_colours(frame), frame.fixed.colours
    return (moved, fixed) if frame.in_b else (fixed, moved)


def _chroma(frame: _Frame, blocks: _Blocks) -> tuple[float, bool]:
    """Return the agreement of colours where luma agrees, and whether they were changed."""
    rgb_a, rgb_b = _colours(frame)
    # Every second block: the others show the same pixels again.
    even = slice(None, None, 2)
    weights = (blocks.inside & ~blocks.differ)[even, even].astype(np.float64).reshape(1, -1)
    luma_a, chroma_a = color.luma_chroma(rgb_a[even, even].reshape(-1, 3).astype(np.float64))
    luma_b, chroma_b = color.luma_chroma(rgb_b[even, even].reshape(-1, 3).astype(np.float64))
    step = chroma_b - chroma_a
    if float(weights[0] @ (step.real**2 + step.imag**2)) <= _SAME_CHROMA * weights.sum():
        return 1.0, False
    similarity, moved = color.chroma_similarity(
        chroma_a[None], chroma_b[None], luma_a[None], luma_b[None], weights
    )
    return float(similarity[0]), bool(moved[0])


def _largest(blocks: _Blocks, differ: _Mask) -> tuple[float, float]:
    """Return the largest piece that differs, and the largest away from the border, as shares.

    Pieces are joined over diagonals. Captions and logos reach the border of the picture or nearly;
    an inner piece is a subject, a field of a form, or a picture in a frame.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        differ.astype(np.uint8), connectivity=8
    )
    if count <= 1:
        return 0.0, 0.0
    outer = np.zeros(count, np.bool_)
    outer[np.asarray(labels)[~_core(blocks.inside) & blocks.inside]] = True
    sizes = stats[:, cv2.CC_STAT_AREA].astype(np.float64) / np.count_nonzero(blocks.inside)
    sizes[0] = 0.0
    largest = float(sizes.max())
    sizes[outer] = 0.0
    return largest, float(sizes.max())


def _core(inside: _Mask) -> _Mask:
    """Return the blocks that lie away from the border of what both pictures show."""
    margin = np.ones((2 * _MARGIN + 1, 2 * _MARGIN + 1), np.uint8)
    core = cv2.erode(inside.astype(np.uint8), margin, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(core, np.bool_)


def _pieces_score(blocks: _Blocks) -> float:
    """Return the score of the pieces that differ: of the largest, and of the largest inner one."""
    largest, inner = _largest(blocks, blocks.differ)
    if inner >= _ACCEPT_INNER and largest < 2.0 * _ACCEPT_LARGEST:
        inner = _largest(blocks, blocks.differ & ~_overlay(blocks, blocks.inside))[1]
    return max(
        0.0, min(1.0 - largest / (2.0 * _ACCEPT_LARGEST), 1.0 - inner / (2.0 * _ACCEPT_INNER))
    )


def _graded(value: float, limit: float) -> float:
    """Return 0 for 0, one half at the limit, 1 for 1, linear in between."""
    return 0.5 * value / limit if value < limit else 0.5 + 0.5 * (value - limit) / (1.0 - limit)


def _flat_score(frame: _Frame, blocks: _Blocks) -> float:
    """Return the score of a pair without texture: flat grounds, gradients, night.

    Nothing is forgiven here, since two such pictures differ by little else than brightness and
    colour: the worst block decides. Grain that does not agree is a person's to judge.
    """
    if not blocks.inside.all():
        return 0.0
    rgb_a, rgb_b = _colours(frame)
    fine = _align(frame, 1)
    worst = max(
        float(np.abs(rgb_a - rgb_b).max()),
        float(np.abs(fine.a.mean - fine.b.mean).max()),
        float(np.abs(fine.a.deviation - fine.b.deviation).max()),
    )
    score = max(0.0, 1.0 - worst / _FLAT_LEVELS)
    grain = np.minimum(fine.a.deviation, fine.b.deviation) >= _GRAIN
    if grain.any() and float(np.median(fine.ncc[grain])) < 0.5:
        score = min(score, _GRAIN_SCORE)
    return score


def _paper_share(frame: _Frame, inside: _Mask) -> float:
    """Return the share of the commoner one's pixels within eight levels of its commonest grey.

    What two whole pictures cannot hold where they overlap is not counted: 0 then.
    """
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1] + 2, columns[0], columns[-1] + 2
    if np.count_nonzero(inside) == (bottom - top - 1) * (right - left - 1):
        common = float((bottom - top) * (right - left) * _CELL * _CELL)
        across, down = frame.fixed.grid.enlarged
        most = max(
            frame.fixed.ground * frame.fixed.grey.size * across * down,
            frame.moved.ground * frame.moved.grey.size * abs(_determinant(frame.matrix)),
        )
        if most < _PAPER_DOUBT * common:
            return 0.0
    half = _CELL // 2
    width, height = frame.columns * half, frame.rows * half
    # Single pixels, since means of letters and paper are neither.
    moved = cv2.warpAffine(
        frame.moved.grey, _compose(_scaling(0.5, 0.5), frame.matrix), (width, height),
        flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    across, down = frame.fixed.grid.enlarged
    fixed = cv2.resize(
        frame.fixed.grey[: frame.rows * _CELL // down, : frame.columns * _CELL // across],
        (width, height), interpolation=cv2.INTER_NEAREST,
    )  # fmt: skip
    window = slice(top * half, bottom * half), slice(left * half, right * half)
    return max(_commonest(np.asarray(grey, np.uint8)[window]) for grey in (moved, fixed))


def _commonest(grey: _Bytes) -> float:
    """Return the share of pixels within eight levels of the commonest grey."""
    counts = cv2.calcHist([np.ascontiguousarray(grey)], [0], None, [256], [0.0, 256.0])
    sums = np.cumsum(np.concatenate([_NO_COUNTS, counts.ravel()]))
    return float((sums[_GROUND:] - sums[:-_GROUND]).max()) / grey.size


def _paper_score(frame: _Frame, blocks: _Blocks, least: float) -> float:
    """Return the score of pictures that are mostly one ground: pages, forms, charts, articles.

    On such a ground the printed form agrees in any case, so every block must that nothing was drawn
    over, also in its strokes along x and along y: lines of different text agree as lines, not as
    letters. Below ``least`` the strokes are not looked at.
    """
    differ = blocks.differ
    if differ.any():  # a field of a form that only one of the two has filled in lies inside
        differ = differ & ~_overlay(blocks, blocks.inside & ~_core(blocks.inside))
    textured = max(1, int(np.count_nonzero(blocks.textured)))
    share = int(np.count_nonzero(differ)) / textured
    score = max(0.0, 1.0 - share / (2.0 * _PAPER_DIFFER))
    if score >= least:
        score = max(0.0, min(score, _strokes(blocks)))
    if max(frame.rows, frame.columns) * _CELL < _READABLE_SIDE:
        score = _graded(score, _UNREADABLE_LIMIT)
    return score


def _strokes(blocks: _Blocks) -> float:
    """Return how well the strokes along x and y agree in all but the worst tenth of the blocks."""
    halo = cv2.dilate(blocks.differ.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    clear = blocks.textured & ~np.asarray(halo, np.bool_)
    strokes = 1.0
    for dx, dy in ((1, 0), (0, 1)):
        a, b = (_plane(_derivative(plane.grey, dx, dy), _CELL) for plane in (blocks.a, blocks.b))
        strong = clear & (np.minimum(a.deviation, b.deviation) >= 2.0)
        if np.count_nonzero(strong) >= _LEAST_TEXTURED:
            ncc = _correlation(a, b, _CELL)
            strokes = min(strokes, float(np.percentile(ncc[strong], 10.0)))
    return strokes


def _overlay(blocks: _Blocks, where: _Mask) -> _Mask:
    """Return the blocks that differ because something was drawn over one of the pictures.

    Args:
        blocks: the aligned pictures.
        where: bool [rows, columns], blocks one of which a piece must touch.

    Returns:
        bool [rows, columns]; none where both carry something: two fillings of one form differ in
        either direction.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        blocks.differ.astype(np.uint8), connectivity=8
    )
    labels = np.asarray(labels)
    sizes = stats[:, cv2.CC_STAT_AREA].astype(np.intp)
    sides = np.zeros(count, np.intp)
    touching = np.unique(labels[where & blocks.differ]).tolist()
    for number in sorted(touching, key=lambda k: -int(sizes[k]))[:_MOST_PIECES]:
        left, top, width, height, _ = stats[number].tolist()
        sides[number] = _drawn_on(blocks, labels == number, (top, left, height, width))
    of_a, of_b = int(sizes[sides > 0].sum()), int(sizes[sides < 0].sum())
    if min(of_a, of_b) > _OTHER_SIDE * max(of_a, of_b) or of_a == of_b:
        return np.zeros_like(blocks.differ)
    side = 1 if of_a > of_b else -1
    return np.asarray((sides == side)[labels], np.bool_)


def _drawn_on(blocks: _Blocks, piece: _Mask, box: tuple[int, int, int, int]) -> int:
    """Return +1 if a carries what a piece that differs shows, -1 if b does, 0 if it is not clear.

    What is drawn has few tones, unlike what it hides; letters on a plain ground leave the other
    picture with the ground that surrounds them.

    Args:
        blocks: the aligned pictures.
        piece: bool [rows, columns].
        box: top, left, height and width of the piece in blocks.
    """
    top, left, height, width = box
    cells = _cells(piece)
    window = (
        slice(max(0, top - 1), top + height + 2),
        slice(max(0, left - 1), left + width + 2),
    )
    size = blocks.a.grey.shape[0] // len(cells)
    covered = np.repeat(np.repeat(cells[window], size, axis=0), size, axis=1)
    pixels = tuple(
        slice(part.start * size, part.start * size + length)
        for part, length in zip(window, covered.shape, strict=True)
    )
    a, b = blocks.a.grey[pixels], blocks.b.grey[pixels]
    changed = covered & (np.asarray(cv2.absdiff(a, b)) > _CHANGED)
    if np.count_nonzero(changed) < 8:
        return 0
    (share_a, ground_a), (share_b, ground_b) = (
        _tones(grey[changed], grey[~covered]) for grey in (a, b)
    )
    if ground_a != ground_b:
        return -1 if ground_a else 1
    if max(share_a, share_b) < _DRAWN or abs(share_a - share_b) < _DRAWN_MORE:
        return 0
    return 1 if share_a > share_b else -1


def _tones(grey: _Bytes, around: _Bytes) -> tuple[float, bool]:
    """Return the share of the commonest tone, 17 levels wide, and whether it is the ground around.

    Args:
        grey: uint8 [n], what a picture shows where the other differs.
        around: uint8 [m], what it shows about there.
    """
    counts = np.cumsum(np.bincount(grey, minlength=256 + _GROUND))
    windows = counts[_GROUND:] - counts[:-_GROUND]
    first = int(windows.argmax()) + 1
    share = float(windows[first - 1]) / grey.size
    if share < _PLAIN or not around.size:
        return share, False
    return share, bool(np.mean((around >= first) & (around < first + _GROUND)) >= 0.5)


def _smooth(grey: _Bytes) -> _Bytes:
    return np.asarray(cv2.GaussianBlur(grey, (3, 3), 0), np.uint8)


def _derivative(grey: _Bytes, dx: int, dy: int) -> _Bytes:
    """Return a Sobel derivative about 128, in eighths so that +/- 1020 fits into 8 bits."""
    derivative = cv2.Sobel(grey, cv2.CV_16S, dx, dy, ksize=3)
    return np.asarray(cv2.convertScaleAbs(derivative, None, 0.125, 128.0), np.uint8)


# ------------------------------------------------------------------------------- relation
def _relation(
    frame: _Frame,
    transform: _Doubles,
    areas: tuple[float, float],
    blocks: _Blocks,
    moved: bool,
) -> tuple[str, int]:
    """Name how a pair that agrees differs, and which of the two was made from the other."""
    a, b = (frame.moved, frame.fixed) if frame.in_b else (frame.fixed, frame.moved)
    area_a, area_b = areas
    if min(areas) < _WHOLE_AREA:
        if abs(area_a - area_b) < 0.02:
            return _turn(transform) or "cropped", 0
        if area_a > area_b:  # b shows more than a: its rest is picture, or frame
            return ("bordered", -1) if _framed(b, a.grey.shape, transform) else ("cropped", 1)
        back = _invert(transform)
        return ("bordered", 1) if _framed(a, b.grey.shape, back) else ("cropped", -1)
    covered = np.count_nonzero(blocks.differ) / np.count_nonzero(blocks.inside)
    if covered >= _OVERLAY_SHARE:
        return "overlaid", _overlaid_side(frame, blocks)
    turn = _turn(transform)
    if turn is not None:
        return turn, 0
    if moved:
        return "recoloured", 0
    ratio = a.grey.size / b.grey.size
    return ("reencoded" if 0.97 <= ratio <= 1.03 else "resized"), 0


def _turn(transform: _Doubles) -> Optional[str]:
    if _determinant(transform) < 0:
        return "mirrored"
    angle = abs(float(np.degrees(np.arctan2(transform[1, 0], transform[0, 0]))))
    return "turned" if angle > 1.0 else None


def _framed(picture: Picture, inner: tuple[int, ...], transform: _Doubles) -> bool:
    """Return whether what a picture shows beyond an inner one is a frame, not more picture.

    A frame is mostly of one colour and begins with a step. A subject before an even wall has the
    one colour, but no step where a crop of it ends.
    """
    small, part = picture.coarse
    corners = _corners(inner[1], inner[0]) @ transform[:, :2].T + transform[:, 2]
    covered = np.zeros(small.shape[:2], np.uint8)
    cv2.fillConvexPoly(covered, np.rint((corners - 0.5 * (part - 1)) / part).astype(np.int32), 1)
    rest = small[covered == 0]  # the polygon has its border pixels
    if len(rest) < 8:
        return False
    middle = np.median(rest, axis=0)
    near = np.abs(rest.astype(np.float64) - middle).max(axis=1) <= _FRAME_LEVELS
    return bool(near.mean() >= 0.6) and _steps(picture.rgb, inner, transform) >= 0.4


def _steps(thumb: _Bytes, inner: tuple[int, ...], transform: _Doubles) -> float:
    """Return the share of places on the border of the inner picture with a step in colour."""
    height, width = inner[:2]
    depth = 4.0 / max(_size_ratio(transform), 1e-6)  # pixels of the inner picture
    along = (np.arange(32) + 0.5) / 32.0
    x, y = along * width, along * height
    ends = np.full(32, depth)
    inside = np.concatenate(
        [
            np.stack([x, ends], 1), np.stack([x, height - ends], 1),
            np.stack([ends, y], 1), np.stack([width - ends, y], 1),
        ]
    )  # fmt: skip
    outside = np.concatenate(
        [
            np.stack([x, -ends], 1), np.stack([x, height + ends], 1),
            np.stack([-ends, y], 1), np.stack([width + ends, y], 1),
        ]
    )  # fmt: skip
    colours, seen = [], np.ones(len(inside), np.bool_)
    for points in (inside, outside):
        at = np.rint(points @ transform[:, :2].T + transform[:, 2]).astype(np.intp)
        seen &= (at >= 0).all(axis=1) & (at[:, 0] < thumb.shape[1]) & (at[:, 1] < thumb.shape[0])
        at = np.clip(at, 0, [thumb.shape[1] - 1, thumb.shape[0] - 1])
        colours.append(thumb[at[:, 1], at[:, 0]].astype(np.float64).reshape(len(at), -1))
    if not seen.any():
        return 0.0
    return float((np.abs(colours[0] - colours[1]).max(axis=1)[seen] > 16.0).mean())


def _overlaid_side(frame: _Frame, blocks: _Blocks) -> int:
    """Return +1 if a carries the overlay, -1 if b does, 0 if neither is plain.

    A bar or a logo is drawn: it has fewer tones and harder edges than what it hides. Letters strewn
    over the picture add contrast to each block that they touch.
    """
    cells = _cells(blocks.differ)
    size = blocks.a.grey.shape[0] // len(cells)
    mask = np.repeat(np.repeat(cells, size, axis=0), size, axis=1)
    largest, _ = _largest(blocks, blocks.differ)
    strewn = largest < 0.75 * np.count_nonzero(blocks.differ) / np.count_nonzero(blocks.inside)
    if strewn:  # strokes are as thin as a pixel
        greys = _moved(frame, 1), _fixed(frame.fixed, frame.fixed.grey, _CELL)
        measures = [
            float(_plane(grey, _CELL).deviation[blocks.differ].mean()) / 128.0
            for grey in (greys if frame.in_b else greys[::-1])
        ]
    else:
        measures = []
        for plane in (blocks.a, blocks.b):
            part = plane.grey[mask]
            counts = np.convolve(np.bincount(part, minlength=256), np.ones(9), "same")
            measures.append(float(counts.max()) / part.size + float(part.std()) / 128.0)
    difference = measures[0] - measures[1]
    if abs(difference) < 0.02:
        return 0
    return 1 if difference > 0 else -1


def _cells(mask: _Mask) -> _Mask:
    """Return the cells of blocks: bool [rows + 1, columns + 1]."""
    rows, columns = mask.shape
    cells = np.zeros((rows + 1, columns + 1), np.bool_)
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        cells[dy : dy + rows, dx : dx + columns] |= mask
    return cells
