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

__all__ = ["DIMENSIONS", "REJECT_SIMILARITY", "embed", "orient"]

_SIDE: Final = 96
_BINS: Final = 8
_GRIDS: Final = (4, 2, 1)
_COLOURS: Final = 3
_GRADIENT_DIMENSIONS: Final = _BINS * sum(g * g for g in _GRIDS)
_COLOUR_DIMENSIONS: Final = _COLOURS * sum(g * g for g in _GRIDS)
#: Length of the descriptor.
DIMENSIONS: Final = _GRADIENT_DIMENSIONS + _COLOUR_DIMENSIONS

#: Below this cosine, a candidate pair is no copy.
REJECT_SIMILARITY: Final = 0.3


def _gradients(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return gradient magnitude shared among the orientation bins: float64 [96, 96, 8]."""
    dx = np.zeros((_SIDE, _SIDE))
    dy = np.zeros((_SIDE, _SIDE))
    dx[:, 1:-1] = grey[:, 2:].astype(np.float64) - grey[:, :-2]
    dy[1:-1] = grey[2:].astype(np.float64) - grey[:-2]
    magnitude = np.sqrt(dx * dx + dy * dy)
    # Bin k is centred on angle k * pi / 8, so that mirrors map bin centres onto bin centres.
    angle = np.arctan2(dy, dx) * (_BINS / np.pi) % _BINS
    lower = np.floor(angle)
    share = angle - lower
    index = lower.astype(np.intp) % _BINS
    out = np.zeros((_SIDE * _SIDE, _BINS))
    at = np.arange(_SIDE * _SIDE)
    out[at, index.ravel()] = (magnitude * (1.0 - share)).ravel()
    out[at, (index.ravel() + 1) % _BINS] += (magnitude * share).ravel()
    return out.reshape(_SIDE, _SIDE, _BINS)


def embed(thumb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the descriptor of one image.

    Args:
        thumb: uint8 [h, w, 3] RGB, h and w at least 1.

    Returns:
        float32 [DIMENSIONS] of unit length; a flat image has a unit vector too.
    """
    small = cv2.resize(thumb, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    histograms = _gradients(luma)
    planes = np.stack(
        [luma, (small[..., 2] - luma) * 0.5, (small[..., 0] - luma) * 0.5], axis=-1
    ).astype(np.float64)
    planes[..., 0] -= planes[..., 0].mean()
    gradients, colours = [], []
    for grid in _GRIDS:
        cell = _SIDE // grid
        shape = (grid, cell, grid, cell, -1)
        cells = histograms.reshape(shape).mean(axis=(1, 3)).reshape(grid * grid, _BINS)
        cells = np.sqrt(cells)
        gradients.append((cells - cells.mean(axis=1, keepdims=True)).ravel() / grid)
        colours.append(planes.reshape(shape).mean(axis=(1, 3)).ravel() / grid)
    gradient, colour = np.concatenate(gradients), np.concatenate(colours)
    vector = np.concatenate(
        [gradient / (np.linalg.norm(gradient) + 1e-3), 0.5 * colour / (np.linalg.norm(colour) + 8.0)]
    )
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
