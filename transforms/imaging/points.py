"""Local points of a thumbnail: their descriptors, their matches, and the map that matches agree on.

ORB is after E. Rublee et al., "ORB: an efficient alternative to SIFT or SURF", ICCV 2011, doi
10.1109/ICCV.2011.6126544; SIFT after D. Lowe, "Distinctive image features from scale-invariant
keypoints", IJCV 60, 2004, doi 10.1023/B:VISI.0000029664.99615.94.
"""

import dataclasses
import struct
from collections.abc import Sequence
from typing import Final, Optional

import cv2
import numpy as np
import numpy.typing as npt

from transforms.imaging.affine import size_ratio

__all__ = [
    "KINDS",
    "LocalFeatures",
    "extract",
    "fit_matches",
    "fit_points",
    "grey_of",
    "mirror_features",
    "no_features",
]

_Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]
_Bytes = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]
KINDS: Final = ("orb", "sift")
_HEADER: Final = struct.Struct("<4sBBHHH")  # magic, kind, descriptor length, points, width, height
_MAGIC: Final = b"BDL2"
_POINT_FIELDS: Final = 5
_ORB_CONTRASTS: Final = (20, 8)  # of FAST, grey levels; the second for smooth and dark pictures
_ORB_ENOUGH: Final = 0.6  # share of the points asked for that the first must find
_ORB_STEP: Final = 1.4  # from one level of the pyramid to the next
_ORB_LIMIT: Final = 66  # bits of 256 of a match
_SIFT_LIMIT: Final = 300  # Euclidean distance of a match, descriptors of length 512
_TURN_BINS: Final = 24
_SIZE_BINS: Final = 6  # half octaves to either side
_MAX_SCALE: Final = 7.0  # of one thumbnail against the other


@dataclasses.dataclass(frozen=True, eq=False)
class LocalFeatures:
    """Points of one thumbnail with their descriptors.

    Attributes:
        kind: "orb" (32 bytes, compared by Hamming distance), "sift" (128, by Euclid's), or
            "none", see ``no_features``.
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


def no_features(width: int, height: int) -> LocalFeatures:
    """Return what a thumbnail has whose points are matched elsewhere, by a learned model.

    Args:
        width: of the thumbnail, pixels.
        height: of the same.
    """
    none = np.zeros((0, _POINT_FIELDS), np.float32)
    return LocalFeatures("none", (width, height), none, np.zeros((0, 0), np.uint8))


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
    grey = grey_of(thumb)
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


def grey_of(thumb: _Bytes) -> _Bytes:
    """Return the luma of a thumbnail, RGB or grey already: uint8 [h, w]."""
    grey = cv2.cvtColor(thumb, cv2.COLOR_RGB2GRAY) if thumb.ndim == 3 else thumb
    return np.asarray(grey, np.uint8)


def mirror_features(features: LocalFeatures, grey: _Bytes) -> LocalFeatures:
    """Return the features of the same points in the picture flipped left to right.

    Args:
        features: of the picture.
        grey: uint8 [h, w], its luma.
    """
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
    kept, descriptors = orb.compute(np.ascontiguousarray(grey[:, ::-1]), keypoints)
    if descriptors is None:
        return dataclasses.replace(
            features, points=points[:0], descriptors=features.descriptors[:0]
        )
    order = np.array([k.class_id for k in kept], np.intp)
    return dataclasses.replace(
        features, points=points[order], descriptors=np.asarray(descriptors, np.uint8)
    )


def fit_points(
    of_a: LocalFeatures, of_b: LocalFeatures, least: int, pixels: float
) -> Optional[tuple[_Doubles, int]]:
    """Return a similarity transform from a to b with the number of matches that agree with it.

    Args:
        of_a: the features of a, mirrored if it is to be laid over b flipped.
        of_b: of b, of the same kind.
        least: matches that must agree.
        pixels: the largest error of one that does, in b.

    Returns:
        float64 [2, 3] and the number; None if there is no such transform.
    """
    if min(len(of_a.points), len(of_b.points)) < least:
        return None
    first, second = _matches(of_a.descriptors, of_b.descriptors, of_a.kind)
    if len(first) < least:
        return None
    points_a, points_b = of_a.points[first], of_b.points[second]
    kept = _consistent(points_b[:, 3] - points_a[:, 3], np.log2(points_b[:, 2] / points_a[:, 2]))
    return fit_matches(points_a[:, :2], points_b[:, :2], least, pixels, kept)


def fit_matches(
    points_a: _Floats,
    points_b: _Floats,
    least: int,
    pixels: float,
    likely: Optional[_Mask] = None,
    tries: int = 100,
) -> Optional[tuple[_Doubles, int]]:
    """Return a similarity transform from a to b with the number of matches that agree with it.

    Args:
        points_a: float32 [n, 2], x and y of pixel centres of a.
        points_b: float32 [n, 2], of b, in the same order.
        least: matches that must agree.
        pixels: the largest error of one that does, in b.
        likely: bool [n], the matches that the transform is made of; all if None.
        tries: of RANSAC, at most.

    Returns:
        float64 [2, 3] and the number; None if there is no such transform.
    """
    some_a, some_b = (
        (points_a, points_b) if likely is None else (points_a[likely], points_b[likely])
    )
    if len(some_a) < least:
        return None
    # OpenCV seeds the generator of its RANSAC with a constant on every call.
    found, _ = cv2.estimateAffinePartial2D(
        some_a, some_b, method=cv2.RANSAC, ransacReprojThreshold=pixels, maxIters=tries,
        confidence=0.995, refineIters=10,
    )  # fmt: skip
    if found is None or not np.isfinite(found).all():
        return None
    transform = np.asarray(found, np.float64)
    if not 1.0 / _MAX_SCALE <= size_ratio(transform) <= _MAX_SCALE:
        return None
    # What makes a match likely is rough, so that all are asked in the end.
    misfit = points_a @ transform[:, :2].T + transform[:, 2] - points_b
    count = int(np.count_nonzero((misfit * misfit).sum(axis=1) <= pixels**2))
    if count < least:
        return None
    return transform, count


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
