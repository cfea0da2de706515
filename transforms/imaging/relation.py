"""What made one of two pictures that agree from the other, and which of them came first."""

from typing import Final, Optional

import cv2
import numpy as np
import numpy.typing as npt

from transforms.imaging.affine import corner_points, determinant, invert, size_ratio
from transforms.imaging.agreement import cells_of, largest_pieces
from transforms.imaging.alignment import (
    CELL,
    Blocks,
    Frame,
    Picture,
    fixed_cells,
    moved_luma,
    plane_of,
)

__all__ = [
    "name_relation",
]

_Doubles = npt.NDArray[np.float64]
_Bytes = npt.NDArray[np.uint8]
_WHOLE_AREA: Final = 0.97  # common share at which neither picture is cut
_FRAME_LEVELS: Final = 6.0  # levels within which the ground of a frame is one colour after JPEG
_OVERLAY_SHARE: Final = 0.02  # share of blocks that differ in an overlaid picture


def name_relation(
    frame: Frame,
    transform: _Doubles,
    areas: tuple[float, float],
    blocks: Blocks,
    moved: bool,
) -> tuple[str, int]:
    """Name how a pair that agrees differs, and which of the two was made from the other."""
    a, b = (frame.moved, frame.fixed) if frame.in_b else (frame.fixed, frame.moved)
    area_a, area_b = areas
    if min(areas) < _WHOLE_AREA:
        if abs(area_a - area_b) < 0.02:
            return _turn(transform) or "cropped", 0
        if area_a > area_b:  # b shows more than a: its rest is picture, or frame
            return ("bordered", -1) if _framed(b, a.grey.shape, transform) else ("cropped", 1)
        back = invert(transform)
        return ("bordered", 1) if _framed(a, b.grey.shape, back) else ("cropped", -1)
    covered = np.count_nonzero(blocks.differ) / np.count_nonzero(blocks.inside)
    if covered >= _OVERLAY_SHARE:
        return "overlaid", _overlaid_side(frame, blocks)
    turn = _turn(transform)
    if turn is not None:
        return turn, 0
    if moved:
        return "recoloured", 0
    ratio = a.grey.size / b.grey.size
    return ("reencoded" if 0.97 <= ratio <= 1.03 else "resized"), 0


def _turn(transform: _Doubles) -> Optional[str]:
    if determinant(transform) < 0:
        return "mirrored"
    angle = abs(float(np.degrees(np.arctan2(transform[1, 0], transform[0, 0]))))
    return "turned" if angle > 1.0 else None


def _framed(picture: Picture, inner: tuple[int, ...], transform: _Doubles) -> bool:
    """Return whether what a picture shows beyond an inner one is a frame, not more picture.

    A frame is mostly of one colour and begins with a step. A subject before an even wall has the
    one colour, but no step where a crop of it ends.
    """
    small, part = picture.coarse
    corners = corner_points(inner[1], inner[0]) @ transform[:, :2].T + transform[:, 2]
    covered = np.zeros(small.shape[:2], np.uint8)
    cv2.fillConvexPoly(covered, np.rint((corners - 0.5 * (part - 1)) / part).astype(np.int32), 1)
    rest = small[covered == 0]  # the polygon has its border pixels
    if len(rest) < 8:
        return False
    middle = np.median(rest, axis=0)
    near = np.abs(rest.astype(np.float64) - middle).max(axis=1) <= _FRAME_LEVELS
    return bool(near.mean() >= 0.6) and _steps(picture.rgb, inner, transform) >= 0.4


def _steps(thumb: _Bytes, inner: tuple[int, ...], transform: _Doubles) -> float:
    """Return the share of places on the border of the inner picture with a step in colour."""
    height, width = inner[:2]
    depth = 4.0 / max(size_ratio(transform), 1e-6)  # pixels of the inner picture
    along = (np.arange(32) + 0.5) / 32.0
    x, y = along * width, along * height
    ends = np.full(32, depth)
    inside = np.concatenate(
        [
            np.stack([x, ends], 1), np.stack([x, height - ends], 1),
            np.stack([ends, y], 1), np.stack([width - ends, y], 1),
        ]
    )  # fmt: skip
    outside = np.concatenate(
        [
            np.stack([x, -ends], 1), np.stack([x, height + ends], 1),
            np.stack([-ends, y], 1), np.stack([width + ends, y], 1),
        ]
    )  # fmt: skip
    colours, seen = [], np.ones(len(inside), np.bool_)
    for points in (inside, outside):
        at = np.rint(points @ transform[:, :2].T + transform[:, 2]).astype(np.intp)
        seen &= (at >= 0).all(axis=1) & (at[:, 0] < thumb.shape[1]) & (at[:, 1] < thumb.shape[0])
        at = np.clip(at, 0, [thumb.shape[1] - 1, thumb.shape[0] - 1])
        colours.append(thumb[at[:, 1], at[:, 0]].astype(np.float64).reshape(len(at), -1))
    if not seen.any():
        return 0.0
    return float((np.abs(colours[0] - colours[1]).max(axis=1)[seen] > 16.0).mean())


def _overlaid_side(frame: Frame, blocks: Blocks) -> int:
    """Return +1 if a carries the overlay, -1 if b does, 0 if neither is plain.

    A bar or a logo is drawn: it has fewer tones and harder edges than what it hides. Letters strewn
    over the picture add contrast to each block that they touch.
    """
    cells = cells_of(blocks.differ)
    size = blocks.a.grey.shape[0] // len(cells)
    mask = np.repeat(np.repeat(cells, size, axis=0), size, axis=1)
    largest, _ = largest_pieces(blocks, blocks.differ)
    strewn = largest < 0.75 * np.count_nonzero(blocks.differ) / np.count_nonzero(blocks.inside)
    if strewn:  # strokes are as thin as a pixel
        greys = moved_luma(frame, 1), fixed_cells(frame.fixed, frame.fixed.grey, CELL)
        measures = [
            float(plane_of(grey, CELL).deviation[blocks.differ].mean()) / 128.0
            for grey in (greys if frame.in_b else greys[::-1])
        ]
    else:
        measures = []
        for plane in (blocks.a, blocks.b):
            part = plane.grey[mask]
            counts = np.convolve(np.bincount(part, minlength=256), np.ones(9), "same")
            measures.append(float(counts.max()) / part.size + float(part.std()) / 128.0)
    difference = measures[0] - measures[1]
    if abs(difference) < 0.02:
        return 0
    return 1 if difference > 0 else -1
