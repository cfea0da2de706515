"""Small made-up photographs, and the edits that copies of them come with."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageOps

# What EXIF orientation o asks of a reader, undone: stored so, and tagged o, it shows upright.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def photo(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """Return a textured RGB picture: smooth random fields of five scales, and shapes.

    Pictures of different seeds have nothing in common; the same seed always gives the same one.
    """
    rng = np.random.default_rng([7, seed])
    field = np.zeros((height, width, 3), np.float32)
    for cells, amplitude in ((2, 70.0), (4, 60.0), (8, 45.0), (16, 26.0), (48, 12.0)):
        coarse = rng.normal(0.0, 1.0, (cells, cells + 1, 3)).astype(np.float32)
        # Luma varies more than colour, as it does in photographs.
        coarse = 0.7 * coarse[:, :, :1] + 0.5 * coarse
        field += amplitude * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    pixels = np.clip(128.0 + 0.8 * field, 0, 255).astype(np.uint8)
    for _ in range(7):
        color = rng.integers(0, 256, 3).tolist()
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        size = int(rng.integers(height // 14, height // 5))
        if rng.random() < 0.5:
            cv2.circle(pixels, (x, y), size, color, -1, cv2.LINE_AA)
        else:
            corners = np.array([x, y]) + rng.integers(-size, size + 1, (3, 2))
            cv2.fillPoly(pixels, [corners.astype(np.int32)], color, cv2.LINE_AA)
    return Image.fromarray(pixels)


def flat(color: tuple[int, ...], size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Return a picture of one colour, with alpha if the colour has four parts."""
    return Image.new("RGBA" if len(color) == 4 else "RGB", size, color)


def saved(image: Image.Image, name: str = "JPEG", **options: Any) -> bytes:
    """Return an image as a file of the format that Pillow has by that name."""
    if name == "JPEG":
        options = {"quality": 92, "subsampling": 0, **options}
    out = io.BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def write(path: Path, data: bytes) -> Path:
    """Write a file and the folders above it; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def resized(image: Image.Image, scale: float) -> Image.Image:
    """Return an image at another size."""
    size = (round(image.width * scale), round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Cut a share of the width and the height away, half of it on each side."""
    x, y = round(image.width * share / 2), round(image.height * share / 2)
    return image.crop((x, y, image.width - x, image.height - y))


def bordered(image: Image.Image, share: float, color: tuple[int, int, int]) -> Image.Image:
    """Put a frame around an image, of a share of its width on each side."""
    return ImageOps.expand(image, round(image.width * share), color)


def screenshot(image: Image.Image) -> Image.Image:
    """Put an image before the dark ground of a viewer, below a bar with text, above buttons."""
    width, height = image.size
    out = Image.new("RGB", (round(width * 1.1), round(height * 1.6)), (32, 33, 36))
    draw = ImageDraw.Draw(out)
    draw.rectangle((0, 0, out.width, height // 8), fill=(245, 245, 245))
    draw.text((8, 4), "Pictures - 12 of 40", fill=(20, 20, 20), font_size=height // 14)
    top = out.height - height // 6
    for left in range(20, 220, 50):
        draw.ellipse((left, top, left + 20, top + 20), fill=(200, 200, 200))
    out.paste(image, ((out.width - width) // 2, height // 4))
    return out


def gradient(
    top: tuple[int, int, int], bottom: tuple[int, int, int], size: tuple[int, int] = (160, 120)
) -> Image.Image:
    """Return a picture that goes from one colour to another."""
    share = Image.linear_gradient("L").resize(size)
    return Image.composite(Image.new("RGB", size, bottom), Image.new("RGB", size, top), share)


def turned(image: Image.Image) -> Image.Image:
    """Return an image turned by a quarter, counter-clockwise."""
    return image.transpose(Image.Transpose.ROTATE_90)


def mirrored(image: Image.Image) -> Image.Image:
    """Return an image mirrored left to right."""
    return ImageOps.mirror(image)


def grey(image: Image.Image) -> Image.Image:
    """Return an image without its colours, still of three channels."""
    return image.convert("L").convert("RGB")


def captioned(image: Image.Image, text: str = "A CAPTION 2024") -> Image.Image:
    """Write light text on a dark bar over the lowest eighth."""
    copy = image.copy()
    draw = ImageDraw.Draw(copy)
    top = copy.height - copy.height // 8
    draw.rectangle((0, top, copy.width, copy.height), fill=(10, 10, 10))
    draw.text((8, top + 4), text, fill=(240, 240, 240), font_size=copy.height // 12)
    return copy


def nudged(image: Image.Image, seed: int) -> Image.Image:
    """Return an image with a faint noise that no eye sees; each seed is another content."""
    rng = np.random.default_rng([11, seed])
    noise = rng.normal(0.0, 2.0, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def exif(orientation: int | None = None, *, gps: bool = False, artist: str = "") -> bytes:
    """Return an EXIF block."""
    block = Image.Exif()
    if orientation is not None:
        block[0x0112] = orientation
    if artist:
        block[0x013B] = artist
    if gps:
        block.get_ifd(0x8825).update({1: "N", 2: (51.0, 30.0, 26.4), 3: "W", 4: (0.0, 7.0, 39.9)})
    return block.tobytes()


def oriented(image: Image.Image, orientation: int, name: str = "JPEG") -> bytes:
    """Return a file whose pixels are stored turned and whose EXIF tag turns them back."""
    stored = image.transpose(_STORED[orientation]) if orientation in _STORED else image
    return saved(stored, name, exif=exif(orientation))


def animation(frames: list[Image.Image], name: str) -> bytes:
    """Return a lossless animation (GIF: of 256 colours) of some frames."""
    options: dict[str, Any] = {"lossless": True} if name == "WEBP" else {}
    return saved(
        frames[0], name, save_all=True, append_images=frames[1:], duration=100, loop=0, **options
    )
