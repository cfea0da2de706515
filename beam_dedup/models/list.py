"""``beam-dedup models list``: what weights there are, and which are in the cache."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

from beam_dedup.messages import size
from beam_dedup.models.command import cache_of, make_parser
from transforms.models import catalogue
from transforms.models.catalogue import Entry
from transforms.models.weights import Receipt, place

_WIDTH = 200  # of a table that no terminal cuts


def main(argv: list[str]) -> int:
    """Run ``beam-dedup models list``.

    Args:
        argv: the arguments after ``list``.

    Returns:
        0.

    Raises:
        UsageError: the arguments are refused.
    """
    parser = make_parser(
        "list",
        "[options]",
        "Show the weights that beam-dedup models fetch knows. Any clip:ARCH/PRETRAINED of "
        "open_clip's own table can be fetched too.",
        "Exit codes: 0 done; 2 refused.",
    )
    parser.add_argument("--json", action="store_true", help="everything, for a program")
    values = parser.parse_or_help(argv)
    if values is None:
        return 0
    rows = [_row(entry, cache_of(values)) for entry in catalogue.entries()]
    if values.json:
        print(json.dumps(rows, indent=1))
    else:
        _print_table(rows)
    return 0


def _row(entry: Entry, cache: str) -> dict[str, Any]:
    """Return what is known of an entry: of the file in the cache, or else of the preferred one."""
    here = [one for one in entry.files if os.path.isfile(place(cache, entry, one))]
    source = (here or entry.files)[0]
    path = place(cache, entry, source)
    receipt = Receipt.read(path) if here else None
    return {
        "name": entry.name,
        "file_name": source.file_name,
        "size_bytes": os.path.getsize(path) if here else source.size_bytes,
        "license": entry.license,
        "allows_any_use": entry.any_use,
        "license_source": entry.license_source or None,
        "urls": list(source.urls),
        "sha256_published": source.sha256 or None,
        "sha256_source": source.sha256_source or None,
        "sha256_fetched": receipt.sha256 if receipt else None,
        "use": entry.use,
        "path": path if here else None,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    for column in ("licence", "SHA-256", "in the cache"):
        table.add_column(column, no_wrap=True)
    table.add_column("good for")
    table.add_column("source", overflow="fold")
    for row in rows:
        table.add_row(
            row["name"],
            "?" if row["size_bytes"] is None else size(row["size_bytes"]),
            row["license"] + ("" if row["allows_any_use"] else " *"),
            _digits(row),
            "yes" if row["path"] else "no",
            row["use"],
            row["urls"][0],
        )
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
    Console(file=sys.stdout, width=width, markup=False, highlight=False).print(table)
    print(
        "* does not allow every use: fetched and run only with --accept_license NAME\n"
        "SHA-256: the first digits; published, or (as fetched). Any clip:ARCH/PRETRAINED of "
        "open_clip can be fetched too."
    )


def _digits(row: dict[str, Any]) -> str:
    if row["sha256_published"]:
        return str(row["sha256_published"][:8])
    return f"({row['sha256_fetched'][:8]})" if row["sha256_fetched"] else "none"
