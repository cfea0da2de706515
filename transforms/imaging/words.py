"""Local words: what two pictures of one scene have in common, wherever it lies in them.

A word is the first 32 bits of an ORB descriptor (E. Rublee et al., "ORB: an efficient alternative
to SIFT or SURF", ICCV 2011, doi 10.1109/ICCV.2011.6126544). Crops, borders and screenshots keep
words that no key of the whole picture keeps; equal words of two pictures are matched points without
any search. Each word travels with its place, angle and level, so that ``grouping.words`` can ask
whether the matches of a pair agree on one similarity transform.
"""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["ROW", "SIDE", "WORD_BITS", "word_rows"]

#: Longer side, pixels, at which words are taken. On a labelled set, copies with two agreeing words
#: of their original are 0.993 at 200, 0.986 at 240 and 0.976 at 384, and the false pairs grow.
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
_POINTS: Final = 256
_MIRRORED_POINTS: Final = 48
_PATCH: Final = 31
_EDGE: Final = 16
# The higher threshold is quicker where there are corners enough; the lower one still finds points
# in smooth and dark pictures.
_THRESHOLDS: Final = (20, 8)
_ENOUGH: Final = 128


def word_rows(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.void]:
    """Return the words of an image, strongest points first.

    Args:
        pixels: uint8 [h, w, 3] RGB or [h, w] grey, h and w at least 1; larger ones are reduced to
            a longer side of ``SIDE`` pixels.

    Returns:
        ``ROW`` [n], n at most 256; none for pictures too small or too plain.
    """
    grey = _reduced(pixels)
    if min(grey.shape) < 2 * _EDGE + 1:
        return np.zeros(0, ROW)
    for threshold in _THRESHOLDS:
        orb = _orb(threshold)
        points, descriptors = orb.detectAndCompute(grey, None)
        if len(points) >= _ENOUGH:
            break
    if descriptors is None or not len(points):
        return np.zeros(0, ROW)
    facts = np.array([(*p.pt, p.angle, p.octave, p.response, p.size) for p in points], np.float32)
    # Scores are whole numbers, of which OpenCV keeps all that equal the last.
    kept = np.argsort(-facts[:, 4], kind="stable")[:_POINTS]
    facts = facts[kept]
    rows = np.zeros(len(facts), ROW)
    rows["word"] = _first_bits(np.asarray(descriptors, np.uint8)[kept])
    rows["x"], rows["y"] = np.rint(facts[:, :2]).astype(np.uint8).T
    rows["angle"] = np.rint(facts[:, 2] * (256.0 / 360.0)).astype(np.int64) % 256
    rows["level"] = facts[:, 3].astype(np.uint8) + NO_MIRROR
    _add_mirrored(rows, grey, facts[:_MIRRORED_POINTS])
    return rows


def _reduced(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels
    height, width = grey.shape
    scale = SIDE / max(height, width)
    if scale < 1.0:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        # Area means cost eight times as much, and pay only where much is lost.
        how = cv2.INTER_LINEAR if scale > 0.6 else cv2.INTER_AREA
        grey = cv2.resize(grey, size, interpolation=how)
    return np.asarray(grey, np.uint8)


def _orb(threshold: int) -> cv2.ORB:
    return cv2.ORB.create(
        nfeatures=_POINTS, scaleFactor=SCALE, nlevels=_LEVELS, edgeThreshold=_EDGE,
        patchSize=_PATCH, fastThreshold=threshold, scoreType=cv2.ORB_FAST_SCORE,
    )  # fmt: skip


def _first_bits(descriptors: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    return np.ascontiguousarray(descriptors[:, :4]).view(">u4").ravel().astype(np.uint32)


def _add_mirrored(
    rows: npt.NDArray[np.void], grey: npt.NDArray[np.uint8], facts: npt.NDArray[np.float32]
) -> None:
    """Fill in the words that the first, strongest points have in the flipped picture.

    Args:
        rows: ``ROW`` [n].
        grey: uint8 [h, w].
        facts: float32 [m, 6]: x, y, angle, level, response and size of the points.
    """
    right = grey.shape[1] - 1
    flipped = tuple(
        cv2.KeyPoint(right - x, y, size, (180.0 - angle) % 360.0, response, int(level), number)
        for number, (x, y, angle, level, response, size) in enumerate(facts.tolist())
    )
    kept, descriptors = _orb(_THRESHOLDS[0]).compute(cv2.flip(grey, 1), flipped)
    if descriptors is None:
        return
    index = np.array([p.class_id for p in kept], np.intp)
    rows["mirrored"][index] = _first_bits(np.asarray(descriptors, np.uint8))
    rows["level"][index] -= NO_MIRROR
