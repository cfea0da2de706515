"""Local features of a thumbnail, and the verification of a pair by an aligned comparison.

``verify`` lays one picture over the other (as a whole where an orientation is known, else by
matched points and a robust similarity transform), and compares them block by block: the normalised
cross-correlation of luma where there is texture, the tone where there is none, and the chroma.
"""

import dataclasses
import struct
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
    "extract",
    "verify",
]

KINDS: Final = ("orb", "sift")
# What pixels can tell: the exact levels are decided by hashes.
RELATIONS: Final = tuple(name for name in ALL_RELATIONS if name not in ("exact", "pixels"))
ACCEPT_SCORE: Final = 0.5
REVIEW_SCORE: Final = 0.35

_HEADER: Final = struct.Struct("<4sBBHHH")  # magic, kind, descriptor length, points, width, height
_MAGIC: Final = b"BDL1"
_Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]
_Bytes = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]

_ORB_LIMIT: Final = 72  # bits of 256 of a match
_SIFT_LIMIT: Final = 300  # Euclidean distance of a match, descriptors of length 512
_MAX_SCALE: Final = 7.0  # of one thumbnail against the other
_LEAST_AREA: Final = 0.05  # share of a picture that must be common
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
_MARGIN: Final = 2  # blocks from the border within which a piece counts as touching it
_TONE: Final = 40.0  # grey levels between flat blocks that differ
_FLAT_LEVELS: Final = 4.0  # levels between blocks at which two flat pictures have a score of 0
_GRAIN: Final = 1.0  # grey levels of deviation of a flat block that holds grain
_GRAIN_SCORE: Final = 0.45
_PAPER: Final = 0.6  # share of one ground at which the strict comparison begins
_PAPER_DIFFER: Final = 0.008  # share of textured blocks that may differ on such a ground
# Below this longer side, in pixels, forms filled in differently reached 0.67 and copies 0.67 to 1.
_READABLE_SIDE: Final = 256
_UNREADABLE_LIMIT: Final = 0.75
_WHOLE_AREA: Final = 0.97  # common share at which neither picture is cut
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
        try_mirror: match points in both senses where the first (that of the hint, else the picture
            as it is) gives no copy; without it the second is never tried.
    """

    accept_score: float = ACCEPT_SCORE
    review_score: float = REVIEW_SCORE
    direct_score: float = 0.85
    min_inliers: int = 8
    inlier_pixels: float = 4.0
    try_mirror: bool = True

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
    """Points of one thumbnail with descriptors of the picture and of its mirror image.

    Attributes:
        kind: "orb" (32 bytes, compared by Hamming distance) or "sift" (128, by Euclid's).
        size: width and height of the thumbnail, pixels.
        points: float32 [n, 2], x and y of pixel centres.
        descriptors: uint8 [n, 32 or 128].
        mirrored: uint8 [n, 32 or 128]: of the same points in the picture flipped left to right.
    """

    kind: str
    size: tuple[int, int]
    points: _Floats
    descriptors: _Bytes
    mirrored: _Bytes

    def pack(self) -> bytes:
        """Return the features as bytes: a header of 12 bytes, then the three arrays."""
        header = _HEADER.pack(
            _MAGIC,
            KINDS.index(self.kind),
            self.descriptors.shape[1],
            len(self.points),
            self.size[0],
            self.size[1],
        )
        arrays = (self.points.astype("<f4"), self.descriptors, self.mirrored)
        return header + b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)

    @classmethod
    def unpack(cls, data: bytes) -> "LocalFeatures":
        """Return features from ``pack``.

        Raises:
            ValueError: if ``data`` is not of this form.
        """
        if len(data) < _HEADER.size or data[:4] != _MAGIC:
            raise ValueError(f"features must begin with {_MAGIC!r}, got {data[:4]!r}")
        _, kind, length, count, width, height = _HEADER.unpack_from(data)
        expected = _HEADER.size + count * (8 + 2 * length)
        if kind >= len(KINDS) or len(data) != expected:
            raise ValueError(f"features must have {expected!r} bytes, got {len(data)!r}")
        at = _HEADER.size
        points = np.frombuffer(data, "<f4", count * 2, at).reshape(count, 2).astype(np.float32)
        at += count * 8
        both = np.frombuffer(data, np.uint8, 2 * count * length, at).reshape(2, count, length)
        return cls(KINDS[kind], (width, height), points, both[0], both[1])


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
def extract(thumb: _Bytes, *, kind: str = "orb", max_points: int = 256) -> LocalFeatures:
    """Return the local features of a thumbnail and of its mirror image.

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
    length = 32 if kind == "orb" else 128
    none = np.zeros((0, length), np.uint8)
    empty = LocalFeatures(kind, (width, height), np.zeros((0, 2), np.float32), none, none)
    if min(height, width) < 32:  # nothing fits into the patch of a descriptor
        return empty
    if kind == "orb":
        found = _orb(grey, max_points)
    else:
        found = _sift(grey, max_points)
    if found is None:
        return empty
    return LocalFeatures(kind, (width, height), *found)


def _orb(grey: _Bytes, max_points: int) -> Optional[tuple[_Floats, _Bytes, _Bytes]]:
    # Threshold 8 in place of 20 still finds points in smooth and dark pictures.
    orb = cv2.ORB.create(nfeatures=max_points, fastThreshold=8, edgeThreshold=16, patchSize=31)
    keypoints, descriptors = orb.detectAndCompute(grey, None)
    if descriptors is None or not len(keypoints):
        return None
    width = grey.shape[1]
    for number, keypoint in enumerate(keypoints):
        keypoint.class_id = number
    flipped = tuple(
        cv2.KeyPoint(
            width - 1 - k.pt[0], k.pt[1], k.size, (180.0 - k.angle) % 360.0, k.response, k.octave,
            k.class_id,
        )
        for k in keypoints
    )  # fmt: skip
    kept, mirrored = orb.compute(np.ascontiguousarray(grey[:, ::-1]), flipped)
    if mirrored is None:
        return None
    order = np.array([k.class_id for k in kept], np.intp)
    points = np.array([k.pt for k in keypoints], np.float32)
    return points[order], np.asarray(descriptors, np.uint8)[order], np.asarray(mirrored, np.uint8)


def _sift(grey: _Bytes, max_points: int) -> Optional[tuple[_Floats, _Bytes, _Bytes]]:
    sift = cv2.SIFT.create(nfeatures=max_points)
    keypoints, descriptors = sift.detectAndCompute(grey, None)
    if descriptors is None or not len(keypoints):
        return None
    # OpenCV keeps more than asked where several orientations share a place.
    points = np.array([k.pt for k in keypoints], np.float32)[:max_points]
    found = np.clip(np.rint(descriptors[:max_points]), 0, 255).astype(np.uint8)
    # [4 rows, 4 columns, 8 angles]: a mirror flips one axis of the grid and negates the angle.
    grid = found.reshape(-1, 4, 4, 8)
    mirrored = grid[:, ::-1, :, (-np.arange(8)) % 8].reshape(len(found), 128)
    return points, found, np.ascontiguousarray(mirrored)


# ------------------------------------------------------------------------------- verification
def verify(
    thumb_a: _Bytes,
    feats_a: LocalFeatures,
    thumb_b: _Bytes,
    feats_b: LocalFeatures,
    *,
    settings: Optional[LocalSettings] = None,
    orientation_hint: Optional[int] = None,
) -> LocalEvidence:
    """Compare two pictures after laying one over the other.

    The two are put into a fixed order first, so that exchanging a and b (and inverting the hint)
    exchanges ``area_a`` with ``area_b``, negates ``derived`` and changes nothing else.

    Args:
        thumb_a: uint8 [h, w, 3] RGB.
        feats_a: of ``thumb_a``.
        thumb_b: uint8 [h, w, 3] RGB.
        feats_b: of ``thumb_b``, of the same kind.
        settings: what to ask; the defaults if None.
        orientation_hint: EXIF orientation 1..8 that turns a into b as a whole, or None if the two
            are not known to be aligned. It is tried first and need not be right.

    Raises:
        ValueError: if the kinds of the features differ.
    """
    settings = settings or LocalSettings()
    if feats_a.kind != feats_b.kind:
        raise ValueError(f"features must be of one kind, got {feats_a.kind!r}, {feats_b.kind!r}")
    if _comes_first(thumb_b, thumb_a):
        hint = orientation_hint and orientation.inverse_orientation(orientation_hint)
        found = _verify(thumb_b, feats_b, thumb_a, feats_a, settings, hint)
        return found._replace(area_a=found.area_b, area_b=found.area_a, derived=-found.derived)
    return _verify(thumb_a, feats_a, thumb_b, feats_b, settings, orientation_hint)


def _comes_first(a: _Bytes, b: _Bytes) -> bool:
    """Return whether a is before b in an order that depends on the pixels alone."""
    if a.shape != b.shape:
        return a.shape < b.shape
    few_a, few_b = a[::16, ::16].tobytes(), b[::16, ::16].tobytes()
    return few_a < few_b if few_a != few_b else a.tobytes() < b.tobytes()


class _View(NamedTuple):
    """A thumbnail as the comparison reads it."""

    rgb: _Bytes  # [h, w, 3]
    grey: _Bytes  # [h, w]


def _verify(
    thumb_a: _Bytes,
    feats_a: LocalFeatures,
    thumb_b: _Bytes,
    feats_b: LocalFeatures,
    settings: LocalSettings,
    hint: Optional[int],
) -> LocalEvidence:
    a, b = _View(thumb_a, _grey(thumb_a)), _View(thumb_b, _grey(thumb_b))
    best = _NO_EVIDENCE
    if hint is not None:
        whole = _whole_transform(thumb_a.shape, thumb_b.shape, hint)
        best = _compare(a, b, whole, 0, settings)
        if best.score >= settings.direct_score:
            return best
        if best.score < settings.review_score and best.overlap >= _ALIGNED:
            return best  # well aligned already: what differs is what the two show
    first = hint is not None and orientation.is_mirror(hint)
    sides = (first, not first) if settings.try_mirror else (first,)
    for mirror in sides:
        fitted = _fit(feats_a, feats_b, mirror, settings)
        if fitted is None:
            continue
        evidence = _compare(a, b, fitted[0], fitted[1], settings)
        if evidence.score > best.score or best is _NO_EVIDENCE:
            best = evidence
        if best.score >= settings.review_score:
            break
    return best


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


def _size_ratio(transform: _Doubles) -> float:
    """Return the linear scale of an affine map: the root of its change of area."""
    return float(np.sqrt(abs(np.linalg.det(transform[:, :2]))))


def _distances(a: _Bytes, b: _Bytes, kind: str) -> npt.NDArray[np.int32]:
    """Return all distances of two sets of descriptors: int32 [n, m], Hamming or squared Euclid."""
    if kind == "orb":
        words_a, words_b = a.view(np.uint64), b.view(np.uint64)
        out = np.zeros((len(a), len(b)), np.int32)
        for word in range(words_a.shape[1]):
            out += np.bitwise_count(words_a[:, None, word] ^ words_b[None, :, word])
        return out
    fa, fb = a.astype(np.float32), b.astype(np.float32)
    squares = (fa * fa).sum(axis=1)[:, None] + (fb * fb).sum(axis=1)[None, :]
    return np.asarray(np.rint(squares - 2.0 * (fa @ fb.T)), np.int32)


def _matches(a: _Bytes, b: _Bytes, kind: str) -> npt.NDArray[np.intp]:
    """Return pairs of descriptors that are each other's nearest: intp [n, 2]."""
    distances = _distances(a, b, kind)
    nearest = distances.argmin(axis=1)
    rows = np.arange(len(a))
    mutual = distances.argmin(axis=0)[nearest] == rows
    limit = _ORB_LIMIT if kind == "orb" else _SIFT_LIMIT * _SIFT_LIMIT
    kept = mutual & (distances[rows, nearest] <= limit)
    return np.stack([rows[kept], nearest[kept]], axis=1).astype(np.intp)


def _fit(
    a: LocalFeatures, b: LocalFeatures, mirror: bool, settings: LocalSettings
) -> Optional[tuple[_Doubles, int]]:
    """Return a similarity transform from a to b with the number of matches that agree with it."""
    if min(len(a.points), len(b.points)) < settings.min_inliers:
        return None
    pairs = _matches(a.mirrored if mirror else a.descriptors, b.descriptors, a.kind)
    if len(pairs) < settings.min_inliers:
        return None
    source, target = a.points[pairs[:, 0]], b.points[pairs[:, 1]]
    if mirror:
        source = source * np.array([-1, 1], np.float32) + np.array([a.size[0] - 1, 0], np.float32)
    # OpenCV seeds the generator of its RANSAC with a constant on every call.
    found, inliers = cv2.estimateAffinePartial2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=settings.inlier_pixels,
        maxIters=2000, confidence=0.995, refineIters=10,
    )  # fmt: skip
    if found is None or not np.isfinite(found).all():
        return None
    transform = np.asarray(found, np.float64)
    count = int(np.count_nonzero(inliers))
    if count < settings.min_inliers or not 1.0 / _MAX_SCALE <= _size_ratio(transform) <= _MAX_SCALE:
        return None
    if mirror:
        transform = _compose(transform, orientation.matrix(2, *a.size))
    return transform, count


def _grey(thumb: _Bytes) -> _Bytes:
    grey = cv2.cvtColor(thumb, cv2.COLOR_RGB2GRAY) if thumb.ndim == 3 else thumb
    return np.asarray(grey, np.uint8)


# ------------------------------------------------------------------------------- comparison
class _Blocks(NamedTuple):
    """Two aligned pictures in blocks of 16x16 pixels, one block at every 8 pixels: [rows, columns].

    ``agree``, ``differ`` and neither (flat in both, the same tone) share the blocks ``inside``.
    """

    inside: _Mask  # both pictures cover the block
    textured: _Mask  # inside, and one of the two has texture
    agree: _Mask
    differ: _Mask
    grey_a: _Bytes  # the aligned pixels: uint8 [h, w]
    grey_b: _Bytes
    rgb_a: _Doubles  # mean colours: float64 [rows, columns, 3]
    rgb_b: _Doubles


def _compare(
    a: _View, b: _View, transform: _Doubles, inliers: int, settings: LocalSettings
) -> LocalEvidence:
    """Return the evidence of one transform from a to b."""
    area_a, area_b = _areas(a.grey.shape, b.grey.shape, transform)
    if min(area_a, area_b) < _LEAST_AREA:
        return _NO_EVIDENCE
    blocks = _align(a, b, transform)
    textured = int(np.count_nonzero(blocks.textured))
    inside = int(np.count_nonzero(blocks.inside))
    if not inside:
        return _NO_EVIDENCE
    if textured < _LEAST_TEXTURED * max(1.0, inside / 400.0):
        overlap, moved = 0.0, False
        score = chroma = _flat_score(blocks) if _keeps_shape(transform) else 0.0
    else:
        overlap = float(np.count_nonzero(blocks.agree)) / textured
        chroma, moved = _chroma(blocks)
        score = _score(blocks, overlap, chroma, max(area_a, area_b), settings)
    relation, derived = "similar", 0
    if score >= settings.review_score:
        relation, derived = _relation(a, b, transform, (area_a, area_b), blocks, moved)
    return LocalEvidence(
        inliers, round(overlap, 4), round(area_a, 4), round(area_b, 4), round(chroma, 4),
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
    mapped = abs(float(np.linalg.det(transform[:, :2]))) * height * width
    if mapped <= 0.0:
        return 0.0, 0.0
    return min(1.0, common / mapped), min(1.0, common / (frame_height * frame_width))


def _corners(width: int, height: int) -> _Doubles:
    right, bottom = width - 0.5, height - 0.5
    return np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])


def _align(a: _View, b: _View, transform: _Doubles) -> _Blocks:
    """Warp the finer picture onto the coarser one and compare them block by block."""
    in_b = _size_ratio(transform) <= 1.0
    moved, fixed = (a, b) if in_b else (b, a)
    matrix = transform if in_b else _invert(transform)
    across, down = _enlargement(fixed.grey.shape)
    if across > 1 or down > 1:
        matrix = _compose(_scaling(across, down), matrix)
        size = (fixed.grey.shape[1] * across, fixed.grey.shape[0] * down)
        fixed = _resized(fixed, *size, cv2.INTER_LINEAR)
    height, width = fixed.grey.shape
    rows, columns = height // _CELL, width // _CELL
    shape = moved.grey.shape
    shrink = _size_ratio(matrix)
    if shrink < 0.8:  # averages before it samples, against aliasing
        size = (max(1, round(shape[1] * shrink)), max(1, round(shape[0] * shrink)))
        sampled = _resized(moved, *size, cv2.INTER_AREA)
        matrix = _compose(matrix, _scaling(shape[1] / size[0], shape[0] / size[1]))
        moved, shape = sampled, sampled.grey.shape
    grey = cv2.warpAffine(
        moved.grey, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    colours = _cell_colours(moved.rgb, matrix, rows, columns)
    cut = fixed.rgb[: rows * _CELL, : columns * _CELL]
    fixed_colours = cv2.resize(cut, (columns, rows), interpolation=cv2.INTER_AREA)
    inside = _inside(matrix, shape, rows, columns)
    pair = (grey, fixed.grey) if in_b else (fixed.grey, grey)
    pair_colours = (colours, fixed_colours) if in_b else (fixed_colours, colours)
    return _blocks(
        np.asarray(pair[0], np.uint8), np.asarray(pair[1], np.uint8), inside,
        _mean2(pair_colours[0].astype(np.float64)), _mean2(pair_colours[1].astype(np.float64)),
    )  # fmt: skip


def _enlargement(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return factors along x and y that give a tiny or thin frame 3x3 cells or more."""
    whole = max(1, min(-(-_LEAST_SIDE // min(shape)), 512 // max(shape)))
    return max(whole, -(-3 * _CELL // shape[1])), max(whole, -(-3 * _CELL // shape[0]))


def _keeps_shape(transform: _Doubles) -> bool:
    """Return whether a map stretches no direction by over 3 % against the other."""
    stretch = np.linalg.svd(transform[:, :2], compute_uv=False)
    return bool(stretch[0] <= 1.03 * stretch[1])


def _resized(view: _View, width: int, height: int, how: int) -> _View:
    size = (width, height)
    return _View(
        np.asarray(cv2.resize(view.rgb, size, interpolation=how), np.uint8),
        np.asarray(cv2.resize(view.grey, size, interpolation=how), np.uint8),
    )


def _cell_colours(rgb: _Bytes, matrix: _Doubles, rows: int, columns: int) -> _Bytes:
    """Return the mean colours of the cells of a warped picture: uint8 [rows, columns, 3].

    Colours vary slowly, so those of all but small pictures are warped at a quarter of the size, at
    a twelfth of the cost.
    """
    part = max(1, min(4, min(rgb.shape[:2]) // 16))
    height, width = rgb.shape[0] // part, rgb.shape[1] // part
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    there = _compose(matrix, _scaling(rgb.shape[1] / width, rgb.shape[0] / height))
    there = _compose(_scaling(2.0 / _CELL, 2.0 / _CELL), there)
    warped = cv2.warpAffine(
        small, there, (columns * 2, rows * 2), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.asarray(cv2.resize(warped, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


def _inside(matrix: _Doubles, shape: tuple[int, ...], rows: int, columns: int) -> _Mask:
    """Return the blocks whose four corners fall into the moved picture."""
    back = _invert(matrix)
    x = np.arange(columns + 1) * float(_CELL) - 0.5
    y = np.arange(rows + 1)[:, None] * float(_CELL) - 0.5
    u = back[0, 0] * x + back[0, 1] * y + back[0, 2]
    v = back[1, 0] * x + back[1, 1] * y + back[1, 2]
    good = (u >= -1.0) & (u <= shape[1]) & (v >= -1.0) & (v <= shape[0])
    return np.asarray(good[:-2, :-2] & good[2:, :-2] & good[:-2, 2:] & good[2:, 2:], np.bool_)


def _mean2(cells: _Doubles) -> _Doubles:
    return 0.25 * (cells[:-1, :-1] + cells[1:, :-1] + cells[:-1, 1:] + cells[1:, 1:])


def _block_sums(grey: _Bytes, rows: int, columns: int) -> tuple[_Doubles, _Doubles]:
    """Return sums of pixels and of their squares over the blocks, exact integers as float64."""
    whole = grey[: rows * _CELL, : columns * _CELL]
    both = cv2.integral2(whole, sdepth=cv2.CV_32S, sqdepth=cv2.CV_64F)
    out = []
    for table in both:
        corner = np.asarray(table)[::_CELL, ::_CELL].astype(np.float64)
        out.append(corner[2:, 2:] - corner[:-2, 2:] - corner[2:, :-2] + corner[:-2, :-2])
    return out[0], out[1]


def _correlation(
    grey_a: _Bytes, grey_b: _Bytes
) -> tuple[_Doubles, _Doubles, _Doubles, _Doubles, _Doubles]:
    """Return normalised cross-correlation, means and deviations of the blocks of two pictures."""
    rows, columns = grey_a.shape[0] // _CELL, grey_a.shape[1] // _CELL
    sum_a, squares_a = _block_sums(grey_a, rows, columns)
    sum_b, squares_b = _block_sums(grey_b, rows, columns)
    # (a - b)^2 = a^2 + b^2 - 2 a b gives the product from 8-bit pictures alone.
    _, squares = _block_sums(np.asarray(cv2.absdiff(grey_a, grey_b), np.uint8), rows, columns)
    count = float(4 * _CELL * _CELL)
    mean_a, mean_b = sum_a / count, sum_b / count
    deviation_a = np.sqrt(np.maximum(squares_a / count - mean_a * mean_a, 0.0))
    deviation_b = np.sqrt(np.maximum(squares_b / count - mean_b * mean_b, 0.0))
    covariance = 0.5 * (squares_a + squares_b - squares) / count - mean_a * mean_b
    # The floor keeps the rounding of flat blocks from counting as structure.
    ncc = covariance / np.maximum(deviation_a * deviation_b, 4.0)
    return ncc, mean_a, mean_b, deviation_a, deviation_b


def _blocks(
    grey_a: _Bytes, grey_b: _Bytes, inside: _Mask, rgb_a: _Doubles, rgb_b: _Doubles
) -> _Blocks:
    ncc, mean_a, mean_b, deviation_a, deviation_b = _correlation(_smooth(grey_a), _smooth(grey_b))
    textured = inside & (np.maximum(deviation_a, deviation_b) >= _TEXTURE)
    agree = textured & (ncc >= _AGREE)
    differ = textured & ~agree
    basis = agree if np.count_nonzero(agree) >= _LEAST_TEXTURED else inside
    if basis.any():
        differ = differ | (inside & ~textured & (_tone_misfit(mean_a, mean_b, basis) > _TONE))
    return _Blocks(inside, textured, agree, differ, grey_a, grey_b, rgb_a, rgb_b)


def _smooth(grey: _Bytes) -> _Bytes:
    """Return a picture without its finest grain: the noise of a copy, a misfit of half a pixel."""
    return np.asarray(cv2.GaussianBlur(grey, (3, 3), 0), np.uint8)


def _tone_misfit(mean_a: _Doubles, mean_b: _Doubles, basis: _Mask) -> _Doubles:
    """Return how far the blocks' means are from one change of brightness and contrast.

    The gain is the ratio of the deviations, so that exchanging a and b changes nothing.
    """
    some_a, some_b = mean_a[basis], mean_b[basis]
    gain = float(np.clip((some_b.std() + 4.0) / (some_a.std() + 4.0), 0.4, 2.5))
    root = gain**0.5
    misfit = (mean_b - some_b.mean()) / root - (mean_a - some_a.mean()) * root
    return np.asarray(np.abs(misfit), np.float64)


def _chroma(blocks: _Blocks) -> tuple[float, bool]:
    """Return the agreement of colours where luma agrees, and whether they were changed."""
    weights = (blocks.inside & ~blocks.differ).astype(np.float64).reshape(1, -1)
    luma_a, chroma_a = color.luma_chroma(blocks.rgb_a.reshape(-1, 3))
    luma_b, chroma_b = color.luma_chroma(blocks.rgb_b.reshape(-1, 3))
    similarity, moved = color.chroma_similarity(
        chroma_a[None], chroma_b[None], luma_a[None], luma_b[None], weights
    )
    return float(similarity[0]), bool(moved[0])


def _largest(blocks: _Blocks) -> tuple[float, float]:
    """Return the largest piece that differs, and the largest away from the border, as shares.

    Pieces are joined over diagonals. Captions and logos reach the border of the picture or nearly;
    an inner piece is a subject, a field of a form, or a picture in a frame.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        blocks.differ.astype(np.uint8), connectivity=8
    )
    if count <= 1:
        return 0.0, 0.0
    margin = np.ones((2 * _MARGIN + 1, 2 * _MARGIN + 1), np.uint8)
    core = cv2.erode(
        blocks.inside.astype(np.uint8), margin, borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    outer = np.unique(np.asarray(labels)[blocks.inside & (core == 0)])
    sizes = stats[:, cv2.CC_STAT_AREA].astype(np.float64) / np.count_nonzero(blocks.inside)
    sizes[0] = 0.0
    largest = float(sizes.max())
    sizes[outer] = 0.0
    return largest, float(sizes.max())


def _score(
    blocks: _Blocks, overlap: float, chroma: float, area: float, settings: LocalSettings
) -> float:
    """Return the score of a textured pair: the weakest of its kinds of evidence."""
    largest, inner = _largest(blocks)
    score = min(
        _graded(overlap, _ACCEPT_OVERLAP),
        _graded(chroma, _ACCEPT_CHROMA),
        _graded(area, _ACCEPT_AREA),
        1.0 - largest / (2.0 * _ACCEPT_LARGEST),
        1.0 - inner / (2.0 * _ACCEPT_INNER),
    )
    if score >= settings.review_score and _paper_share(blocks) >= _PAPER:
        score = min(score, _paper_score(blocks))
    return float(max(0.0, score))


def _graded(value: float, limit: float) -> float:
    """Return 0 for 0, one half at the limit, 1 for 1, linear in between."""
    return 0.5 * value / limit if value < limit else 0.5 + 0.5 * (value - limit) / (1.0 - limit)


def _flat_score(blocks: _Blocks) -> float:
    """Return the score of a pair without texture: flat grounds, gradients, night.

    Nothing is forgiven here, since two such pictures differ by little else than brightness and
    colour: the worst block decides. Grain that does not agree is a person's to judge.
    """
    if not blocks.inside.all():
        return 0.0
    ncc, mean_a, mean_b, deviation_a, deviation_b = _correlation(
        _smooth(blocks.grey_a), _smooth(blocks.grey_b)
    )
    worst = max(
        float(np.abs(blocks.rgb_a - blocks.rgb_b).max()),
        float(np.abs(mean_a - mean_b).max()),
        float(np.abs(deviation_a - deviation_b).max()),
    )
    score = max(0.0, 1.0 - worst / _FLAT_LEVELS)
    grain = np.minimum(deviation_a, deviation_b) >= _GRAIN
    if grain.any() and float(np.median(ncc[grain])) < 0.5:
        score = min(score, _GRAIN_SCORE)
    return score


def _paper_share(blocks: _Blocks) -> float:
    """Return the share of the commoner one's pixels within eight levels of its commonest grey."""
    where = np.argwhere(blocks.inside)
    (top, left), (bottom, right) = where.min(axis=0) * _CELL, (where.max(axis=0) + 2) * _CELL
    best = 0.0
    for grey in (blocks.grey_a, blocks.grey_b):
        part = np.ascontiguousarray(grey[top:bottom:2, left:right:2])
        counts = cv2.calcHist([part], [0], None, [256], [0.0, 256.0]).ravel()
        best = max(best, float(np.convolve(counts, np.ones(17), "same").max()) / part.size)
    return best


def _paper_score(blocks: _Blocks) -> float:
    """Return the score of pictures that are mostly one ground: pages, forms, charts, articles.

    On such a ground the printed form agrees in any case, so every block must, also in its strokes
    along x and along y: lines of different text agree as lines, not as letters.
    """
    textured = np.count_nonzero(blocks.textured)
    share = np.count_nonzero(blocks.differ) / textured
    strokes = 1.0
    for dx, dy in ((1, 0), (0, 1)):
        a, b = (_derivative(_smooth(grey), dx, dy) for grey in (blocks.grey_a, blocks.grey_b))
        ncc, _, _, deviation_a, deviation_b = _correlation(a, b)
        strong = blocks.textured & (np.minimum(deviation_a, deviation_b) >= 2.0)
        if np.count_nonzero(strong) >= _LEAST_TEXTURED:
            strokes = min(strokes, float(np.percentile(ncc[strong], 10.0)))
    score = max(0.0, min(1.0 - share / (2.0 * _PAPER_DIFFER), strokes))
    if max(blocks.grey_a.shape) < _READABLE_SIDE:
        score = _graded(score, _UNREADABLE_LIMIT)
    return score


def _derivative(grey: _Bytes, dx: int, dy: int) -> _Bytes:
    """Return a Sobel derivative about 128, in eighths so that +/- 1020 fits into 8 bits."""
    derivative = cv2.Sobel(grey, cv2.CV_16S, dx, dy, ksize=3)
    return np.asarray(cv2.convertScaleAbs(derivative, None, 0.125, 128.0), np.uint8)


# ------------------------------------------------------------------------------- relation
def _relation(
    a: _View,
    b: _View,
    transform: _Doubles,
    areas: tuple[float, float],
    blocks: _Blocks,
    moved: bool,
) -> tuple[str, int]:
    """Name how a pair that agrees differs, and which of the two was made from the other."""
    area_a, area_b = areas
    if min(areas) < _WHOLE_AREA:
        if abs(area_a - area_b) < 0.02:
            return _turn(transform) or "cropped", 0
        if area_a > area_b:  # b shows more than a: its rest is picture, or frame
            return ("bordered", -1) if _framed(b.rgb, a.grey.shape, transform) else ("cropped", 1)
        back = _invert(transform)
        return ("bordered", 1) if _framed(a.rgb, b.grey.shape, back) else ("cropped", -1)
    covered = np.count_nonzero(blocks.differ) / np.count_nonzero(blocks.inside)
    if covered >= _OVERLAY_SHARE:
        return "overlaid", _overlaid_side(blocks)
    turn = _turn(transform)
    if turn is not None:
        return turn, 0
    if moved:
        return "recoloured", 0
    ratio = a.grey.size / b.grey.size
    return ("reencoded" if 0.97 <= ratio <= 1.03 else "resized"), 0


def _turn(transform: _Doubles) -> Optional[str]:
    if np.linalg.det(transform[:, :2]) < 0:
        return "mirrored"
    angle = abs(float(np.degrees(np.arctan2(transform[1, 0], transform[0, 0]))))
    return "turned" if angle > 1.0 else None


def _framed(thumb: _Bytes, inner: tuple[int, ...], transform: _Doubles) -> bool:
    """Return whether what a picture shows beyond an inner one is a frame, not more picture.

    A frame is mostly of one colour and begins with a step. A subject before an even wall has the
    one colour, but no step where a crop of it ends.
    """
    height, width = max(1, thumb.shape[0] // 4), max(1, thumb.shape[1] // 4)
    small = cv2.resize(thumb, (width, height), interpolation=cv2.INTER_NEAREST)
    there = _compose(_scaling(width / thumb.shape[1], height / thumb.shape[0]), transform)
    ones = np.full(inner[:2], 255, np.uint8)
    covered = cv2.warpAffine(ones, there, (width, height), flags=cv2.INTER_NEAREST)
    rest = small[cv2.dilate(covered, np.ones((3, 3), np.uint8)) == 0].reshape(-1, 3)
    if len(rest) < 8:
        return False
    middle = np.median(rest, axis=0)
    near = np.abs(rest.astype(np.float64) - middle).max(axis=1) <= _FRAME_LEVELS
    return bool(near.mean() >= 0.5) and _steps(thumb, inner, transform) >= 0.25


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


def _overlaid_side(blocks: _Blocks) -> int:
    """Return +1 if a carries the overlay, -1 if b does, 0 if neither is plain.

    A bar or a logo is drawn: it has fewer tones and harder edges than what it hides. Letters strewn
    over the picture add contrast to each block that they touch.
    """
    rows, columns = blocks.differ.shape
    mask = np.zeros((rows + 1, columns + 1), np.bool_)
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        mask[dy : dy + rows, dx : dx + columns] |= blocks.differ
    pixels = np.repeat(np.repeat(mask, _CELL, axis=0), _CELL, axis=1)
    greys = [grey[: pixels.shape[0], : pixels.shape[1]] for grey in (blocks.grey_a, blocks.grey_b)]
    largest, _ = _largest(blocks)
    share = np.count_nonzero(blocks.differ) / np.count_nonzero(blocks.inside)
    if largest < 0.4 * share:
        _, _, _, deviation_a, deviation_b = _correlation(blocks.grey_a, blocks.grey_b)
        measures = [float(d[blocks.differ].mean()) / 128.0 for d in (deviation_a, deviation_b)]
    else:
        measures = []
        for grey in greys:
            part = grey[pixels]
            counts = np.convolve(np.bincount(part, minlength=256), np.ones(9), "same")
            measures.append(float(counts.max()) / part.size + float(part.std()) / 128.0)
    difference = measures[0] - measures[1]
    if abs(difference) < 0.02:
        return 0
    return 1 if difference > 0 else -1
