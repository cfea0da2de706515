"""What stores have in common whose names are text: of a blob, or of an object of a bucket.

A folder is a prefix of names that ends in a slash.
"""

import concurrent.futures
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Protocol, Self

from transforms.access import Access
from transforms.storage import lists
from transforms.storage.errors import InputError, StorageError
from transforms.storage.patterns import ANY_DEPTH, MAGIC, Glob
from transforms.storage.sightings import Sighting, Source
from transforms.storage.uris import readable


class Named(Protocol):
    """Where an object lies; a NamedTuple of a store's own."""

    @property
    def name(self) -> str:
        """The name as the store has it; empty for all that there is."""

    @property
    def uri(self) -> str:
        """The URI."""

    def _replace(self, *, name: str = ...) -> Self: ...


def as_folder(name: str) -> str:
    """Return how the names below a folder begin; empty for all names."""
    return name.rstrip("/") + "/" if name.rstrip("/") else ""


def single_source(place: Named) -> Source:
    """Return what an input names that is one object: a list or a file.

    Raises:
        InputError: its name is that of a pickle.
    """
    name = os.fsencode(place.name.rpartition("/")[2])
    lists.refuse_pickle(name)
    if lists.is_list(name):
        folder = place._replace(name=as_folder(place.name.rpartition("/")[0]))
        return Source("list", place.uri, os.fsencode(folder.uri))
    return Source("file", place.uri, name)


def glob_source(place: Named, pattern: str, shown: str, *, whole_names: bool = False) -> Source:
    """Return what an input names that is a glob.

    Args:
        place: the input, its name not yet taken for a glob.
        pattern: the name as a glob, with a wildcard in it.
        shown: what messages call the input.
        whole_names: whether the store can only list whole folders, not what begins so.

    Raises:
        InputError: it ends in a slash, or is too long.
    """
    names = pattern.split("/")
    first = next(number for number, name in enumerate(names) if MAGIC.search(name))
    segments = names[first:]
    if not segments[-1]:
        raise InputError(f"input {shown} matched no objects; a folder is named without wildcards")
    if segments[-1] == ANY_DEPTH:
        segments.append("*")  # at the end it means all that is below
    root = place._replace(name="/".join(names[:first]))
    wild = MAGIC.search(segments[0])
    part = segments[0][: wild.start()] if wild and not whole_names else ""
    return Source("glob", root.uri, segments=Glob(segments).segments, part=part)


def sight_together(
    sight_line: Callable[[bytes], Sighting], lines: Sequence[bytes], access: Access
) -> list[Sighting]:
    """Look at lines of a list, several at once; where one cannot be, the rest is not asked for."""
    pool = concurrent.futures.ThreadPoolExecutor(access.concurrency)
    try:
        return list(pool.map(sight_line, lines))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def copied_list(place: Named, copy: Callable[[IO[bytes]], object]) -> Iterator[bytes]:
    """Give the path of a file with a list's content and the ending of its name.

    Args:
        place: of the list.
        copy: writes the content to a file.

    Raises:
        InputError: it cannot be read.
    """
    ending = os.path.splitext(place.name)[1]
    with tempfile.NamedTemporaryFile(prefix="beam-dedup-list-", suffix=ending) as file:
        try:
            copy(file)
        except StorageError as error:
            raise InputError(f"list file {readable(place.uri)!r}: {error.message}") from None
        file.flush()
        yield os.fsencode(file.name)
