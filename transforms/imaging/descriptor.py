"""The embedded global descriptor: gradient orientations and colours on pyramids of grids.

It needs no weights. Every part is a grid of cells, so that an EXIF orientation is a permutation of
its entries. Histograms of gradient orientation follow N. Dalal and B. Triggs, "Histograms of
oriented gradients for human detection", CVPR 2005, with unsigned angles in eight bins.
"""

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
_GRADIENT_DIMENSIONS: Final = _BINS * sum(g * g for g in _GRIDS)
_COLOUR_DIMENSIONS: Final = _COLOURS * sum(g * g for g in _GRIDS)
_COLOUR_WEIGHT: Final = 0.5
_CELL_OF_LINE: Final = np.arange(_SIDE, dtype=np.intp) // (_SIDE // _GRIDS[0])
_CELL_OF_PIXEL: Final = _CELL_OF_LINE[:, None] * _GRIDS[0] + _CELL_OF_LINE[None, :]
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
    dx = np.zeros((_SIDE, _SIDE))
    dy = np.zeros((_SIDE, _SIDE))
    dx[:, 1:-1] = luma[:, 2:] - luma[:, :-2]
    dy[1:-1] = luma[2:] - luma[:-2]
    # Bin k is centred on angle k * pi / 8, so that mirrors map bin centres onto bin centres.
    angle = np.arctan2(dy, dx) * (_BINS / np.pi) % _BINS
    lower = np.floor(angle)
    share = angle - lower
    magnitude = np.sqrt(dx * dx + dy * dy)
    first = lower.astype(np.intp) % _BINS
    size = _GRIDS[0] * _GRIDS[0] * _BINS
    cells = (_CELL_OF_PIXEL * _BINS + first).ravel()
    wrapped = (_CELL_OF_PIXEL * _BINS + (first + 1) % _BINS).ravel()
    out = np.bincount(cells, (magnitude * (1.0 - share)).ravel(), size)
    out += np.bincount(wrapped, (magnitude * share).ravel(), size)
    return out.reshape(-1, _BINS) / (_SIDE // _GRIDS[0]) ** 2


def _coarser(cells: npt.NDArray[np.float64], grid: int) -> npt.NDArray[np.float64]:
    """Return means over a coarser grid of values on the finest: float64 [grid * grid, channels]."""
    step = _GRIDS[0] // grid
    shape = (grid, step, grid, step, cells.shape[-1])
    return np.asarray(cells.reshape(shape).mean(axis=(1, 3)).reshape(grid * grid, -1), np.float64)


def embed(thumb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the descriptor of one image.

    Args:
        thumb: uint8 [h, w, 3] RGB, h and w at least 1.

    Returns:
        float32 [DIMENSIONS] of unit length; a flat image has a unit vector too.
    """
    small = cv2.resize(thumb, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    histograms = _histograms(luma)
    side = _SIDE // _GRIDS[0]
    means = small.reshape(_GRIDS[0], side, _GRIDS[0], side, 3).mean(axis=(1, 3), dtype=np.float64)
    planes, chroma = luma_chroma(means.reshape(-1, 3))
    layout = np.stack([planes - planes.mean(), chroma.real, chroma.imag], axis=1)
    gradients, colours = [], []
    for grid in _GRIDS:
        cells = np.sqrt(_coarser(histograms, grid))
        gradients.append((cells - cells.mean(axis=1, keepdims=True)).ravel() / grid)
        colours.append(_coarser(layout, grid).ravel() / grid)
    gradient, colour = np.concatenate(gradients), np.concatenate(colours)
    # The constants keep noise from counting as structure where a picture has none.
    gradient = gradient / (np.linalg.norm(gradient) + 1e-3)
    colour = _COLOUR_WEIGHT * colour / (np.linalg.norm(colour) + 8.0)
    vector = np.concatenate([gradient, colour])
    norm = float(np.linalg.norm(vector))
    if norm < 1e-6:
        vector[-_COLOURS:] = 1.0
        norm = float(np.linalg.norm(vector))
    return (vector / norm).astype(np.float32)


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
