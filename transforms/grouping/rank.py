"""The keep-best order, as bytes that sort the better image first.

The rules and their order follow DESIGN.md (stage 5); each has a fixed width, so that the first
byte in which two ranks differ names the rule that decided.
"""

import math
from typing import NamedTuple, Protocol

# Rule name and width in bytes, first rule first. The path below the input root and the URI follow.
_RULES = (
    ("effective_resolution", 2),
    ("origin", 1),  # lossless, or a band of quality
    ("sharpness", 1),
    ("origin", 1),  # the quality itself
    ("metadata", 1),
    ("capture_date", 19),
    ("input_order", 2),
    ("bytes", 8),
)
_LAST_RULE = "path"
# Of the rules that look at the bytes of a file alone, which come first.
_MEASURED_BYTES = sum(width for _, width in _RULES[:-2])

# Quarter octaves of area tell apart what was resized.
_STEPS_PER_OCTAVE = 4
# Block edges pass for detail: on smooth pictures WebP 70 measured a resolved share 2.5 octaves
# above its lossless original. So a low share counts only below what pictures that were never
# enlarged reach (-4.1 octaves).
_ENLARGED_OCTAVES = -6.0
# Least JPEG quality of each band; within one, a blurred copy must lose by its sharpness first.
_QUALITY_BANDS = (101, 85, 70, 50, 30)
_SHARPNESS_STEPS = 32  # a mild blur moves the measure by two of them
_NO_DATE = "9999-99-99T99:99:99"
# What a lossy origin of unknown strength is worth, as a JPEG quality.
_UNKNOWN_QUALITY = 80


class ImageFile(Protocol):
    """What ``rank_of_copy`` reads of ``records.ImageRef``."""

    @property
    def input_index(self) -> int:
        """Place of its input among the inputs."""

    @property
    def size_bytes(self) -> int:
        """Size of the file."""

    @property
    def below(self) -> str:
        """Path below the root of its input."""

    @property
    def uri(self) -> str:
        """URI of the file."""


class RankFacts(NamedTuple):
    """The facts of one image that the keep-best order looks at."""

    pixels: int  # width times height
    effective_pixels: float  # really resolved pixels of the full image
    lossless: bool
    jpeg_origin: bool  # a lossless file whose pixels came from a JPEG
    jpeg_quality: int | None  # 1..100
    sharpness: float  # 0..1
    exif_fields: int
    captured: str | None  # ISO 8601 local time
    input_index: int
    size_bytes: int
    below: str
    uri: str


def encode_rank(facts: RankFacts) -> bytes:
    """Return the order-preserving key of an image; the smaller is kept.

    Args:
        facts: what stage 1 measured.

    Returns:
        Bytes that compare as the order does and differ for different URIs.
    """
    if facts.lossless and not facts.jpeg_origin:
        quality = 101
    elif facts.jpeg_quality is not None:
        quality = min(max(facts.jpeg_quality, 1), 100)
    else:
        quality = _UNKNOWN_QUALITY
    octaves = math.log2(max(facts.pixels, 1))
    share = min(max(facts.effective_pixels / max(facts.pixels, 1), 1e-6), 1.0)
    resolved = math.log2(share)
    if resolved < _ENLARGED_OCTAVES:
        octaves += resolved
    band = sum(quality < least for least in _QUALITY_BANDS)
    captured = (facts.captured or _NO_DATE)[:19].ljust(19).encode("ascii", "replace")
    return b"".join(
        (
            (0xFFFF - round(octaves * _STEPS_PER_OCTAVE)).to_bytes(2, "big"),
            band.to_bytes(1, "big"),
            (255 - round(min(max(facts.sharpness, 0.0), 1.0) * _SHARPNESS_STEPS)).to_bytes(
                1, "big"
            ),
            (101 - quality).to_bytes(1, "big"),
            (255 - min(facts.exif_fields, 255)).to_bytes(1, "big"),
            captured,
            _place(facts.input_index, facts.size_bytes, facts.below, facts.uri),
        )
    )


def rank_of_copy(rank: bytes, ref: ImageFile) -> bytes:
    """Return the rank of another file of the same bytes.

    Args:
        rank: of ``encode_rank``.
        ref: what tells that file from the first.
    """
    return rank[:_MEASURED_BYTES] + _place(ref.input_index, ref.size_bytes, ref.below, ref.uri)


def _place(input_index: int, size_bytes: int, below: str, uri: str) -> bytes:
    return b"".join(
        (
            min(input_index, 0xFFFF).to_bytes(2, "big"),
            size_bytes.to_bytes(8, "big"),
            below.encode("utf-8", "surrogateescape"),
            b"\0",
            uri.encode("utf-8", "surrogateescape"),
        )
    )


def deciding_rule(kept: bytes, other: bytes) -> str:
    """Name the first rule in which two ranks differ.

    Args:
        kept: a rank of ``encode_rank``.
        other: another one.

    Returns:
        ``effective_resolution``, ``origin``, ``sharpness``, ``metadata``, ``capture_date``,
        ``input_order``, ``bytes`` or ``path``.
    """
    start = 0
    for name, width in _RULES:
        if kept[start : start + width] != other[start : start + width]:
            return name
        start += width
    return _LAST_RULE
