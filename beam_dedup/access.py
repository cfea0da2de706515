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
    try:
        return Access(
            path and os.path.abspath(path),
            getattr(values, "max_requests_per_second", None),
            getattr(values, "read_concurrency", LOCAL.concurrency),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
