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
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:  # what was named is no folder at all
        print(error, file=sys.stderr)
        return 2
    for problem in problems:
        print(problem.encode("ascii", "backslashreplace").decode())
    if not problems:
        print(
            f"ok: {len(report.images)} rows, {len(report.groups)} groups, every duplicate has "
            "equal hashes with or an accepted edge to its kept image"
        )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
