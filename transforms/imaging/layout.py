"""A small luma picture of an image, and a comparison of two that needs no second read.

The descriptor is a 24x24 grid of area means of luma, and the share of the picture that is of one
luma, its ground. Two grids are compared cell by cell:

1. Each grid is made independent of tone by local normalisation: the mean of the 5x5 cells about a
   cell is taken off, and the rest is divided by their deviation.
2. A small affine misfit (a resampling by other rules, a mild crop or turn, a thin border) is fitted
   by least squares on the gradients of both grids at once (B. D. Lucas, T. Kanade, "An iterative
   image registration technique", IJCAI 1981), so that exchanging the two negates it. Pairs that
   still differ somewhere are fitted again from coarse to fine, each grid moved by half the misfit.
3. A cell differs where its neighbourhood is left with a residual both in the normalised grids and
   in the luma, after the tone of the cells that agree was fitted. The first alone would count
   what lies beside a caption, the second alone what a contrast curve moves.

A copy of the whole picture leaves nothing, a caption or a logo leaves a piece, another picture
leaves differing cells everywhere.

Where it is known how one picture lies in the other, ``compare_placed`` lays the one with the finer
cells onto the grid of the other and compares, in the same way, what they have in common.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from transforms.imaging import orientation as _orientation
from transforms.imaging.blocks import area_means
from transforms.imaging.color import GRID_SIDE as _COLOR_SIDE
from transforms.imaging.color import chroma_similarity
from transforms.imaging.quality import histograms

__all__ = [
    "GRID_SIDE",
    "LAYOUT_BYTES",
    "LayoutComparison",
    "PlacedComparison",
    "compare_layouts",
    "compare_placed",
    "frames",
    "invert",
    "layout",
    "layouts",
    "placed_chroma",
]

GRID_SIDE: Final = 24
_CELLS: Final = GRID_SIDE * GRID_SIDE
_COLOR_CELLS: Final = _COLOR_SIDE * _COLOR_SIDE
#: uint8: luma of the cells row by row, then the share of the ground in 255ths.
LAYOUT_BYTES: Final = _CELLS + 1

_Array = npt.NDArray[np.float32]

# Pairs of one pass, channels to OpenCV 5, which takes no more. With 64 numpy's calls cost a quarter
# more.
_CHUNK: Final = 128
_LANES: Final = 8  # pairs in one vector register: a rest is computed by other instructions
_NOISE: Final = 4.0  # grey levels: what JPEG and resampling leave in an area mean, with a margin
_GROUND_LEVELS: Final = 9  # grey levels, next to each other, that are one ground
_NEAR: Final = np.ones((5, 5), np.uint8)
_FLAT: Final = 1.0  # grey levels of deviation below which cells are one ground
_TEXTURED: Final = 6.0  # grey levels of deviation from which a cell's neighbourhood tells something
_STIFFNESS: Final = 0.02  # pulls the misfit to none where there is no texture, per cell
_FITTED: Final = 0.4  # worst residual of a pair that needs no second fit: above nearly all copies
_FRAME_NOISE: Final = 4.0  # squared grey levels
_FRAME_SHARE: Final = 0.3  # of the variance inside: photographs reach it in 1 of 100
_FAR: Final = 4.0  # cells; a fit never moves a border further
_LEVELS: Final = 6.0  # grey levels of luma that differ
_RESIDUAL: Final = 0.15  # mean square of the normalised residual over 3x3 cells that differs
_CURVE: Final = 0.25  # bend of the tone curve that is forgiven, per squared deviation
_SUBSAMPLE: Final = 0.25  # cells from the centre of a cell to the four places that make its mean
_EDGE_SLACK: Final = 0.15  # cells by which a covered cell may stand out: rounding, and a poor fit
_SAME_SIZE: Final = 1e-6  # change of area below which two pictures have cells of one size
_AREA_SIDE: Final = 8  # cells of a side in which common areas are measured
_SETTLED: Final = 0.2  # differing share of a placed pair that needs no second fit
_REFINED: Final = 2.0  # cells by which a fit may move a placed picture
_UNCOVERED: Final = 0.05  # share of a cell that a picture may cover and tell nothing of it
_LEAST_UNCOVERED: Final = 8  # cells
_FRAME_WINDOW: Final = 17  # grey levels that are one luma
_STEP_LEVELS: Final = 16.0  # grey levels between a frame and what it frames
# Share of the surroundings in one luma, and of the border with a step to it: of windows with
# text about a picture (0.56 and 1.00 at the 5th and 25th percentile), and plain frames. The
# surroundings of crops have 0.8 and 0.95 at the 95th, seldom both.
_FRAMES: Final = ((0.55, 0.9), (0.8, 0.45))
_INNER: Final = 4  # cells; captions and bars lie nearer to the border of what is common


class LayoutComparison(NamedTuple):
    """How the layouts of n pairs agree; each field float64 [n], rounded to 4 decimals.

    Attributes:
        correlation: of the normalised grids, -1..1.
        telling: share of all cells, 0..1, that differ, or have texture in both and agree; cells
            beside a flat ground that both share tell nothing by agreeing.
        differing: the share of the telling cells, 0..1, that differ; 0 if none tells anything.
        worst: the greatest root mean square residual over 3x3 cells, in local deviations. JPEG,
            scaling and tone leave less than 0.5, other figures in one printed form 0.3 to 0.9.
        ground: share of the pixels, 0..1, within 9 neighbouring levels of luma, in the image with
            fewer of them: 0.65 to 1 for pages, forms, charts, things on white and night, less than
            0.45 for 97 of 100 photographs.
        moved: how far the fit moved a corner, in cells; 0 for copies of the whole picture.
        zoom: the change of scale in it, as a share; positive where a shows more than b.
        framed: 1 where the one that shows more ends in a plain frame, else 0; 0 too where moved
            is none.
    """

    correlation: npt.NDArray[np.float64]
    telling: npt.NDArray[np.float64]
    differing: npt.NDArray[np.float64]
    worst: npt.NDArray[np.float64]
    ground: npt.NDArray[np.float64]
    moved: npt.NDArray[np.float64]
    zoom: npt.NDArray[np.float64]
    framed: npt.NDArray[np.float64]


def layout(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the luma layout of an image.

    Args:
        pixels: uint8 [h, w, 3] RGB or [h, w] grey, h and w at least 1.

    Returns:
        uint8 [577]: area means of luma (ITU-R BT.601) of a 24x24 grid, row by row, and the share
        of the ground, in 255ths.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels
    greys = [np.asarray(grey, np.uint8)]
    found: npt.NDArray[np.uint8] = layouts(greys, histograms(greys))[0]
    return found


def layouts(
    greys: Sequence[npt.NDArray[np.uint8]], counts: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Return the luma layouts of n images.

    Args:
        greys: uint8 [h, w] each.
        counts: their ``imaging.quality.histograms``, float32 [n, 256].

    Returns:
        uint8 [n, 577]; see ``layout``.
    """
    passed = np.zeros((len(counts), counts.shape[1] + 1))
    np.cumsum(counts, axis=1, out=passed[:, 1:])
    grounds = (passed[:, _GROUND_LEVELS:] - passed[:, :-_GROUND_LEVELS]).max(axis=1)
    found = np.empty((len(counts), LAYOUT_BYTES), np.uint8)
    found[:, _CELLS] = np.rint(255.0 * grounds / passed[:, -1])
    found[:, :_CELLS] = np.rint(area_means(greys, GRID_SIDE)).reshape(len(greys), -1)
    return found


def compare_layouts(
    a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], orientation: npt.NDArray[np.integer]
) -> LayoutComparison:
    """Compare pairs of layouts after turning each ``a``.

    Args:
        a: uint8 [n, 577].
        b: uint8 [n, 577].
        orientation: int [n], EXIF orientations 1..8 that turn a into b.

    Returns:
        What agrees; exchanging a and b (with the inverse orientations) negates ``zoom`` and
        changes nothing else, and no row depends on the others.
    """
    grounds = np.minimum(a[:, _CELLS], b[:, _CELLS])
    b = b[:, :_CELLS]
    turned = a[:, :_CELLS].copy()
    for value in _orientation.ORIENTATIONS[1:]:
        rows = np.flatnonzero(np.asarray(orientation) == value)
        turned[rows] = a[rows][:, _orientation.cell_permutation(GRID_SIDE, value)]
    found = _in_chunks(_compare_still, turned, b)
    # Where no cell differs, none can differ less.
    again = np.flatnonzero((found[:, _WORST] > _FITTED) & (found[:, _DIFFERING] > 0))
    refined = _in_chunks(_compare_fitted, turned[again], b[again])
    # A caption misleads the fit, so the first one may be the better.
    better = refined[:, _DIFFERING] < found[again, _DIFFERING]
    again, refined = again[better], refined[better]
    wider = np.where(refined[:, _ZOOM, None] > 0, turned[again], b[again])
    refined[:, _FRAMED] = _framed(wider.reshape(-1, GRID_SIDE, GRID_SIDE))
    found[again] = refined
    found[:, _GROUND] = grounds / 255.0
    return LayoutComparison(*(np.round(found.T, 4) + 0.0))  # no negative zero


def _in_chunks(
    compare: Callable[[npt.NDArray[np.uint8], npt.NDArray[np.uint8]], npt.NDArray[np.float64]],
    a: npt.NDArray[np.uint8],
    b: npt.NDArray[np.uint8],
) -> npt.NDArray[np.float64]:
    """Compare layouts [n, 576] a bounded number at a time; returns float64 [n, fields]."""
    found = np.empty((len(a), len(LayoutComparison._fields)))
    for start in range(0, len(a), _CHUNK):
        part = slice(start, start + _CHUNK)
        grids = _padded(a[part]), _padded(b[part])
        found[part] = compare(*grids)[: len(found[part])]
    return found


def _padded(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Repeat the last of some rows [n, ...] until they are a multiple of ``_LANES``."""
    missing = -len(rows) % _LANES
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows


def _compare_still(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Compare layouts [n, 576] as they lie; returns float64 [n, fields]."""
    return _evidence(_pairs_last(a), _pairs_last(b), np.zeros((len(a), 6)))


def _compare_fitted(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Compare layouts [n, 576] after a fit from coarse to fine; returns float64 [n, fields]."""
    grids = [_pairs_last(side) for side in (a, b)]
    misfit = 2.0 * _fitted(*(_normalised(_halved(grid), 1)[0] for grid in grids))
    sides = [side.astype(np.float32) for side in (a, b)]
    moved_a, moved_b, inside = _moved(sides, misfit)
    misfit += _fitted(_normalised(moved_a, 2)[0], _normalised(moved_b, 2)[0], inside)
    misfit = np.clip(misfit, -_FAR, _FAR)
    moved_a, moved_b, inside = _moved(sides, misfit)
    return _evidence(moved_a, moved_b, misfit, inside)


_WORST: Final = LayoutComparison._fields.index("worst")
_DIFFERING: Final = LayoutComparison._fields.index("differing")
_GROUND: Final = LayoutComparison._fields.index("ground")
_ZOOM: Final = LayoutComparison._fields.index("zoom")
_FRAMED: Final = LayoutComparison._fields.index("framed")


def _evidence(
    a: _Array, b: _Array, misfit: npt.NDArray[np.float64], inside: _Array | None = None
) -> npt.NDArray[np.float64]:
    """Measure the fields of ``LayoutComparison`` of grids [24, 24, n], which it overwrites.

    Args:
        a: float32 [24, 24, n].
        b: float32 [24, 24, n].
        misfit: float64 [n, 6], by which they were moved towards each other.
        inside: 1 where both show something, else 0; None if they do everywhere.
    """
    normal_a, variance_a = _normalised(a, 2)
    normal_b, variance_b = _normalised(b, 2)
    texture = np.minimum(variance_a, variance_b, out=variance_a) > _TEXTURED**2
    both = normal_a + normal_b  # of which a move of each by half the rest takes nothing
    change = np.subtract(normal_b, normal_a, out=normal_b)
    slopes = _slopes(both)
    rest = _fit(slopes, change, inside)
    steps = _displacement(0.25 * rest, GRID_SIDE)
    shift = _gained(slopes, steps)
    change -= shift
    change -= shift
    square = change * change
    residual = _box(square, 1)
    if inside is not None:
        both *= inside
        change *= inside
        square *= inside
    correlation = _correlation(both, change, square)
    # Beside a ground that both share, a frame or bars, whatever is framed has the same edge.
    texture &= ~_near_ground(a, b)
    shift = _gained(_slopes(a + b), steps)
    a += shift
    b -= shift
    levels = _luma_residual(a, b, residual)
    if inside is not None:
        residual *= inside
        texture &= inside > 0
    off = residual > _RESIDUAL
    differing = _count(off & (levels > _LEVELS))
    telling = differing + _count(texture & ~off)
    total = misfit + rest
    corners = np.abs(total @ _CORNERS.T).reshape(-1, 4, 2)
    return np.stack(
        [
            correlation,
            telling / _CELLS,
            differing / np.maximum(telling, 1),
            np.sqrt(residual.reshape(_CELLS, -1).max(axis=0)),
            np.zeros(len(misfit)),  # the ground is not of the cells
            np.hypot(corners[..., 0], corners[..., 1]).max(axis=1),
            -(total[:, 1] + total[:, 5]) / GRID_SIDE,
            np.zeros(len(misfit)),  # only where the misfit is more than a resampling
        ],
        axis=1,
    )


def _correlation(both: _Array, change: _Array, square: _Array) -> npt.NDArray[np.float64]:
    """Return the correlation of grids a and b [24, 24, n] of a + b, b - a and its square."""
    sums, mixed, changes = (
        part.astype(np.float64)
        for part in (_product(both, both), _product(both, change), _sum(square))
    )
    # Four times the sums of the squares of a and of b; nought, where a grid is, but for rounding.
    of_a, of_b = (np.maximum(sums + changes + sign * mixed, 0.0) for sign in (-2.0, 2.0))
    return np.asarray((sums - changes) / np.sqrt(of_a * of_b + 16e-6), np.float64)


def _near_ground(a: _Array, b: _Array) -> npt.NDArray[np.bool_]:
    """Return which cells are within two of one that is flat in both grids."""
    flat = _flat(a) & _flat(b)
    return cv2.dilate(flat.view(np.uint8), _NEAR).view(np.bool_)


# (u, v) of a misfit at the four corners: float64 [8, 6].
_CORNERS: Final = np.array(
    [
        [*(row * (axis == 0)), *(row * (axis == 1))]
        for row in (np.array([1.0, x, y]) for x in (-1, 1) for y in (-1, 1))
        for axis in (0, 1)
    ]
)


def _sum(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the sums over the cells of [h, w, n], [n]."""
    return np.asarray(values.reshape(-1, values.shape[2]).sum(axis=0))


def _count(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint16]:
    """Return how many cells of [h, w, n] are true, [n]."""
    found = cells.view(np.uint8).reshape(-1, cells.shape[2]).sum(axis=0, dtype=np.uint16)
    return np.asarray(found, np.uint16)


def _product(a: _Array, b: _Array) -> _Array:
    """Return the sums over the cells of the products of [h, w, n], [n]."""
    cells = (-1, a.shape[2])
    return np.asarray(np.einsum("cn,cn->n", a.reshape(cells), b.reshape(cells)))


def _luma_residual(a: _Array, b: _Array, residual: _Array, inside: _Array | None = None) -> _Array:
    """Return what a tone curve, fitted where the grids agree, leaves of luma, in grey levels.

    It overwrites the grids [24, 24, n].
    """
    weights = residual * np.float32(10.0)
    weights *= weights
    weights += np.float32(1.0)
    np.divide(np.float32(1.0), weights, out=weights)
    if inside is not None:
        weights *= inside
        weights += np.float32(1e-6)  # where there is none inside
    total = _sum(weights)
    scores, deviations = (a, b), []
    for grid in scores:
        grid -= _product(weights, grid) / total
        deviation = np.sqrt(_product(weights * grid, grid) / total + np.float32(9.0))
        grid *= np.float32(1.0) / deviation
        deviations.append(deviation)
    left = b - a
    # A gamma bends the line of equal scores: it moves the middle tones against both ends.
    bend = np.add(a, b, out=a)
    bend *= np.float32(0.5)
    bend *= bend
    bend -= np.float32(1.0)
    weights *= bend
    curve = _product(weights, left) / (_product(weights, bend) + np.float32(0.05) * total)
    bend *= np.clip(curve, -_CURVE, _CURVE).astype(np.float32)
    left -= bend
    left *= np.minimum(np.sqrt(deviations[0] * deviations[1]), np.float32(40.0))
    return np.asarray(np.abs(left, out=left), np.float32)


def _framed(grids: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return which grids [n, 24, 24] change much less along their border than two cells inside.

    A frame of 3 % of the shorter side fills 0.7 of the outermost cells. Of 420 photographs 0.01
    were framed by this rule, of 125 bordered ones 0.97.
    """
    changes = []
    for depth in (0, 2):
        last = GRID_SIDE - 1 - depth
        along = slice(depth, last + 1)
        sides = (grids[:, place, along] for place in (depth, last))
        ends = (grids[:, along, place] for place in (depth, last))
        changes.append(np.stack([*sides, *ends]).var(axis=2).mean(axis=0))
    outer, inner = changes
    return np.asarray(outer + _FRAME_NOISE < _FRAME_SHARE * (inner + _FRAME_NOISE))


# --------------------------------------------------------------------------------------- placed
class PlacedComparison(NamedTuple):
    """How the layouts of n pairs agree where one lies in the other; float64 [n], 4 decimals.

    Attributes:
        correlation: of the normalised grids over the common cells, -1..1.
        telling: common cells that differ, or have texture in both and agree; 0..576.
        differing: the share of the telling cells, 0..1, that differ.
        inner: the share of all common cells, 0..1, that differ and lie more than 4 cells from the
            border of what is common, where no caption or bar reaches.
        area_a: share of a, 0..1, that b shows too.
        area_b: share of b, 0..1, that a shows too.
    """

    correlation: npt.NDArray[np.float64]
    telling: npt.NDArray[np.float64]
    differing: npt.NDArray[np.float64]
    inner: npt.NDArray[np.float64]
    area_a: npt.NDArray[np.float64]
    area_b: npt.NDArray[np.float64]


_PLACED_DIFFERING: Final = 2  # the columns of what _placed_evidence finds
_PLACED_FIELDS: Final = 4


def compare_placed(
    a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], placed: npt.NDArray[np.float64]
) -> PlacedComparison:
    """Compare pairs of layouts where each ``a`` is laid over its ``b``.

    Args:
        a: uint8 [n, 577].
        b: uint8 [n, 577].
        placed: float64 [n, 2, 3], invertible affine maps from a to b over (x, y, 1), x and y from 0
            to 1 over the width and height of each picture.

    Returns:
        What agrees; exchanging a and b (with the inverse maps) exchanges the areas and changes
        nothing else, and no row depends on the others.
    """
    back = invert(placed)
    swapped = _is_larger(a, b, placed)  # the one with the smaller cells is moved
    onto = np.where(swapped[:, None, None], back, placed)
    moved = np.where(swapped[:, None], b, a)[:, :_CELLS]
    fixed = np.where(swapped[:, None], a, b)[:, :_CELLS]
    found = np.empty((len(a), _PLACED_FIELDS))
    for start in range(0, len(a), _CHUNK):
        part = slice(start, start + _CHUNK)
        found[part] = _compare_placed_chunk(moved[part], fixed[part], onto[part])
    areas = np.stack([_coverage(onto, _AREA_SIDE).mean(axis=(1, 2)) for onto in (back, placed)])
    return PlacedComparison(*(np.round(np.concatenate([found.T, areas]), 4) + 0.0))


def invert(maps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the inverses of affine maps float64 [n, 2, 3]."""
    out = np.empty_like(maps)
    out[:, :, :2] = np.linalg.inv(maps[:, :, :2])
    out[:, :, 2] = -(out[:, :, :2] @ maps[:, :, 2:])[:, :, 0]
    return out


def _determinants(maps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.abs(np.linalg.det(maps[:, :, :2])), np.float64)


def _is_larger(
    a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], placed: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Return which a have larger cells than their b, and of equal ones the one in a fixed order."""
    growth = _determinants(placed)
    first = (a != b).argmax(axis=1)[:, None]
    later = (np.take_along_axis(a, first, 1) > np.take_along_axis(b, first, 1))[:, 0]
    return np.where(np.abs(growth - 1.0) < _SAME_SIZE, later, growth > 1.0)


def _compare_placed_chunk(
    moved: npt.NDArray[np.uint8], fixed: npt.NDArray[np.uint8], onto: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Compare layouts [n, 576] where ``onto`` maps the first to the second: float64 [n, 4]."""
    count = len(moved)
    moved, fixed, onto = _padded(moved), _padded(fixed), _padded(onto)
    # Reading between cells blurs the moved picture, averaging over more of them less and less: this
    # much, in squared cells, is then missing in the fixed one. A cell has 1/12 itself.
    blur = (0.25 * _determinants(onto) + _SUBSAMPLE**2 - 1 / 12).clip(0.0, 0.25).astype(np.float32)
    from_cells = invert(onto)
    from_cells[:, :, 2] = (
        GRID_SIDE * from_cells[:, :, 2] + 0.5 * from_cells[:, :, :2].sum(axis=2) - 0.5
    )
    found, rest = _placed_evidence(moved, fixed, from_cells, blur)
    again = np.flatnonzero(found[:count, _PLACED_DIFFERING] > _SETTLED)
    if len(again):
        rows = _padded(again)
        refined, _ = _placed_evidence(
            moved[rows], fixed[rows], _refined(from_cells[rows], rest[rows]), blur[rows]
        )
        refined = refined[: len(again)]
        better = refined[:, _PLACED_DIFFERING] < found[again, _PLACED_DIFFERING]
        found[again[better]] = refined[better]
    return found[:count]


def _refined(
    from_cells: npt.NDArray[np.float64], misfit: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return maps of cells [n, 2, 3] that first move a cell by a misfit [n, 6]."""
    step = _of_cells(misfit)
    out = from_cells[:, :, :2] @ step
    out[:, :, 2] += from_cells[:, :, 2]
    return np.asarray(out, np.float64)


def _placed_evidence(
    moved: npt.NDArray[np.uint8],
    fixed: npt.NDArray[np.uint8],
    from_cells: npt.NDArray[np.float64],
    blur: _Array,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Measure layouts [n, 576] where cells of the fixed one are mapped to those of the moved.

    Returns:
        float64 [n, 4], the first fields of ``PlacedComparison``, and the misfit [n, 6] that is
        left.
    """
    a, inside = _laid(moved, from_cells)
    b = _blurred(_pairs_last(fixed), inside, blur)
    share = np.maximum(_box(inside, 2), np.float32(1e-3))
    normal_a, variance_a = _normalised_inside(a, inside, share)
    normal_b, variance_b = _normalised_inside(b, inside, share)
    texture = np.minimum(variance_a, variance_b, out=variance_a) > _TEXTURED**2
    both = normal_a + normal_b
    change = np.subtract(normal_b, normal_a, out=normal_b)
    slopes = _slopes(both)
    rest = _fit(slopes, change, inside).clip(-_REFINED, _REFINED)
    steps = _displacement(0.25 * rest, GRID_SIDE)
    shift = _gained(slopes, steps)
    shift *= inside
    change -= shift
    change -= shift
    square = change * change
    correlation = _correlation(both, change, square)
    residual = _box(square, 1)
    residual *= inside / np.maximum(_box(inside, 1), np.float32(1e-3))
    shift = _gained(_slopes(a + b), steps)
    a += shift
    b -= shift
    off = residual > _RESIDUAL
    common = inside > 0
    texture &= common & ~off
    off &= _luma_residual(a, b, residual, inside) > _LEVELS
    differing = _count(off)
    telling = differing + _count(texture)
    inner = _count(off & _eroded(common, _INNER)) / np.maximum(_sum(inside), 1)
    found = np.stack([correlation, telling, differing / np.maximum(telling, 1), inner], axis=1)
    return found.astype(np.float64), rest


def _laid(
    moved: npt.NDArray[np.uint8], from_cells: npt.NDArray[np.float64]
) -> tuple[_Array, _Array]:
    """Return means of layouts [n, 576] over mapped cells, and 1 for those covered, else 0."""
    rows = moved.astype(np.float32)
    axes = _places(from_cells)
    half = GRID_SIDE / 2
    maps = from_cells.astype(np.float32)[..., None]
    reach = half + _EDGE_SLACK - 0.5 * np.abs(maps[:, :, :2]).sum(axis=2)
    inside = np.ones(rows.shape, np.bool_)
    for row, along in enumerate(axes):
        inside &= np.abs(along - np.float32(half - 0.5)) < reach[:, row].astype(np.float32)
    laid = np.zeros_like(rows)
    for dx in (-_SUBSAMPLE, _SUBSAMPLE):
        for dy in (-_SUBSAMPLE, _SUBSAMPLE):
            steps = np.float32(dx) * maps[:, :, 0] + np.float32(dy) * maps[:, :, 1]
            laid += _read(rows, _rounded(axes[0] + steps[:, 0]), _rounded(axes[1] + steps[:, 1]))
    laid *= np.float32(0.25)
    return _pairs_last(laid), _pairs_last(inside)


def _blurred(grid: _Array, inside: _Array, blur: _Array) -> _Array:
    """Blur the cells inside by a variance [n], squared cells, with no other cell."""
    out = grid.copy()
    for axis in range(2):
        here, there = (slice(None),) * axis, (slice(None),) * axis
        here, there = (*here, slice(None, -1)), (*there, slice(1, None))
        change = grid[there] - grid[here]
        change *= inside[there]
        change *= inside[here]
        change *= np.float32(0.5) * blur
        out[here] += change
        out[there] -= change
    return out


def _normalised_inside(grid: _Array, inside: _Array, share: _Array) -> tuple[_Array, _Array]:
    """Do as ``_normalised`` with the cells inside alone; ``share`` is how many of the near are."""
    mean = _box(grid * inside, 2)
    mean /= share
    apart = np.subtract(grid, mean, out=mean)
    apart *= inside
    variance = _box(apart * apart, 2)
    variance /= share
    return apart / np.sqrt(variance + np.float32(_NOISE**2)), variance


def _eroded(cells: npt.NDArray[np.bool_], depth: int) -> npt.NDArray[np.bool_]:
    """Keep the cells of [24, 24, n] that are further than ``depth`` from all others."""
    window = np.ones((2 * depth + 1, 2 * depth + 1), np.uint8)
    kept = cv2.erode(cells.view(np.uint8), window, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return kept.view(np.bool_)


def _coverage(onto: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """Return the share of each cell, 0..1, that a picture covers: float64 [n, side, side].

    Args:
        onto: float64 [n, 2, 3], maps from the picture to the one with the cells. Exact where it
            lies straight; for small turns it is near.
        side: of the grid of cells.
    """
    back = invert(onto)[..., None, None]
    centres = (np.arange(side) + 0.5) / side
    out = np.ones((len(onto), side, side))
    for row in range(2):
        place = back[:, row, 0] * centres + back[:, row, 1] * centres[:, None] + back[:, row, 2]
        extent = (np.abs(back[:, row, 0]) + np.abs(back[:, row, 1])) / side
        covered = np.minimum(place + extent / 2, 1.0) - np.maximum(place - extent / 2, 0.0)
        out *= np.clip(covered / extent, 0.0, 1.0)
    return out


def placed_chroma(
    a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], placed: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Compare the chroma of pairs of colour descriptors where each ``a`` is laid over its ``b``.

    The cells of the picture with the smaller ones are compared with what the other shows there.

    Args:
        a: uint8 [n, 108].
        b: uint8 [n, 108].
        placed: float64 [n, 2, 3], affine maps from a to b as in ``compare_placed``.

    Returns:
        Similarity, float64 [n] in 0..1, 4 decimals; 0 where no cell is common.
    """
    swapped = _is_larger(a, b, placed)[:, None, None]
    onto = np.where(swapped, invert(placed), placed)[..., None, None]
    planes_a, planes_b = (side.reshape(-1, 3, _COLOR_CELLS).astype(np.float64) for side in (a, b))
    small = np.where(swapped, planes_b, planes_a)
    large = np.where(swapped, planes_a, planes_b).reshape(-1, 3, _COLOR_SIDE, _COLOR_SIDE)
    centres = (np.arange(_COLOR_SIDE) + 0.5) / _COLOR_SIDE
    x, y = (
        (onto[:, row, 0] * centres + onto[:, row, 1] * centres[:, None] + onto[:, row, 2])
        * _COLOR_SIDE - 0.5
        for row in range(2)
    )  # fmt: skip
    last = _COLOR_SIDE - 1
    weights = (np.maximum(np.abs(x - last / 2), np.abs(y - last / 2)) < last / 2 + 0.25).astype(
        np.float64
    )
    seen = _between(large, np.clip(x, 0, last), np.clip(y, 0, last)).reshape(-1, 3, _COLOR_CELLS)
    similarity, _ = chroma_similarity(
        seen[:, 1] - 128.0 + 1j * (seen[:, 2] - 128.0),
        small[:, 1] - 128.0 + 1j * (small[:, 2] - 128.0),
        seen[:, 0],
        small[:, 0],
        weights.reshape(-1, _COLOR_CELLS),
    )
    return np.where(weights.any(axis=(1, 2)), np.round(similarity, 4), 0.0)


def _between(
    planes: npt.NDArray[np.float64], x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return planes [n, 3, s, s] read bilinearly at places x and y, [n, s, s], that are inside."""
    column, row = (np.minimum(place.astype(np.intp), _COLOR_SIDE - 2) for place in (x, y))
    right, down = (x - column)[:, None], (y - row)[:, None]
    pair, plane = np.arange(len(planes))[:, None, None, None], np.arange(3)[:, None, None]
    row, column = row[:, None], column[:, None]
    above, below = (
        (1 - right) * planes[pair, plane, line, column]
        + right * planes[pair, plane, line, column + 1]
        for line in (row, row + 1)
    )
    return np.asarray((1 - down) * above + down * below, np.float64)


def frames(layouts: npt.NDArray[np.uint8], onto: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which pictures show no more than a frame about what is laid onto them.

    A frame is mostly of one luma and begins with a step. A subject before an even wall has the one
    luma, but no step where a crop of it ends.

    Args:
        layouts: uint8 [n, 577], of the pictures that show more.
        onto: float64 [n, 2, 3], maps from the other picture, as in ``compare_placed``.
    """
    grids = layouts[:, :_CELLS].reshape(-1, GRID_SIDE, GRID_SIDE)
    covered = _coverage(onto, GRID_SIDE)
    rest = covered < _UNCOVERED
    sizes = rest.sum(axis=(1, 2))
    rows = np.flatnonzero(sizes >= _LEAST_UNCOVERED)
    out = _framed(grids)  # true of the frames that are thinner than a cell
    if not len(rows):
        return out
    grids, covered, rest = grids[rows], covered[rows], rest[rows]
    counts = _near_levels(grids, rest)
    ground, even = counts.argmax(axis=1), counts.max(axis=1) / sizes[rows]
    border = _beside(rest) & (covered > 0.99)
    far = np.abs(grids.astype(np.int64) - ground[:, None, None]) > _STEP_LEVELS
    steps = (far & border).sum(axis=(1, 2)) / np.maximum(border.sum(axis=(1, 2)), 1)
    found = [(even >= plain) & (steps >= step) for plain, step in _FRAMES]
    out[rows] = np.logical_or.reduce(found)
    return out


def _near_levels(
    grids: npt.NDArray[np.uint8], cells: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Count the cells of grids [n, 24, 24] within 8 grey levels of each level: int64 [n, 256]."""
    number = np.nonzero(cells)[0]
    counts = np.bincount(256 * number + grids[cells], minlength=256 * len(grids))
    passed = np.zeros((len(grids), 256 + _FRAME_WINDOW), np.int64)
    reach = _FRAME_WINDOW // 2 + 1
    passed[:, reach : reach + 256] = counts.reshape(-1, 256).cumsum(axis=1)
    passed[:, reach + 256 :] = passed[:, reach + 255, None]
    return np.asarray(passed[:, _FRAME_WINDOW:] - passed[:, :-_FRAME_WINDOW], np.int64)


def _beside(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the cells of grids [n, 24, 24] that are within two of some cells."""
    apart = np.pad(cells.view(np.uint8), ((0, 0), (0, 2), (0, 0)))  # one below the other
    near = cv2.dilate(apart.reshape(-1, GRID_SIDE), _NEAR)
    return near.reshape(apart.shape)[:, :GRID_SIDE].view(np.bool_)


# --------------------------------------------------------------------------------------- misfit
# A misfit is float64 [n, 6]: b at (x, y) is a at (x + u, y + v), where u = p0 + p1 x + p2 y and
# v = p3 + p4 x + p5 y, in cells, and x and y run from -1 to 1 over the grid.


def _axis(side: int) -> _Array:
    """Return the places of the cells from -1 to 1, [s]."""
    return np.asarray((np.arange(side) + 0.5) / side * 2 - 1, np.float32)


# Of the cells row by row, as in a layout: numbers, and places from -1 to 1.
_COLUMN: Final = np.tile(np.arange(GRID_SIDE, dtype=np.float32), GRID_SIDE)
_ROW: Final = np.repeat(np.arange(GRID_SIDE, dtype=np.float32), GRID_SIDE)
_ACROSS: Final = np.tile(_axis(GRID_SIDE), GRID_SIDE)
_DOWN: Final = np.repeat(_axis(GRID_SIDE), GRID_SIDE)
_POWERS: Final = {  # [s, 3]: 1, x and x squared
    side: _axis(side)[:, None] ** np.arange(3, dtype=np.float32)
    for side in (GRID_SIDE, GRID_SIDE // 2)
}


def _fitted(a: _Array, b: _Array, inside: _Array | None = None) -> npt.NDArray[np.float64]:
    """Fit the misfit of normalised grids [s, s, n]; see ``_fit``."""
    return _fit(_slopes(a + b), b - a, inside)


def _fit(
    slopes: tuple[_Array, _Array], change: _Array, inside: _Array | None
) -> npt.NDArray[np.float64]:
    """Fit the misfit of grids [s, s, n] to first order, drawn a little to none.

    Args:
        slopes: of the sum of two normalised grids.
        change: the second less the first.
        inside: 1 for the cells that count, else 0; None if all do.
    """
    side = len(change)
    x, y = slopes if inside is None else (slope * inside for slope in slopes)
    normal = np.empty((6, 6, change.shape[2]))
    normal[:3, :3] = _moments(x * x)
    normal[3:, 3:] = _moments(y * y)
    normal[:3, 3:] = normal[3:, :3] = _moments(x * y)
    normal *= 0.25  # the slopes are those of twice the mean
    normal += (_STIFFNESS * side * side * np.eye(6))[..., None]
    right = 0.5 * np.concatenate([_moments(x * change)[0], _moments(y * change)[0]])
    found = np.linalg.solve(normal.transpose(2, 0, 1), right.T[..., None])
    return np.asarray(found[..., 0], np.float64)


# Of the sums of values times x**j y**k: those of products of (1, x, y), as [j, k].
_PRODUCTS: Final = ([[0, 1, 0], [1, 2, 1], [0, 1, 0]], [[0, 0, 1], [0, 0, 1], [1, 1, 2]])


def _moments(values: _Array) -> npt.NDArray[np.float64]:
    """Return the sums of values [s, s, n] times products of (1, x, y): float64 [3, 3, n]."""
    powers = _POWERS[len(values)]
    rows = np.einsum("yk,yxn->kxn", powers, values)
    sums = np.einsum("xj,kxn->jkn", powers, rows)
    return np.asarray(sums[_PRODUCTS], np.float64)


def _displacement(misfit: npt.NDArray[np.float64], side: int) -> tuple[_Array, _Array]:
    """Return u and v of a misfit at the cells, each float32 [s, s, n]."""
    p = misfit.T.astype(np.float32)
    x, y = _axis(side)[:, None], _axis(side)[:, None, None]
    return p[0] + p[1] * x + p[2] * y, p[3] + p[4] * x + p[5] * y


def _gained(slopes: tuple[_Array, _Array], steps: tuple[_Array, _Array]) -> _Array:
    """Return what a grid with these slopes, which are overwritten, gains by a small move."""
    x, y = (np.multiply(slope, step, out=slope) for slope, step in zip(slopes, steps, strict=True))
    x += y
    return x


def _moved(
    sides: Sequence[_Array], misfit: npt.NDArray[np.float64]
) -> tuple[_Array, _Array, _Array]:
    """Move each of two grids, float32 [n, 576], by half the misfit towards the other.

    Returns:
        The two grids, and 1 where both show something, else 0, each float32 [24, 24, n].
    """
    p = (0.5 * misfit).astype(np.float32).T[..., None]
    inside = np.ones(sides[0].shape, np.bool_)
    steps = []
    for (still, along, down), places in ((p[:3], _COLUMN), (p[3:], _ROW)):
        step = along * _ACROSS
        step += down * _DOWN
        step += still
        # Half a cell and a rounding beyond the outermost centres is still the area of a grid.
        inside &= np.abs(step) < np.minimum(places, places[::-1]) + np.float32(0.6)
        steps.append(_rounded(step))
    u, v = steps
    return (
        _pairs_last(_read(sides[0], _COLUMN + u, _ROW + v)),
        _pairs_last(_read(sides[1], _COLUMN - u, _ROW - v)),
        _pairs_last(inside),
    )


def _of_cells(misfit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the maps of cells, [n, 2, 3] over (column, row, 1), that a misfit [n, 6] makes."""
    half = GRID_SIDE / 2
    maps = np.empty((len(misfit), 2, 3))
    for row, p in enumerate((misfit[:, :3], misfit[:, 3:])):
        maps[:, row, :2] = p[:, 1:] / half
        maps[:, row, 2] = p[:, 0] + (p[:, 1] + p[:, 2]) * (0.5 / half - 1.0)
        maps[:, row, row] += 1.0
    return maps


def _places(maps: npt.NDArray[np.float64]) -> tuple[_Array, _Array]:
    """Return the columns and rows to which maps [n, 2, 3] take the cells, float32 [n, 576]."""
    x, y = maps.astype(np.float32).transpose(1, 2, 0)[..., None]
    along = x[0] * _COLUMN
    along += x[1] * _ROW
    along += x[2]
    down = y[0] * _COLUMN
    down += y[1] * _ROW
    down += y[2]
    return along, down


def _rounded(places: _Array) -> _Array:
    """Round places in place to 1/32: this fraction is kept wherever a grid stands below others."""
    places *= np.float32(32)
    np.rint(places, out=places)
    places *= np.float32(1 / 32)
    return places


def _read(rows: _Array, x: _Array, y: _Array) -> _Array:
    """Return the values of grids [n, 576] at rounded places, [n, 576], which it overwrites."""
    for places in (x, y):  # a clipped one never reaches into the next grid
        np.clip(places, 0, GRID_SIDE - 1, out=places)
    y += np.arange(0, len(rows) * GRID_SIDE, GRID_SIDE, dtype=np.float32)[:, None]
    shape = (-1, GRID_SIDE)
    sampled = cv2.remap(
        rows.reshape(shape), x.reshape(shape), y.reshape(shape), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.asarray(sampled, np.float32).reshape(rows.shape)


def _pairs_last(cells: npt.NDArray[Any]) -> _Array:
    """Return grids [n, 576] as float32 [24, 24, n]: all sums then run along memory."""
    turned = cv2.transpose(cells.view(np.uint8) if cells.dtype == np.bool_ else cells)
    return turned.astype(np.float32, copy=False).reshape(GRID_SIDE, GRID_SIDE, -1)


# ----------------------------------------------------------------------------- filters on [s, s, n]


def _halved(grid: _Array) -> _Array:
    """Return the means of 2x2 cells."""
    rows = grid[0::2] + grid[1::2]
    return np.asarray(np.float32(0.25) * (rows[:, 0::2] + rows[:, 1::2]), np.float32)


def _normalised(grid: _Array, radius: int) -> tuple[_Array, _Array]:
    """Take off the local mean and divide by the local deviation; also returns the variance."""
    apart = grid - _box(grid, radius)
    variance = _box(apart * apart, radius)
    deviation = variance + np.float32(_NOISE**2)
    apart /= np.sqrt(deviation, out=deviation)
    return apart, variance


def _box(grid: _Array, radius: int) -> _Array:
    """Return the means of the cells within a radius, of those that there are."""
    sums = _box_sums(grid, radius)
    sums *= 1.0 / _box_cells(len(grid), radius)
    return sums


def _box_sums(grid: _Array, radius: int) -> _Array:
    ones = np.ones(2 * radius + 1, np.float32)
    found = cv2.sepFilter2D(grid, -1, ones, ones, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(found, np.float32)


def _box_cells(side: int, radius: int) -> _Array:
    """Return how many cells of a grid lie within a radius of each, float32 [side, side, 1]."""
    places = np.arange(side, dtype=np.float32)
    counts = np.minimum(places, radius) + np.minimum(places[::-1], radius) + 1
    return np.asarray((counts[:, None] * counts)[..., None], np.float32)


def _flat(grid: _Array) -> npt.NDArray[np.bool_]:
    """Return the cells that are like their eight neighbours."""
    cells = _box_cells(len(grid), 1)
    sums, squares = _box_sums(grid, 1), _box_sums(grid * grid, 1)
    sums *= sums
    squares *= cells
    squares -= sums
    return np.asarray(squares < _FLAT**2 * cells * cells)


def _slopes(grid: _Array) -> tuple[_Array, _Array]:
    """Return the changes along x and along y, a cell."""
    return _gradient(grid.swapaxes(0, 1)).swapaxes(0, 1), _gradient(grid)


def _gradient(grid: _Array) -> _Array:
    """Return the change along the first axis, a cell."""
    out = np.empty_like(grid)
    inner = np.subtract(grid[2:], grid[:-2], out=out[1:-1])
    inner *= np.float32(0.5)
    out[0] = grid[1] - grid[0]
    out[-1] = grid[-1] - grid[-2]
    return out
