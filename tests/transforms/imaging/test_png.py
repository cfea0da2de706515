"""PNG whose pixels are inflated before OpenCV gets it."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.transforms.imaging import files
from transforms.imaging import decode as decode_module
from transforms.imaging.decode import decode
from transforms.imaging.png import stored

WIDTH, HEIGHT = 61, 47
ROW = 1 + 3 * WIDTH


def png_of(deflated: bytes, *, width: int = WIDTH, height: int = HEIGHT, part: int = 999) -> bytes:
    """Return an RGB PNG with this raster in chunks of ``part`` bytes."""
    header = files.chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    parts = (deflated[at : at + part] for at in range(0, len(deflated), part))
    chunks = b"".join(files.chunk(b"IDAT", each) for each in parts)
    return b"\x89PNG\r\n\x1a\n" + header + chunks + files.chunk(b"IEND", b"")


def raster(seed: int = 0) -> bytes:
    """Return rows of every filter in turn."""
    rows = np.random.default_rng(seed).integers(0, 256, (HEIGHT, ROW), np.uint8)
    rows[:, 0] = np.arange(HEIGHT) % 5
    return rows.tobytes()


def pixels_of(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("part", [1, 999, 1 << 20])
def test_a_stored_png_has_the_same_pixels(level: int, part: int) -> None:
    png = png_of(zlib.compress(raster(), level), part=part)
    result = stored(png, HEIGHT * ROW)
    assert result is not None
    np.testing.assert_array_equal(pixels_of(result), pixels_of(png))
    assert len(result) > HEIGHT * ROW


@pytest.mark.parametrize(("width", "height"), [(1456, 15), (21845, 1), (300, 200)])
def test_of_a_raster_of_64_kb_and_more_no_byte_is_lost(width: int, height: int) -> None:
    picture = files.photo(width, height)
    png = files.saved(picture, "PNG")
    result = stored(png, height * (1 + 3 * width))
    assert result is not None
    assert decode(result, min_side=9999).pixel_hash == decode(png, min_side=9999).pixel_hash
    np.testing.assert_array_equal(pixels_of(result), np.asarray(picture))


WHOLE = zlib.compress(raster())
SMALL_WINDOW = zlib.compressobj(9, zlib.DEFLATED, 9)
DAMAGED = {
    "nothing": b"",
    "cut": WHOLE[:-1],
    "wrong sum": WHOLE[:-1] + bytes((WHOLE[-1] ^ 1,)),
    "wrong bit": WHOLE[:500] + bytes((WHOLE[500] ^ 1,)) + WHOLE[501:],
    "bytes behind": WHOLE + b"\0",
    "too short": zlib.compress(raster()[:-1]),
    "too long": zlib.compress(raster() + b"\0"),
    "small window": SMALL_WINDOW.compress(raster()) + SMALL_WINDOW.flush(),
    "window that there is not": b"\x88\x1c" + WHOLE[2:],
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_odd_is_left_as_it_is(name: str) -> None:
    assert stored(png_of(DAMAGED[name]), HEIGHT * ROW) is None


def test_b4_no_more_is_inflated_than_the_header_tells() -> None:
    bomb = png_of(zlib.compress(bytes(50_000_000)), part=1 << 20)
    tracemalloc.start()
    try:
        assert stored(bomb, HEIGHT * ROW) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_a_decode_is_the_same_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def note(png: bytes, raster_bytes: int) -> bytes | None:
        taken.append(stored(png, raster_bytes))
        return taken[-1]

    monkeypatch.setattr(decode_module, "stored", note)
    png = png_of(zlib.compress(raster()))
    by_both = decode(png, min_side=16)
    assert taken[0] is not None
    monkeypatch.setattr(decode_module, "stored", lambda *_: None)
    alone = decode(png, min_side=16)
    assert (by_both.info, by_both.pixel_hash) == (alone.info, alone.pixel_hash)
    np.testing.assert_array_equal(by_both.pixels, alone.pixels)
