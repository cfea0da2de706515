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
from transforms.imaging.orientation import apply
from transforms.imaging.points import KINDS, extract
from transforms.imaging.preparation import Preparation
from transforms.joins import JoinByKey
from transforms.outputs import in_global_window, several_outputs
from transforms.records import (
    Content,
    Failure,
    MemberRead,
    MemberRecord,
    MemberRequest,
    PairUnit,
    StageStats,
)
from transforms.rounds import ALIGNED_BITS, Unfinished
from transforms.storage.reads import ReadAhead, Wanted
from transforms.telemetry import STATS, MeteredDoFn, report_progress

STAGE = "features"
# The most a record may weigh on its way through a shuffle, with points and without (DESIGN.md).
_POINTS_RECORD_BYTES = 128 * 1024
_THUMBNAIL_RECORD_BYTES = 256 * 1024
# Of a record, kept free for names and a vector of up to 1,000 values; longer ones, and those of
# further turns, come on top of the record's bound.
_VECTOR_BYTES = 4 * 1024
UPRIGHT = b"\x01"
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


@dataclasses.dataclass(frozen=True)
class MemberSettings:
    """What stages 3 and 4 take of a member.

    Attributes:
        side: the longer side of the thumbnail in pixels, 1..384.
        points: the kind of its local features, see ``imaging.points``; None for no features.
        preparation: of a learned global model; None where it takes the thumbnail.
    """

    side: int = 256
    points: str | None = "orb"
    preparation: Preparation | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.side <= 384:
            raise ValueError(f"side must be in 1..384 pixels, not {self.side!r}")
        if self.points is not None and self.points not in KINDS:
            raise ValueError(f"points must be None or one of {KINDS!r}, not {self.points!r}")

    def decode_side(self, width: int, height: int) -> int:
        """Return what the shorter side of a picture must keep when it is decoded, pixels."""
        if self.preparation is not None:
            # All: decoded at a half by libjpeg, 12 pictures of 12 megapixels still had vectors with
            # cosines down to 0.9984 to those of all pixels, where four times the side that the
            # network takes was left (ViT-S/32 and EfficientNet-B0 with random weights).
            return max(1, width, height)
        # A decode at half the size that falls a little short of it is taken as it is.
        shorter = min(width, height) / max(width, height, 1)
        return max(1, round(_LEAST_SIDE * self.side * shorter))


def read_member(
    content: Content, data: bytes, turns: bytes, settings: MemberSettings, limits: DecodeLimits
) -> MemberRead:
    """Make what stages 3 and 4 need of one member, from its bytes, decoded once.

    Args:
        content: whose representative the bytes are; its embedding, if it has one, is kept.
        data: all bytes of the representative.
        turns: the orientations beside 1 in which a learned global model shall see it.
        settings: what is needed.
        limits: what the decoder may spend.

    Returns:
        The member, with what is still to be embedded, and no units.

    Raises:
        ImageError: if the bytes give no pixels within the limits.
    """
    decoded = _decode(content, data, settings, limits)
    pixels = make_thumbnail(decoded, settings.side)
    points, most = b"", _THUMBNAIL_RECORD_BYTES
    if settings.points is not None:
        points, most = extract(pixels, kind=settings.points).pack(), _POINTS_RECORD_BYTES
    thumbnail = encode_thumbnail(pixels, most - len(points) - _VECTOR_BYTES)
    embedding, known = _embedding_of(content)
    record = MemberRecord(
        content.content, content.uri, thumbnail, points, embedding, "", "", "", len(data), known
    )
    if settings.preparation is None:
        left = UPRIGHT if not known else b""
        return MemberRead(record, [], thumbnail if left else b"", left)
    left = bytes(turn for turn in UPRIGHT + turns if turn not in known)
    # To turn what is prepared would be a pixel off where the middle is not that of whole pixels.
    seen = (np.ascontiguousarray(apply(decoded, turn)) for turn in left)
    inputs = b"".join(settings.preparation.apply(pixels).tobytes() for pixels in seen)
    return MemberRead(record, [], inputs, left)


def read_input(
    content: Content, data: bytes, settings: MemberSettings, limits: DecodeLimits
) -> bytes:
    """Make what a global model takes of one upright picture, the same as ``read_member`` makes.

    Args:
        content: whose representative the bytes are.
        data: all bytes of the representative.
        settings: what is needed of a member.
        limits: what the decoder may spend.

    Returns:
        ``inputs`` of an ``ImageInput``.

    Raises:
        ImageError: if the bytes give no pixels within the limits.
    """
    pixels = _decode(content, data, settings, limits)
    if settings.preparation is not None:
        return settings.preparation.apply(pixels).tobytes()
    return encode_thumbnail(make_thumbnail(pixels, settings.side), _THUMBNAIL_RECORD_BYTES)


def _decode(
    content: Content, data: bytes, settings: MemberSettings, limits: DecodeLimits
) -> NDArray[np.uint8]:
    """Return the upright pixels of a picture, uint8 [h, w, 3], as small as the settings allow."""
    decoded = decode(
        data,
        path=content.uri,
        min_side=settings.decode_side(content.width, content.height),
        limits=limits,
        with_hash=False,
    )
    return decoded.pixels


def _embedding_of(content: Content) -> tuple[bytes, bytes]:
    """Return the embedding that a content has, float32 [1, d], and its turns."""
    if content.learned is None or not content.learned.embedding:
        return b"", b""
    stored = np.frombuffer(content.learned.embedding, np.float16).astype(np.float32)
    return (stored / np.linalg.norm(stored)).astype(np.float32).tobytes(), UPRIGHT


def failed_record(content: Content, stage: str, error_type: str, message: str) -> MemberRecord:
    """Return the record of a member that could not be read."""
    return MemberRecord(content.content, content.uri, b"", b"", b"", stage, error_type, message, 0)


def _requests(unit: PairUnit, *, turned: bool) -> Iterator[tuple[bytes, MemberRequest]]:
    report_progress(STAGE, 0, len(unit.contents))
    turns: dict[bytes, set[int]] = {}
    if turned:
        for edge in unit.pairs:
            if edge.orientation != 1 and edge.wavelet_distance <= ALIGNED_BITS:
                turns.setdefault(edge.a, set()).add(edge.orientation)
    for content in unit.contents:
        # The keys have done their work; without them a request is a third as large.
        slim = content._replace(wavelet_keys=b"", color=b"")
        wanted = bytes(sorted(turns.get(content.content, ())))
        yield content.content, MemberRequest(unit.unit, slim, wanted)


def _by_content(record: MemberRecord) -> tuple[bytes, MemberRecord]:
    return record.content, record


def _members(component: tuple[bytes, Unfinished]) -> Iterator[tuple[bytes, bytes]]:
    for content in component[1].contents:
        yield content.content, b""


class ReadContentsDoFn(MeteredDoFn):
    """Reads the representatives of contents ahead; subclasses say what comes of each."""

    def __init__(self, settings: MemberSettings, limits: DecodeLimits, access: Access) -> None:
        """Take what is needed, what the decoder may spend, and how stores are reached."""
        self.settings = settings
        self.limits = limits
        self.access = access

    def setup(self) -> None:
        """Leave the CPUs to the runner's workers."""
        cv2.setNumThreads(1)

    def start_bundle(self) -> None:
        """Begin a new queue."""
        super().start_bundle()
        self.reads: ReadAhead[tuple[Content, Any]] = ReadAhead(
            self.access, self.limits.max_image_bytes
        )

    def read_ahead(self, content: Content, ticket: Any = None) -> Iterator[Any]:
        """Ask for a picture, and yield what comes of those that had to wait long enough.

        Args:
            content: whose representative it is.
            ticket: what ``made`` and ``failed`` get with it.
        """
        self.reads.add((content, ticket), Wanted(content.uri, content.size_bytes, content.etag))
        while self.reads.is_full:
            yield self._next()

    def finish_bundle(
        self,
    ) -> Iterator[WindowedValue | beam.pvalue.TaggedOutput[Literal["stats"], StageStats]]:
        """Yield what comes of the rest, and the bundle's statistics."""
        while len(self.reads):
            yield in_global_window(self._next())
        self.reads.close()
        yield from super().finish_bundle()

    def _next(self) -> Any:
        with self.meter.work():
            (content, ticket), read = self.reads.take()
            self.meter.cpu_us += read.cpu_us
            if read.error:
                self.meter.failed += 1
                kind, message = read.error.error_type, read.error.message
                return self.failed(content, ticket, Failure("read", content.uri, kind, message))
            self.meter.bytes_read += len(read.data)
            try:
                made = self.made(content, ticket, read.data)
            except ImageError as error:
                self.meter.failed += 1
                kind, message = error.error_type, error.message
                return self.failed(content, ticket, Failure("decode", content.uri, kind, message))
            self.meter.items_out += 1
            return made

    def made(self, content: Content, ticket: Any, data: bytes) -> Any:
        """Return the element that is made of a picture's bytes.

        Raises:
            ImageError: if the bytes give no pixels within the limits.
        """
        raise NotImplementedError

    def failed(self, content: Content, ticket: Any, failure: Failure) -> Any:
        """Return the element of a picture that could not be read or decoded."""
        raise NotImplementedError


class _ReadDoFn(ReadContentsDoFn):
    stage = STAGE

    def process(
        self, joined: tuple[bytes, dict[str, list[Any]]]
    ) -> Iterator[
        MemberRead
        | beam.pvalue.TaggedOutput[Literal["reused"], tuple[str, MemberRecord]]
        | beam.pvalue.TaggedOutput[Literal["carried"], MemberRecord]
    ]:
        requests: list[MemberRequest] = joined[1]["requests"]
        units = sorted(request.unit for request in requests)
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
        content = requests[0].content
        turns = bytes(sorted({turn for request in requests for turn in request.turns}))
        yield from self.read_ahead(content, (units, turns))

    def made(self, content: Content, ticket: tuple[list[str], bytes], data: bytes) -> MemberRead:
        units, turns = ticket
        return read_member(content, data, turns, self.settings, self.limits)._replace(units=units)

    def failed(
        self, content: Content, ticket: tuple[list[str], bytes], failure: Failure
    ) -> MemberRead:
        stage, _, error_type, message = failure
        return MemberRead(failed_record(content, stage, error_type, message), ticket[0])


@dataclasses.dataclass(eq=False)
class ReadMembers(beam.PTransform):
    """Read each content that an undecided pair names, once over all rounds.

    Attributes:
        settings: what stages 3 and 4 take of a member.
        limits: what the decoder may spend on one image.
        earlier: the records of earlier rounds; each content's is in one of them.
        unfinished: the components that go on; only their records are carried to the next round.
        access: how stores are reached.
    """

    settings: MemberSettings = dataclasses.field(default_factory=MemberSettings)
    limits: DecodeLimits = dataclasses.field(default_factory=DecodeLimits)
    earlier: Sequence[beam.PCollection[MemberRecord]] = ()
    unfinished: beam.PCollection[tuple[bytes, Unfinished]] | None = None
    access: Access = LOCAL

    def __post_init__(self) -> None:
        super().__init__()
        if bool(self.earlier) != (self.unfinished is not None):
            raise ValueError("earlier and unfinished are given together or not at all")

    @several_outputs
    def expand(self, units: beam.PCollection[PairUnit]) -> ReadMemberRecords:
        """Turn undecided units into member records."""
        tagged = {
            "requests": units
            | "Ask for members"
            >> beam.FlatMap(
                _requests, turned=self.settings.preparation is not None
            ).with_output_types(tuple[bytes, MemberRequest])
        }
        for number, records in enumerate(self.earlier):
            tagged[f"records{number}"] = records | f"Key records {number}" >> beam.Map(
                _by_content
            ).with_output_types(tuple[bytes, MemberRecord])
        if self.unfinished is not None:
            tagged["going_on"] = self.unfinished | "Name members" >> beam.FlatMap(
                _members
            ).with_output_types(tuple[bytes, bytes])
        kinds = {"requests": MemberRequest, "going_on": bytes}
        types = {name: kinds.get(name, MemberRecord) for name in tagged}
        out = (
            tagged
            | "Join requests" >> JoinByKey(bytes, types)
            | "Read members"
            >> beam.ParDo(_ReadDoFn(self.settings, self.limits, self.access))
            .with_output_types(
                MemberRead,
                reused=tuple[str, MemberRecord],
                carried=MemberRecord,
                stats=StageStats,
            )
            .with_outputs("reused", "carried", STATS, main="fresh")
        )
        return ReadMemberRecords(out.fresh, out.reused, out.carried, out[STATS])
