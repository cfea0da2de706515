"""Local words: what two pictures of one scene have in common, wherever it lies in them.

Points are extrema of the Laplacian in five levels of a pyramid, the best by the determinant of the
Hessian; each has a direction, the intensity centroid (E. Rublee et al., "ORB: an efficient
alternative to SIFT or SURF", ICCV 2011, doi 10.1109/ICCV.2011.6126544), and a word of 32 bits, each
a comparison of two of 29 samples on rings around it (A. Alahi et al., "FREAK: Fast Retina
Keypoint", CVPR 2012, doi 10.1109/CVPR.2012.6247715). Crops, borders and screenshots keep words that
no key of the whole picture keeps; equal words of two pictures are matched points without any
search. Each word travels with its place, angle and level, so that ``grouping.words`` can ask
whether the matches of a pair agree on one similarity transform.
"""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from transforms.imaging.blocks import fitted_size

__all__ = ["ROW", "SIDE", "WORD_BITS", "word_rows"]

#: Longer side, pixels, at which words are taken. With ORB, copies of a labelled set that had
#: two agreeing words of their original were 0.993 at 200, 0.986 at 240 and 0.976 at 384.
SIDE: Final = 200
WORD_BITS: Final = 32
#: A word as it travels: 12 bytes.
ROW: Final = np.dtype(
    [
        ("word", "<u4"),
        ("mirrored", "<u4"),  # of the same point in the picture flipped left to right
        ("x", "u1"),  # pixels
        ("y", "u1"),  # pixels
        ("angle", "u1"),  # 256ths of a turn
        ("level", "u1"),  # of the pyramid; 128 is added where ``mirrored`` holds no word
    ]
)
NO_MIRROR: Final = 128
#: Factor between levels of the pyramid.
SCALE: Final = 1.3
_LEVELS: Final = 5
_POINTS: Final = 200
_MIRRORED_POINTS: Final = 48
# Pixels: the outermost sample of a point, and what the blurring before it reaches.
_EDGE: Final = 16
# Eighths of a grey level. Weaker points are taken only where there are few others: on paper and
# other plain ground they are noise, alike from page to page.
_THRESHOLDS: Final = (20, 4)
_ENOUGH: Final = 512
# Ratio of the curvatures above which an extremum lies along an edge: text and line drawings have
# many of these, each like the others.
_RATIO: Final = 5

_Index = npt.NDArray[np.int64]


def _rings(*rings: tuple[int, float]) -> npt.NDArray[np.float64]:
    """Return points on rings about 0, [n, 2] of x and y, given how many at what radius.

    Their mirror images in the axis of x are points of the same ring, in reverse order.
    """
    parts = []
    for count, radius in rings:
        angle = (np.arange(count) + 0.5) * (2.0 * np.pi / count)
        parts.append(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    return np.concatenate(parts)


# Levels lie side by side in one canvas, so that each filter runs once and a sample is an offset.
_WIDTHS: Final = [int(np.ceil(SIDE / SCALE**level)) for level in range(_LEVELS)]
_LEFT: Final = np.concatenate([[0], np.cumsum(_WIDTHS)[:-1]])
_STRIDE: Final = sum(_WIDTHS)
_LEVEL_OF_COLUMN: Final = np.repeat(np.arange(_LEVELS), _WIDTHS)
_FACTORS: Final = SCALE ** np.arange(_LEVELS)
# As many points as a level has room for along one side, like ORB.
_QUOTAS: Final = np.rint(_POINTS / _FACTORS / (1.0 / _FACTORS).sum()).astype(np.int64).tolist()
_LEVEL_KEYS: Final = np.arange(_LEVELS + 1) << 48
_STRONGEST: Final = 1 << 24  # more than any determinant
_WINDOW: Final = np.ones((3, 3), np.uint8)

_RINGS: Final = ((1, 0.0), (6, 4.0), (10, 8.5), (12, 13.0))
_MIRROR_SAMPLE: Final = np.concatenate(
    [
        start + np.arange(count)[::-1]
        for start, (count, _) in zip((0, 1, 7, 17), _RINGS, strict=True)
    ]
)
# The two samples of each bit. Chosen one by one of all pairs of samples, for the bits that stay the
# same in 300 photographs under seven edits each and share the points out evenly.
_TESTS: Final = np.array(
    [
        (2, 0),
        (18, 1),
        (21, 4),
        (24, 10),
        (28, 7),
        (26, 19),
        (25, 20),
        (23, 13),
        (8, 7),
        (14, 9),
        (17, 16),
        (22, 11),
        (27, 16),
        (4, 3),
        (6, 1),
        (11, 10),
        (23, 22),
        (19, 8),
        (25, 13),
        (27, 26),
        (5, 2),
        (20, 10),
        (24, 12),
        (15, 6),
        (20, 19),
        (18, 17),
        (13, 4),
        (26, 14),
        (9, 2),
        (14, 5),
        (15, 8),
        (22, 21),
    ]
)
_CENTROID: Final = np.rint(_rings((8, 4.0), (12, 8.0), (16, 12.0))).astype(np.int64)


def _offsets(points: npt.NDArray[np.float64]) -> _Index:
    """Return where in the canvas points lie from a pixel, turned by each of 256 angles [256, n]."""
    turn = np.exp(2j * np.pi / 256.0 * np.arange(256))[:, None]
    # Rounded twice, so that mirror images are exact.
    turned = np.round(turn * (points[:, 0] + 1j * points[:, 1]), 6)
    return np.asarray(np.rint(turned.imag) * _STRIDE + np.rint(turned.real), np.int64)


_SAMPLES: Final = _offsets(_rings(*_RINGS))
_CENTROID_SAMPLES: Final = _CENTROID[:, 1] * _STRIDE + _CENTROID[:, 0]
_CENTROID_WEIGHTS: Final = _CENTROID.astype(np.float32)
_NEIGHBOURS: Final = np.array(
    [[dy * _STRIDE + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)], np.int64
)


def word_rows(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.void]:
    """Return the words of an image, strongest points first.

    Args:
        pixels: uint8 [h, w, 3] RGB or [h, w] grey, h and w at least 1; larger ones are reduced to
            a longer side of ``SIDE`` pixels.

    Returns:
        ``ROW`` [n], n at most 200; none for pictures too small or too plain.
    """
    grey = _reduced(pixels)
    if min(grey.shape) <= 2 * _EDGE:
        return np.zeros(0, ROW)
    blurred, inside = _levels(grey)
    points = _points(blurred, inside)
    values = blurred.ravel()
    # Sums of integers below 2**24: exact in float32, in any order.
    around = values.take(points[:, None] + _CENTROID_SAMPLES).astype(np.float32)
    centroid = around @ _CENTROID_WEIGHTS
    angle = np.arctan2(centroid[:, 1], centroid[:, 0]) * np.float32(128.0 / np.pi)
    turn = np.rint(angle).astype(np.int64) % 256
    samples = values.take(points[:, None] + _SAMPLES[turn])
    y, column = np.divmod(points, _STRIDE)
    level = _LEVEL_OF_COLUMN[column]
    rows = np.zeros(len(points), ROW)
    rows["word"] = _bits(samples, _TESTS)
    for name, place, size in (("x", column - _LEFT[level], grey.shape[1]), ("y", y, grey.shape[0])):
        # By the true factors: whole pixels of a level make them differ from the nominal ones.
        factor = size / np.rint(size / _FACTORS)
        rows[name] = np.rint((place + 0.5) * factor[level] - 0.5)
    rows["angle"] = turn
    rows["level"] = level + NO_MIRROR
    strongest = rows[:_MIRRORED_POINTS]
    strongest["mirrored"] = _bits(samples[:_MIRRORED_POINTS], _MIRROR_SAMPLE[_TESTS])
    strongest["level"] -= NO_MIRROR
    return rows


def _reduced(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels
    height, width = grey.shape
    scale = SIDE / max(height, width)
    if scale < 1.0:
        # Area means cost eight times as much, and pay only where much is lost.
        how = cv2.INTER_LINEAR if scale > 0.6 else cv2.INTER_AREA
        grey = cv2.resize(grey, fitted_size(width, height, SIDE), interpolation=how)
    return np.asarray(grey, np.uint8)


def _levels(grey: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Return the levels of the pyramid side by side, blurred, and where a point may lie.

    Args:
        grey: uint8 [h, w], at most ``SIDE`` each.

    Returns:
        uint8 and bool, [h, _STRIDE] each.
    """
    height, width = grey.shape
    canvas = np.zeros((height, _STRIDE), np.uint8)
    inside = np.zeros((height, _STRIDE), np.bool_)
    level = grey
    for left, factor in zip(_LEFT.tolist(), _FACTORS.tolist(), strict=True):
        h, w = round(height / factor), round(width / factor)
        if min(h, w) <= 2 * _EDGE:
            break
        if left:
            level = np.asarray(cv2.resize(level, (w, h), interpolation=cv2.INTER_LINEAR), np.uint8)
        canvas[:h, left : left + w] = level
        inside[_EDGE : h - _EDGE, left + _EDGE : left + w - _EDGE] = True
    # Three boxes of three are a Gaussian with a deviation of 1.4 pixels.
    blurred = cv2.blur(cv2.blur(cv2.blur(canvas, (3, 3)), (3, 3)), (3, 3))
    return np.asarray(blurred, np.uint8), inside


def _points(blurred: npt.NDArray[np.uint8], inside: npt.NDArray[np.bool_]) -> _Index:
    """Return the best points of each level, strongest first, as indices into the canvas."""
    laplacian = cv2.Laplacian(blurred, cv2.CV_16S, ksize=3)
    np.abs(laplacian, out=laplacian)
    top = laplacian == cv2.dilate(laplacian, _WINDOW)
    top &= inside
    for threshold in _THRESHOLDS:
        point = np.flatnonzero(top & (laplacian >= threshold))
        if len(point) >= _ENOUGH:
            break
    nw, n, ne, w, here, e, sw, s, se = blurred.ravel().take(point + _NEIGHBOURS).astype(np.int32)
    xx, yy, xy4 = e + w - 2 * here, n + s - 2 * here, nw + se - ne - sw
    determinant, trace = 16 * xx * yy - xy4 * xy4, xx + yy
    # D. Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004, section 4.1.
    blob = trace * trace * (16 * _RATIO) < (_RATIO + 1) ** 2 * determinant
    point, determinant = point[blob], determinant[blob].astype(np.int64)
    # One number a point, to be put in order: its level, how weak it is, where it lies.
    level = _LEVEL_OF_COLUMN[point % _STRIDE]
    key = np.sort((level << 48) + ((_STRONGEST - determinant) << 20) + point)
    start = np.searchsorted(key, _LEVEL_KEYS).tolist()
    best = np.concatenate(
        [key[a : min(a + quota, b)] for a, b, quota in zip(start, start[1:], _QUOTAS, strict=False)]
    )
    return np.asarray(np.sort(best & ((1 << 48) - 1)) & ((1 << 20) - 1), np.int64)


def _bits(samples: npt.NDArray[np.uint8], tests: _Index) -> npt.NDArray[np.uint32]:
    """Return the words of points, uint32 [n], of samples [n, 29]; the first test highest."""
    bits = samples.take(tests[:, 0], axis=1) < samples.take(tests[:, 1], axis=1)
    return np.packbits(bits, axis=1).view(">u4").ravel().astype(np.uint32)
