"""EXIF and TIFF directories, read by hand with bounded work, and the facts that are wanted of them.

Pillow's own reader copies the value of every entry, follows loops and warns; this one reads the
entries of a directory (TIFF 6.0, section 2; BigTIFF) and then only the values that are asked for.
"""

import datetime
import struct
from typing import Final, NamedTuple

__all__ = ["Directory", "ExifFacts", "TiffError", "TiffReader", "read_exif", "xmp_facts"]

ORIENTATION: Final = 0x0112
_DATE_TIME_ORIGINAL: Final = 0x9003
_EXIF_IFD: Final = 0x8769
_GPS_IFD: Final = 0x8825
_POINTERS: Final = frozenset({_EXIF_IFD, _GPS_IFD, 0xA005, 0x014A})
# Tags of the raster and its resolution: every TIFF file has them, and no one entered them.
_STRUCTURE: Final = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 282, 283, 284, 296, 317, 320}
    | {322, 323, 324, 325, 338, 339, 347, 513, 514, 529, 530, 531, 532, 700, 33723, 34377, 34675}
)
# Bytes per value of each field type (TIFF 6.0, page 15; 13 IFD; 16-18 BigTIFF).
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_BIG_SIZES: Final = {**_SIZES, 16: 8, 17: 8, 18: 8}
_INTEGERS: Final = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q"}
_INTEGERS_BIG: Final = {**_INTEGERS, 18: "Q"}
_MAX_ENTRIES: Final = 65535  # a classic directory cannot hold more


class TiffError(ValueError):
    """A directory that lies outside the data or is malformed."""


class Entry(NamedTuple):
    """One field of a directory."""

    type: int  # field type
    number: int  # of values
    offset: int  # of the first value in the data, bytes
    size: int  # of all values, bytes


class Directory(NamedTuple):
    """One image file directory (IFD)."""

    entries: dict[int, Entry]  # by tag; the first of equal tags counts
    next: int  # offset of the next directory, 0 if it is the last


class TiffReader:
    """Directories and values of TIFF data, which is also what an EXIF block is.

    Args:
        data: from the byte-order mark on.

    Raises:
        TiffError: if the data has no TIFF header.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        mark = data[:4]
        if mark[:2] == b"II":
            self._order = "<"
        elif mark[:2] == b"MM":
            self._order = ">"
        else:
            raise TiffError("no byte-order mark")
        if len(data) < 8:
            raise TiffError("header cut off")
        version = struct.unpack_from(self._order + "H", data, 2)[0]
        self.big = version == 43
        if version not in (42, 43):
            raise TiffError(f"version {version} is not TIFF")
        if self.big:
            if len(data) < 16:
                raise TiffError("header cut off")
            self.first: int = struct.unpack_from(self._order + "Q", data, 8)[0]
        else:
            self.first = struct.unpack_from(self._order + "I", data, 4)[0]

    def directory(self, offset: int) -> Directory:
        """Return the directory at an offset.

        Raises:
            TiffError: if it does not lie within the data.
        """
        data, order, big = self.data, self._order, self.big
        sizes = _BIG_SIZES if big else _SIZES
        head, width, inline = ("Q", 20, 8) if big else ("H", 12, 4)
        entry_format = order + ("HHQ" if big else "HHI")
        pointer = order + ("Q" if big else "I")
        try:
            (count,) = struct.unpack_from(order + head, data, offset)
            if count > _MAX_ENTRIES:
                raise TiffError(f"a directory claims {count} entries")
            at = offset + (8 if big else 2)
            entries: dict[int, Entry] = {}
            for position in range(at, at + count * width, width):
                tag, kind, number = struct.unpack_from(entry_format, data, position)
                size = sizes.get(kind, 1) * number
                value = position + width - inline
                if size > inline:
                    (value,) = struct.unpack_from(pointer, data, value)
                entries.setdefault(tag, Entry(kind, number, value, size))
            (following,) = struct.unpack_from(pointer, data, at + count * width)
        except (struct.error, OverflowError) as error:
            raise TiffError(f"directory at byte {offset} is cut off") from error
        return Directory(entries, following)

    def integers(self, entry: Entry) -> tuple[int, ...]:
        """Return the values of an integer field.

        Raises:
            TiffError: if the field is no integer or lies outside the data.
        """
        code = (_INTEGERS_BIG if self.big else _INTEGERS).get(entry.type)
        if code is None:
            raise TiffError(f"field type {entry.type} is no integer")
        if entry.offset + entry.size > len(self.data):
            raise TiffError("values lie beyond the end")
        return struct.unpack_from(f"{self._order}{entry.number}{code}", self.data, entry.offset)

    def integer(self, directory: Directory, tag: int, default: int) -> int:
        """Return the first value of an integer field, or a default if the field is absent."""
        entry = directory.entries.get(tag)
        values = self.integers(entry) if entry is not None and entry.number else ()
        return values[0] if values else default

    def raw(self, entry: Entry) -> bytes:
        """Return the bytes of a field; short if it lies beyond the end."""
        return self.data[entry.offset : entry.offset + entry.size]


class ExifFacts(NamedTuple):
    """What is wanted of an EXIF block."""

    orientation: int  # 1..8
    fields: int  # entries of the main, EXIF and GPS directories that describe the picture
    captured: str | None  # DateTimeOriginal as YYYY-MM-DDTHH:MM:SS, local time
    warnings: tuple[str, ...]


_NOTHING: Final = ExifFacts(1, 0, None, ())


def read_exif(data: bytes | None) -> ExifFacts:
    """Return the facts of an EXIF block; a broken one gives orientation 1 and a warning.

    Args:
        data: the block, with or without its ``Exif`` prefix; None or empty if the file has none.

    Returns:
        Its facts. This function raises nothing.
    """
    if not data:
        return _NOTHING
    if data.startswith(b"Exif\0"):
        data = data[6:]
    try:
        reader = TiffReader(data)
        main = reader.directory(reader.first)
    except TiffError as error:
        return ExifFacts(1, 0, None, (f"broken EXIF: {error}",))
    return exif_facts(reader, main)


def exif_facts(reader: TiffReader, main: Directory) -> ExifFacts:
    """Return the facts of a main directory and of its EXIF and GPS directories."""
    warnings: list[str] = []
    orientation = 1
    try:
        orientation = reader.integer(main, ORIENTATION, 1)
    except TiffError as error:
        warnings.append(f"broken EXIF orientation: {error}")
    if not 1 <= orientation <= 8:
        warnings.append(f"EXIF orientation {orientation} is not 1..8")
        orientation = 1
    fields = len(main.entries.keys() - _POINTERS - _STRUCTURE)
    captured = None
    for pointer in (_EXIF_IFD, _GPS_IFD):
        if pointer not in main.entries:
            continue
        try:
            below = reader.directory(reader.integer(main, pointer, 0))
        except TiffError as error:
            warnings.append(f"broken EXIF: {error}")
            continue
        fields += len(below.entries.keys() - _POINTERS)
        entry = below.entries.get(_DATE_TIME_ORIGINAL)
        if entry is not None and pointer == _EXIF_IFD:
            captured = _iso_time(reader.raw(entry))
    return ExifFacts(orientation, fields, captured, tuple(warnings))


def _iso_time(raw: bytes) -> str | None:
    text = raw[:19].decode("ascii", "replace")
    try:
        return datetime.datetime.strptime(text, "%Y:%m:%d %H:%M:%S").isoformat()
    except ValueError:
        return None


def xmp_facts(xmp: bytes) -> int:
    """Return about how many properties an XMP packet states: its attributes and elements."""
    attributes = xmp.count(b'="') + xmp.count(b"='") - xmp.count(b"xmlns:")
    return max(0, attributes) + xmp.count(b"</")
