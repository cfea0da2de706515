"""PNG whose pixels are inflated here, by ISA-L: libpng's own zlib takes twice the time."""

import struct
from collections.abc import Iterator
from typing import Final

from isal import isal_zlib

__all__ = ["stored"]

# PNG 3rd edition, 5.2, 5.3 and 11.2.1: signature and header, and the last chunk.
_HEAD_BYTES: Final = 33
_END: Final = b"\0\0\0\0IEND\xae\x42\x60\x82"
_FRAME_BYTES: Final = 12  # of a chunk beside its data: length, name and checksum
_BLOCK_BYTES: Final = 0xFFFF  # the most of a stored block
# How encoders of all but tiny pictures begin (RFC 1950, 2.2): a window of 32 KB, which is what
# ISA-L takes of any other beginning too, also of those that zlib refuses.
_ZLIB_START: Final = b"\x78"


def stored(png: bytes, raster_bytes: int) -> bytes | None:
    """Return a PNG with its raster stored, not deflated; its pixels are the same.

    Args:
        png: a whole file of header, IDAT chunks and end, each with its right checksum.
        raster_bytes: that the header tells: of all rows, each with the byte of its filter. No more
            is ever inflated.

    Returns:
        The file, or None where what is inflated is damaged or has another length.
    """
    deflated = b"".join(_data(png))
    if not deflated.startswith(_ZLIB_START):
        return None
    machine = isal_zlib.decompressobj()
    try:
        raster = machine.decompress(deflated, raster_bytes + 1)
    except isal_zlib.error:  # type: ignore[misc]  # its stub takes the class for an instance
        return None
    if len(raster) != raster_bytes or not machine.eof or machine.unused_data:
        return None
    pieces, checksum = [b"IDAT", *_blocks(raster)], 0
    for piece in pieces:
        checksum = isal_zlib.crc32(piece, checksum)
    length = struct.pack(">I", sum(map(len, pieces)) - len(b"IDAT"))
    return b"".join((png[:_HEAD_BYTES], length, *pieces, struct.pack(">I", checksum), _END))


def _blocks(raster: bytes) -> Iterator[bytes | memoryview]:
    """Yield a zlib stream of stored blocks (RFC 1950, 2.2; RFC 1951, 3.2.4)."""
    yield b"\x78\x01"
    view = memoryview(raster)
    for at in range(0, len(raster), _BLOCK_BYTES):
        block = view[at : at + _BLOCK_BYTES]
        is_last = at + len(block) == len(raster)
        yield struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF)
        yield block
    yield struct.pack(">I", isal_zlib.adler32(raster))


def _data(png: bytes) -> Iterator[memoryview]:
    """Yield what the IDAT chunks hold."""
    view, at = memoryview(png), _HEAD_BYTES
    while at < len(png) - len(_END):
        end = at + _FRAME_BYTES + int.from_bytes(view[at : at + 4], "big")
        yield view[at + 8 : end - 4]
        at = end
