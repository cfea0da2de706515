"""``python -m beam_dedup.reports.check DIR``: does a report keep its promises?"""

import sys

from beam_dedup.reports.reader import Report, ReportError


def main(argv: list[str]) -> int:
    """Check one report.

    Args:
        argv: the output folder.

    Returns:
        0 if it is sound, 1 if not, 2 for bad usage.
    """
    if len(argv) != 1:
        print("usage: python -m beam_dedup.reports.check DIR", file=sys.stderr)
        return 2
    try:
        report = Report.open(argv[0], verify=False)
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


def _escaped(text: str) -> str:
    """Return text that no name in it can make the terminal act on."""
    return "".join(
        char if " " <= char <= "~" else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
