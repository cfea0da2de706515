"""Affine maps between the pixels of two pictures: float64 [2, 3] over (x, y, 1).

Pixel centres lie at whole numbers, so that a picture reaches from -0.5 to its side less 0.5.
"""

import math

import cv2
import numpy as np
import numpy.typing as npt

from transforms.imaging import orientation

__all__ = [
    "common_areas",
    "compose",
    "corner_misfit",
    "corner_points",
    "determinant",
    "invert",
    "keeps_shape",
    "scaling",
    "size_ratio",
    "whole_transform",
]

_Doubles = npt.NDArray[np.float64]


def whole_transform(shape_a: tuple[int, ...], shape_b: tuple[int, ...], value: int) -> _Doubles:
    """Return the affine map of pixel centres that turns a and stretches it over the whole of b.

    Args:
        shape_a: height and width of a, pixels.
        shape_b: of b.
        value: EXIF orientation 1..8.
    """
    height, width = shape_a[:2]
    turn = orientation.matrix(value, width, height)
    if orientation.axes(value)[0]:
        height, width = width, height
    return compose(scaling(shape_b[1] / width, shape_b[0] / height), turn)


def scaling(x: float, y: float) -> _Doubles:
    """Return the affine map of pixel centres under a resize by factors x and y."""
    return np.array([[x, 0.0, 0.5 * x - 0.5], [0.0, y, 0.5 * y - 0.5]])


def compose(second: _Doubles, first: _Doubles) -> _Doubles:
    """Return the map that takes the first and then the second."""
    out = second[:, :2] @ first
    out[:, 2] += second[:, 2]
    return np.asarray(out, np.float64)


def invert(transform: _Doubles) -> _Doubles:
    """Return the map back."""
    return np.asarray(cv2.invertAffineTransform(transform), np.float64)


def determinant(transform: _Doubles) -> float:
    """Return the change of area, negative under a mirror."""
    (a, b, _), (c, d, _) = transform.tolist()
    return float(a * d - b * c)


def size_ratio(transform: _Doubles) -> float:
    """Return the linear scale of an affine map: the root of its change of area."""
    return math.sqrt(abs(determinant(transform)))


def corner_points(width: int, height: int) -> _Doubles:
    """Return the outer corners of a picture, clockwise from the first pixel: float64 [4, 2]."""
    right, bottom = width - 0.5, height - 0.5
    return np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])


def common_areas(
    shape_a: tuple[int, ...], shape_b: tuple[int, ...], transform: _Doubles
) -> tuple[float, float]:
    """Return the shares of a and of b, 0..1, that the two have in common.

    Args:
        shape_a: height and width of a, pixels.
        shape_b: of b.
        transform: from a to b.
    """
    (height, width), (frame_height, frame_width) = shape_a[:2], shape_b[:2]
    there = corner_points(width, height) @ transform[:, :2].T + transform[:, 2]
    common, _ = cv2.intersectConvexConvex(
        there.astype(np.float32), corner_points(frame_width, frame_height).astype(np.float32)
    )
    mapped = abs(determinant(transform)) * height * width
    if mapped <= 0.0:
        return 0.0, 0.0
    return min(1.0, common / mapped), min(1.0, common / (frame_height * frame_width))


def keeps_shape(transform: _Doubles) -> bool:
    """Return whether a map stretches no direction by over 3 % against the other."""
    stretch = np.linalg.svd(transform[:, :2], compute_uv=False)
    return bool(stretch[0] <= 1.03 * stretch[1])


def corner_misfit(size: tuple[int, int], first: _Doubles, second: _Doubles) -> float:
    """Return how far apart two maps lay the corners of a picture, at most, in pixels.

    Args:
        size: width and height of the picture, pixels.
        first: a map.
        second: another.
    """
    step = first - second
    width, height = size
    return float(np.abs(corner_points(width, height) @ step[:, :2].T + step[:, 2]).max())
