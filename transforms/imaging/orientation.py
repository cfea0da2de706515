"""The eight orientations of EXIF (tag 0x0112) as maps of grids, images and points.

Orientation o stands for the act that EXIF o asks of a reader: 1 nothing, 2 mirror left-right,
3 half turn, 4 mirror top-bottom, 5 transpose, 6 quarter turn clockwise, 7 transverse, 8 quarter
turn counter-clockwise (CIPA DC-008, "Exif", 4.6.4 A).
"""

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "ORIENTATIONS",
    "apply",
    "axes",
    "cell_permutation",
    "inverse_orientation",
    "is_mirror",
    "matrix",
]

ORIENTATIONS: Final = (1, 2, 3, 4, 5, 6, 7, 8)

# (swap axes first, then flip y, then flip x)
_AXES: Final = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def axes(orientation: int) -> tuple[bool, bool, bool]:
    """Return an orientation as (transpose first, then flip along y, then flip along x).

    Raises:
        ValueError: if ``orientation`` is not 1..8.
    """
    if orientation not in _AXES:
        raise ValueError(f"orientation must be 1..8, got {orientation!r}")
    return _AXES[orientation]


def inverse_orientation(orientation: int) -> int:
    """Return the orientation that undoes ``orientation`` (6 and 8 undo each other)."""
    axes(orientation)
    return {6: 8, 8: 6}.get(orientation, orientation)


def is_mirror(orientation: int) -> bool:
    """Return whether an orientation changes handedness (2, 4, 5, 7)."""
    axes(orientation)
    return orientation in (2, 4, 5, 7)


def apply(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Return the image turned by an orientation, contiguous in memory.

    Args:
        pixels: [h, w] or [h, w, channels].
        orientation: 1..8.
    """
    swap, flip_y, flip_x = axes(orientation)
    out = pixels.swapaxes(0, 1) if swap else pixels
    out = out[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return np.ascontiguousarray(out)


def cell_permutation(side: int, orientation: int) -> npt.NDArray[np.intp]:
    """Return p such that ``turned.ravel() == grid.ravel()[p]`` for a side x side grid.

    Returns:
        intp [side * side].
    """
    swap, flip_y, flip_x = axes(orientation)
    grid = np.arange(side * side, dtype=np.intp).reshape(side, side)
    grid = grid.T if swap else grid
    grid = grid[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return np.ascontiguousarray(grid).ravel()


def matrix(orientation: int, width: int, height: int) -> npt.NDArray[np.float64]:
    """Return the map of pixel centres of a picture to those of the turned picture.

    Args:
        orientation: 1..8.
        width: of the picture before it is turned, pixels.
        height: of the same.

    Returns:
        float64 [2, 3]: an affine matrix over (x, y, 1).
    """
    swap, flip_y, flip_x = axes(orientation)
    out = np.array([[0, 1, 0], [1, 0, 0]] if swap else [[1, 0, 0], [0, 1, 0]], np.float64)
    turned_width, turned_height = (height, width) if swap else (width, height)
    if flip_x:
        out[0] = -out[0]
        out[0, 2] += turned_width - 1
    if flip_y:
        out[1] = -out[1]
        out[1, 2] += turned_height - 1
    return out
