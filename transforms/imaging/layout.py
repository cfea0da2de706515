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

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from transforms.imaging import orientation as _orientation
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

# Pairs of one pass: numpy's share of the work falls with the number, what the cache holds of
# grids of 600 KB (float32) as well. 256 to 512 are quickest, 64 take two fifths more.
_CHUNK: Final = 256
_LEAST_ROWS: Final = 8  # numpy adds a single column in another order than several
_NOISE: Final = 4.0  # grey levels: what JPEG and resampling leave in an area mean, with a margin
_GROUND_LEVELS: Final = 9  # grey levels, next to each other, that are one ground
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
_FRAME_WINDOW: Final = np.ones(17)  # grey levels that are one luma
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
    for row, grey in zip(found, greys, strict=True):
        small = cv2.resize(grey, (GRID_SIDE, GRID_SIDE), interpolation=cv2.INTER_AREA)
        row[:_CELLS] = small.ravel()
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
    found = np.empty((len(a), len(LayoutComparison._fields)), np.float64)
    turned = a[:, :_CELLS].copy()
    for value in _orientation.ORIENTATIONS[1:]:
        rows = np.flatnonzero(np.asarray(orientation) == value)
        turned[rows] = a[rows][:, _orientation.cell_permutation(GRID_SIDE, value)]
    for start in range(0, len(a), _CHUNK):
        part = slice(start, start + _CHUNK)
        grids_a, grids_b = turned[part], b[part, :_CELLS]
        found[part] = _compare_chunk(_stacked(grids_a), _stacked(grids_b))[: len(grids_a)]
    found[:, _GROUND] = np.minimum(a[:, _CELLS], b[:, _CELLS]) / 255.0
    return LayoutComparison(*(np.round(found.T, 4) + 0.0))  # no negative zero


def _stacked(grids: npt.NDArray[np.uint8]) -> _Array:
    """Return uint8 [n, 576] as float32 [24, 24, m], m >= n: all sums then run along memory."""
    return np.ascontiguousarray(_padded(grids).T, np.float32).reshape(GRID_SIDE, GRID_SIDE, -1)


def _padded(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Repeat the last of some rows [n, ...] until there are ``_LEAST_ROWS``."""
    missing = max(_LEAST_ROWS - len(rows), 0)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows


def _compare_chunk(a: _Array, b: _Array) -> npt.NDArray[np.float64]:
    """Compare grids [24, 24, n]; returns float64 [n, fields]."""
    found = _evidence(a, b, np.zeros((a.shape[2], 6)))
    again = np.flatnonzero(found[:, _WORST] > _FITTED)
    if len(again):
        rows = _padded(again)
        part_a, part_b = np.ascontiguousarray(a[..., rows]), np.ascontiguousarray(b[..., rows])
        misfit = 2.0 * _fit(_normalised(_halved(part_a), 1)[0], _normalised(_halved(part_b), 1)[0])
        moved_a, moved_b, inside = _moved(part_a, part_b, misfit)
        misfit += _fit(_normalised(moved_a, 2)[0], _normalised(moved_b, 2)[0], inside)
        refined = _evidence(part_a, part_b, np.clip(misfit, -_FAR, _FAR))[: len(again)]
        # A caption misleads the fit, so the first one may be the better.
        better = refined[:, _DIFFERING] < found[again, _DIFFERING]
        framed = np.stack([_framed(part_b), _framed(part_a)])[:, : len(again)]
        refined[:, _FRAMED] = np.where(refined[:, _ZOOM] > 0, framed[1], framed[0])
        found[again[better]] = refined[better]
    return found


_WORST: Final = LayoutComparison._fields.index("worst")
_DIFFERING: Final = LayoutComparison._fields.index("differing")
_GROUND: Final = LayoutComparison._fields.index("ground")
_ZOOM: Final = LayoutComparison._fields.index("zoom")
_FRAMED: Final = LayoutComparison._fields.index("framed")


def _evidence(a: _Array, b: _Array, misfit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Measure the fields of ``LayoutComparison`` with a misfit [n, 6] taken off."""
    moved_a, moved_b, inside = _moved(a, b, misfit)
    normal_a, variance_a = _normalised(moved_a, 2)
    normal_b, variance_b = _normalised(moved_b, 2)
    rest = _fit(normal_a, normal_b, inside)
    shift = _shift(normal_a, normal_b, rest)
    normal_a += shift
    normal_b -= shift
    change = normal_b - normal_a
    residual = _box(change * change, 1)
    shift = _shift(moved_a, moved_b, rest)
    levels = _luma_residual(moved_a + shift, moved_b - shift, residual)
    residual *= inside
    off = residual > _RESIDUAL
    texture = np.minimum(variance_a, variance_b) > _TEXTURED**2
    # Beside a ground that both share, a frame or bars, whatever is framed has the same edge.
    texture &= (_box(_flat(moved_a) * _flat(moved_b), 2) == 0) & (inside > 0)
    normal_a *= inside
    normal_b *= inside
    correlation = _sum(normal_a * normal_b) / np.sqrt(
        _sum(normal_a * normal_a) * _sum(normal_b * normal_b) + np.float32(1e-6)
    )
    differing = _sum(off & (levels > _LEVELS))
    telling = differing + _sum(texture & ~off)
    total = misfit + rest
    corners = np.abs(total @ _CORNERS.T).reshape(-1, 4, 2)
    return np.stack(
        [
            correlation,
            telling / _CELLS,
            differing / np.maximum(telling, 1),
            np.sqrt(residual.max(axis=(0, 1))),
            np.zeros(len(misfit)),  # the ground is not of the cells
            np.hypot(corners[..., 0], corners[..., 1]).max(axis=1),
            -(total[:, 1] + total[:, 5]) / GRID_SIDE,
            np.zeros(len(misfit)),  # only where the misfit is more than a resampling
        ],
        axis=1,
    )


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


def _luma_residual(a: _Array, b: _Array, residual: _Array, inside: _Array | None = None) -> _Array:
    """Return what a tone curve, fitted where the grids agree, leaves of luma, in grey levels."""
    weights = 1.0 / (1.0 + (residual * np.float32(10.0)) ** 2)
    if inside is not None:
        weights *= inside
        weights += np.float32(1e-6)  # where there is none inside
    total = _sum(weights)
    scores, deviations = [], []
    for grid in (a, b):
        apart = grid - _sum(weights * grid) / total
        deviation = np.sqrt(_sum(weights * apart * apart) / total + np.float32(9.0))
        scores.append(apart / deviation)
        deviations.append(deviation)
    left = scores[1] - scores[0]
    # A gamma bends the line of equal scores: it moves the middle tones against both ends.
    bend = (0.5 * (scores[0] + scores[1])) ** 2 - np.float32(1.0)
    weighted = weights * bend
    curve = _sum(weighted * left) / (_sum(weighted * bend) + np.float32(0.05) * total)
    left -= np.clip(curve, -_CURVE, _CURVE).astype(np.float32) * bend
    unit = np.minimum(np.sqrt(deviations[0] * deviations[1]), np.float32(40.0))
    return np.asarray(np.abs(left) * unit, np.float32)


def _framed(grid: _Array) -> npt.NDArray[np.bool_]:
    """Return which grids [24, 24, n] change much less along their border than two cells inside.

    A frame of 3 % of the shorter side fills 0.7 of the outermost cells. Of 420 photographs 0.01
    were framed by this rule, of 125 bordered ones 0.97.
    """
    changes = []
    for depth in (0, 2):
        part = grid[depth : GRID_SIDE - depth, depth : GRID_SIDE - depth]
        sides = np.stack([part[0], part[-1], part[:, 0], part[:, -1]])
        changes.append(sides.var(axis=1).mean(axis=0))
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
    onto = _padded(onto)
    a, b = _stacked(moved), _stacked(fixed)
    # Reading between cells blurs the moved picture, averaging over more of them less and less: this
    # much, in squared cells, is then missing in the fixed one. A cell has 1/12 itself.
    blur = (0.25 * _determinants(onto) + _SUBSAMPLE**2 - 1 / 12).clip(0.0, 0.25).astype(np.float32)
    from_cells = invert(onto)
    from_cells[:, :, 2] = (
        GRID_SIDE * from_cells[:, :, 2] + 0.5 * from_cells[:, :, :2].sum(axis=2) - 0.5
    )
    found, rest = _placed_evidence(a, b, from_cells, blur)
    again = np.flatnonzero(found[:count, _PLACED_DIFFERING] > _SETTLED)
    if len(again):
        rows = _padded(again)
        part_a, part_b = np.ascontiguousarray(a[..., rows]), np.ascontiguousarray(b[..., rows])
        refined, _ = _placed_evidence(
            part_a, part_b, _refined(from_cells[rows], rest[rows]), blur[rows]
        )
        refined = refined[: len(again)]
        better = refined[:, _PLACED_DIFFERING] < found[again, _PLACED_DIFFERING]
        found[again[better]] = refined[better]
    return found[:count]


def _refined(
    from_cells: npt.NDArray[np.float64], misfit: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return maps of cells [n, 2, 3] that first move a cell by a misfit [n, 6]."""
    half = GRID_SIDE / 2
    step = np.zeros((len(misfit), 3, 3))
    step[:, 2, 2] = 1.0
    for row, p in enumerate((misfit[:, :3], misfit[:, 3:])):
        step[:, row, :2] = p[:, 1:] / half
        step[:, row, row] += 1.0
        step[:, row, 2] = p[:, 0] + (p[:, 1] + p[:, 2]) * (0.5 / half - 1.0)
    return np.asarray(from_cells @ step, np.float64)


def _placed_evidence(
    a: _Array, b: _Array, from_cells: npt.NDArray[np.float64], blur: _Array
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Measure grids [24, 24, n] where cells of b are mapped to those of a.

    Returns:
        float64 [n, 4], the first fields of ``PlacedComparison``, and the misfit [n, 6] that is
        left.
    """
    laid, inside = _laid(a, from_cells)
    b = _blurred(b, inside, blur)
    share = np.maximum(_box(inside, 2), np.float32(1e-3))
    normal_a, variance_a = _normalised_inside(laid, inside, share)
    normal_b, variance_b = _normalised_inside(b, inside, share)
    rest = _fit(normal_a, normal_b, inside).clip(-_REFINED, _REFINED)
    shift = _shift(normal_a, normal_b, rest) * inside
    normal_a += shift
    normal_b -= shift
    change = normal_b - normal_a
    residual = _box(change * change, 1)
    residual *= inside / np.maximum(_box(inside, 1), np.float32(1e-3))
    shift = _shift(laid, b, rest)
    off = residual > _RESIDUAL
    off &= _luma_residual(laid + shift, b - shift, residual, inside) > _LEVELS
    texture = (np.minimum(variance_a, variance_b) > _TEXTURED**2) & (inside > 0)
    correlation = _sum(normal_a * normal_b) / np.sqrt(
        _sum(normal_a * normal_a) * _sum(normal_b * normal_b) + np.float32(1e-6)
    )
    differing = _sum(off)
    telling = differing + _sum(texture & (residual <= _RESIDUAL))
    inner = _sum(off & (_eroded(inside, _INNER) > 0)) / np.maximum(_sum(inside), 1)
    found = np.stack([correlation, telling, differing / np.maximum(telling, 1), inner], axis=1)
    return found.astype(np.float64), rest


def _laid(a: _Array, from_cells: npt.NDArray[np.float64]) -> tuple[_Array, _Array]:
    """Return a's means over mapped cells, and 1 for the cells that it covers, else 0."""
    maps = from_cells.astype(np.float32)[..., None, None]
    places = np.arange(GRID_SIDE, dtype=np.float32)
    axes, half = [], np.float32(GRID_SIDE / 2)
    inside = np.ones((len(maps), GRID_SIDE, GRID_SIDE), np.bool_)
    for row in range(2):
        along = maps[:, row, 0] * places + maps[:, row, 1] * places[:, None] + maps[:, row, 2]
        reach = np.float32(0.5) * (np.abs(maps[:, row, 0]) + np.abs(maps[:, row, 1]))
        covered = np.abs(along - (half - np.float32(0.5))) + reach < half + np.float32(_EDGE_SLACK)
        inside &= covered
        axes.append(along)
    column = _pairs_first(a).reshape(-1, GRID_SIDE)
    laid = np.zeros_like(column)
    for dx in (-_SUBSAMPLE, _SUBSAMPLE):
        for dy in (-_SUBSAMPLE, _SUBSAMPLE):
            x, y = (
                along + np.float32(dx) * maps[:, row, 0] + np.float32(dy) * maps[:, row, 1]
                for row, along in enumerate(axes)
            )
            laid += _read(column, x, y)
    laid *= np.float32(0.25)
    return _pairs_last(laid.reshape(inside.shape)), _pairs_last(inside.astype(np.float32))


def _blurred(grid: _Array, inside: _Array, blur: _Array) -> _Array:
    """Blur the cells inside by a variance [n], squared cells, with no other cell."""
    out = grid.copy()
    for axis in range(2):
        here, there = (slice(None),) * axis, (slice(None),) * axis
        here, there = (*here, slice(None, -1)), (*there, slice(1, None))
        change = (grid[there] - grid[here]) * (inside[there] * inside[here])
        change *= np.float32(0.5) * blur
        out[here] += change
        out[there] -= change
    return out


def _normalised_inside(grid: _Array, inside: _Array, share: _Array) -> tuple[_Array, _Array]:
    """Do as ``_normalised`` with the cells inside alone; ``share`` is how many of the near are."""
    apart = (grid - _box(grid * inside, 2) / share) * inside
    variance = _box(apart * apart, 2) / share
    return apart / np.sqrt(variance + np.float32(_NOISE**2)), variance


def _eroded(inside: _Array, depth: int) -> _Array:
    """Keep the cells that are further than ``depth`` cells from any that is not inside."""
    out = inside.copy()
    for axis in range(2):
        view = out.swapaxes(0, axis)
        before = view.copy()
        for step in range(1, depth + 1):
            view[step:] *= before[:-step]
            view[:-step] *= before[step:]
        view[:depth] = 0
        view[-depth:] = 0
    return out


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
    out = np.zeros(len(layouts), np.bool_)
    for row, covered in enumerate(_coverage(onto, GRID_SIDE)):
        grid = layouts[row, :_CELLS].reshape(GRID_SIDE, GRID_SIDE)
        rest = grid[covered < _UNCOVERED]
        if len(rest) < _LEAST_UNCOVERED:  # the frame is thinner than a cell
            out[row] = _framed(np.asarray(grid[..., None], np.float32))[0]
            continue
        counts = np.convolve(np.bincount(rest, minlength=256), _FRAME_WINDOW, "same")
        ground, even = int(counts.argmax()), float(counts.max()) / len(rest)
        near = np.zeros_like(covered, np.uint8)
        near[covered < _UNCOVERED] = 1
        border = grid[(cv2.dilate(near, np.ones((5, 5), np.uint8)) > 0) & (covered > 0.99)]
        far = np.abs(border.astype(np.int64) - ground) > _STEP_LEVELS
        steps = float(far.mean()) if len(far) else 0.0
        out[row] = any(even >= plain and steps >= step for plain, step in _FRAMES)
    return out


# --------------------------------------------------------------------------------------- misfit
# A misfit is float64 [n, 6]: b at (x, y) is a at (x + u, y + v), where u = p0 + p1 x + p2 y and
# v = p3 + p4 x + p5 y, in cells, and x and y run from -1 to 1 over the grid.


def _axis(side: int) -> _Array:
    """Return the places of the cells from -1 to 1, [s, 1]."""
    return np.asarray((np.arange(side) + 0.5) / side * 2 - 1, np.float32)[:, None]


def _fit(a: _Array, b: _Array, inside: _Array | None = None) -> npt.NDArray[np.float64]:
    """Fit the misfit of normalised grids [s, s, n] to first order, drawn a little to none."""
    side = len(a)
    mean = np.float32(0.5) * (a + b)
    along_x, along_y = _gradient(mean.swapaxes(0, 1)).swapaxes(0, 1), _gradient(mean)
    if inside is not None:
        along_x *= inside
        along_y *= inside
    change = b - a
    normal = np.empty((a.shape[2], 6, 6))
    normal[:, :3, :3] = _moments(along_x * along_x)
    normal[:, 3:, 3:] = _moments(along_y * along_y)
    mixed = _moments(along_x * along_y)
    normal[:, :3, 3:] = mixed
    normal[:, 3:, :3] = mixed
    normal += _STIFFNESS * side * side * np.eye(6)
    right = np.concatenate(
        [_moments(along_x * change)[:, 0], _moments(along_y * change)[:, 0]], axis=1
    )
    return np.asarray(np.linalg.solve(normal, right[..., None])[..., 0], np.float64)


def _moments(values: _Array) -> npt.NDArray[np.float64]:
    """Return the sums of values [s, s, n] times products of (1, x, y): float64 [n, 3, 3]."""
    axis = _axis(len(values))
    plain = values.sum(axis=0)
    by_y = (values * axis[..., None]).sum(axis=0)
    by_yy = (values * (axis * axis)[..., None]).sum(axis=0)
    one, x, y = plain.sum(axis=0), (plain * axis).sum(axis=0), by_y.sum(axis=0)
    xx, xy = (plain * axis * axis).sum(axis=0), (by_y * axis).sum(axis=0)
    yy = by_yy.sum(axis=0)
    return np.stack([one, x, y, x, xx, xy, y, xy, yy], axis=1).reshape(-1, 3, 3).astype(np.float64)


def _displacement(misfit: npt.NDArray[np.float64], side: int) -> tuple[_Array, _Array]:
    """Return u and v of a misfit at the cells, each float32 [s, s, n]."""
    p = misfit.T.astype(np.float32)
    x, y = _axis(side)[None], _axis(side)[:, None]
    return p[0] + p[1] * x + p[2] * y, p[3] + p[4] * x + p[5] * y


def _shift(a: _Array, b: _Array, misfit: npt.NDArray[np.float64]) -> _Array:
    """Return what a gains, and b loses, if each is moved by half a small misfit."""
    u, v = _displacement(misfit, len(a))
    mean = a + b
    x = _gradient(mean.swapaxes(0, 1)).swapaxes(0, 1)
    return np.asarray(np.float32(0.25) * (x * u + _gradient(mean) * v), np.float32)


def _moved(a: _Array, b: _Array, misfit: npt.NDArray[np.float64]) -> tuple[_Array, _Array, _Array]:
    """Move each grid by half the misfit towards the other.

    Returns:
        The two grids, and 1 where both show something, else 0, each float32 [24, 24, n].
    """
    if not misfit.any():
        return a, b, np.ones_like(a)
    u, v = (_pairs_first(part) for part in _displacement(0.5 * misfit, len(a)))
    moved_a, inside_a = _sampled(a, u, v)
    moved_b, inside_b = _sampled(b, -u, -v)
    return moved_a, moved_b, _pairs_last((inside_a & inside_b).astype(np.float32))


def _sampled(grid: _Array, u: _Array, v: _Array) -> tuple[_Array, npt.NDArray[np.bool_]]:
    """Return a grid's values at the cells displaced by u and v, bilinear, and which are in it.

    Args:
        grid: float32 [s, s, n].
        u: float32 [n, s, s], cells to the right.
        v: the same downwards.

    Returns:
        float32 [s, s, n], and bool [n, s, s].
    """
    side, n = len(grid), grid.shape[2]
    places, last = np.arange(side, dtype=np.float32), np.float32(side - 1)
    x, y = places + u, places[:, None] + v
    # Half a cell and a rounding beyond the outermost centres is still its area.
    inside = (np.abs(x - last / 2) < last / 2 + 0.6) & (np.abs(y - last / 2) < last / 2 + 0.6)
    sampled = _read(_pairs_first(grid).reshape(-1, side), x, y)
    return _pairs_last(sampled.reshape(n, side, side)), inside


def _read(column: _Array, x: _Array, y: _Array) -> _Array:
    """Return the values at places x and y, [n, s, s], of grids one below the other, [n * s, s]."""
    n, side = len(x), column.shape[1]
    # A clipped place never reaches into the next grid. OpenCV rounds places to 1/32: done here, the
    # rounding is the same wherever a grid stands.
    column_x, row_y = (np.rint(np.clip(place, 0, side - 1) * 32) / 32 for place in (x, y))
    row_y += np.arange(0, n * side, side, dtype=np.float32)[:, None, None]
    sampled = cv2.remap(
        column, column_x.reshape(-1, side), row_y.reshape(-1, side), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.asarray(sampled, np.float32)


def _pairs_first(grid: _Array) -> _Array:
    return np.ascontiguousarray(grid.transpose(2, 0, 1))


def _pairs_last(grid: _Array) -> _Array:
    return np.ascontiguousarray(grid.transpose(1, 2, 0))


# ----------------------------------------------------------------------------- filters on [s, s, n]


def _halved(grid: _Array) -> _Array:
    """Return the means of 2x2 cells."""
    rows = grid[0::2] + grid[1::2]
    return np.asarray(np.float32(0.25) * (rows[:, 0::2] + rows[:, 1::2]), np.float32)


def _normalised(grid: _Array, radius: int) -> tuple[_Array, _Array]:
    """Take off the local mean and divide by the local deviation; also returns the variance."""
    apart = grid - _box(grid, radius)
    variance = _box(apart * apart, radius)
    return apart / np.sqrt(variance + np.float32(_NOISE**2)), variance


def _box(grid: _Array, radius: int) -> _Array:
    """Return the means of the cells within a radius, of those that there are."""
    rows = grid.copy()
    for step in range(1, radius + 1):
        rows[step:] += grid[:-step]
        rows[:-step] += grid[step:]
    out = rows.copy()
    for step in range(1, radius + 1):
        out[:, step:] += rows[:, :-step]
        out[:, :-step] += rows[:, step:]
    places = np.arange(len(grid))
    counts = np.minimum(places, radius) + np.minimum(places[::-1], radius) + 1
    out *= (1.0 / (counts[:, None] * counts)).astype(np.float32)[..., None]
    return out


def _flat(grid: _Array) -> _Array:
    """Return 1 for the cells that are like their eight neighbours, else 0."""
    mean = _box(grid, 1)
    variance = _box(grid * grid, 1) - mean * mean
    return np.asarray(variance < _FLAT**2, np.float32)


def _gradient(grid: _Array) -> _Array:
    """Return the change along the first axis, a cell."""
    out = np.empty_like(grid)
    inner = np.subtract(grid[2:], grid[:-2], out=out[1:-1])
    inner *= np.float32(0.5)
    out[0] = grid[1] - grid[0]
    out[-1] = grid[-1] - grid[-2]
    return out
