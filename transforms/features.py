"""The second read: one record for stages 3 and 4 of each content in an undecided pair.

In: undecided ``PairUnit`` elements, and the records of earlier rounds. Out: freshly read members
with the units that wait for them, and (unit, record) for members that were read before.
Guarantee: a content is read at most once over all rounds; a failed read becomes a record that says
so, and its pairs go to review.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Literal, NamedTuple

import apache_beam as beam
import cv2
import numpy as np
from apache_beam.utils.windowed_value import WindowedValue
from numpy.typing import NDArray

from transforms.access import LOCAL, Access
from transforms.imaging.blocks import fitted_size
from transforms.imaging.decode import DecodeLimits, decode
from transforms.imaging.errors import ImageError
from transforms.imaging.points import extract
from transforms.joins import JoinByKey
from transforms.outputs import in_global_window, several_outputs
from transforms.records import Content, MemberRead, MemberRecord, PairUnit, StageStats
from transforms.rounds import Unfinished
from transforms.storage.reads import Read, ReadAhead, Wanted
from transforms.telemetry import STATS, MeteredDoFn, report_progress

STAGE = "features"
# The most a record may weigh on its way through a shuffle (DESIGN.md).
MAX_RECORD_BYTES = 128 * 1024
_LEAST_SIDE = 0.9  # share of the side asked for
_JPEG_QUALITIES = (90, 75, 50, 25)


class ReadMemberRecords(NamedTuple):
    """The outputs of ``ReadMembers``."""

    fresh: beam.PCollection[MemberRead]
    reused: beam.PCollection[tuple[str, MemberRecord]]  # keyed by unit
    carried: beam.PCollection[MemberRecord]  # of earlier rounds, where the component goes on
    stats: beam.PCollection[StageStats]


def make_thumbnail(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Reduce RGB pixels so that the longer side is at most ``side``.

    Args:
        pixels: uint8 [h, w, 3].
        side: pixels.

    Returns:
        uint8 [h', w', 3]; the input where it is small enough.
    """
    height, width = pixels.shape[:2]
    if max(height, width) <= side:
        return pixels
    size = fitted_size(width, height, side)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def encode_thumbnail(pixels: NDArray[np.uint8], max_bytes: int) -> bytes:
    """Encode a thumbnail as JPEG, at the best of four qualities that fits.

    Args:
        pixels: uint8 [h, w, 3] RGB.
        max_bytes: the bound.

    Returns:
        JPEG bytes.

    Raises:
        ImageError: if no quality fits or OpenCV refuses.
    """
    flipped = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    for quality in _JPEG_QUALITIES:
        done, data = cv2.imencode(".jpg", flipped, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if done and data.size <= max_bytes:
            return data.tobytes()
    raise ImageError("other", "the thumbnail does not fit into a record", stage="decode")


def decode_thumbnail(data: bytes) -> NDArray[np.uint8]:
    """Decode what ``encode_thumbnail`` made.

    Args:
        data: JPEG bytes.

    Returns:
        uint8 [h, w, 3] RGB.
    """
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError("the thumbnail of a record cannot be decoded")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def member_record(content: Content, data: bytes, side: int, limits: DecodeLimits) -> MemberRecord:
    """Make the record of one member from its bytes.

    Args:
        content: whose representative the bytes are.
        data: all bytes of the representative.
        side: the longer side of the thumbnail in pixels.
        limits: what the decoder may spend.

    Returns:
        The record, without an embedding.

    Raises:
        ImageError: if the bytes give no pixels within the limits.
    """
    shorter = min(content.width, content.height) / max(content.width, content.height, 1)
    # A decode at half the size that falls a little short of it is taken as it is.
    decoded = decode(
        data,
        path=content.uri,
        min_side=max(1, round(_LEAST_SIDE * side * shorter)),
        limits=limits,
        with_hash=False,
    )
    pixels = make_thumbnail(decoded.pixels, side)
    points = extract(pixels).pack()
    thumbnail = encode_thumbnail(pixels, MAX_RECORD_BYTES - len(points) - 4096)
    return MemberRecord(content.content, content.uri, thumbnail, points, b"", "", "", "", len(data))


def failed_record(content: Content, stage: str, error_type: str, message: str) -> MemberRecord:
    """Return the record of a member that could not be read."""
    return MemberRecord(content.content, content.uri, b"", b"", b"", stage, error_type, message, 0)


def _requests(unit: PairUnit) -> Iterator[tuple[bytes, tuple[str, Content]]]:
    report_progress(STAGE, 0, len(unit.contents))
    for content in unit.contents:
        # The keys have done their work; without them a request is a third as large.
        yield content.content, (unit.unit, content._replace(wavelet_keys=b"", color=b""))


def _by_content(record: MemberRecord) -> tuple[bytes, MemberRecord]:
    return record.content, record


def _members(component: tuple[bytes, Unfinished]) -> Iterator[tuple[bytes, bytes]]:
    for content in component[1].contents:
        yield content.content, b""


class _ReadDoFn(MeteredDoFn):
    stage = STAGE

    def __init__(self, side: int, limits: DecodeLimits, access: Access) -> None:
        self.side = side
        self.limits = limits
        self.access = access

    def setup(self) -> None:
        cv2.setNumThreads(1)

    def start_bundle(self) -> None:
        super().start_bundle()
        self.reads: ReadAhead[tuple[Content, list[str]]] = ReadAhead(
            self.access, self.limits.max_image_bytes
        )

    def process(
        self, joined: tuple[bytes, dict[str, list[Any]]]
    ) -> Iterator[
        MemberRead
        | beam.pvalue.TaggedOutput[Literal["reused"], tuple[str, MemberRecord]]
        | beam.pvalue.TaggedOutput[Literal["carried"], MemberRecord]
    ]:
        requests = joined[1]["requests"]
        units = sorted(unit for unit, _ in requests)
        known = (values for name, values in joined[1].items() if name.startswith("records"))
        for record in chain.from_iterable(known):
            if joined[1]["going_on"]:
                yield beam.pvalue.TaggedOutput("carried", record)
            report_progress(STAGE, len(units))
            for unit in units:
                yield beam.pvalue.TaggedOutput("reused", (unit, record))
            return
        if not requests:
            return
        report_progress(STAGE, len(units) - 1)
        content = requests[0][1]
        self.reads.add((content, units), Wanted(content.uri, content.size_bytes, content.etag))
        while self.reads.is_full:
            yield self._member()

    def finish_bundle(
        self,
    ) -> Iterator[WindowedValue | beam.pvalue.TaggedOutput[Literal["stats"], StageStats]]:
        while len(self.reads):
            yield in_global_window(self._member())
        self.reads.close()
        yield from super().finish_bundle()

    def _member(self) -> MemberRead:
        with self.meter.work():
            (content, units), read = self.reads.take()
            self.meter.cpu_us += read.cpu_us
            return MemberRead(self._record(content, read), units)

    def _record(self, content: Content, read: Read) -> MemberRecord:
        if read.error:
            self.meter.failed += 1
            return failed_record(content, "read", read.error.error_type, read.error.message)
        self.meter.bytes_read += len(read.data)
        try:
            record = member_record(content, read.data, self.side, self.limits)
        except ImageError as error:
            self.meter.failed += 1
            return failed_record(content, "decode", error.error_type, error.message)
        self.meter.items_out += 1
        return record


@dataclasses.dataclass(eq=False)
class ReadMembers(beam.PTransform):
    """Read each content that an undecided pair names, once over all rounds.

    Attributes:
        side: the longer side of the thumbnail in pixels, 1..384.
        limits: what the decoder may spend on one image.
        earlier: the records of earlier rounds; each content's is in one of them.
        unfinished: the components that go on; only their records are carried to the next round.
        access: how stores are reached.
    """

    side: int = 256
    limits: DecodeLimits = dataclasses.field(default_factory=DecodeLimits)
    earlier: Sequence[beam.PCollection[MemberRecord]] = ()
    unfinished: beam.PCollection[tuple[bytes, Unfinished]] | None = None
    access: Access = LOCAL

    def __post_init__(self) -> None:
        super().__init__()
        if not 1 <= self.side <= 384:
            raise ValueError(f"side must be in 1..384 pixels, not {self.side!r}")
        if bool(self.earlier) != (self.unfinished is not None):
            raise ValueError("earlier and unfinished are given together or not at all")

    @several_outputs
    def expand(self, units: beam.PCollection[PairUnit]) -> ReadMemberRecords:
        """Turn undecided units into member records."""
        tagged = {
            "requests": units
            | "Ask for members"
            >> beam.FlatMap(_requests).with_output_types(tuple[bytes, tuple[str, Content]])
        }
        for number, records in enumerate(self.earlier):
            tagged[f"records{number}"] = records | f"Key records {number}" >> beam.Map(
                _by_content
            ).with_output_types(tuple[bytes, MemberRecord])
        if self.unfinished is not None:
            tagged["going_on"] = self.unfinished | "Name members" >> beam.FlatMap(
                _members
            ).with_output_types(tuple[bytes, bytes])
        kinds = {"requests": tuple[str, Content], "going_on": bytes}
        types = {name: kinds.get(name, MemberRecord) for name in tagged}
        out = (
            tagged
            | "Join requests" >> JoinByKey(bytes, types)
            | "Read members"
            >> beam.ParDo(_ReadDoFn(self.side, self.limits, self.access))
            .with_output_types(
                MemberRead,
                reused=tuple[str, MemberRecord],
                carried=MemberRecord,
                stats=StageStats,
            )
            .with_outputs("reused", "carried", STATS, main="fresh")
        )
        return ReadMemberRecords(out.fresh, out.reused, out.carried, out[STATS])
