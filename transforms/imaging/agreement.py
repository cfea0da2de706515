"""How far two aligned pictures show the same: scores of the kinds of evidence.

Each kind is scaled so that its own limit is a score of one half: texture, pieces that differ,
colours, flat grounds, and pages, of which every block must agree.
"""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from transforms.imaging import color
from transforms.imaging.affine import compose, determinant, scaling
from transforms.imaging.alignment import (
    CELL,
    GROUND,
    LEAST_TEXTURED,
    TEXTURE,
    Blocks,
    Frame,
    align,
    bimodality,
    block_colours,
    commonest,
    correlation,
    plane_of,
    tone_share,
)

__all__ = [
    "cells_of",
    "compare_chroma",
    "flat_score",
    "graded",
    "largest_pieces",
    "paper_score",
    "paper_share",
    "pieces_score",
]

_Bytes = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]
_ACCEPT_LARGEST: Final = 0.25  # share of the largest piece that differs: logo 0.11, caption 0.15
_ACCEPT_INNER: Final = 0.05  # share of the largest such piece away from the border
_SAME_CHROMA: Final = 4.5  # mean square of a step that JPEG explains: no need to ask for a cast
_MARGIN: Final = 2  # blocks from the border within which a piece counts as touching it
_FLAT_LEVELS: Final = 4.0  # levels between blocks at which two flat pictures have a score of 0
_GRAIN: Final = 1.0  # grey levels of deviation of a flat block that holds grain
_GRAIN_SCORE: Final = 0.45
# Share of one ground below which no sample of the pixels shows a page, 0.6 in imaging.local.
_PAPER_DOUBT: Final = 0.5
_PAPER_DIFFER: Final = 0.008  # share of textured blocks that may differ on such a ground
# Share of the blocks that show a picture in both: of 4,400 pairs of different pages, forms, charts
# and drawn articles of three sets 0.03 at most, less than 0.01 where their strokes agree.
_PICTURED: Final = 0.03
_LEAST_GROUND: Final = 0.1  # of a block on the ground: letters and lines leave more of it
_TWO_TONES: Final = 0.7  # bimodality of a block that shows no picture
# Of the blocks that differ, the share that is print on the ground in both: of made-up cards with
# one photograph and other figures 0.4 and more, of copies 0.27 at most but for three of 166. Print
# has at least so much of the ground, and so few tones.
_MOST_PRINTED: Final = 0.3
_PRINT_GROUND: Final = 0.2
_PRINT_TONES: Final = 0.6
# Below this longer side, in pixels, forms filled in differently reached 0.67 and copies 0.67 to 1.
_READABLE_SIDE: Final = 200
_UNREADABLE_LIMIT: Final = 0.75
_MOST_PIECES: Final = 16  # of those that differ, the largest
_OTHER_SIDE: Final = 0.1  # of the blocks drawn over one picture, those drawn over the other
_CHANGED: Final = 24  # grey levels of a pixel that something covers
_DRAWN: Final = 0.4  # share of one tone in a drawn thing, and by how much it exceeds the other's
_DRAWN_MORE: Final = 0.2
_PLAIN: Final = 0.9  # share of one tone in a plain ground


def graded(value: float, limit: float) -> float:
    """Return 0 for 0, one half at the limit, 1 for 1, linear in between.

    Args:
        value: 0..1.
        limit: above 0 and below 1.
    """
    return 0.5 * value / limit if value < limit else 0.5 + 0.5 * (value - limit) / (1.0 - limit)


def compare_chroma(frame: Frame, blocks: Blocks) -> tuple[float, bool]:
    """Return the agreement of colours where luma agrees, and whether they were changed."""
    rgb_a, rgb_b = block_colours(frame)
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


def pieces_score(blocks: Blocks) -> float:
    """Return the score of the pieces that differ: of the largest, and of the largest inner one."""
    largest, inner = largest_pieces(blocks, blocks.differ)
    if inner >= _ACCEPT_INNER and largest < 2.0 * _ACCEPT_LARGEST:
        inner = largest_pieces(blocks, blocks.differ & ~_overlay(blocks, blocks.inside))[1]
    return max(
        0.0, min(1.0 - largest / (2.0 * _ACCEPT_LARGEST), 1.0 - inner / (2.0 * _ACCEPT_INNER))
    )


def largest_pieces(blocks: Blocks, differ: _Mask) -> tuple[float, float]:
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


def flat_score(frame: Frame, blocks: Blocks) -> float:
    """Return the score of a pair without texture: flat grounds, gradients, night.

    Nothing is forgiven here, since two such pictures differ by little else than brightness and
    colour: the worst block decides. Grain that does not agree is a person's to judge.
    """
    if not blocks.inside.all():
        return 0.0
    rgb_a, rgb_b = block_colours(frame)
    fine = align(frame, 1)
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


def paper_share(frame: Frame, inside: _Mask) -> float:
    """Return the share of the commoner one's pixels within eight levels of its commonest grey.

    What two whole pictures cannot hold where they overlap is not counted: 0 then.
    """
    top, bottom, left, right = _bounds(inside)
    if np.count_nonzero(inside) == (bottom - top - 1) * (right - left - 1):
        common = float((bottom - top) * (right - left) * CELL * CELL)
        across, down = frame.fixed.grid.enlarged
        most = max(
            frame.fixed.ground * frame.fixed.grey.size * across * down,
            frame.moved.ground * frame.moved.grey.size * abs(determinant(frame.matrix)),
        )
        if most < _PAPER_DOUBT * common:
            return 0.0
    half = CELL // 2
    width, height = frame.columns * half, frame.rows * half
    # Single pixels, since means of letters and paper are neither.
    moved = cv2.warpAffine(
        frame.moved.grey, compose(scaling(0.5, 0.5), frame.matrix), (width, height),
        flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    across, down = frame.fixed.grid.enlarged
    fixed = cv2.resize(
        frame.fixed.grey[: frame.rows * CELL // down, : frame.columns * CELL // across],
        (width, height), interpolation=cv2.INTER_NEAREST,
    )  # fmt: skip
    window = slice(top * half, bottom * half), slice(left * half, right * half)
    return max(commonest(np.asarray(grey, np.uint8)[window])[0] for grey in (moved, fixed))


def _bounds(inside: _Mask) -> tuple[int, int, int, int]:
    """Return the top, bottom, left and right of the cells of some blocks."""
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(rows[-1]) + 2, int(columns[0]), int(columns[-1]) + 2


def paper_score(frame: Frame, blocks: Blocks, least: float) -> float:
    """Return the score of pictures that are mostly one ground: pages, forms, charts, articles.

    On such a ground the printed form agrees in any case, so every block must that nothing was drawn
    over, also in its strokes along x and along y: lines of different text agree as lines, not as
    letters. Below ``least`` the strokes are not looked at. Of photographs with a plain ground only
    the strokes must agree.
    """
    differ = blocks.differ
    if differ.any():  # a field of a form that only one of the two has filled in lies inside
        differ = differ & ~_overlay(blocks, blocks.inside & ~_core(blocks.inside))
    textured = max(1, int(np.count_nonzero(blocks.textured)))
    share = int(np.count_nonzero(differ)) / textured
    score = max(0.0, 1.0 - share / (2.0 * _PAPER_DIFFER))
    small = max(frame.rows, frame.columns) * CELL < _READABLE_SIDE
    if (score < 1.0 or small) and _pictured(blocks):
        return max(0.0, _strokes(blocks))
    if score >= least:
        score = max(0.0, min(score, _strokes(blocks)))
    return graded(score, _UNREADABLE_LIMIT) if small else score


def _pictured(blocks: Blocks) -> bool:
    """Return whether blocks away from what differs show a picture and agree, not print alone.

    Print and drawings have two tones, or leave some of the ground in every block. What agrees of a
    printed form says nothing, what agrees of a photograph tells that it is the same. On a page with
    a photograph print of one stands where the other has other print.
    """
    halo = cv2.dilate(blocks.differ.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    clear = blocks.agree & ~np.asarray(halo, np.bool_)
    least = max(LEAST_TEXTURED, _PICTURED * np.count_nonzero(blocks.inside))
    top, bottom, left, right = _bounds(blocks.inside)
    window = slice(top * CELL, bottom * CELL), slice(left * CELL, right * CELL)
    printed = blocks.differ & (np.minimum(blocks.a.deviation, blocks.b.deviation) >= TEXTURE)
    for plane in (blocks.a, blocks.b):
        share = tone_share(plane.grey, commonest(plane.grey[window])[1], CELL)
        clear &= share < _LEAST_GROUND
        printed &= share >= _PRINT_GROUND
        if np.count_nonzero(clear) < least:
            return False
    for plane in (blocks.a, blocks.b):
        tones = bimodality(plane, CELL)
        clear &= tones < _TWO_TONES
        printed &= tones >= _PRINT_TONES
    if np.count_nonzero(printed) > _MOST_PRINTED * np.count_nonzero(blocks.differ):
        return False
    return bool(np.count_nonzero(clear) >= least)


def _strokes(blocks: Blocks) -> float:
    """Return how well the strokes along x and y agree in all but the worst tenth of the blocks."""
    halo = cv2.dilate(blocks.differ.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    clear = blocks.textured & ~np.asarray(halo, np.bool_)
    strokes = 1.0
    for dx, dy in ((1, 0), (0, 1)):
        a, b = (plane_of(_derivative(plane.grey, dx, dy), CELL) for plane in (blocks.a, blocks.b))
        strong = clear & (np.minimum(a.deviation, b.deviation) >= 2.0)
        if np.count_nonzero(strong) >= LEAST_TEXTURED:
            ncc = correlation(a, b, CELL)
            strokes = min(strokes, float(np.percentile(ncc[strong], 10.0)))
    return strokes


def _derivative(grey: _Bytes, dx: int, dy: int) -> _Bytes:
    """Return a Sobel derivative about 128, in eighths so that +/- 1020 fits into 8 bits."""
    derivative = cv2.Sobel(grey, cv2.CV_16S, dx, dy, ksize=3)
    return np.asarray(cv2.convertScaleAbs(derivative, None, 0.125, 128.0), np.uint8)


def _overlay(blocks: Blocks, where: _Mask) -> _Mask:
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


def _drawn_on(blocks: Blocks, piece: _Mask, box: tuple[int, int, int, int]) -> int:
    """Return +1 if a carries what a piece that differs shows, -1 if b does, 0 if it is not clear.

    What is drawn has few tones, unlike what it hides; letters on a plain ground leave the other
    picture with the ground that surrounds them.

    Args:
        blocks: the aligned pictures.
        piece: bool [rows, columns].
        box: top, left, height and width of the piece in blocks.
    """
    top, left, height, width = box
    cells = cells_of(piece)
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
    counts = np.cumsum(np.bincount(grey, minlength=256 + GROUND))
    windows = counts[GROUND:] - counts[:-GROUND]
    first = int(windows.argmax()) + 1
    share = float(windows[first - 1]) / grey.size
    if share < _PLAIN or not around.size:
        return share, False
    return share, bool(np.mean((around >= first) & (around < first + GROUND)) >= 0.5)


def cells_of(mask: _Mask) -> _Mask:
    """Return the cells of blocks: bool [rows + 1, columns + 1]."""
    rows, columns = mask.shape
    cells = np.zeros((rows + 1, columns + 1), np.bool_)
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        cells[dy : dy + rows, dx : dx + columns] |= mask
    return cells
