"""The one place where a scheme is turned into the code for its store.

To add a store, give it an entry in ``_STORES`` and its scheme one in ``uris.SCHEMES``.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Optional, Protocol

from transforms.access import Access
from transforms.storage import local
from transforms.storage.errors import InputError
from transforms.storage.sightings import IsKnown, Scope, Sighting, Source
from transforms.storage.uris import BEAM_SCHEMES, SCHEMES, scheme_of


class NamesOf(Protocol):
    """Looks at single names that a list holds."""

    def sight_lines(self, lines: Sequence[bytes], folder: bytes) -> list[Sighting]:
        """Look at lines; ``folder`` is where the relative ones start from."""

    def sight_source(self, source: Source) -> Sighting:
        """Look at the single object that an input names."""


@dataclasses.dataclass(frozen=True)
class Store:
    """What can be done with the names of one scheme.

    Args:
        check: raise ``InputError`` for a URI that cannot name an object; text and what it is.
        source_of: find out what a pinned ``--input`` names, or raise ``InputError``; a store need
            not be asked what is in a folder of which a listing is known.
        walk: yield what is below a folder, or what a glob matches.
        names: make something that looks at single names.
        local_copy: give the path of a file with the content of one that a source names.
        read: read one whole object by its URI; the arguments of ``read_bytes``.
        split: cut a walk into parts that together are the whole; None where one worker walks.
        is_remote: whether a read waits for a network, so that several are worth beginning at once.
    """

    check: Callable[[str, str], None]
    source_of: Callable[[bytes, Access, IsKnown], Source]
    walk: Callable[[Source, Scope], Iterator[Sighting]]
    names: Callable[[Scope], NamesOf]
    local_copy: Callable[[Source, Access], AbstractContextManager[bytes]]
    read: Callable[[str, int, Optional[int], Optional[str], Access], bytes]
    split: Optional[Callable[[Source, Access], Iterator[Source]]] = None
    is_remote: bool = False


_LOCAL = Store(
    local.check_uri, local.source_of, local.walk, local.Names, local.local_copy, local.read
)


@functools.cache
def _azure() -> Store:
    # Not at the top: a job on local files has no use for it.
    from transforms.storage.azure import blobs

    return Store(
        blobs.check_uri,
        blobs.source_of,
        blobs.walk,
        blobs.Names,
        blobs.local_copy,
        blobs.read,
        split=blobs.split,
        is_remote=True,
    )


@functools.cache
def _beam() -> Store:
    from transforms.storage import filesystems

    return Store(
        filesystems.check_uri,
        filesystems.source_of,
        filesystems.walk,
        filesystems.Names,
        filesystems.local_copy,
        filesystems.read,
        is_remote=True,
    )


_STORES: dict[str, Callable[[], Store]] = {
    "azfs": _azure,
    "file": lambda: _LOCAL,
    **dict.fromkeys(BEAM_SCHEMES, _beam),
}


def store_of(text: str, where: str) -> Store:
    """Return the store of a path or URI.

    Args:
        text: a path or URI; it may hold a secret, so it never goes into a message.
        where: what the message calls it, as in ``"input 2"``.

    Raises:
        InputError: the scheme is not on the list of allowed ones.
    """
    scheme = scheme_of(text) or "file"
    make = _STORES.get(scheme)
    if make is None:
        raise InputError(
            f"{where}: scheme {scheme!r} is not supported; "
            f"give a local path or one of {', '.join(f'{name}://' for name in sorted(SCHEMES))}"
        )
    return make()
