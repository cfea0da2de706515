"""The embedded global descriptor: gradient orientations and colours on pyramids of grids.

It needs no weights. Every part is a grid of cells, so that an EXIF orientation is a permutation of
its entries. Histograms of gradient orientation follow N. Dalal and B. Triggs, "Histograms of
oriented gradients for human detection", CVPR 2005, with unsigned angles in eight bins.
"""

import math
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from transforms.imaging import orientation as _orientation
from transforms.imaging.color import luma_chroma

__all__ = ["DIMENSIONS", "REJECT_SIMILARITY", "REJECT_SIMILARITY_UNALIGNED", "embed", "orient"]

_SIDE: Final = 64
_BINS: Final = 8
_GRIDS: Final = (4, 2, 1)
_COLOURS: Final = 3
_STEP: Final = _SIDE // _GRIDS[0]  # pixels of a cell of the finest grid
_CELL_OF_LINE: Final = np.arange(_SIDE, dtype=np.intp) // _STEP
# Where the bins of the cell of each pixel begin: intp [4096].
_BINS_OF_PIXEL: Final = (
    (_CELL_OF_LINE[:, None] * _GRIDS[0] + _CELL_OF_LINE[None, :]) * _BINS
).ravel()
# Means over the lines of a cell: float32 [4, 64].
_LINE_MEANS: Final = (np.arange(_GRIDS[0])[:, None] == _CELL_OF_LINE).astype(np.float32) / _STEP


def _grid_means() -> npt.NDArray[np.float64]:
    """Return the means of all grids' cells over those of the finest: float64 [21, 16]."""
    line = np.arange(_GRIDS[0])
    parts = []
    for grid in _GRIDS:
        lines = (np.arange(grid)[:, None] == line * grid // _GRIDS[0]) * (grid / _GRIDS[0])
        parts.append(np.kron(lines, lines))
    return np.concatenate(parts)


_GRID_MEANS: Final = _grid_means()
_GRID_WEIGHTS: Final = np.concatenate([np.full((g * g, 1), 1.0 / g) for g in _GRIDS])
_GRADIENT_DIMENSIONS: Final = _BINS * len(_GRID_MEANS)
_COLOUR_DIMENSIONS: Final = _COLOURS * len(_GRID_MEANS)
_COLOUR_WEIGHT: Final = 0.5
#: Length of the descriptor.
DIMENSIONS: Final = _GRADIENT_DIMENSIONS + _COLOUR_DIMENSIONS

#: Below this cosine, a pair aligned as a whole (a wavelet distance of up to 60 bits) is no copy:
#: 0.997 and 0.998 of such true pairs of two labelled sets stay.
REJECT_SIMILARITY: Final = 0.4
#: The same for pairs found by other means, crops, borders and screenshots among them.
REJECT_SIMILARITY_UNALIGNED: Final = 0.1


def _histograms(luma: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return gradient magnitude by cell of the finest grid and orientation: float64 [16, 8].

    Args:
        luma: float32 [64, 64].
    """
    # Reflected at the border, so that the differences across it are zero.
    dx, dy = (cv2.Sobel(luma, cv2.CV_32F, x, 1 - x, ksize=1) for x in (1, 0))
    lengths, angles = cv2.cartToPolar(dx, dy)
    magnitude = lengths.ravel()
    # Bin k is centred on angle k * pi / 8, so that mirrors map bin centres onto bin centres.
    angle = angles.ravel() * np.float32(_BINS / np.pi)
    lower = angle.astype(np.intp)
    upper_part = magnitude * (angle - lower.astype(np.float32))
    cells = np.concatenate(
        [_BINS_OF_PIXEL + (lower & (_BINS - 1)), _BINS_OF_PIXEL + ((lower + 1) & (_BINS - 1))]
    )
    weights = np.concatenate([magnitude - upper_part, upper_part])
    out = np.bincount(cells, weights, _GRIDS[0] * _GRIDS[0] * _BINS)
    return np.asarray(out.reshape(-1, _BINS) / _STEP**2, np.float64)


def embed(thumb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the descriptor of one image.

    Args:
        thumb: uint8 [h, w, 3] RGB, h and w at least 1.

    Returns:
        float32 [DIMENSIONS] of unit length; a flat image has a unit vector too.
    """
    small = cv2.resize(thumb, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    lines = (_LINE_MEANS @ small.reshape(_SIDE, -1).astype(np.float32)).reshape(-1, _SIDE, 3)
    means = (_LINE_MEANS @ lines).reshape(-1, 3).astype(np.float64)
    planes, chroma = luma_chroma(means)
    layout = np.stack([planes - planes.mean(), chroma.real, chroma.imag], axis=1)
    cells = np.sqrt(_GRID_MEANS @ _histograms(luma))
    cells -= cells.sum(axis=1, keepdims=True) / _BINS
    gradient = (cells * _GRID_WEIGHTS).ravel()
    colour = ((_GRID_MEANS @ layout) * _GRID_WEIGHTS).ravel()
    # The constants keep noise from counting as structure where a picture has none.
    gradient = gradient / (_norm(gradient) + 1e-3)
    colour = _COLOUR_WEIGHT * colour / (_norm(colour) + 8.0)
    vector = np.concatenate([gradient, colour])
    norm = _norm(vector)
    if norm < 1e-6:
        vector[-_COLOURS:] = 1.0
        norm = _norm(vector)
    return (vector / norm).astype(np.float32)


def _norm(vector: npt.NDArray[np.float64]) -> float:
    return math.sqrt(float(vector @ vector))


def _permutations() -> npt.NDArray[np.intp]:
    """Return intp [9, DIMENSIONS]: row o is the permutation of orientation o; row 0 is unused."""
    rows = [np.arange(DIMENSIONS, dtype=np.intp)]
    for value in _orientation.ORIENTATIONS:
        swap, flip_y, flip_x = _orientation.axes(value)
        bins = np.arange(_BINS)
        # The bin of the picture that lands in each bin of the turned picture: a transpose takes
        # angle t to pi / 2 - t, a flip of one axis takes t to -t.
        source = -bins if flip_x != flip_y else bins
        source = (_BINS // 2 - source if swap else source) % _BINS
        parts, start = [], 0
        for depth, channels in ((_BINS, source), (_COLOURS, np.arange(_COLOURS))):
            for grid in _GRIDS:
                cells = _orientation.cell_permutation(grid, value)
                parts.append((start + cells[:, None] * depth + channels[None, :]).ravel())
                start += grid * grid * depth
        rows.append(np.concatenate(parts))
    return np.stack(rows)


_PERMUTATIONS: Final = _permutations()


def orient(
    embeddings: npt.NDArray[np.float32], orientation: npt.NDArray[np.integer] | int
) -> npt.NDArray[np.float32]:
    """Return the descriptors of turned images.

    Args:
        embeddings: float32 [n, DIMENSIONS].
        orientation: EXIF orientation 1..8, one or int [n].

    Returns:
        float32 [n, DIMENSIONS].
    """
    which = np.broadcast_to(np.asarray(orientation, np.intp), (len(embeddings),))
    return np.take_along_axis(embeddings, _PERMUTATIONS[which], axis=1)
