"""Every element type that crosses a PCollection, as NamedTuples with registered RowCoders.

Arrays travel as ``bytes`` with the dtype and shape stated beside the field. A *content* is a set of
inputs with equal pixel hashes; its id is that hash, and its representative is the first of its
members in the keep-best order. Pairs of contents are stored with ``a < b`` by id.
"""

from typing import NamedTuple, Optional, Protocol

from apache_beam import coders


class ImageRef(NamedTuple):
    """One input object as the listing knows it."""

    uri: str  # RFC 8089, unique per object: file:///abs/path or azfs://account/container/name
    path: str  # readable form of the URI, valid UTF-8
    below: str  # the percent-encoded part below the input root; ends every tie
    input_index: int  # position of the --input that named it first (folder order)
    size_bytes: int
    etag: Optional[str]
    modified_us: Optional[int]  # microseconds since 1970-01-01 UTC
    storage_id: str  # "dev:inode" where several names share one object, else ""


class Failure(NamedTuple):
    """A permanent failure of one image at one stage."""

    stage: str  # list | read | decode | color | global | local
    uri: str
    error_type: str  # one of imaging.errors.ERROR_TYPES
    message: str  # one line, control characters escaped, no secret


class FailedImage(NamedTuple):
    """An input that gave no bytes or no pixels, with whatever was measured before it failed."""

    ref: ImageRef
    failure: Failure
    format: Optional[str]  # as Pillow names it
    width: Optional[int]
    height: Optional[int]
    sha256: Optional[bytes]  # 32 bytes


class Fingerprint(NamedTuple):
    """What stage 1 measured of one image."""

    ref: ImageRef
    format: str  # as Pillow names it
    width: int  # pixels, after orientation
    height: int  # pixels, after orientation
    frames: int  # 1 for a still image
    sha256: bytes  # 32 bytes
    pixel_hash: bytes  # 32 bytes; see imaging.decode.pixel_hash
    wavelet_keys: bytes  # uint8 [32 + 64]: the key, then the compact form, see grouping.bands
    color: bytes  # uint8; the compact colour descriptor of imaging.color
    layout: bytes  # uint8; the luma layout of imaging.layout
    words: bytes  # local words, see imaging.words; b"" where no generator asks for them
    texture: float  # 0..1, how much the wavelet key rests on; low means flat or gradient
    sharpness: float  # 0..1, at a common size
    contrast: float  # 0..1
    brightness: float  # 0..1
    noise: float  # 0..1
    quality_score: float  # 0..1, a summary for people; the order below decides
    rank: bytes  # order-preserving key of the keep-best order; smaller is better (grouping.rank)


class Learned(NamedTuple):
    """What a global model made of a content, where all of them are embedded."""

    embedding: bytes  # float16 [d], of length 1; b"" if the model or the read failed
    label: str  # "" where no labels are asked for
    label_score: float  # 0..1
    error_stage: str  # "" | read | decode | global
    error_type: str
    error_message: str


class Content(NamedTuple):
    """One distinct content: what the near stages need of its representative."""

    content: bytes  # 32 bytes, the pixel hash
    uri: str  # of the representative
    sha256: bytes  # 32 bytes, of the representative
    rank: bytes  # of the representative
    second_rank: bytes  # of the next best image with this content; b"" if there is none
    size_bytes: int  # of the representative
    etag: Optional[str]  # of the representative
    width: int
    height: int
    animated: bool
    texture: float
    wavelet_keys: bytes  # uint8 [64], the compact form of the eight, see grouping.bands
    color: bytes
    layout: bytes
    copies: int  # rows with this content
    total_bytes: int  # bytes of its distinct storage objects
    links: list[str]  # "size:dev:inode" of each shared object, sorted; empty for most
    learned: Optional[Learned] = None  # None where contents are not embedded


class Candidate(NamedTuple):
    """A pair of contents that some generator proposed, a < b by content id."""

    a: bytes
    b: bytes
    generators: str  # names, sorted, joined by "+": wavelet | words | star | ...
    wavelet_distance: int  # bits, least over the eight orientations; -1 if not measured yet
    orientation: int  # EXIF orientation value 1..8 that turns a into b
    votes: int = 0  # agreeing words; negative if b is mirrored; 0 if words did not propose it
    # How a lies in b by the words, in 65536ths, see grouping.words.FIXED_POINT; 0 without votes.
    turn_scale_x: int = 0
    turn_scale_y: int = 0
    shift_x: int = 0
    shift_y: int = 0


class Edge(NamedTuple):
    """A compared pair with every piece of evidence, a < b by content id."""

    a: bytes
    b: bytes
    generators: str
    wavelet_distance: int
    orientation: int
    votes: int  # as in Candidate
    color_similarity: Optional[float]
    layout_similarity: Optional[float]  # of the luma layouts
    global_similarity: Optional[float]
    local_inliers: Optional[int]
    local_overlap: Optional[float]
    local_score: Optional[float]  # 0..1; meets the thresholds of stage 4
    relation: str  # see grouping.relations.RELATIONS
    derived: int  # +1: a is a crop, overlay or bordered form of b; -1: b of a; 0: neither
    verdict: str  # accept | reject | review | undecided (never in the report)
    decided_by: str  # wavelet | color | global | local
    error_stage: str  # "" or the stage of 2-4 that failed on this pair
    error_type: str
    error_message: str
    failed_member: bytes  # content id that failed, or b""
    turn_scale_x: int = 0  # this and what follows as in Candidate
    turn_scale_y: int = 0
    shift_x: int = 0
    shift_y: int = 0


class PairUnit(NamedTuple):
    """A bounded unit of work: some pairs of one component and every content they name."""

    unit: str  # unique in a run
    component: bytes  # id of the component, the least content id in it
    contents: list[Content]
    pairs: list[Edge]  # the evidence so far; verdict "undecided"


class MemberRecord(NamedTuple):
    """What the second read of a content gives to stages 3 and 4; its size: see DESIGN.md."""

    content: bytes
    uri: str
    thumbnail: bytes  # JPEG or PNG of at most 384 px on the longer side; b"" if failed
    points: bytes  # imaging.local.LocalFeatures.pack(); b"" where a learned matcher follows
    embedding: bytes  # float32 [k, d], rows of length 1; b"" before stage 3 or if it failed
    error_stage: str  # "" | read | decode | global
    error_type: str
    error_message: str
    bytes_read: int
    turns: bytes = b""  # uint8 [k], the EXIF orientation in which each row saw the picture


class MemberRequest(NamedTuple):
    """A unit of work that waits for a content."""

    unit: str
    content: Content
    turns: bytes  # uint8, the orientations beside 1 in which a learned model shall see it


class ImageInput(Protocol):
    """Pictures on their way to a global model; they never leave the stage that made them."""

    @property
    def inputs(self) -> bytes:
        """The thumbnail, or uint8 [k, crop, crop, 3] of ``Preparation``; b"" for none."""
        ...


class MemberRead(NamedTuple):
    """A freshly read member and the units of work that wait for it; an ``ImageInput``."""

    record: MemberRecord
    units: list[str]
    inputs: bytes = b""
    turns: bytes = b""  # uint8 [k], of each input


class ContentRead(NamedTuple):
    """A content whose picture was read for its embedding; an ``ImageInput``."""

    content: Content
    inputs: bytes
    error_stage: str  # "" | read | decode
    error_type: str
    error_message: str


class Embedded(NamedTuple):
    """What a global model made of an ``ImageInput``."""

    vectors: bytes  # float32 [k, d]; b"" if there was nothing to embed or the model failed
    error_type: str = ""  # one of imaging.errors.ERROR_TYPES
    error_message: str = ""


class LocalPair(NamedTuple):
    """An undecided pair with what stage 4 compares."""

    component: bytes
    edge: Edge
    record_a: MemberRecord
    record_b: MemberRecord
    texture: float  # 0..1, of the end with less information


class Decision(NamedTuple):
    """Where one content ended: its group, the kept content, and the evidence towards it."""

    content: bytes
    kept: bytes  # content id of the kept image
    group_id: str  # "" for a content that is alone and only carries an error
    group_size: int  # rows
    best_uri: str
    best_sha256: bytes
    best_size_bytes: int
    relation: Optional[str]  # null for the kept content
    decided_by: Optional[str]
    wavelet_distance: Optional[int]
    color_similarity: Optional[float]
    global_similarity: Optional[float]
    local_inliers: Optional[int]
    local_overlap: Optional[float]
    best_rank: bytes
    keep_reason: str  # the rule by which the kept image came before this one
    error_stage: Optional[str]
    error_type: Optional[str]
    error_message: Optional[str]


class ImageRow(NamedTuple):
    """A row of ``images``; the columns of the report in their order."""

    uri: str
    path: str
    status: str  # unique | best | duplicate | failed
    group_id: Optional[str]
    group_size: Optional[int]
    best_uri: Optional[str]
    relation: Optional[str]
    decided_by: Optional[str]
    wavelet_distance: Optional[int]
    color_similarity: Optional[float]
    global_similarity: Optional[float]
    local_inliers: Optional[int]
    local_overlap: Optional[float]
    quality_score: Optional[float]
    keep_reason: Optional[str]
    width: Optional[int]
    height: Optional[int]
    format: Optional[str]
    size_bytes: Optional[int]
    sharpness: Optional[float]
    contrast: Optional[float]
    brightness: Optional[float]
    noise: Optional[float]
    sha256: Optional[str]  # hex
    pixel_hash: Optional[str]  # hex
    wavelet_key: Optional[str]  # 64 hex digits
    metadata_hash: Optional[str]
    etag: Optional[str]
    modified: Optional[int]  # microseconds since 1970-01-01 UTC
    error_stage: Optional[str]
    error_type: Optional[str]
    error_message: Optional[str]
    label: Optional[str] = None
    label_score: Optional[float] = None
    embedding: Optional[bytes] = None  # float16 [d]


class GroupRow(NamedTuple):
    """A row of ``groups``."""

    group_id: str
    size: int  # rows
    best_uri: str
    keep_reason: str
    min_similarity: float
    reclaimable_bytes: int
    chain_cut: int  # accepted edges that leave the group


class EdgeRow(NamedTuple):
    """A row of ``edges``; uri_a < uri_b."""

    uri_a: str
    uri_b: str
    generators: str
    wavelet_distance: Optional[int]
    orientation: Optional[int]
    word_votes: Optional[int]  # agreeing words; negative if one picture is mirrored
    color_similarity: Optional[float]
    layout_similarity: Optional[float]
    global_similarity: Optional[float]
    local_inliers: Optional[int]
    local_overlap: Optional[float]
    local_score: Optional[float]
    relation: str
    verdict: str  # accept | reject | review
    decided_by: str
    in_group: bool


class RequestCount(NamedTuple):
    """Requests of one kind and status that a process sent to a store."""

    kind: str  # list | head | read | write | copy | delete | lease
    status: str  # of HTTP, or reset | timeout where there was none
    requests: int
    retries: int  # operations begun again because of them
    waited_us: int  # for the rate limit, or because the store asked
    bytes_received: int
    bytes_sent: int


class StageStats(NamedTuple):
    """What one bundle of one stage did; added up for the summary."""

    stage: str
    worker: str  # host:pid
    started_us: int  # wall clock, microseconds
    ended_us: int
    cpu_us: int
    items_in: int
    items_out: int
    failed: int
    skipped: int
    bytes_read: int
    peak_rss_bytes: int
    requests: list[RequestCount] = []  # noqa: RUF012 - never changed; empty for local files
    halvings: int = 0  # of a model's batches, for want of memory
    batch_limit: int = 0  # items of one call of the model since then; 0 without a halving


class ReportFile(NamedTuple):
    """A file that a report writer made."""

    path: str  # relative to the output folder
    rows: Optional[int]  # null if it is no table
    size_bytes: int
    sha256: str  # hex


class Cap(NamedTuple):
    """A bound that was applied, for the summary."""

    stage: str
    name: str
    limit: int
    applied: int  # how often
    note: str


ELEMENT_TYPES = (
    ImageRef, Failure, FailedImage, Fingerprint, Learned, Content, Candidate, PairUnit, Edge,
    MemberRecord, MemberRequest, MemberRead, ContentRead, LocalPair, Decision, ImageRow, GroupRow,
    EdgeRow, RequestCount, StageStats, ReportFile, Cap,
)  # fmt: skip

for _type in ELEMENT_TYPES:
    coders.registry.register_coder(_type, coders.RowCoder)
