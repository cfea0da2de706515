"""From ``--input`` to sightings: folders, globs, single images and list files of any store."""

import os
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Optional

from transforms.storage.errors import InputError
from transforms.storage.lists import read_list
from transforms.storage.local import Source, pin
from transforms.storage.sightings import Scope, Sighting
from transforms.storage.stores import NamesOf, Store, store_of
from transforms.storage.uris import encode, scheme_of, to_local_path, to_uri


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
    if scheme_of(output) not in (None, "file"):
        return output.rstrip("/")
    path = to_local_path(output) if scheme_of(output) else os.fsencode(output)
    return to_uri(os.path.realpath(path)).rstrip("/")


def source_of(pinned: bytes, scope: Scope) -> Source:
    """Find out what one input names.

    Raises:
        InputError: it names nothing, or something that cannot be an input.
    """
    return _store(pinned, scope).source_of(pinned)


def expand(pinned: bytes, scope: Scope, *, in_order: bool = False) -> Iterator[Sighting]:
    """Yield a sighting of every name that an input stands for.

    Args:
        pinned: of ``pin_inputs``.
        scope: of this input.
        in_order: yield by ``below``, which walks do anyway; a list is then held in memory.

    Raises:
        InputError: the input is refused, or could not be listed as a whole.
    """
    store = _store(pinned, scope)
    source = store.source_of(pinned)
    if source.kind == "list":
        found = _expand_list(source, scope)
        yield from sorted(found, key=attrgetter("ref.below", "ref.uri")) if in_order else found
    elif source.kind == "file":
        yield store.names(scope).sight(source.path, encode(source.below))
    else:
        yield from store.walk(source, scope)


def _store(pinned: bytes, scope: Scope) -> Store:
    return store_of(os.fsdecode(pinned), f"input {scope.index + 1}")


def _expand_list(source: Source, scope: Scope) -> Iterator[Sighting]:
    names: dict[Optional[str], NamesOf] = {}
    for number, name in read_list(source.path):
        text = os.fsdecode(name)
        scheme = scheme_of(text)
        if scheme is not None:
            where = f"list file {os.fsdecode(source.path)!r}, row {number}"
            store_of(text, where).check(text, where)
        if scheme not in names:
            names[scheme] = store_of(text, "list file").names(scope)
        yield names[scheme].sight_line(name, source.below)


def check_list(source: Source) -> None:
    """Read a list file as a whole, without looking at what it names.

    Raises:
        InputError: it cannot be read, or a row has a scheme or a host that is not supported.
    """
    for number, name in read_list(source.path):
        text = os.fsdecode(name)
        if scheme_of(text) is None:
            continue
        where = f"list file {os.fsdecode(source.path)!r}, row {number}"
        store_of(text, where).check(text, where)
