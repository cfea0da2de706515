"""Stores of other schemes through Beam's own file systems: ``gs``, ``s3`` and ``hdfs``.

Each needs the extra of Beam that has its libraries. What Beam gives is a listing with sizes and
dates, and a stream; how often a request is tried again is the file system's own matter. One worker
lists an input. Beam's globs are not used: they read literal names as patterns (faults P9, P10).

A URI here has every byte of the name but ``A-Za-z0-9-._~/`` percent-encoded; Beam takes raw names.
"""

import functools
import importlib
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Optional
from urllib.parse import quote, unquote_to_bytes

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.value_provider import RuntimeValueProvider

from transforms.access import LOCAL, Access
from transforms.records import ImageRef
from transforms.storage.errors import InputError, StorageError, too_large
from transforms.storage.patterns import MAGIC, Glob, with_literals
from transforms.storage.remote import (
    as_folder,
    copied_list,
    glob_source,
    sight_together,
    single_source,
)
from transforms.storage.sightings import (
    IsKnown,
    Kind,
    Scope,
    Sighting,
    Source,
    nothing_is_known,
)
from transforms.storage.uris import readable, scheme_of, written_below

_AUTHORITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")  # of a bucket or a host; never a user
_MAX_LIST_BYTES = 2**31
_READ_AT_ONCE = 2**24


class _Parts(NamedTuple):
    """What a scheme needs."""

    module: str  # of Beam
    library: str
    extra: str  # of Beam


_NEEDED = {
    "gs": _Parts("apache_beam.io.gcp.gcsfilesystem", "google.cloud.storage", "gcp"),
    "hdfs": _Parts("apache_beam.io.hadoopfilesystem", "hdfs", "hadoop"),
    "s3": _Parts("apache_beam.io.aws.s3filesystem", "boto3", "aws"),
}


class Place(NamedTuple):
    """An object or a folder of a file system."""

    scheme: str
    authority: str  # bucket or host
    name: str  # not encoded; "" for the whole bucket

    @property
    def uri(self) -> str:
        """Return the URI."""
        root = f"{self.scheme}://{self.authority}"
        return f"{root}/{quote(self.name, safe='/')}" if self.name else root

    @property
    def path(self) -> str:
        """Return what Beam takes for it."""
        return f"{self.scheme}://{self.authority}/{self.name}"


def parse_uri(uri: str) -> Place:
    """Take a URI apart; a lone ``%`` stands for itself.

    Raises:
        ValueError: it cannot name an object; the message does not hold it.
    """
    scheme = scheme_of(uri) or ""
    authority, _, name = uri.partition("://")[2].partition("/")
    if not _AUTHORITY.fullmatch(authority):
        raise ValueError(f"a URI of {scheme} is {scheme}://BUCKET/NAME, without a user")
    try:
        raw = unquote_to_bytes(name.encode("utf-8", "surrogateescape")).decode()
    except UnicodeError:
        raise ValueError(f"the name in a URI of {scheme} must be UTF-8") from None
    return Place(scheme, authority, raw)


def check_uri(uri: str, where: str) -> None:
    """Raise ``InputError`` if a URI cannot name an object here; ``where`` names it."""
    try:
        place = parse_uri(uri)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    if not _is_ready(place.scheme):
        raise InputError(
            f"{where}: {place.scheme}:// needs a library that is not installed: "
            f"pip install 'apache-beam[{_NEEDED[place.scheme].extra}]'"
        )


def _is_ready(scheme: str) -> bool:
    """Tell whether there is a file system for a scheme; have Beam register its own."""
    module, library, _ = _NEEDED[scheme]
    systems = [one for one in FileSystem.get_all_subclasses() if one.scheme() == scheme]
    if any(one.__module__ != module for one in systems):
        return True  # of the user's own
    # Beam imports some of its own without the libraries that they need.
    if not _is_installed(library):
        return False
    importlib.import_module(module)
    return True


@functools.cache
def _is_installed(library: str) -> bool:
    try:
        return importlib.util.find_spec(library) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def system_of(place: Place) -> Any:
    """Return Beam's file system, imported where ``beam_dedup.imports`` left it out."""
    if not _is_ready(place.scheme):
        check_uri(place.uri, "a URI")  # says what is missing
    if FileSystems._pipeline_options is None and RuntimeValueProvider.runtime_options is None:
        FileSystems.set_options(PipelineOptions([]))
    return FileSystems.get_filesystem(place.path)


def source_of(pinned: bytes, _: Access = LOCAL, is_known: IsKnown = nothing_is_known) -> Source:
    """Find out what an input names: an object, else a folder, else what a glob matches.

    Raises:
        InputError: nothing has this name, or the scheme's library is missing.
        OSError: the store cannot be asked.
    """
    text = os.fsdecode(pinned)
    check_uri(text, "an input")
    pattern = parse_uri(with_literals(text)).name
    place = parse_uri(text)
    system = system_of(place)
    folder = Source("folder", place._replace(name=place.name.rstrip("/")).uri)
    if place.name and not place.name.endswith("/") and system.exists(place.path):
        if not system.has_dirs() or children(system, place.path) is None:
            return single_source(place)
        return folder
    if is_known(folder):
        return folder
    start = place._replace(name=as_folder(place.name))
    if system.has_dirs():
        is_folder = bool(system.exists(start.path))
    else:
        is_folder = next(iter(system._list(start.path)), None) is not None
    if is_folder:
        return folder
    shown = repr(readable(place.uri))
    if MAGIC.search(pattern):
        return glob_source(place, pattern, shown, whole_names=bool(system.has_dirs()))
    raise InputError(f"input {shown}: no such object, and none below it")


def walk(source: Source, scope: Scope) -> Iterator[Sighting]:
    """Yield every object below a folder, or those that a glob matches, in the store's order.

    Raises:
        OSError: a part cannot be listed; the listing is not whole (R7).
    """
    root = parse_uri(source.uri)
    system = system_of(root)
    glob = Glob(source.segments) if source.segments else None
    start = root._replace(name=as_folder(root.name))
    for found in _below(system, start.path, source.part):
        below = found.path[len(start.path) :]
        if glob and not glob.matches(below.split("/")):
            continue
        place = start._replace(name=start.name + below)
        sighting = _sighted(place, quote(below, safe="/"), found, scope)
        if sighting.kind != Kind.IN_OUTPUT:
            yield sighting


def _below(system: Any, start: str, part: str = "") -> Iterator[FileMetadata]:
    """Yield all objects below a path that ends in a slash; in buckets, those that begin so."""
    if not system.has_dirs():
        for found in system._list(start + part):
            # What stands for a folder has no content, and is no name of its own.
            if found.size_in_bytes or not found.path.endswith("/"):
                yield found
        return
    for found in sorted(children(system, start) or (), key=_path):
        name = found.path.rstrip("/").rpartition("/")[2]
        entry = FileMetadata(start + name, found.size_in_bytes, found.last_updated_in_seconds)
        # Beam does not tell folders from files; but folders have no size.
        inside = None if found.size_in_bytes else children(system, entry.path)
        if inside is None:
            yield entry
        else:
            yield from _below(system, entry.path + "/")


def _path(found: FileMetadata) -> str:
    return str(found.path)


def children(system: Any, path: str) -> Optional[list[FileMetadata]]:
    """List a folder of a file system that has folders; None where the path is a file."""
    try:
        return list(system._list(path))
    except BeamIOError as error:
        causes = (error.exception_details or {}).values()
        if any(isinstance(one, NotADirectoryError) or _NO_FOLDER in str(one) for one in causes):
            return None
        raise


_NO_FOLDER = "is not a directory"  # as the library of HDFS says it


def _sighted(place: Place, below: str, found: FileMetadata, scope: Scope) -> Sighting:
    uri = place.uri
    if left_out := scope.left_out(uri, below):
        return left_out
    # 0 stands for a date that nobody knows.
    modified = round(found.last_updated_in_seconds * 1e6) or None
    etag = f"{modified:x}-{found.size_in_bytes:x}" if modified else None
    return scope.found(
        ImageRef(uri, readable(uri), below, scope.index, found.size_in_bytes, etag, modified, "")
    )


class Names:
    """Looks at single names, such as the lines of a list.

    Args:
        scope: of the input that they come from.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def sight_lines(self, lines: Sequence[bytes], folder: bytes) -> list[Sighting]:
        """Look at lines of a list, several at once: URIs, or names below the list's folder."""
        access = self._scope.access
        return sight_together(lambda line: self._sight_line(line, folder), lines, access)

    def sight_source(self, source: Source) -> Sighting:
        """Look at the single object that an input names."""
        return self._sight(parse_uri(source.uri), quote(source.below, safe="/"))

    def _sight_line(self, line: bytes, folder: bytes) -> Sighting:
        text = os.fsdecode(line)
        if scheme_of(text):
            place = parse_uri(text)
            return self._sight(place, written_below(os.fsencode(place.name)))
        start = parse_uri(os.fsdecode(folder))
        below = written_below(line)
        try:
            name = start.name + unquote_to_bytes(below).decode()
        except UnicodeDecodeError:
            uri = f"{start.uri.rstrip('/')}/{below}"
            return self._scope.failed(uri, below, "not_found", "a name here is UTF-8")
        return self._sight(start._replace(name=name), below)

    def _sight(self, place: Place, below: str) -> Sighting:
        scope = self._scope
        if left_out := scope.left_out(place.uri, below):
            return left_out
        system = system_of(place)
        if not place.name or not system.exists(place.path):
            return scope.failed(place.uri, below, "not_found", "there is no such object")
        found = system.metadata(place.path)
        is_file = found.size_in_bytes or not system.has_dirs()
        if not is_file and children(system, place.path) is not None:
            return scope.failed(place.uri, below, "other", "a folder, which is never opened")
        return _sighted(place, below, found, scope)


def local_copy(source: Source, _: Access = LOCAL) -> AbstractContextManager[bytes]:
    """Give the path of a file with an object's content; see ``copied_list``."""
    return copied_list(
        parse_uri(source.uri), lambda file: file.write(read(source.uri, _MAX_LIST_BYTES))
    )


def read(
    uri: str,
    max_bytes: int,
    expected_size: Optional[int] = None,
    _etag: Optional[str] = None,
    _: Access = LOCAL,
) -> bytes:
    """Read a whole object; see ``transforms.storage.read.read_bytes``.

    Beam cannot ask for one state of an object: what changed since it was listed is noticed where
    its size did.
    """
    if expected_size is not None and expected_size > max_bytes:
        raise too_large(expected_size, max_bytes)
    place = parse_uri(uri)
    system = system_of(place)
    try:
        # Not by the ending of its name: the bytes are what the name stands for.
        with system.open(place.path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            data = _read_up_to(file, (max_bytes if expected_size is None else expected_size) + 1)
    except Exception:
        if system.exists(place.path):
            raise
        missing = "not_found" if expected_size is None else "vanished"
        raise StorageError(missing, "there is no such object now") from None
    if expected_size is not None and len(data) != expected_size:
        if system.size(place.path) == expected_size:
            raise OSError(f"{len(data)} bytes came of {expected_size}")  # it may come whole again
        raise StorageError("vanished", f"it had {expected_size} bytes when it was listed")
    if len(data) > max_bytes:
        raise too_large(system.size(place.path), max_bytes)
    return data


def _read_up_to(file: Any, most: int) -> bytes:
    parts, length = [], 0
    while length < most and (part := file.read(min(most - length, _READ_AT_ONCE))):
        parts.append(part)
        length += len(part)
    return b"".join(parts)
