"""Small image files made in memory, for the tests of the decoder."""

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

# 64x48 pixels, red left and blue right, stored upright with a turn of 90 degrees in the container
# and an EXIF block that repeats it. Written by pillow_heif 1.x at quality 30.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAA"
    "AAAAAAADRpbG9jAAAAAERAAAIAAQAAAAAB7AABAAAAAAAAACQAAgAAAAACEAABAAAAAAAAADAAAAA4aWluZgAAAAAAAgAA"
    "ABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbw"
    "AAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AA"
    "AAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFG"
    "lzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBpeGkAAAAAAwgI"
    "CAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEAAQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAAFxtZGF0AA"
    "AAICgBrxmA70mlv//VGH/Zkr/juyF//mGR3zGef8LUjbW8AAAABkV4aWYAAE1NACoAAAAIAAIBDwACAAAABENhbQABEgAD"
    "AAAAAQAGAAAAAAAA"
)


def photo(width: int = 320, height: int = 240, seed: int = 0) -> Image.Image:
    """Return a smooth picture with detail, unlike its turned and mirrored forms."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    base = np.stack(
        [
            255 * x / width,
            255 * y / height,
            127 + 100 * np.sin(x / 17.0) * np.cos(y / 23.0 + seed),
        ],
        axis=2,
    )
    noise = rng.normal(0, 6, base.shape)
    return Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8))


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    """Return an image as a file of the format that Pillow has by that name."""
    out = io.BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def exif(orientation: int | None = None, captured: str | None = None) -> bytes:
    """Return an EXIF block with an orientation and a capture date."""
    block = Image.Exif()
    if orientation is not None:
        block[0x0112] = orientation
    if captured is not None:
        block.get_ifd(0x8769)[0x9003] = captured
    return block.tobytes()


def chunk(name: bytes, payload: bytes) -> bytes:
    """Return one PNG chunk."""
    crc = zlib.crc32(name + payload)
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", crc)


def png(width: int, height: int, *extra: bytes, rows: int | None = None, depth: int = 8) -> bytes:
    """Return a black grey PNG of any claimed size with further chunks before its data.

    Args:
        width: claimed.
        height: claimed.
        extra: whole chunks, put after the header.
        rows: that the compressed data really holds; as many as claimed if None.
        depth: bits a sample.
    """
    line = bytes(1 + width * depth // 8)
    data = zlib.compress(line * (height if rows is None else rows), 1)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)),
            *extra,
            chunk(b"IDAT", data),
            chunk(b"IEND", b""),
        )
    )


def segment(marker: int, payload: bytes) -> bytes:
    """Return one JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """Return a JPEG with further segments after its start marker."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def tiff(
    entries: list[tuple[int, int, int, bytes]], following: int = 0, extra: bytes = b""
) -> bytes:
    """Return a little-endian TIFF of one directory at byte 8.

    Args:
        entries: (tag, type, number of values, the 4 bytes of the value field).
        following: offset of the next directory.
        extra: bytes after the directory.
    """
    body = b"".join(
        struct.pack("<HHI", tag, kind, number) + value for tag, kind, number, value in entries
    )
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    return head + body + struct.pack("<I", following) + extra
