"""Collapse exact copies: inputs with equal pixel hashes become one content.

In: ``Fingerprint``. Out: one ``Content`` per distinct pixel hash. Equal bytes have equal pixel
hashes, so one pass collapses both exact levels. Guarantee: the copies of all contents add up to
the fingerprints, and the representative is the first in the keep-best order.
"""

import dataclasses
from collections.abc import Iterable

import apache_beam as beam
from apache_beam import coders

from transforms.grouping.hamming import KEY_BYTES
from transforms.records import Content, Fingerprint


def content_of(image: Fingerprint) -> Content:
    """Return the content of one image alone."""
    ref = image.ref
    return Content(
        content=image.pixel_hash,
        uri=ref.uri,
        sha256=image.sha256,
        rank=image.rank,
        second_rank=b"",
        size_bytes=ref.size_bytes,
        etag=ref.etag,
        width=image.width,
        height=image.height,
        animated=image.frames > 1,
        texture=image.texture,
        wavelet_keys=image.wavelet_keys[KEY_BYTES:],
        color=image.color,
        layout=image.layout,
        copies=1,
        # Objects with several names are counted once, when all names are known.
        total_bytes=0 if ref.storage_id else ref.size_bytes,
        links=[f"{ref.size_bytes}:{ref.storage_id}"] if ref.storage_id else [],
    )


def merge_contents(parts: Iterable[Content]) -> Content:
    """Merge the parts of one content; associative and commutative.

    Args:
        parts: at least one part, all with the same id.

    Returns:
        The best-ranked representative with the copies and bytes of all.
    """
    best: Content | None = None
    copies = total = 0
    links: set[str] = set()
    ranks: list[bytes] = []
    for part in parts:
        copies += part.copies
        total += part.total_bytes
        links.update(part.links)
        ranks = sorted(filter(None, [*ranks, part.rank, part.second_rank]))[:2]
        if best is None or part.rank < best.rank:
            best = part
    if best is None:
        raise ValueError("merge_contents needs at least one part")
    second = ranks[1] if len(ranks) > 1 else b""
    return best._replace(second_rank=second, copies=copies, total_bytes=total, links=sorted(links))


def distinct_bytes(content: Content) -> int:
    """Return the bytes that all copies of a content occupy, hard links counted once."""
    return content.total_bytes + sum(int(link.split(":", 1)[0]) for link in content.links)


class _MergeFn(beam.CombineFn):
    """Merges before the shuffle, so that 10^5 equal images cross it as one element a bundle.

    Accumulators are encoded contents: as Python objects, which the embedded runner would hold all
    at once, they measured four times the memory.
    """

    def setup(self) -> None:
        self.coder = coders.registry.get_coder(Content).get_impl()

    def create_accumulator(self) -> bytes:
        return b""

    def add_input(self, accumulator: bytes, element: Content) -> bytes:
        if not accumulator:
            return self.coder.encode(element)  # type: ignore[no-any-return]  # Beam is untyped
        merged = merge_contents([self.coder.decode(accumulator), element])
        return self.coder.encode(merged)  # type: ignore[no-any-return]

    def merge_accumulators(self, accumulators: Iterable[bytes]) -> bytes:
        parts = list(filter(None, accumulators))
        if len(parts) < 2:
            return parts[0] if parts else b""
        merged = merge_contents(map(self.coder.decode, parts))
        return self.coder.encode(merged)  # type: ignore[no-any-return]

    def extract_output(self, accumulator: bytes) -> Content:
        return self.coder.decode(accumulator)  # type: ignore[no-any-return]

    def get_accumulator_coder(self) -> coders.Coder:
        return coders.BytesCoder()


def _keyed(image: Fingerprint) -> tuple[bytes, Content]:
    return image.pixel_hash, content_of(image)


@dataclasses.dataclass(eq=False)
class CollapseExact(beam.PTransform):
    """Make one content of all images with the same pixel hash."""

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, images: beam.PCollection[Fingerprint]) -> beam.PCollection[Content]:
        """Turn fingerprints into contents."""
        return (
            images
            | "Key by pixel hash" >> beam.Map(_keyed).with_output_types(tuple[bytes, Content])
            | "Merge equal pixels"
            >> beam.CombinePerKey(_MergeFn()).with_output_types(tuple[bytes, Content])
            | "Take contents" >> beam.Values().with_output_types(Content)
        )
