"""``beam-dedup models verify``: hash again what the cache holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from beam_dedup.messages import one_line
from beam_dedup.models.command import cache_of, make_parser
from beam_dedup.options import UsageError
from transforms.models import catalogue
from transforms.models.catalogue import Entry, Source
from transforms.models.spec import ModelError
from transforms.models.weights import RECEIPT, Receipt, difference, sha256_of

_OK, _CHANGED, _UNKNOWN, _MISSING, _UNREADABLE = "ok", "changed", "unknown", "missing", "unreadable"
_WRONG: Final = frozenset({_CHANGED, _MISSING, _UNREADABLE})
# What beam-dedup itself puts beside weights.
_OURS: Final = (".json", ".part", ".npy")


class Verdict(NamedTuple):
    """What became of one file."""

    state: str
    path: str
    detail: str


def main(argv: list[str]) -> int:
    """Run ``beam-dedup models verify``.

    Args:
        argv: the arguments after ``verify``.

    Returns:
        1 if a file has changed, cannot be read, or is missing; else 0.

    Raises:
        UsageError: the arguments are refused, or the folder that they name is not there.
    """
    parser = make_parser(
        "verify",
        "[NAME ...] [options]",
        "Hash again what the cache holds, and compare it with what was published, and with what "
        "was fetched. A file is ok, changed, or unknown where there is nothing to compare it with.",
        "Exit codes: 0 nothing is wrong; 1 a file has changed, is unreadable or missing; 2 "
        "refused.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    values = parser.parse_or_help(argv)
    if values is None:
        return 0
    cache = cache_of(values)
    if values.model_cache and not os.path.isdir(cache):
        raise UsageError(f"there is no folder {cache!r}; model_cache names where weights are")
    if values.names:
        try:
            entries = [entry for name in values.names for entry in catalogue.parts(name)]
        except ModelError as error:
            raise UsageError(str(error)) from error
        verdicts = [verdict for entry in entries for verdict in _of_entry(cache, entry)]
    else:
        verdicts = list(_of_cache(cache))
    for verdict in verdicts:
        tail = f"  {verdict.detail}" if verdict.detail else ""
        print(one_line(f"{verdict.state:<10} {verdict.path}{tail}"))
    if not verdicts:
        print(one_line(f"no weights in {cache}"))
    return 1 if any(verdict.state in _WRONG for verdict in verdicts) else 0


def weights_below(folder: str) -> Iterator[str]:
    """Yield the paths of files of weights in a folder of the cache, and of receipts without one."""
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(parent, name)
            if not name.endswith(_OURS):
                yield path
            elif name.endswith(RECEIPT) and not os.path.exists(path.removesuffix(RECEIPT)):
                yield path.removesuffix(RECEIPT)


def _of_entry(cache: str, entry: Entry) -> Iterator[Verdict]:
    folder = os.path.join(cache, entry.folder)
    found = list(weights_below(folder))
    yield from (_verdict(path, entry) for path in found)
    if not found:
        yield Verdict(_MISSING, folder, f"run beam-dedup models fetch {entry.name}")


def _of_cache(cache: str) -> Iterator[Verdict]:
    for path in weights_below(cache):
        parts = os.path.relpath(os.path.dirname(path), cache).split(os.sep)
        name = "/".join(parts)
        if parts[0] in ("clip", "sscd", "loftr", "disk_lightglue"):
            name = name.replace("/", ":", 1)
        try:
            entry = catalogue.find(name)
        except ModelError:  # of another version of beam-dedup or of open_clip, or of nobody's
            entry = None
        yield _verdict(path, entry)


def _verdict(path: str, entry: Entry | None) -> Verdict:
    files = entry.files if entry else ()
    name = os.path.basename(path)
    source = next((one for one in files if one.file_name == name), Source(name, ()))
    receipt = Receipt.read(path)
    try:
        found = sha256_of(path)
    except FileNotFoundError:
        return Verdict(_MISSING, path, "its receipt is there")
    except OSError as error:
        return Verdict(_UNREADABLE, path, error.strerror or "")
    if wrong := difference(found, source, receipt):
        return Verdict(_CHANGED, path, wrong)
    if receipt is None and not source.sha256:
        return Verdict(_UNKNOWN, path, f"no hash is published, and it was not fetched: {found}")
    return Verdict(_OK, path, "")
