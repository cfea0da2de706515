"""``beam-dedup models fetch``: download weights into the cache."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from beam_dedup.messages import one_line, redact, size
from beam_dedup.models.command import cache_of, make_parser
from beam_dedup.models.download import AbsentError, Download, UnreachableError, Wanted
from beam_dedup.options import UsageError, check_sha256
from transforms.models import catalogue
from transforms.models.catalogue import Entry, Source
from transforms.models.spec import ModelError
from transforms.models.weights import Receipt, check_license, difference, place, sha256_of

_Tell = Callable[[int, int | None], object]


def main(argv: list[str]) -> int:
    """Run ``beam-dedup models fetch``.

    Args:
        argv: the arguments after ``fetch``.

    Returns:
        0 if all weights are in the cache, 1 if some could not be fetched.

    Raises:
        UsageError: the arguments, a name or a licence are refused; nothing was fetched.
    """
    parser = make_parser(
        "fetch",
        "NAME [NAME ...] [options]",
        "Download weights into the cache, where beam-dedup run finds them. A download that was "
        "cut off goes on where it ended. Length and SHA-256 are checked before a file gets its "
        "name.",
        "Exit codes: 0 all are there; 1 some could not be fetched; 2 refused; 130 interrupted, "
        "the same command goes on.",
    )
    add = parser.add_argument
    add("names", nargs="+", metavar="NAME", help="as beam-dedup models list shows them")
    add(
        "--accept_license",
        action="append",
        metavar="NAME",
        help="a licence that does not allow every use, such as CC-BY-NC-4.0, and is accepted",
    )
    add("--url", metavar="URL", help="a mirror to fetch the one file from; http or https")
    add("--sha256", metavar="HEX", help="what the one file must hash to")
    values = parser.parse_or_help(argv)
    if values is None:
        return 0
    wanted = _entries(values)
    failed = 0
    for entry in wanted:
        try:
            with _progress(entry.name) as tell:
                print(_fetch(entry, values, tell))
        except ModelError as error:
            failed += 1
            text = one_line(redact(str(error)))
            print(f"beam-dedup: failed: {entry.name}: {text}", file=sys.stderr)
    return 1 if failed else 0


def _entries(values: argparse.Namespace) -> list[Entry]:
    """Return what is wanted, once all of it may be fetched."""
    try:
        wanted = [entry for name in values.names for entry in catalogue.parts(name)]
        for entry in wanted:
            check_license(entry, frozenset(values.accept_license or ()))
    except ModelError as error:
        raise UsageError(str(error)) from error
    if values.url is not None and urlsplit(values.url).scheme not in ("http", "https"):
        raise UsageError(f"url must begin with http:// or https://, not {values.url!r}")
    if (values.url or values.sha256) and len(wanted) != 1:
        names = " ".join(entry.name for entry in wanted)
        raise UsageError(f"--url and --sha256 are for one file, and {len(wanted)} are: {names}")
    check_sha256("sha256", values.sha256)
    return list({entry.name: entry for entry in wanted}.values())


def _fetch(entry: Entry, values: argparse.Namespace, tell: _Tell) -> str:
    """Fetch one entry's file, and return what was done, in one line."""
    cache = cache_of(values)
    sources = _with_url(entry, values.url)
    for source in sources:
        path = place(cache, entry, source)
        if os.path.isfile(path):
            return _there(entry, source, path, values.sha256)
    reasons: list[str] = []
    for source in sources:
        try:
            path = place(cache, entry, source)
            receipt = _download(entry, source, path, values.sha256, tell)
            return f"fetched {_line(entry, path, receipt.size_bytes, receipt.sha256)}"
        except UnreachableError as error:
            reasons.append(str(error))
            if not isinstance(error, AbsentError):
                break
    name = sources[0].file_name
    # Where a mirror failed, its publisher may have it.
    published = next(one for one in entry.files if one.file_name == name)
    raise ModelError(
        f"{'; '.join(reasons)}; to fetch it by other means, put {published.urls[0]} at "
        f"{place(cache, entry, published)}"
    )


def _download(entry: Entry, source: Source, path: str, sha256: str | None, tell: _Tell) -> Receipt:
    """Fetch one file from the first of its addresses that gives it.

    Raises:
        AbsentError: none of them has it.
        ModelError: none gives it, it is not what it must be, or cannot be written.
    """
    hashes = tuple(digits for digits in (source.sha256, sha256) if digits)
    failures = []
    for url in source.urls:
        try:
            return Download(Wanted(url, path, hashes, entry.license), tell).run()
        except UnreachableError as error:
            failures.append(error)
    absent = all(isinstance(error, AbsentError) for error in failures)
    kind = AbsentError if absent else UnreachableError
    raise kind("; ".join(map(str, failures)))


def _with_url(entry: Entry, url: str | None) -> tuple[Source, ...]:
    """Return where to fetch from: the user's mirror alone, or what the catalogue says.

    A mirror's file is taken for the catalogue's of the same name, or else of the same ending.
    """
    if url is None:
        return entry.files
    name = os.path.basename(urlsplit(url).path)
    ending = os.path.splitext(name)[1]
    same = [one for one in entry.files if one.file_name == name] or [
        one for one in entry.files if one.file_name.endswith(ending)
    ]
    source = (same or entry.files)[0]
    return (Source(source.file_name, (url,), source.sha256, source.sha256_source),)


def _there(entry: Entry, source: Source, path: str, sha256: str | None) -> str:
    """Say that a file is there already, once it is the right one."""
    try:
        found, size_bytes = sha256_of(path), os.path.getsize(path)
    except OSError as error:
        raise ModelError(f"{path!r} is there and cannot be read: {error.strerror}") from error
    wrong = difference(found, source, Receipt.read(path))
    if not wrong and sha256 is not None and found != sha256.lower():
        wrong = f"have the SHA-256 {found}, not {sha256}"
    if wrong:
        raise ModelError(f"the weights at {path!r} {wrong}; move them away and fetch them again")
    return f"already there: {_line(entry, path, size_bytes, found)}"


def _line(entry: Entry, path: str, size_bytes: int, sha256: str) -> str:
    return one_line(f"{entry.name}  {size(size_bytes)}  sha256 {sha256}  {path}")


@contextmanager
def _progress(name: str) -> Iterator[_Tell]:
    """Show a bar on standard error while the body runs, if that is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    quiet = not sys.stderr.isatty()
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, disable=quiet, transient=True) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
