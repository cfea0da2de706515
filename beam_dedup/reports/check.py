"""``python -m beam_dedup.reports.check DIR``: does a report keep its promises?"""

import logging
import sys

from beam_dedup.access import access_of, add_secret_file_option
from beam_dedup.garbage import end_process
from beam_dedup.options import OptionParser


def main(argv: list[str]) -> int:
    """Check one report.

    Args:
        argv: the output folder, and how it is reached.

    Returns:
        0 if it is sound, 1 if not, 2 for bad usage.
    """
    # Not at the top: it imports Beam, which warns on the root logger before it is set up below.
    from beam_dedup.reports.reader import Report, ReportError

    try:
        values = _parser().parse_or_help(argv)
        if values is None:
            return 0
        report = Report.open(values.report, access_of(values), verify=False)
        problems = report.check()
    except (ReportError, OSError) as error:
        print(_escaped(str(error)), file=sys.stderr)
        return 1
    except ValueError as error:  # what was named is no folder at all
        print(_escaped(str(error)), file=sys.stderr)
        return 2
    for problem in problems:
        print(_escaped(problem))
    if not problems:
        print(
            f"ok: {len(report.images)} rows, {len(report.groups)} groups, every duplicate has "
            "equal hashes with or an accepted edge to its kept image"
        )
    return 1 if problems else 0


def _parser() -> OptionParser:
    parser = OptionParser(
        prog="python -m beam_dedup.reports.check",
        description="Verify that a report keeps its promises. Changes nothing.",
        epilog="Exit codes: 0 it does; 1 it does not; 2 bad usage.",
        allow_abbrev=False,
    )
    parser.add_argument("report", metavar="DIR", help="output folder of a run")
    add_secret_file_option(parser)
    return parser


def _escaped(text: str) -> str:
    """Return text that no name in it can make the terminal act on."""
    return "".join(
        char if " " <= char <= "~" else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


if __name__ == "__main__":
    # Only libraries log here; what is wrong with the report or with access is printed.
    logging.getLogger().setLevel(logging.CRITICAL + 1)
    end_process(main(sys.argv[1:]))
