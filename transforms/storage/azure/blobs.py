"""The store of scheme ``azfs``: what an input names, listing, single names, reading.

A folder is a prefix of names that ends in a slash. Names come in the store's order, which is that
of their characters. A name is text that is never normalised: its URI says which blob it is.
"""

import concurrent.futures
import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Optional
from urllib.parse import quote

from transforms.access import LOCAL, Access
from transforms.records import ImageRef
from transforms.storage.azure.account import Level, Properties, account_of
from transforms.storage.azure.names import BlobName, parse_uri
from transforms.storage.errors import InputError, StorageError
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

_PARTS = 64  # of a walk: several for each worker of a big job, and few requests to find
_MOST_LEVELS = 4 * _PARTS  # looked at to find them
_MOST_PARTS = 5000  # of a level with many folders; each costs a request and a kept shard of its own
_FEW_PARTS, _FEW_NAMES = 8, 100  # from so many parts on, so many names of a level are looked at
_ARCHIVE = "Archive"


def check_uri(uri: str, where: str) -> None:
    """Raise ``InputError`` if a URI cannot name a blob; ``where`` names it."""
    try:
        parse_uri(uri)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def source_of(
    pinned: bytes, access: Access = LOCAL, is_known: IsKnown = nothing_is_known
) -> Source:
    """Find out what an input names: a blob, else a prefix, else what a glob matches.

    Raises:
        InputError: nothing has this name, or there is no access to it.
        AccessError: the store refuses access, or there is no such container.
    """
    text = os.fsdecode(pinned)
    check_uri(text, "an azfs input")
    pattern = parse_uri(with_literals(text)).name
    blob = parse_uri(text)
    account = account_of(blob.account, access)
    shown = repr(readable(blob.uri))
    if blob.name and not blob.name.endswith("/") and blob.can_be_requested:
        with contextlib.suppress(StorageError):
            if not account.head(blob).is_folder:
                return single_source(blob)
    named = Source("folder", blob._replace(name=blob.name.rstrip("/")).uri)
    if is_known(named):
        return named
    folder = blob._replace(name=as_folder(blob.name))
    level = account.level(folder.container, folder.name, 1)
    if level.prefixes or level.blobs:
        return named
    if MAGIC.search(pattern):
        return glob_source(blob, pattern, shown)
    what = "container is empty" if not blob.name else "no such blob, and none below it"
    raise InputError(f"input {shown}: {what}")


def split(source: Source, access: Access = LOCAL) -> Iterator[Source]:
    """Cut a walk at slashes, until there are enough parts or no more slashes.

    A level with more names than a page is not cut: to find its folders would be to list it. Where
    there are some parts already, a page is small: one that is full of blobs is listed again.
    """
    root = parse_uri(source.uri)
    account = account_of(root.account, access)
    start = as_folder(root.name)

    parts: list[Source] = []
    waiting, asked = [source], 0

    def level(one: Source) -> Level:
        return account.level(root.container, start + one.part, most)

    with concurrent.futures.ThreadPoolExecutor(access.concurrency) as pool:
        while waiting and len(parts) + len(waiting) < _PARTS:
            asked += len(waiting)
            if asked > _MOST_LEVELS:
                break
            most = None if len(parts) + len(waiting) < _FEW_PARTS else _FEW_NAMES
            below: list[Source] = []
            for one, found in zip(waiting, pool.map(level, waiting), strict=True):
                known = len(parts) + len(below)
                if (
                    not found.is_whole
                    or not found.prefixes
                    or known + len(found.prefixes) > _MOST_PARTS
                ):
                    parts.append(one)
                    continue
                below += [one._replace(part=prefix[len(start) :]) for prefix in found.prefixes]
                if found.blobs:
                    parts.append(one._replace(deep=False))
            waiting = below
    yield from (*parts, *waiting)


def walk(source: Source, scope: Scope) -> Iterator[Sighting]:
    """Yield every blob below a prefix, or those that a glob matches, in the store's order.

    Raises:
        AccessError: the store refuses access.
        UnavailableError: a page cannot be had; the listing is not whole (R7).
    """
    root = parse_uri(source.uri)
    account = account_of(root.account, scope.access)
    glob = Glob(source.segments) if source.segments else None
    start = as_folder(root.name)
    for page in account.pages(root.container, start + source.part, deep=source.deep):
        for found in page:
            # Of a blob that has the name of the folder itself, the last part, as of a single one.
            below = found.name[len(start) :] or root.name.rpartition("/")[2] + "/"
            # Stubs of folders have no content, and are no names of their own.
            if found.is_folder or (glob and not glob.matches(below.split("/"))):
                continue
            blob = root._replace(name=found.name)
            sighting = _sighted(blob, quote(below, safe="/"), found, scope)
            if sighting.kind != Kind.IN_OUTPUT:  # as a walk of folders never enters it
                yield sighting


def _sighted(blob: BlobName, below: str, found: Properties, scope: Scope) -> Sighting:
    uri = blob.uri
    if left_out := scope.left_out(uri, below):
        return left_out
    ref = ImageRef(
        uri,
        readable(uri),
        below,
        scope.index,
        found.size_bytes,
        found.etag,
        found.modified_us,
        "",
    )
    sighting = scope.found(ref, found.content_md5)
    if sighting.kind != Kind.FOUND:
        return sighting
    if found.tier == _ARCHIVE:
        message = "it is in the archive tier, which cannot be read before it is rehydrated"
        return sighting._replace(kind=Kind.FAILED, error_type="other", message=message)
    if not blob.can_be_requested:
        message = "its name has a segment . or ..: no request can name it"
        return sighting._replace(kind=Kind.FAILED, error_type="other", message=message)
    return sighting


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
        """Look at the single blob that an input names."""
        return self._sight(parse_uri(source.uri), quote(source.below, safe="/"))

    def _sight_line(self, line: bytes, folder: bytes) -> Sighting:
        text = os.fsdecode(line)
        if scheme_of(text):
            blob = parse_uri(text)
            return self._sight(blob, quote(blob.name, safe="/"))
        start = parse_uri(os.fsdecode(folder))
        try:
            blob = start._replace(name=_joined(start.name, line.decode()))
        except UnicodeDecodeError:
            uri = f"{start.uri.rstrip('/')}/{quote(line, safe='/')}"
            return self._scope.failed(uri, written_below(line), "not_found", "no name is not UTF-8")
        return self._sight(blob, written_below(line))

    def _sight(self, blob: BlobName, below: str) -> Sighting:
        scope = self._scope
        if left_out := scope.left_out(blob.uri, below):
            return left_out
        if not blob.name:
            return scope.failed(blob.uri, below, "not_found", "a container, not a blob")
        try:
            found = account_of(blob.account, scope.access).head(blob)
        except StorageError as error:
            return scope.failed(blob.uri, below, error.error_type, error.message)
        if found.is_folder:
            return scope.failed(blob.uri, below, "other", "a folder, which is never opened")
        return _sighted(blob, below, found, scope)


def _joined(folder: str, line: str) -> str:
    """Return the name that a relative line of a list means, its ``.`` and ``..`` segments taken.

    Other segments stay as they are, empty ones too.
    """
    names: list[str] = folder.removesuffix("/").split("/") if folder else []
    for part in line.split("/"):
        if part == "..":
            del names[-1:]
        elif part != ".":
            names.append(part)
    return "/".join(names)


def local_copy(source: Source, access: Access = LOCAL) -> AbstractContextManager[bytes]:
    """Give the path of a file with a blob's content; see ``copied_list``."""
    blob = parse_uri(source.uri)
    return copied_list(blob, functools.partial(account_of(blob.account, access).save, blob))


def read(
    uri: str,
    max_bytes: int,
    expected_size: Optional[int] = None,
    etag: Optional[str] = None,
    access: Access = LOCAL,
) -> bytes:
    """Read a whole blob; see ``transforms.storage.read.read_bytes``."""
    blob = parse_uri(uri)
    return account_of(blob.account, access).get(blob, max_bytes, expected_size, etag)
