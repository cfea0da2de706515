"""Listings of remote stores, kept so that the next job need not list again.

A listing is that of all names that begin with one prefix, before anything leaves a name out: globs,
filters and the output folder are applied when it is read, so that one listing serves them all. Each
prefix has a folder of its own below the cache:

- ``LISTING-PART-ATTEMPT-NUMBER.parquet``: a row a name, with its ``uri``, written by the worker
  that walked the part. Nobody ever writes to a name twice.
- ``manifest.json``: names the shards that together are the whole; written when all parts are, and
  replaced as one. Where there is none, there is no listing, however many shards there are (R7).

A new manifest makes the shards of the one before it useless, but a job may still be reading them:
they go with the manifest after that, as do those that no manifest ever named.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import heapq
import io
import json
import logging
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Optional
from urllib.parse import unquote_to_bytes

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.access import Access
from transforms.records import ImageRef
from transforms.storage.errors import InputError
from transforms.storage.folders import Folder, open_folder, pin_folder
from transforms.storage.inputs import is_remote, source_of, split
from transforms.storage.patterns import Glob, Selection, as_text
from transforms.storage.sightings import Kind, Scope, Sighting, Source
from transforms.storage.stores import store_of
from transforms.storage.uris import readable, scheme_of, to_uri

MANIFEST = "manifest.json"
_FORMAT = 1
_SKEW_S = 300.0  # by which the clock of another machine may be ahead
_SHARD_ROWS = 100_000  # some 5 MB; a listing that is used again is read shard by shard
_ROWS_AT_ONCE = 5_000
_SHARD_NAME = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{8}-\d{5}-[0-9a-f]{8}-\d{3}\.parquet")
_TIME = "%Y%m%dT%H%M%SZ"
_UNUSED_S = 86400.0  # no listing takes so long, so that shards this old belong to none under way
_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("below", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("etag", pa.string()),
        pa.field("modified", pa.timestamp("us", tz="UTC")),
        pa.field("content_md5", pa.string(), nullable=False),
        pa.field("error_type", pa.string(), nullable=False),
        pa.field("error_message", pa.string(), nullable=False),
    ]
)

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ListingCache:
    """Where listings are kept, and how long they are good.

    Args:
        folder: a local folder or one of Azure; relative ones are pinned to the current folder.
        max_age_s: seconds after which a listing is made anew; 0 always does.

    Raises:
        InputError: the folder lies on another kind of store.
    """

    folder: str
    max_age_s: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", pin_folder(self.folder, "listing_cache"))

    @property
    def uri(self) -> str:
        """Return the URI of the folder."""
        return self.folder if scheme_of(self.folder) else to_uri(self.folder)


class Shard(NamedTuple):
    """A file of a kept listing."""

    name: str
    rows: int
    size_bytes: int
    sha256: str  # hex
    first: str  # the URI of its first row


class Known(NamedTuple):
    """A part of an input of which a listing is at hand: some shards of it, or all."""

    source: Source  # the whole input
    folder: str  # of the cache
    shards: tuple[Shard, ...]
    began: float  # when it was listed, seconds since 1970-01-01 UTC

    def age_s(self, now: float) -> float:
        """Return how old the listing is, in seconds."""
        return max(0.0, now - self.began)


class Fresh(NamedTuple):
    """A part of an input that is listed now, to be kept."""

    source: Source  # the part
    folder: str  # of the cache
    prefix: str  # of the whole input
    listing: str  # of which it is a part
    number: int  # of the part, from 0
    parts: int  # of the listing


class Kept(NamedTuple):
    """A part that was walked to its end, and its shards."""

    part: Fresh
    rows: int
    shards: list[Shard]


def prefix_of(source: Source) -> str:
    """Return what all names of a folder or glob begin with, which is what their listing is of."""
    return f"{source.uri.rstrip('/')}/{source.part}"


def find(
    cache: ListingCache, source: Source, access: Access, now: Optional[float] = None
) -> Optional[Known]:
    """Return the listing of a folder or glob, if there is a whole one that is not too old.

    Args:
        cache: where to look.
        source: of kind ``folder`` or ``glob``.
        access: how the cache is reached.
        now: seconds since 1970-01-01 UTC; None asks the clock.
    """
    if cache.max_age_s <= 0:
        return None
    prefix = prefix_of(source)
    manifest = _manifest(_folder(cache.folder, prefix, access), prefix)
    if manifest is None or not manifest["shards"]:
        return None
    began = _seconds(manifest["listing"])
    age = (time.time() if now is None else now) - began
    if not -_SKEW_S <= age <= cache.max_age_s:
        return None
    shards = tuple(Shard(**shard) for shard in manifest["shards"])
    return Known(source, cache.folder, shards, began)


def resolve(
    pinned: bytes, scope: Scope, cache: Optional[ListingCache] = None
) -> tuple[Source, Optional[Known]]:
    """Find out what an input names, and whether a listing of it is at hand.

    Raises:
        InputError: it names nothing, or something that cannot be an input.
    """
    found: dict[str, Known] = {}

    def is_known(source: Source) -> bool:
        known = find(cache, source, scope.access) if cache else None
        if known:
            found[prefix_of(source)] = known
        return known is not None

    source = source_of(pinned, scope, is_known)
    if source.kind not in ("folder", "glob") or not is_remote(source.uri):
        return source, None
    if prefix_of(source) in found or is_known(source):
        return source, found[prefix_of(source)]._replace(source=source)
    return source, None


def fresh_parts(
    source: Source, scope: Scope, cache: ListingCache, now: Optional[float] = None
) -> list[Fresh]:
    """Cut an input into parts whose listing is kept when all of them are walked."""
    began = time.gmtime(time.time() if now is None else now)
    listing = f"{time.strftime(_TIME, began)}-{secrets.token_hex(4)}"
    if not is_remote(source.uri):
        raise RuntimeError("only listings of remote stores are kept")
    sources = list(split(source, scope))
    return [
        Fresh(part, cache.folder, prefix_of(source), listing, number, len(sources))
        for number, part in enumerate(sources)
    ]


def read_known(known: Known, scope: Scope) -> Iterator[Sighting]:
    """Yield the sightings of a part of which a listing is at hand, as a walk now would.

    Several shards come in the order of their names, of which only those are open that overlap.

    Raises:
        InputError: a shard is gone or is not what the manifest says.
    """
    chosen = _Chosen(known.source, scope)
    folder = _folder(known.folder, prefix_of(known.source), scope.access)
    waiting: list[tuple[bytes, int, Optional[Sighting], Iterator[Sighting]]] = [
        (_name(shard.first), number, None, _rows(folder, shard, scope))
        for number, shard in enumerate(known.shards)
    ]
    heapq.heapify(waiting)
    while waiting:
        _, number, sighting, rows = heapq.heappop(waiting)
        if sighting is not None and (taken := chosen.of(sighting)):
            yield taken
        following = next(rows, None)
        if following is not None:
            heapq.heappush(waiting, (_name(following.ref.uri), number, following, rows))


def walk_fresh(part: Fresh, scope: Scope, keep: Callable[[Kept], None]) -> Iterator[Sighting]:
    """Walk a part, yield its sightings, and keep all that the store has there.

    Args:
        part: what is walked.
        scope: of the input.
        keep: told of the shards, after the last sighting.
    """
    chosen = _Chosen(part.source, scope)
    with _Shards(part, scope.access) as shards:
        for sighting in walk_all(part.source, scope):
            shards.add(sighting)
            if taken := chosen.of(sighting):
                yield taken
        keep(shards.finished())


def walk_all(source: Source, scope: Scope) -> Iterator[Sighting]:
    """Yield all that a store has below a folder or the root of a glob, whatever the filters."""
    bare = dataclasses.replace(scope, selection=Selection(), output_uri=None, cache_uri=None)
    everything = source._replace(kind="folder", segments=())
    yield from store_of(source.uri, "input").walk(everything, bare)


def looks_empty(source: Source, scope: Scope, most: int) -> bool:
    """Tell whether no name below a folder, or that a glob matches, is an input.

    Args:
        source: of kind ``folder`` or ``glob``.
        scope: of the input.
        most: names that are looked at; where there are more, none of which is an input, it is not
            certain that there is none, and the answer is no.
    """
    chosen = _Chosen(source, scope)
    for number, sighting in enumerate(walk_all(source, scope)):
        taken = chosen.of(sighting)
        if taken and taken.kind in (Kind.FOUND, Kind.FAILED):
            return False
        if number >= most:
            log.warning("none of the first %r names of input %r is an input", most, scope.index + 1)
            return False
    return True


class _Chosen:
    """Applies to a listing of everything what a walk would have applied on its way."""

    def __init__(self, source: Source, scope: Scope) -> None:
        self._glob = Glob(source.segments) if source.segments else None
        self._scope = scope

    def of(self, sighting: Sighting) -> Optional[Sighting]:
        """Return what the sighting is to this input; None for what is none of its names."""
        ref, scope = sighting.ref, self._scope
        if self._glob and not self._glob.matches(as_text(_name(ref.below)).split("/")):
            return None
        if scope.in_output(ref.uri):
            return None
        if not scope.selection.keeps(ref.below):
            return scope.unseen(Kind.EXCLUDED, ref.uri, ref.below)
        kept = scope.found(ref, sighting.content_md5)
        return sighting if kept.kind == Kind.FOUND else kept


def publish(
    kept: Iterable[Kept], access: Access, now: Optional[float] = None
) -> Optional[dict[str, Any]]:
    """Write the manifest of a listing if all of its parts are there, and remove what is useless.

    Args:
        kept: parts of one listing.
        access: how the cache is reached.
        now: seconds since 1970-01-01 UTC; None asks the clock.

    Returns:
        The manifest; None where a part is missing.
    """
    parts = {one.part.number: one for one in kept}
    some = next(iter(parts.values())).part
    if sorted(parts) != list(range(some.parts)):
        log.warning("a listing has %r of %r parts and is not kept", len(parts), some.parts)
        return None
    folder = _folder(some.folder, some.prefix, access)
    before = _manifest(folder, some.prefix)
    shards = [shard for number in sorted(parts) for shard in parts[number].shards]
    now = time.time() if now is None else now
    manifest = {
        "format": _FORMAT,
        "prefix": some.prefix,
        "listing": some.listing,
        "began": _iso(_seconds(some.listing)),
        "created": _iso(now),
        "rows": sum(one.rows for one in parts.values()),
        "shards": [shard._asdict() for shard in shards],
    }
    folder.write(MANIFEST, io.BytesIO(json.dumps(manifest, indent=1).encode()))
    named = {shard.name for shard in shards}
    named |= {shard["name"] for shard in before["shards"]} if before else set()
    for name in folder.names():
        found = _SHARD_NAME.fullmatch(name)
        if found and name not in named and now - _seconds(found[1]) > _UNUSED_S:
            folder.remove(name)
    return manifest


class _Shards:
    """Writes the rows of a part; a context manager."""

    def __init__(self, part: Fresh, access: Access) -> None:
        self._part = part
        self._folder = _folder(part.folder, part.prefix, access)
        # A bundle that runs twice, or in two places at once, writes other names each time.
        self._stem = f"{part.listing}-{part.number:05d}-{secrets.token_hex(4)}"
        self._waiting: list[Sighting] = []
        self._shards: list[Shard] = []
        self._open = contextlib.ExitStack()
        self._begin()

    def __enter__(self) -> "_Shards":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, sighting: Sighting) -> None:
        if not self._rows:
            self._first = sighting.ref.uri
        self._rows += 1
        self._waiting.append(sighting)
        if len(self._waiting) >= _ROWS_AT_ONCE:
            self._flush()
        if self._rows >= _SHARD_ROWS:
            self._end()
            self._begin()

    def finished(self) -> Kept:
        if self._rows:
            self._end()
        return Kept(self._part, sum(shard.rows for shard in self._shards), self._shards)

    def _begin(self) -> None:
        file = tempfile.TemporaryFile(prefix="beam-dedup-listing-")
        self._file = self._open.enter_context(file)
        self._writer = self._open.enter_context(
            pq.ParquetWriter(
                self._file,
                _SCHEMA,
                compression="zstd",
                use_dictionary=["error_type", "error_message"],
                column_encoding={"uri": "DELTA_BYTE_ARRAY", "below": "DELTA_BYTE_ARRAY"},
            )
        )
        self._rows, self._first = 0, ""

    def _flush(self) -> None:
        self._writer.write_table(_table(self._waiting))
        self._waiting = []

    def _end(self) -> None:
        if self._waiting:
            self._flush()
        self._writer.close()
        self._file.seek(0)
        digest = hashlib.file_digest(self._file, "sha256").hexdigest()
        name = f"{self._stem}-{len(self._shards):03d}.parquet"
        size = self._file.tell()
        self._folder.write(name, self._file)
        self._shards.append(Shard(name, self._rows, size, digest, self._first))
        self._open.close()


def _table(rows: list[Sighting]) -> pa.Table:
    refs = [row.ref for row in rows]
    columns = [
        [ref.uri for ref in refs],
        [ref.below for ref in refs],
        [ref.size_bytes for ref in refs],
        [ref.etag for ref in refs],
        [ref.modified_us for ref in refs],
        [row.content_md5 for row in rows],
        [row.error_type for row in rows],
        [row.message for row in rows],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def _rows(folder: Folder, shard: Shard, scope: Scope) -> Iterator[Sighting]:
    data = folder.read(shard.name)
    if data is None or hashlib.sha256(data).hexdigest() != shard.sha256:
        raise InputError(
            f"the kept listing of input {scope.index + 1} has lost its file {shard.name}: run "
            "again with --listing_max_age=0 to list anew"
        )
    for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches(_ROWS_AT_ONCE):
        columns = [batch.column(field.name) for field in _SCHEMA]
        columns[4] = columns[4].cast(pa.int64())
        for uri, below, size, etag, modified, md5, error_type, message in zip(
            *(column.to_pylist() for column in columns), strict=True
        ):
            ref = ImageRef(uri, readable(uri), below, scope.index, size, etag, modified, "")
            kind = Kind.FAILED if error_type else Kind.FOUND
            yield Sighting(kind, ref, error_type, message, md5)


def _name(text: str) -> bytes:
    # Names of a store sort by their own bytes, not by those of their encoded form.
    return unquote_to_bytes(text)


def _folder(cache: str, prefix: str, access: Access) -> Folder:
    return open_folder(cache, hashlib.sha256(prefix.encode()).hexdigest()[:32], access)


def _manifest(folder: Folder, prefix: str) -> Optional[dict[str, Any]]:
    data = folder.read(MANIFEST)
    if data is None:
        return None
    try:
        manifest: dict[str, Any] = json.loads(data)
        _seconds(manifest["listing"])
        shards = [Shard(**shard) for shard in manifest["shards"]]
        is_good = manifest["format"] == _FORMAT and manifest["prefix"] == prefix
        is_good &= all(_SHARD_NAME.fullmatch(shard.name) for shard in shards)
        is_good &= sum(shard.rows for shard in shards) == manifest["rows"]
    except (ValueError, TypeError, KeyError):
        is_good = False
    if not is_good:
        log.warning("the listing cache holds a %s that is none; it is not used", MANIFEST)
        return None
    return manifest


def _seconds(listing: str) -> float:
    """Return when a listing began, by its name."""
    text = listing.partition("-")[0]
    then = datetime.datetime.strptime(text, _TIME).replace(tzinfo=datetime.UTC)
    return then.timestamp()


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
