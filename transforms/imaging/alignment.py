"""Two pictures laid over each other: the frame, the blocks, and the moments of their luma.

``Picture`` holds what several comparisons need of one picture, made once. ``lay_frame`` chooses
which of two is moved, ``align`` warps it and compares the lumas block by block.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from transforms.imaging.affine import compose, invert, scaling, size_ratio
from transforms.imaging.points import LocalFeatures, grey_of, mirror_features

__all__ = [
    "CELL",
    "GROUND",
    "LEAST_TEXTURED",
    "PART",
    "TEXTURE",
    "Blocks",
    "Frame",
    "Grid",
    "Picture",
    "Plane",
    "align",
    "bimodality",
    "block_colours",
    "commonest",
    "correlation",
    "fixed_cells",
    "lay_frame",
    "moved_luma",
    "plane_of",
    "tone_share",
]

_Floats = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]
_Bytes = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]
PART: Final = 2
CELL: Final = 8  # pixels; a block is 2x2 cells, one block begins at every cell
_LEAST_SIDE: Final = 64  # pixels of the frame of comparison
LEAST_TEXTURED: Final = 12  # blocks below which the correlation says nothing
_AGREE: Final = 0.6  # normalised cross-correlation of a block that agrees
TEXTURE: Final = 6.0  # grey levels of deviation of a textured block
_TONE: Final = 40.0  # grey levels between flat blocks that differ
GROUND: Final = 17  # levels of grey that count as one
_LEAST_VARIANCE: Final = 1.0  # squared grey levels
_NO_COUNTS: Final = np.zeros(1, np.float32)


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
        return grey_of(self.rgb)

    @functools.cached_property
    def mirrored(self) -> LocalFeatures:
        """The features of the same points in the picture flipped left to right."""
        return mirror_features(self.features, self.grey)

    @functools.cached_property
    def halved(self) -> _Bytes:
        """The luma at half the size: uint8 [(h + 1) // 2, (w + 1) // 2]."""
        height, width = self.grey.shape
        return _reduced(self.grey, (width + 1) // 2, (height + 1) // 2)

    @functools.cached_property
    def grid(self) -> "Grid":
        """The cells that a comparison on this picture's own pixels looks at."""
        height, width = self.grey.shape
        across, down = _enlargement((height, width))
        return Grid((across, down), height * down // CELL, width * across // CELL)

    @functools.cached_property
    def plane(self) -> "Plane":
        """The luma of the cells of ``grid`` at 1 / ``PART``, with its moments."""
        size = CELL // PART
        return plane_of(fixed_cells(self, self.grey, size), size)

    @functools.cached_property
    def fine(self) -> "Plane":
        """The same at the full size, smoothed; only pages, forms and flat pictures need it."""
        return plane_of(_smooth(fixed_cells(self, self.grey, CELL)), CELL)

    @functools.cached_property
    def colours(self) -> _Floats:
        """The mean colours of the blocks of ``grid``: float32 [rows, columns, 3]."""
        return _mean2(fixed_cells(self, self.rgb, 1).astype(np.float32))

    @functools.cached_property
    def ground(self) -> float:
        """The share of its pixels within eight levels of its commonest grey."""
        return commonest(self.grey)[0]

    @functools.cached_property
    def coarse(self) -> tuple[_Bytes, int]:
        """The colours at a quarter of the size, or less reduced if they are few, and the factor."""
        height, width = self.grey.shape
        part = max(1, min(4, min(height, width) // 16))
        whole = self.rgb[: height // part * part, : width // part * part]  # a factor of exactly 4
        return _reduced(whole, width // part, height // part), part


class Grid(NamedTuple):
    """The cells of the picture that is not moved."""

    enlarged: tuple[int, int]  # factors along x and y of the frame against the picture
    rows: int  # cells
    columns: int


class Plane(NamedTuple):
    """The aligned luma of one picture, and the moments of its blocks, float32 [rows, columns]."""

    grey: _Bytes
    mean: _Floats
    deviation: _Floats


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    """Two aligned pictures in blocks of 16x16 pixels, one block at every 8 pixels: [rows, columns].

    ``agree``, ``differ`` and neither (flat in both, the same tone) share the blocks ``inside``.
    """

    a: Plane
    b: Plane
    ncc: _Floats  # normalised cross-correlation of the blocks
    inside: _Mask  # both pictures cover the block

    @functools.cached_property
    def textured(self) -> _Mask:
        """Inside, and one of the two has texture."""
        return self.inside & (np.maximum(self.a.deviation, self.b.deviation) >= TEXTURE)

    @functools.cached_property
    def agree(self) -> _Mask:
        """Textured, and alike."""
        return self.textured & (self.ncc >= _AGREE)

    @functools.cached_property
    def differ(self) -> _Mask:
        """Textured and unlike, or flat and of another tone."""
        differ = self.textured & ~self.agree
        basis = self.agree if np.count_nonzero(self.agree) >= LEAST_TEXTURED else self.inside
        if basis.any():
            misfit = _tone_misfit(self.a.mean, self.b.mean, basis)
            differ = differ | (self.inside & ~self.textured & (misfit > _TONE))
        return differ


class Frame(NamedTuple):
    """How the finer picture is laid onto the coarser one, whose grid is compared."""

    moved: Picture
    fixed: Picture
    matrix: _Doubles  # from pixels of moved to those of the frame
    rows: int  # cells
    columns: int
    in_b: bool  # b is the fixed one


def lay_frame(a: Picture, b: Picture, transform: _Doubles) -> Frame:
    """Choose the coarser picture as the one that is not moved.

    Args:
        a: a picture.
        b: another.
        transform: float64 [2, 3], from pixels of a to those of b.
    """
    in_b = size_ratio(transform) <= 1.0
    moved, fixed = (a, b) if in_b else (b, a)
    matrix = transform if in_b else invert(transform)
    (across, down), rows, columns = fixed.grid
    if across > 1 or down > 1:
        matrix = compose(scaling(across, down), matrix)
    return Frame(moved, fixed, matrix, rows, columns, in_b)


def align(frame: Frame, part: int = PART) -> Blocks:
    """Lay the two pictures over each other and compare their lumas in blocks.

    Args:
        frame: of the two.
        part: ``PART``, at that fraction of their size, or 1, at the full size, smoothed.
    """
    cell = CELL // part
    grey = moved_luma(frame, part)
    if part == PART:
        planes = plane_of(grey, cell), frame.fixed.plane
    else:
        planes = plane_of(_smooth(grey), cell), frame.fixed.fine
    a, b = planes if frame.in_b else planes[::-1]
    return Blocks(a, b, correlation(a, b, cell), _inside(frame))


def moved_luma(frame: Frame, part: int) -> _Bytes:
    """Return the luma of the moved picture in the frame, at 1 / ``part`` of its size.

    Half the size is without the finest grain: the noise of a copy, a misfit of half a pixel.
    """
    width, height = frame.columns * CELL // part, frame.rows * CELL // part
    source, matrix = frame.moved.grey, compose(scaling(1.0 / part, 1.0 / part), frame.matrix)
    shrink = size_ratio(matrix)
    if shrink < 0.8:  # averages before it samples, against aliasing
        shape = source.shape
        if shrink > 0.35:
            source = frame.moved.halved
        else:
            source = _reduced(
                source, max(1, round(shape[1] * shrink)), max(1, round(shape[0] * shrink))
            )
        across, down = shape[1] / source.shape[1], shape[0] / source.shape[0]
        matrix = compose(matrix, scaling(across, down))
    moved = cv2.warpAffine(
        source, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.uint8)


def fixed_cells(picture: Picture, pixels: _Bytes, size: int) -> _Bytes:
    """Return the part of a picture that the cells of its grid cover.

    Args:
        picture: whose grid it is.
        pixels: uint8 [h, w] or [h, w, 3], of that picture.
        size: pixels along each side of a cell of the result.
    """
    (across, down), rows, columns = picture.grid
    if across > 1 or down > 1:
        enlarged = (pixels.shape[1] * across, pixels.shape[0] * down)
        pixels = np.asarray(cv2.resize(pixels, enlarged, interpolation=cv2.INTER_LINEAR), np.uint8)
    return _reduced(pixels[: rows * CELL, : columns * CELL], columns * size, rows * size)


def _enlargement(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return factors along x and y that give a tiny or thin frame 3x3 cells or more."""
    whole = max(1, min(-(-_LEAST_SIDE // min(shape)), 512 // max(shape)))
    return max(whole, -(-3 * CELL // shape[1])), max(whole, -(-3 * CELL // shape[0]))


def _reduced(pixels: _Bytes, width: int, height: int) -> _Bytes:
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def block_colours(frame: Frame) -> tuple[_Floats, _Floats]:
    """Return the mean colours of the blocks of a and b, each float32 [rows, columns, 3]."""
    moved, fixed = _cell_colours(frame), frame.fixed.colours
    return (moved, fixed) if frame.in_b else (fixed, moved)


def _cell_colours(frame: Frame) -> _Floats:
    """Return the mean colours of the blocks of the moved picture: float32 [rows, columns, 3].

    Colours vary slowly, so those of all but small pictures are warped at a quarter of the size.
    """
    small, part = frame.moved.coarse
    matrix = compose(frame.matrix, scaling(part, part))
    matrix = compose(scaling(2.0 / CELL, 2.0 / CELL), matrix)
    warped = cv2.warpAffine(
        small, matrix, (frame.columns * 2, frame.rows * 2), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    cells = cv2.resize(warped, (frame.columns, frame.rows), interpolation=cv2.INTER_AREA)
    return _mean2(np.asarray(cells, np.float32))


def _inside(frame: Frame) -> _Mask:
    """Return the blocks whose four corners fall into the moved picture."""
    back = invert(frame.matrix)
    shape = frame.moved.grey.shape
    height, width = frame.rows * float(CELL), frame.columns * float(CELL)
    whole = True
    for (of_x, of_y, shift), side in zip(back.tolist(), shape[::-1], strict=True):
        first = shift - 0.5 * (of_x + of_y) + 0.5  # of the corner of the frame, from the border
        spans = first, first + of_x * width, first + of_y * height
        least = min(*spans, spans[1] + spans[2] - first)
        most = max(*spans, spans[1] + spans[2] - first)
        whole = whole and least >= -0.5 and most <= side + 0.5
    if whole:
        return np.ones((frame.rows - 1, frame.columns - 1), np.bool_)
    x = np.arange(frame.columns + 1) * float(CELL) - 0.5
    y = np.arange(frame.rows + 1) * float(CELL) - 0.5
    good = np.ones((frame.rows + 1, frame.columns + 1), np.bool_)
    for row, side in zip(back, shape[::-1], strict=True):
        place = row[0] * x + (row[1] * y + row[2])[:, None]
        good &= np.abs(place - 0.5 * (side - 1)) <= 0.5 * (side + 1)
    return np.asarray(good[:-2, :-2] & good[2:, :-2] & good[:-2, 2:] & good[2:, 2:], np.bool_)


def _mean2(cells: _Floats) -> _Floats:
    """Return the means of 2x2 cells along the first two axes."""
    pairs = cells[:-1] + cells[1:]
    return np.asarray(0.25 * (pairs[:, :-1] + pairs[:, 1:]), np.float32)


def plane_of(grey: _Bytes, cell: int) -> Plane:
    """Return an aligned luma with the moments of its blocks of 2x2 cells.

    Args:
        grey: uint8 [h, w].
        cell: pixels along each side of a cell.
    """
    levels = _levels(grey)
    mean = _block_means(levels, cell)
    square = _block_means(levels * levels, cell)
    return Plane(grey, mean, np.sqrt(np.maximum(square - mean * mean, 0.0)))


def _levels(grey: _Bytes) -> _Floats:
    """Return levels about mid grey, so that float32 keeps what a flat block varies."""
    return np.subtract(grey, 128.0, dtype=np.float32)


def _block_means(values: _Floats, cell: int) -> _Floats:
    """Return the means of the blocks of 2x2 cells: float32 [rows, columns]."""
    size = (values.shape[1] // cell, values.shape[0] // cell)
    return _mean2(np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32))


def correlation(a: Plane, b: Plane, cell: int) -> _Floats:
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


def _smooth(grey: _Bytes) -> _Bytes:
    return np.asarray(cv2.GaussianBlur(grey, (3, 3), 0), np.uint8)


def commonest(grey: _Bytes) -> tuple[float, int]:
    """Return the share of pixels within eight levels of the commonest grey, and the first level."""
    counts = cv2.calcHist([np.ascontiguousarray(grey)], [0], None, [256], [0.0, 256.0])
    sums = np.cumsum(np.concatenate([_NO_COUNTS, counts.ravel()]))
    windows = sums[GROUND:] - sums[:-GROUND]
    first = int(windows.argmax())
    return float(windows[first]) / grey.size, first


def tone_share(grey: _Bytes, first: int, cell: int) -> _Floats:
    """Return the share of one tone in the blocks of 2x2 cells: float32 [rows, columns].

    Args:
        grey: uint8 [h, w].
        first: of the ``GROUND`` levels that are the tone.
        cell: pixels along each side of a cell.
    """
    tone = cv2.inRange(grey, np.array([first]), np.array([first + GROUND - 1]))
    return _block_means(np.asarray(tone, np.float32), cell) / 255.0


def bimodality(plane: Plane, cell: int) -> _Floats:
    """Return the bimodality coefficient of the luma of the blocks: float32 [rows, columns].

    It is (skewness^2 + 1) / kurtosis, by K. Pearson's inequality at most 1, which any two tones
    reach; 0.56 for evenly spread ones, 0.33 for normal ones (SAS/STAT User's Guide, CLUSTER).

    Args:
        plane: a luma with its moments.
        cell: pixels along each side of a cell.
    """
    levels = _levels(plane.grey)
    square = levels * levels
    third, fourth = _block_means(square * levels, cell), _block_means(square * square, cell)
    mean, variance = plane.mean, np.maximum(plane.deviation * plane.deviation, _LEAST_VARIANCE)
    raw = variance + mean * mean
    skewed = third - 3.0 * mean * raw + 2.0 * mean**3
    peaked = fourth - 4.0 * mean * third + 6.0 * mean * mean * raw - 3.0 * mean**4
    ratio = (skewed * skewed / variance + variance * variance) / np.maximum(peaked, variance**2)
    return np.asarray(np.minimum(ratio, 1.0), np.float32)  # flat blocks leave rounding alone
