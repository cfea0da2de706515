"""The structure of image files, walked by hand: size, frames, metadata, and whether it is whole.

A walk touches headers only. It tells the size of the raster before any decoder allocates it, finds
a file that stops early, and measures and removes the metadata that a decoder would otherwise parse,
so that no decoder ever meets a compressed text bomb. Sources: ISO/IEC 10918-1 (JPEG), CIPA DC-007
(MPO), PNG 3rd edition, GIF89a, RFC 9649 (WebP), TIFF 6.0, ISO/IEC 23008-12 (HEIF).
"""

import dataclasses
import functools
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
from isal import isal_zlib

from transforms.imaging.errors import ImageError
from transforms.imaging.exif import (
    Directory,
    ExifFacts,
    TiffError,
    TiffReader,
    exif_facts,
    read_exif,
    xmp_facts,
)

__all__ = ["PLAIN_HEAD", "Container", "JpegContainer", "MetadataBudget", "inspect"]

#: How libjpeg begins a JPEG file that it is told nothing else of: the start marker and a segment of
#: JFIF 1.01 without a density.
PLAIN_HEAD: Final = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"


@dataclasses.dataclass(slots=True)
class Container:
    """One image file as its structure tells it.

    Attributes:
        format: as Pillow names it.
        width: largest width of any frame as stored, pixels; 0 if only the decoder knows.
        height: of the same.
        frames: pictures in the file; 0 if only the decoder knows.
        body: what the decoder is given: the file without most of its metadata.
        exif: facts of the EXIF block.
        facts: other statements of the metadata: XMP properties, texts, comments.
        icc: colour profile, empty if none.
        lossless: whether the encoding keeps its pixels.
        salt: bytes that tell files apart whose difference the decoder drops (16-bit colour).
        total_pixels: of all frames; 0 if only the decoder knows.
        plain: whether any decoder takes it alike. JPEG: one frame, Huffman coded, grey or three
            components, nothing before its first scan but segments of the usual form. PNG: RGB of 8
            bits in order and no damage. WebP: one picture without transparency, which ends the
            file.
    """

    format: str
    width: int
    height: int
    frames: int
    body: bytes
    exif: ExifFacts
    facts: int
    icc: bytes
    lossless: bool
    salt: bytes = b""
    total_pixels: int = 0
    plain: bool = False


@dataclasses.dataclass(slots=True)
class JpegContainer(Container):
    """A JPEG file; ``salt`` holds its colour transform.

    Attributes:
        kept: the file without APPn and COM segments, in pieces.
        scans: passes over all coefficients that a progressive file asks for.
        layers: of each component its id, horizontal and vertical sampling, and table.
        tables: quantisation tables of the first scan by number, 64 values in natural order.
        bare: whether the file is ``PLAIN_HEAD`` and what is kept, so that their hash is its own.
    """

    kept: tuple[memoryview, ...] = ()
    scans: int = 1
    layers: tuple[tuple[int, int, int, int], ...] = ()
    tables: Mapping[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    bare: bool = False


class MetadataBudget:
    """Counts the bytes of metadata, inflated where compressed, against a limit."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._limit = limit

    def take(self, size: int) -> None:
        """Count bytes.

        Raises:
            ImageError: ``too_large`` if there are more than the limit.
        """
        self._left -= size
        if self._left < 0:
            raise ImageError("too_large", f"more than {self._limit} bytes of metadata")

    def inflate(self, data: bytes) -> bytes:
        """Return inflated data, never more than the budget; what cannot be inflated is empty."""
        machine = zlib.decompressobj()
        try:
            out = machine.decompress(data, self._left + 1)
        except zlib.error:
            return b""
        self.take(len(out))
        return out


def _truncated(what: str) -> ImageError:
    return ImageError("truncated", what)


def inspect(name: str, data: bytes, budget: MetadataBudget, max_frames: int) -> Container:
    """Walk a file of a known format.

    Args:
        name: as ``sniff`` gave it.
        data: the file.
        budget: of metadata.
        max_frames: frames at which the walk gives up.

    Returns:
        Its structure.

    Raises:
        ImageError: ``truncated``, ``too_large``, ``format_not_allowed`` or ``unidentified``.
    """
    return _WALKS[name](data, budget, max_frames)


def _check_frames(frames: int, limit: int) -> None:
    if frames > limit:
        raise ImageError("too_large", f"more than {limit} frames")


# JPEG -------------------------------------------------------------------------------------------

_SOF: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PLAIN_SOF: Final = frozenset({0xC0, 0xC1, 0xC2})  # Huffman: baseline, extended, progressive
_SEQUENTIAL_SOF: Final = frozenset({0xC0, 0xC1})
_END: Final = b"\xff\xd9"
_JFIF_BYTES: Final = 14  # below it libjpeg takes the segment for none of JFIF's
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_WITHIN_SCAN: Final = frozenset({0x00, *range(0xD0, 0xD8)})  # behind an FF
_APP_OR_COM: Final = frozenset({*range(0xE0, 0xF0), 0xFE})
# In a scan 0xFF is followed by 0 (stuffing), RSTn or 0xFF (fill); anything else is a marker. Only
# those that end a scan count: a reserved code there is damage, which libjpeg judges.
_NEXT_MARKER: Final = re.compile(rb"\xff[\xc0-\xcf\xd9-\xdf\xe0-\xef\xfe]")
# libjpeg-turbo's advice against files of endless empty scans, each of which costs a pass over all
# coefficients ("Two issues with the JPEG standard", 2015); encoders write about ten.
_MAX_SCANS: Final = 500
_MP_THUMBNAILS: Final = frozenset({0x010001, 0x010002})  # MP types of reduced copies
_GAIN_MAP_MARKS: Final = (b"hdrgm:", b"urn:iso:std:iso:ts:21496")
# Places in an 8x8 block in the order of a quantisation table (T.81, figure A.6): by diagonals,
# every second of them downwards.
_ZIGZAG: Final = sorted(
    range(64), key=lambda at: (at // 8 + at % 8, at // 8 if (at // 8 + at % 8) % 2 else at % 8)
)


@functools.lru_cache(maxsize=256)
def _layers(stored: bytes) -> tuple[tuple[int, int, int, int], ...]:
    """Return the components that a start-of-frame segment names (T.81, B.2.2)."""
    triples = zip(stored[::3], stored[1::3], stored[2::3], strict=False)
    return tuple((name, sampling >> 4, sampling & 15, table) for name, sampling, table in triples)


@functools.lru_cache(maxsize=256)
def _natural(stored: bytes) -> tuple[int, ...]:
    """Return a quantisation table of 64 values of 1 or 2 bytes in natural order."""
    values = stored if len(stored) == 64 else struct.unpack(">64H", stored)
    table = [0] * 64
    for place, value in zip(_ZIGZAG, values, strict=True):
        table[place] = value
    return tuple(table)


class _JpegWalk:
    """Gathers the segments of one JPEG file; see ``_walk_jpeg``."""

    def __init__(self, data: bytes, budget: MetadataBudget) -> None:
        self.data = data
        self.view = memoryview(data)
        self.budget = budget
        self.kept: list[memoryview] = []
        self.body: list[memoryview] = []
        self.width = self.height = self.components = self.scans = self.facts = 0
        self.layers: list[tuple[int, int, int, int]] = []
        self.tables: dict[int, tuple[int, ...]] = {}
        self.plain = True
        self.sequential = False  # one frame, each component in one scan
        self.jfif = self.gain_map = False
        self.adobe = -1
        self.exif = b""
        self.icc: list[bytes] = []
        self.mpf = b""
        self.start = 2  # of the run of bytes that is kept as it is

    def application(self, marker: int, at: int, end: int) -> None:
        """Take note of an APPn or COM segment and cut it out."""
        start = at - 4
        if start > self.start:
            self._keep(self.start, start)
        self.start = end
        self.budget.take(end - start)
        payload = self.data[at:end]
        if marker == 0xE0 and payload.startswith(b"JFIF\0"):
            self.jfif = True
            self.plain = self.plain and len(payload) >= _JFIF_BYTES
            self.body.append(self.view[start:end])
        elif marker == 0xEE and payload.startswith(b"Adobe") and len(payload) >= 12:
            self.adobe = payload[11]
            self.body.append(self.view[start:end])
        elif marker == 0xE1 and payload.startswith(b"Exif\0"):
            self.exif = self.exif or payload
        elif marker == 0xE1 and payload.startswith(b"http://ns.adobe.com/x"):
            self.facts += xmp_facts(payload)
            self.gain_map = self.gain_map or _GAIN_MAP_MARKS[0] in payload
        elif marker == 0xE2 and payload.startswith(b"ICC_PROFILE\0"):
            self.icc.append(payload[12:])
        elif marker == 0xE2 and payload.startswith(b"MPF\0"):
            self.mpf = self.mpf or payload[4:]
        elif marker == 0xE2 and payload.startswith(_GAIN_MAP_MARKS[1]):
            self.gain_map = True
        elif marker in (0xED, 0xFE):
            self.facts += 1

    def _keep(self, start: int, end: int) -> None:
        piece = self.view[start:end]
        self.kept.append(piece)
        self.body.append(piece)

    def finish(self, end: int) -> None:
        """Keep the rest; the decoder gets it up to the end of the first image only."""
        self.kept.append(self.view[self.start :])
        self.body.append(self.view[self.start : end])

    def profile(self) -> bytes:
        """Return the ICC profile, its parts in the order of their numbers (ICC.1, B.4)."""
        return b"".join(part[2:] for part in sorted(self.icc, key=lambda part: part[:1]))

    def transform(self) -> bytes:
        """Return the colour transform that libjpeg chooses (jdapimin.c) but for component ids."""
        if self.components == 3:
            return b"R" if not self.jfif and self.adobe == 0 else b"Y"
        if self.components == 4:
            return b"C" if self.adobe in (-1, 0) else b"K"
        return b"G"

    def frame(self, marker: int, at: int, end: int) -> None:
        """Read a start-of-frame segment."""
        if end - at < 6:
            raise ImageError("unidentified", "start-of-frame segment is too short")
        precision, self.height, self.width, self.components = struct.unpack_from(
            ">BHHB", self.data, at
        )
        if precision != 8:
            raise ImageError("other", f"JPEG with {precision} bits a sample is not read", "decode")
        self.plain = self.plain and marker in _PLAIN_SOF and not self.layers
        self.sequential = marker in _SEQUENTIAL_SOF and not self.layers
        if not self.scans:
            self.layers += _layers(self.data[at + 6 : end])

    def ends_with_scan(self, at: int) -> bool:
        """Tell whether the scan whose header is at ``at`` is the whole picture and ends the file.

        Then nothing but its end marker is due behind it, and it need not be searched: the last FF
        before that one is a byte of the scan or a restart, and not of a segment behind the scan.
        """
        last = self.data.rfind(b"\xff", at, len(self.data) - len(_END))
        return (
            (last < 0 or self.data[last + 1] in _WITHIN_SCAN)
            and self.plain
            and self.sequential
            and self.scans == 1
            and not self.mpf
            and self.data[at] == self.components
            and self.data.endswith(_END)
        )

    def quantisation(self, at: int, end: int) -> None:
        """Read a segment of tables; what is odd about it is left to the decoder to refuse."""
        while not self.scans and at < end:
            head = self.data[at]
            size = 64 if head < 16 else 128
            if at + 1 + size <= end:
                self.tables[head & 15] = _natural(self.data[at + 1 : at + 1 + size])
            at += 1 + size


def _walk_jpeg(data: bytes, budget: MetadataBudget, max_frames: int) -> JpegContainer:
    walk = _JpegWalk(data, budget)
    find = _NEXT_MARKER.search
    size = len(data)
    position = 2
    while True:
        if position + 2 > size:
            raise _jpeg_cut(walk, position)
        marker = data[position + 1]
        if data[position] != 0xFF:
            position = data.find(b"\xff", position)
            if position < 0:
                raise _jpeg_cut(walk, size)
            continue
        if marker == 0xFF:
            position += 1
            continue
        if marker == 0xD9:
            break
        if marker in _STANDALONE or marker == 0:
            walk.plain = walk.plain and bool(walk.scans)
            position += 2
            continue
        at = position + 4
        if at > size:
            raise _jpeg_cut(walk, position)
        end = position + 2 + (data[position + 2] << 8 | data[position + 3])
        if end > size or at > end:
            raise _jpeg_cut(walk, position)
        if marker in _APP_OR_COM:
            walk.application(marker, at, end)
        elif marker in _SOF:
            walk.frame(marker, at, end)
        elif marker == 0xDB:
            walk.quantisation(at, end)
        position = end
        if marker == 0xDA:
            walk.scans += 1
            if walk.ends_with_scan(at):
                position = size - 2
                break
            found = find(data, end)
            if found is None:
                raise _truncated("JPEG without its end marker")
            position = found.start()
    if not walk.width or not walk.scans:
        raise ImageError("unidentified", "JPEG without a frame or a scan")
    if walk.scans > _MAX_SCANS:
        raise ImageError("too_large", f"JPEG with {walk.scans} scans")
    walk.finish(position + 2)
    frames = 1
    if walk.mpf:
        frames = _mpo_frames(walk.mpf, walk.gain_map)
        _check_frames(frames, max_frames)
    # Copied only where something was cut out.
    whole = sum(map(len, walk.body)) == size - 2
    body = data if whole else b"".join((data[:2], *walk.body))
    return JpegContainer(
        format="MPO" if frames > 1 else "JPEG",
        width=walk.width,
        height=walk.height,
        frames=frames,
        body=body,
        exif=read_exif(walk.exif),
        facts=walk.facts,
        icc=walk.profile() if walk.icc else b"",
        lossless=False,
        salt=walk.transform(),
        total_pixels=walk.width * walk.height,
        kept=tuple(walk.kept),
        scans=walk.scans,
        layers=tuple(walk.layers),
        tables=walk.tables,
        plain=walk.plain and len(walk.layers) == walk.components and walk.components in (1, 3),
        bare=data.startswith(PLAIN_HEAD) and sum(map(len, walk.kept)) == size - len(PLAIN_HEAD),
    )


def _jpeg_cut(walk: _JpegWalk, position: int) -> ImageError:
    # Three bytes of magic and no segment after them are no more a JPEG than any other bytes.
    if position <= 2:
        return ImageError("unidentified", "no segment follows the start of a JPEG")
    return _truncated(f"JPEG stops at byte {position}")


def _mpo_frames(mpf: bytes, gain_map: bool) -> int:
    """Count the pictures of a multi-picture file (CIPA DC-007, 5.2.3).

    Reduced copies of the first do not count, nor does the gain map of an HDR photograph, which has
    no picture type of its own.
    """
    try:
        reader = TiffReader(mpf)
        main = reader.directory(reader.first)
        entry = main.entries.get(0xB002)
        if entry is None:
            return 1
        table = reader.raw(entry)
        order = "<" if mpf[:2] == b"II" else ">"
        kinds = [
            struct.unpack_from(order + "I", table, at)[0] & 0xFFFFFF
            for at in range(0, len(table) - 15, 16)
        ]
    except TiffError:
        return 1
    count = 1
    for kind in kinds[1:]:
        count += not (kind in _MP_THUMBNAILS or (gain_map and kind == 0))
    return count


# PNG --------------------------------------------------------------------------------------------

_PNG_KEPT: Final = frozenset(
    {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"acTL", b"fcTL", b"fdAT", b"IEND"}
)
_PNG_COLOUR: Final = 2  # bit of the colour type
_PNG_PLAIN: Final = re.compile(rb"IHDR(?:IDAT)+IEND")
_PNG_PLAIN_RASTER: Final = b"\x08\x02\0\0\0"  # 8 bits, RGB, the usual methods, not interlaced


def _walk_png(data: bytes, budget: MetadataBudget, max_frames: int) -> Container:
    view = memoryview(data)
    pieces: list[memoryview] = [view[:8]]
    size = len(data)
    position = start = 8
    width = height = depth = colour = facts = 0
    frames = 1
    exif = icc = b""
    salt: list[bytes] = []
    names = bytearray()
    plain = data[24:29] == _PNG_PLAIN_RASTER
    while True:
        if position + 12 > size:
            raise _truncated(f"PNG stops at byte {size} without its end chunk")
        length = int.from_bytes(data[position : position + 4], "big")
        name = data[position + 4 : position + 8]
        at = position + 8
        end = at + length + 4
        if not name.isalpha():
            raise ImageError("unidentified", f"PNG with a chunk named {name!r}")
        if end > size:
            raise _truncated(f"PNG stops within the chunk {name!r}")
        if name not in _PNG_KEPT:
            pieces.append(view[start:position])
            start = end
            budget.take(length)
            payload = data[at : at + length]
            if name == b"iCCP":
                icc = icc or budget.inflate(payload.partition(b"\0")[2][1:])
            elif name == b"eXIf":
                exif = exif or payload
            elif name in (b"tEXt", b"zTXt", b"iTXt"):
                facts += _png_text_facts(name, payload, budget)
        else:
            names += name
            # libpng, which writes of damage to standard error, must not meet it.
            stored = int.from_bytes(data[end - 4 : end], "big")
            plain = plain and isal_zlib.crc32(view[position + 4 : end - 4]) == stored
        if name == b"IHDR":
            if length != 13 or width:
                raise ImageError("unidentified", "PNG with a malformed header chunk")
            width, height, depth, colour = struct.unpack_from(">IIBB", data, at)
        elif name == b"acTL" and length == 8:
            claimed = int.from_bytes(data[at : at + 4], "big")
            _check_frames(claimed, max_frames)
            frames = max(1, claimed)
        elif name == b"IDAT" and depth == 16 and colour & _PNG_COLOUR:
            salt.append(data[at : at + length])
        position = end
        if name == b"IEND":
            break
    pieces.append(view[start:position])
    return Container(
        format="PNG",
        width=width,
        height=height,
        frames=frames,
        body=data if len(pieces) == 2 and position == size else b"".join(pieces),
        exif=read_exif(exif),
        facts=facts,
        icc=icc,
        lossless=True,
        salt=b"".join(salt),
        total_pixels=width * height * frames,
        plain=plain and _PNG_PLAIN.fullmatch(names) is not None,
    )


def _png_text_facts(name: bytes, payload: bytes, budget: MetadataBudget) -> int:
    keyword, _, rest = payload.partition(b"\0")
    if name == b"zTXt":
        rest = budget.inflate(rest[1:])
    elif name == b"iTXt":
        text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
        rest = budget.inflate(text) if rest[:1] == b"\1" else text
    return xmp_facts(rest) if keyword == b"XML:com.adobe.xmp" else 1


# GIF --------------------------------------------------------------------------------------------


def _gif_blocks_end(data: bytes, position: int) -> int:
    """Return the position behind a chain of sub-blocks; IndexError if it is cut off."""
    size = data[position]
    while size:
        position += size + 1
        size = data[position]
    return position + 1


def _walk_gif(data: bytes, budget: MetadataBudget, max_frames: int) -> Container:
    try:
        return _walk_gif_blocks(data, budget, max_frames)
    except (IndexError, struct.error) as error:
        raise _truncated("GIF without its end marker") from error


def _walk_gif_blocks(data: bytes, budget: MetadataBudget, max_frames: int) -> Container:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    view = memoryview(data)
    pieces: list[memoryview] = []
    start = frames = facts = 0
    while True:
        kind = data[position]
        if kind == 0x3B:
            break
        if kind == 0x21:
            label = data[position + 1]
            end = _gif_blocks_end(data, position + 2)
            if label != 0xF9:
                # Comments and application data: Pillow joins their parts in quadratic time.
                pieces.append(view[start:position])
                start = end
                budget.take(end - position)
                facts += label == 0xFE
            position = end
        elif kind == 0x2C:
            left, top, wide, high, flags = struct.unpack_from("<HHHHB", data, position + 1)
            # A frame may lie beyond the screen, which Pillow then enlarges.
            width, height = max(width, left + wide), max(height, top + high)
            position += 10 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
            position = _gif_blocks_end(data, position + 1)
            frames += 1
            _check_frames(frames, max_frames)
        else:
            position += 1
    if not frames:
        raise ImageError("unidentified", "GIF without an image")
    pieces.append(view[start : position + 1])
    return Container(
        format="GIF",
        width=width,
        height=height,
        frames=frames,
        body=b"".join(pieces),
        exif=read_exif(None),
        facts=facts,
        icc=b"",
        lossless=True,
        total_pixels=width * height * frames,
    )


# WebP -------------------------------------------------------------------------------------------

# Nothing behind the pixels: libwebp alone would read on into it where they stop early.
_WEBP_PLAIN: Final = re.compile(rb"(VP8X(ICCP)?)?VP8[ L]")
_VP8X_ALPHA: Final = 0x10  # of the flags
_VP8L_ALPHA: Final = 0x10  # of the byte that holds the top bits of the height


def _webp_chunks(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, end) of the chunks between two positions."""
    while position + 8 <= end:
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        at = position + 8
        if at + size > end:
            raise _truncated("WebP stops within a chunk")
        yield data[position : position + 4], at, at + size
        position = at + size + (size & 1)


def _walk_webp(data: bytes, budget: MetadataBudget, max_frames: int) -> Container:
    end = int.from_bytes(data[4:8], "little") + 8
    if end > len(data):
        raise _truncated(f"WebP of {end} bytes stops at byte {len(data)}")
    width = height = facts = frames = 0
    exif = icc = b""
    names = bytearray()
    stop = 12
    lossless = plain = True
    for name, at, stop in _webp_chunks(data, 12, end):
        names += name
        if name == b"VP8X" and stop - at >= 10:
            plain = plain and not data[at] & _VP8X_ALPHA
            width = int.from_bytes(data[at + 4 : at + 7], "little") + 1
            height = int.from_bytes(data[at + 7 : at + 10], "little") + 1
        elif name in (b"VP8 ", b"VP8L"):
            lossless = lossless and name == b"VP8L"
            top = int.from_bytes(data[at + 4 : at + 5], "little")
            plain = plain and (name == b"VP8 " or not top & _VP8L_ALPHA)
            if not width:
                width, height = _webp_size(name, data, at)
        elif name == b"ANMF":
            frames += 1
            _check_frames(frames, max_frames)
            inner = [part for part, _, _ in _webp_chunks(data, at + 16, stop)]
            lossless = lossless and b"VP8 " not in inner
        elif name in (b"ICCP", b"EXIF", b"XMP "):
            budget.take(stop - at)
            if name == b"ICCP":
                icc = icc or data[at:stop]
            elif name == b"EXIF":
                exif = exif or data[at:stop]
            else:
                facts += xmp_facts(data[at:stop])
    frames = max(1, frames)
    return Container(
        format="WEBP",
        width=width,
        height=height,
        frames=frames,
        body=data,
        exif=read_exif(exif),
        facts=facts,
        icc=icc,
        lossless=lossless,
        total_pixels=width * height * frames,
        plain=plain and _WEBP_PLAIN.fullmatch(names) is not None and stop + stop % 2 == len(data),
    )


def _webp_size(name: bytes, data: bytes, at: int) -> tuple[int, int]:
    """Return the size in a frame header (RFC 6386, 9.1; RFC 9649, 3.4)."""
    if name == b"VP8L":
        bits = int.from_bytes(data[at + 1 : at + 5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width = int.from_bytes(data[at + 6 : at + 8], "little") & 0x3FFF
    return width, int.from_bytes(data[at + 8 : at + 10], "little") & 0x3FFF


# BMP --------------------------------------------------------------------------------------------


def _walk_bmp(data: bytes, budget: MetadataBudget, max_frames: int) -> Container:
    if len(data) < 26:
        raise _truncated("BMP stops within its header")
    if data[14] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = (abs(side) for side in struct.unpack_from("<ii", data, 18))
    return Container(
        format="BMP",
        width=width,
        height=height,
        frames=1,
        body=data,
        exif=read_exif(None),
        facts=0,
        icc=b"",
        lossless=True,
        total_pixels=width * height,
    )


# TIFF -------------------------------------------------------------------------------------------

_LOSSY_TIFF: Final = frozenset({6, 7, 33003, 33005, 34712, 34892, 50001, 50002})  # compressions
_DNG_VERSION: Final = 0xC612
_SUB_IFDS: Final = 0x014A
_REDUCED: Final = 1  # bit of NewSubfileType
_STRIP_TAGS: Final = frozenset({273, 279, 324, 325})
_MAX_STRIPS: Final = 1 << 20  # a row each of the tallest picture that Pillow reads, and more


def _walk_tiff(data: bytes, budget: MetadataBudget, max_frames: int) -> Container:
    try:
        reader = TiffReader(data)
        pages = _tiff_pages(reader, budget, max_frames)
        main = pages[0]
        if (
            data[8:10] == b"CR"
            or _DNG_VERSION in main.entries
            or (_SUB_IFDS in main.entries and reader.integer(main, 254, 0) & _REDUCED)
        ):
            # What Pillow would show is the camera's small preview, not the picture.
            raise ImageError("format_not_allowed", "a camera raw file is not read", format="TIFF")
        sizes = [(reader.integer(page, 256, 0), reader.integer(page, 257, 0)) for page in pages]
        depths = [bits for page in pages for bits in _values(reader, page, 258)]
        samples = reader.integer(main, 277, 1)
        for page in pages:
            _check_strips(reader, page)
        lossless = reader.integer(main, 259, 1) not in _LOSSY_TIFF
    except TiffError as error:
        raise _truncated(f"TIFF: {error}") from error
    icc = main.entries.get(34675)
    xmp = main.entries.get(700)
    return Container(
        format="TIFF",
        width=max(width for width, _ in sizes),
        height=max(height for _, height in sizes),
        frames=len(pages),
        body=data,
        exif=exif_facts(reader, main),
        facts=0 if xmp is None else xmp_facts(reader.raw(xmp)),
        icc=b"" if icc is None else reader.raw(icc),
        lossless=lossless,
        # Pillow holds colour at 8 bits a sample: deeper files are told apart by all their bytes.
        salt=data if samples > 1 and max(depths, default=8) > 8 else b"",
        total_pixels=sum(width * height for width, height in sizes),
    )


def _values(reader: TiffReader, page: Directory, tag: int) -> tuple[int, ...]:
    entry = page.entries.get(tag)
    return () if entry is None else reader.integers(entry)


def _tiff_pages(reader: TiffReader, budget: MetadataBudget, max_frames: int) -> list[Directory]:
    """Return the directories of a file; a loop among them is an error, not an end."""
    pages: list[Directory] = []
    seen: set[int] = set()
    offset = reader.first
    while offset:
        if offset in seen:
            raise ImageError("other", "the directories of the TIFF form a loop")
        seen.add(offset)
        page = reader.directory(offset)
        # Many entries may name the same bytes, and Pillow copies the value of each.
        budget.take(sum(entry.size for entry in page.entries.values()))
        pages.append(page)
        _check_frames(len(pages), max_frames)
        offset = page.next
    if not pages:
        raise ImageError("unidentified", "TIFF without a directory")
    return pages


def _check_strips(reader: TiffReader, page: Directory) -> None:
    """Raise ``truncated`` where pixel data lies beyond the end of the file."""
    if any(page.entries[tag].number > _MAX_STRIPS for tag in _STRIP_TAGS & page.entries.keys()):
        raise ImageError("too_large", f"TIFF with more than {_MAX_STRIPS} strips")
    raw = reader.integer(page, 259, 1) == 1
    for offset_tag, count_tag in ((273, 279), (324, 325)):
        offsets = np.asarray(_values(reader, page, offset_tag), np.float64)
        counts = np.asarray(_values(reader, page, count_tag), np.float64)
        if not offsets.size:
            continue
        # The last uncompressed strip is often declared longer than its rows; Pillow checks that.
        if not raw and counts.shape == offsets.shape:
            offsets = offsets + counts
        if offsets.max() > len(reader.data):
            raise _truncated("TIFF pixel data lies beyond the end of the file")


# AVIF and HEIF ----------------------------------------------------------------------------------


def _walk_isobmff(name: str) -> Callable[[bytes, MetadataBudget, int], Container]:
    def walk(data: bytes, budget: MetadataBudget, max_frames: int) -> Container:
        size = len(data)
        position = width = height = 0
        while position + 8 <= size:
            length = int.from_bytes(data[position : position + 4], "big")
            if length == 1:
                length = int.from_bytes(data[position + 8 : position + 16], "big")
            elif length == 0:
                length = size - position
            if length < 8:
                raise ImageError("unidentified", f"{name} with a box of {length} bytes")
            if position + length > size:
                raise _truncated(f"{name} stops within a box")
            if data[position + 4 : position + 8] == b"meta":
                width, height = _largest_extent(data, position, position + length)
                _check_item_names(name, data, position, position + length)
            position += length
        if position != size:
            raise _truncated(f"{name} stops within the head of a box")
        return Container(
            format=name,
            width=width,
            height=height,
            frames=0,
            body=data,
            exif=read_exif(None),
            facts=0,
            icc=b"",
            lossless=False,
        )

    return walk


def _check_item_names(name: str, data: bytes, start: int, end: int) -> None:
    """Refuse item types and names that are no UTF-8: pi_heif 1.4.0 dies of a null string there."""
    at = data.find(b"infe", start, end)
    while at >= 0:
        size = int.from_bytes(data[at - 4 : at], "big")
        # Version and flags, item id of 2 or 4 bytes, protection index; then only text.
        text = data[at + (12 if data[at + 4] < 3 else 14) : max(at, at - 4 + size)]
        try:
            text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ImageError("unidentified", f"{name} with an item name that is no text") from error
        at = data.find(b"infe", at + 4, end)


def _largest_extent(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Return the largest image spatial extents (``ispe``) in a box: the whole, not its tiles."""
    best = (0, 0)
    at = data.find(b"ispe", start, end)
    while at >= 0:
        if at + 16 <= end:
            extent = struct.unpack_from(">II", data, at + 8)
            best = max(best, extent, key=lambda pair: pair[0] * pair[1])
        at = data.find(b"ispe", at + 4, end)
    return best


_WALKS: Final[dict[str, Callable[[bytes, MetadataBudget, int], Container]]] = {
    "JPEG": _walk_jpeg,
    "PNG": _walk_png,
    "GIF": _walk_gif,
    "WEBP": _walk_webp,
    "BMP": _walk_bmp,
    "TIFF": _walk_tiff,
    "AVIF": _walk_isobmff("AVIF"),
    "HEIF": _walk_isobmff("HEIF"),
}
