"""Options that say how stores are reached, for commands that are one process."""

from __future__ import annotations

import argparse
import os

from beam_dedup.options import OptionParser, UsageError
from transforms.access import LOCAL, Access


def add_secret_file_option(parser: OptionParser) -> None:
    """Add the option that ``access_of`` needs, for commands that ask for little."""
    parser.add_argument(
        "--azure_secret_file",
        metavar="PATH",
        help="a file of NAME=VALUE lines in place of the environment; credentials are never "
        "options",
    )


def add_access_options(parser: OptionParser) -> None:
    """Add all the options that ``access_of`` reads."""
    add_secret_file_option(parser)
    add = parser.add_argument
    add(
        "--max_requests_per_second",
        type=int,
        metavar="N",
        help="to each account, in any one second (default: no bound)",
    )
    add(
        "--read_concurrency",
        type=int,
        default=LOCAL.concurrency,
        metavar="N",
        help="files that are worked on at once (default: %(default)s)",
    )


def access_of(values: argparse.Namespace) -> Access:
    """Return how stores are reached.

    Raises:
        UsageError: a value is out of range.
    """
    path = values.azure_secret_file
    bound = getattr(values, "max_requests_per_second", None)
    at_once = getattr(values, "read_concurrency", LOCAL.concurrency)
    for name, value in (("max_requests_per_second", bound), ("read_concurrency", at_once)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be 1 or more, not {value!r}")
    return Access(path and os.path.abspath(path), bound, at_once)
