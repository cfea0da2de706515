"""The one place where a scheme is turned into the code for its store.

To add a store, give it an entry in ``_STORES`` and its scheme one in ``uris.SCHEMES``.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Optional, Protocol

from transforms.storage import local
from transforms.storage.errors import InputError
from transforms.storage.sightings import Scope, Sighting
from transforms.storage.uris import SCHEMES, scheme_of


class NamesOf(Protocol):
    """Looks at single names that a list holds."""

    def sight_line(self, line: bytes, folder: bytes) -> Sighting:
        """Look at one line; ``folder`` is where the relative ones start from."""

    def sight(self, path: bytes, below: str) -> Sighting:
        """Look at one absolute name."""


@dataclasses.dataclass(frozen=True)
class Store:
    """What can be done with the names of one scheme.

    Args:
        check: raise ``InputError`` for a URI that cannot name an object; text and what it is.
        source_of: find out what a pinned ``--input`` names, or raise ``InputError``.
        walk: yield what is below a folder, or what a glob matches.
        names: make something that looks at single names.
        read: read one whole object by its URI; the arguments of ``read_bytes``.
    """

    check: Callable[[str, str], None]
    source_of: Callable[[bytes], local.Source]
    walk: Callable[[local.Source, Scope], Iterator[Sighting]]
    names: Callable[[Scope], NamesOf]
    read: Callable[[str, int, Optional[int]], bytes]


_STORES = {"file": Store(local.check_uri, local.source_of, local.walk, local.Names, local.read)}


def store_of(text: str, where: str) -> Store:
    """Return the store of a path or URI.

    Args:
        text: a path or URI; it may hold a secret, so it never goes into a message.
        where: what the message calls it, as in ``"input 2"``.

    Raises:
        InputError: the scheme is not on the list of allowed ones.
    """
    scheme = scheme_of(text) or "file"
    store = _STORES.get(scheme)
    if store is None:
        raise InputError(
            f"{where}: scheme {scheme!r} is not supported; "
            f"give a local path or one of {', '.join(f'{name}://' for name in sorted(SCHEMES))}"
        )
    return store
