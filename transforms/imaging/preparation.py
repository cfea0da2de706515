"""How a learned model wants its pictures: size, crop and scale of values, as it was trained.

A preparation resizes and crops as torchvision's ``Resize`` and ``CenterCrop`` do to a Pillow image,
with Pillow itself, so that the stages which read images need no torch. What it gives is 8-bit; the
model's network scales the values.
"""

import dataclasses
import math
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["INTERPOLATIONS", "MODES", "Preparation"]

_Bytes = npt.NDArray[np.uint8]
#: "shortest": the shorter side becomes ``resize``, then the centre is cut out; "squash": both sides
#: become ``resize``, whatever the shape of the picture.
MODES: Final = ("shortest", "squash")
INTERPOLATIONS: Final = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
# A strip that would be resized to more than so many squares is resized in its middle alone: of
# 32 x 63,520 pixels a shorter side of 256 would make 390 MB.
_LONGEST: Final = 4
_REACH: Final = 3  # source pixels on which a resized one depends, on either side: 2, and rounding


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What a model takes.

    Attributes:
        resize: pixels of the shorter side, or of both, see ``mode``.
        crop: pixels of the square that the model sees, at most ``resize``.
        mode: one of ``MODES``.
        interpolation: one of ``INTERPOLATIONS``.
        mean: of each channel (red, green, blue) in 0..1, subtracted.
        std: by which what is left is divided.
    """

    resize: int
    crop: int
    mode: str = "shortest"
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {MODES!r}, not {self.mode!r}")
        if self.interpolation not in INTERPOLATIONS:
            names = tuple(INTERPOLATIONS)
            raise ValueError(f"interpolation must be one of {names!r}, not {self.interpolation!r}")
        if not 1 <= self.crop <= self.resize <= 4096:
            raise ValueError(
                f"crop and resize must be 1 <= crop <= resize <= 4096, not {self.crop!r}, "
                f"{self.resize!r}"
            )
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std must be above 0, not {self.std!r}")

    def apply(self, pixels: _Bytes) -> _Bytes:
        """Return what the model sees of a picture.

        Args:
            pixels: uint8 [h, w, 3] RGB.

        Returns:
            uint8 [crop, crop, 3].
        """
        image = Image.fromarray(pixels)
        size = self._resized(*image.size)
        left, top = (round((side - self.crop) / 2.0) for side in size)
        if max(size) > _LONGEST * self.resize:
            return np.array(self._middle(image, size, (left, top)), np.uint8)
        if image.size != size:
            image = image.resize(size, INTERPOLATIONS[self.interpolation])
        image = image.crop((left, top, left + self.crop, top + self.crop))
        return np.array(image, np.uint8)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if self.mode == "squash":
            return self.resize, self.resize
        # The longer side is cut down to whole pixels, as torchvision does.
        shorter = min(width, height)
        return int(self.resize * width / shorter), int(self.resize * height / shorter)

    def _middle(
        self, image: Image.Image, size: tuple[int, int], corner: tuple[int, int]
    ) -> Image.Image:
        """Make only what is cut out of the resized picture, from what it depends on."""
        edges, box = [], []
        for side, resized, first in zip(image.size, size, corner, strict=True):
            scale = side / resized
            start, stop = first * scale, (first + self.crop) * scale
            # Pillow rounds a box to single precision: close to 0 that loses nothing.
            reach = _REACH * max(scale, 1.0)
            low = max(0, math.floor(start - reach))
            edges.append((low, min(side, math.ceil(stop + reach))))
            box.append((start - low, stop - low))
        (left, right), (top, bottom) = edges
        (x_start, x_stop), (y_start, y_stop) = box
        return image.crop((left, top, right, bottom)).resize(
            (self.crop, self.crop),
            INTERPOLATIONS[self.interpolation],
            box=(x_start, y_start, x_stop, y_stop),
        )

    def unpack(self, inputs: bytes) -> _Bytes:
        """Return pictures that were packed one behind the other: uint8 [n, crop, crop, 3]."""
        return np.frombuffer(inputs, np.uint8).reshape(-1, self.crop, self.crop, 3)
