"""``beam-dedup models``: hands the rest of the command line to a subcommand's module."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from typing import Final

from beam_dedup.messages import one_line, redact
from beam_dedup.options import OptionParser, UsageError, model_cache
from transforms.models.spec import ModelError

_DONE, _FAILED, _REFUSED = 0, 1, 2
# Each is a module of this package with ``main(argv) -> int``, which raises UsageError for what is
# refused and ModelError for what fails.
_SUBCOMMANDS: Final = {
    "list": "what there is: size, licence, source, SHA-256, use, and whether it is in the cache",
    "fetch": "download weights into the cache, or go on where a download ended",
    "verify": "hash again what the cache holds, and say what has changed",
    "labels": "embed the names of --labels with CLIP, once, ahead of a run",
}


def main(argv: list[str]) -> int:
    """Run ``beam-dedup models``.

    Args:
        argv: the arguments after ``models``.

    Returns:
        The exit code.

    Raises:
        UsageError: the arguments are refused.
    """
    name = argv[0] if argv else ""
    if name in _SUBCOMMANDS:
        try:
            code: int = importlib.import_module(f"beam_dedup.models.{name}").main(argv[1:])
        except ModelError as error:
            print(f"beam-dedup: failed: {one_line(redact(str(error)))}", file=sys.stderr)
            return _FAILED
        return code
    if name in ("-h", "--help", "help"):
        print(_help())
        return _DONE
    if not name:
        print(_help(), file=sys.stderr)
        return _REFUSED
    close = difflib.get_close_matches(name, _SUBCOMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else "see beam-dedup models --help"
    raise UsageError(f"there is no command models {redact(one_line(name))!r}; {hint}")


def make_parser(name: str, usage: str, description: str, epilog: str) -> OptionParser:
    """Return a parser of a subcommand, with the options that all of them take.

    Args:
        name: of the subcommand.
        usage: what may follow it.
        description: what it does.
        epilog: exit codes, and where to read more.
    """
    parser = OptionParser(
        prog=f"beam-dedup models {name}",
        usage=f"%(prog)s {usage}",
        description=description,
        epilog=f"{epilog} More in docs/guides/models.md.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=98),
    )
    parser.add_argument(
        "--model_cache",
        "--cache",
        metavar="DIR",
        help="the folder of fetched weights (default: BEAM_DEDUP_MODELS, or beam-dedup/models in "
        "XDG_CACHE_HOME or ~/.cache)",
    )
    return parser


def cache_of(values: argparse.Namespace) -> str:
    """Return the folder of fetched weights that ``make_parser``'s option names."""
    return model_cache(values.model_cache)


def _help() -> str:
    commands = "\n".join(f"  {name:<8} {what}" for name, what in _SUBCOMMANDS.items())
    return (
        "usage: beam-dedup models COMMAND [options]\n\n"
        "Weights of learned models; beam-dedup run reads them from the cache, and downloads "
        f"nothing.\n\ncommands:\n{commands}\n\n"
        "beam-dedup models COMMAND --help explains a command."
    )
