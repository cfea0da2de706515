"""Make a folder of 100 good pictures and 20 hostile files: ``hostile.py FOLDER``.

The files are those of FAULTS.md, B1 to B7 and N4: none of them is an image that can be read, and
none of them may be lost, end the job or touch another row.
"""

import os
import struct
import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.pictures import photo, saved, write


def chunk(name: bytes, payload: bytes) -> bytes:
    """Return one PNG chunk."""
    crc = zlib.crc32(name + payload)
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", crc)


def png(width: int, height: int, *extra: bytes) -> bytes:
    """Return a grey PNG that claims a size, with further chunks, and holds one row of pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(min(width, 2000) + 1)))
    return b"".join((b"\x89PNG\r\n\x1a\n", head, *extra, data, chunk(b"IEND", b"")))


def text_bomb(megabytes: int) -> bytes:
    """Return a PNG chunk of text that inflates to so many megabytes."""
    return chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(megabytes << 20), 9))


def gif_frames(count: int) -> bytes:
    """Return a GIF of so many frames of one pixel."""
    frame = b"\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0"
    colours = b"\0\0\0\xff\xff\xff"
    return b"GIF89a\1\0\1\0\x80\0\0" + colours + frame * count + b";"


def tiff_loop() -> bytes:
    """Return a TIFF whose directory names itself as the next one."""
    entry = struct.pack("<HHII", 0x0100, 4, 1, 16)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 8)


def hostile_files() -> dict[str, bytes]:
    """Return 18 files by name; with a FIFO and a dangling link they are 20."""
    whole = saved(photo(900))
    at = whole.index(b"\xff\xc0") + 5
    jpeg_bomb = whole[:at] + struct.pack(">HH", 65500, 65500) + whole[at + 4 :]
    cut = saved(photo(901), "PNG")
    return {
        "b1 empty.jpg": b"",
        "b1 one byte.jpg": b"\xff",
        "b1 text.jpg": b"hello, this is text\n" * 40,
        "b1 archive.png": b"PK\x03\x04" + bytes(200),
        "b1 page.png": b"<!DOCTYPE html><html></html>",
        "b2 quarter.jpg": whole[: len(whole) // 4],
        "b2 nearly whole.jpg": whole[: len(whole) * 99 // 100],
        "b2 half.png": cut[: len(cut) // 2],
        "b2 half.webp": saved(photo(902), "WEBP")[:3000],
        "b2 half.gif": saved(photo(903), "GIF")[:9000],
        "b3 header.png": png(65535, 65535),
        "b3 header.jpg": jpeg_bomb,
        "b4 text bomb.png": png(64, 1, text_bomb(100)),
        "b4 frames.gif": gif_frames(100_000),
        "b4 loop.tif": tiff_loop(),
        "b7 postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "b7 drawing.jpg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        "b7 layers.jpg": b"8BPS\0\1" + bytes(60),
    }


def make(folder: Path) -> None:
    """Write the 120 files."""
    for number in range(80):
        write(folder / f"good/{number:02d}.jpg", saved(photo(1000 + number, 240, 180)))
    for number in range(20):
        copy = saved(photo(1000 + number, 240, 180), quality=60)
        write(folder / f"good/{number:02d} again.jpg", copy)
    for name, data in hostile_files().items():
        write(folder / "hostile" / name, data)
    os.mkfifo(folder / "hostile/n4 pipe.jpg")
    (folder / "hostile/n4 dangling.jpg").symlink_to("nowhere.jpg")


def main(argv: list[str]) -> int:
    """Make the folder that the command line names."""
    if len(argv) != 1:
        print("usage: python benchmarks/hostile.py FOLDER", file=sys.stderr)
        return 2
    make(Path(argv[0]))
    print(f"100 good pictures and 20 hostile files in {argv[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
