"""From ``--input`` to sightings: folders, globs, single images and list files of any store."""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import attrgetter
from typing import Optional

from transforms.access import Access
from transforms.storage.azure.names import SCHEME, parse_uri
from transforms.storage.errors import InputError
from transforms.storage.lists import Line, read_list
from transforms.storage.local import pin
from transforms.storage.sightings import IsKnown, Scope, Sighting, Source, nothing_is_known
from transforms.storage.stores import NamesOf, Store, store_of
from transforms.storage.uris import readable, scheme_of, to_local_path, to_uri

_LINES = 1000  # of a list, looked at together


def pin_inputs(inputs: Sequence[str]) -> list[bytes]:
    """Return inputs in a form that means the same on every worker of this storage.

    Bytes, since a name that is no UTF-8 fails in Beam's coder for text (fault P11).

    Raises:
        InputError: there is none, one is empty, or one has a scheme that is not supported.
    """
    if isinstance(inputs, str) or not inputs:
        raise InputError("inputs must be a list of one path or URI or more; give --input")
    for number, text in enumerate(inputs, 1):
        if not text:
            raise InputError(f"input {number} is empty; give a path or a URI")
        store_of(text, f"input {number}")
    return [pin(text) for text in inputs]


def resolve_output(output: Optional[str]) -> Optional[str]:
    """Return the URI of the output folder, links resolved, for ``Scope``; it need not exist."""
    if output is None:
        return None
    if scheme_of(output) == SCHEME:
        try:
            return parse_uri(output).uri.rstrip("/")
        except ValueError as error:
            raise InputError(f"output: {error}") from None
    if (scheme := scheme_of(output)) not in (None, "file"):
        from transforms.storage import filesystems

        try:
            return filesystems.parse_uri(output).uri.rstrip("/")
        except ValueError as error:
            raise InputError(f"output on {scheme}: {error}") from None
    path = to_local_path(output) if scheme_of(output) else os.fsencode(output)
    return to_uri(os.path.realpath(path)).rstrip("/")


def source_of(pinned: bytes, scope: Scope, is_known: IsKnown = nothing_is_known) -> Source:
    """Find out what one input names.

    Args:
        pinned: of ``pin_inputs``.
        scope: of this input.
        is_known: tells whether a listing of a folder is at hand.

    Raises:
        InputError: it names nothing, or something that cannot be an input.
    """
    return _store(pinned, scope).source_of(pinned, scope.access, is_known)


def is_remote(text: str) -> bool:
    """Tell whether a store of this URI is listed in pages, over a network."""
    return store_of(text, "input").is_remote


def split(source: Source, scope: Scope) -> Iterator[Source]:
    """Yield the parts of what an input names; they are walked each by itself."""
    store = store_of(source.uri, f"input {scope.index + 1}")
    if store.split is None or source.kind not in ("folder", "glob"):
        yield source
    else:
        yield from store.split(source, scope.access)


def expand(one: bytes | Source, scope: Scope, *, in_order: bool = False) -> Iterator[Sighting]:
    """Yield a sighting of every name that an input stands for.

    Args:
        one: of ``pin_inputs``, or of ``split``.
        scope: of this input.
        in_order: yield by ``below``, which walks do anyway, those of other stores in the order of
            the store; a list is then held in memory.

    Raises:
        InputError: the input is refused, or could not be listed as a whole.
    """
    source = source_of(one, scope) if isinstance(one, bytes) else one
    store = store_of(source.uri, f"input {scope.index + 1}")
    if source.kind == "list":
        found = _expand_list(source, store, scope)
        yield from sorted(found, key=attrgetter("ref.below", "ref.uri")) if in_order else found
    elif source.kind == "file":
        yield store.names(scope).sight_source(source)
    else:
        yield from store.walk(source, scope)


def _store(pinned: bytes, scope: Scope) -> Store:
    return store_of(os.fsdecode(pinned), f"input {scope.index + 1}")


def _expand_list(source: Source, own: Store, scope: Scope) -> Iterator[Sighting]:
    names: dict[Optional[str], NamesOf] = {None: own.names(scope)}
    with own.local_copy(source, scope.access) as path:
        lines = _checked(source, path)
        while some := list(islice(lines, _LINES)):
            schemes: dict[Optional[str], list[bytes]] = {}
            for line in some:
                schemes.setdefault(scheme_of(os.fsdecode(line.name)), []).append(line.name)
            for scheme, written in schemes.items():
                if scheme not in names:
                    names[scheme] = store_of(os.fsdecode(written[0]), "list file").names(scope)
                yield from names[scheme].sight_lines(written, source.below)


def check_list(source: Source, access: Access) -> int:
    """Read a list file as a whole, without looking at what it names; return how many names it has.

    Raises:
        InputError: it cannot be read, or a row has a scheme or a host that is not supported.
    """
    with store_of(source.uri, "list file").local_copy(source, access) as path:
        return sum(1 for _ in _checked(source, path))


def _checked(source: Source, path: bytes) -> Iterator[Line]:
    """Yield the lines of a list, each with a scheme that is allowed."""
    shown = readable(source.uri)
    for line in read_list(path, shown):
        text = os.fsdecode(line.name)
        if scheme_of(text) is not None:
            where = f"list file {shown!r}, row {line.number}"
            store_of(text, where).check(text, where)
        yield line
