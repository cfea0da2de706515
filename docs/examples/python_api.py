"""``beam_dedup.deduplicate`` with a progress callback.

    python docs/examples/python_api.py FOLDER OUTPUT

Prints the counts, and for each duplicate its name, its relation and the kept image. Progress goes
to standard error.
"""

import sys

import beam_dedup


def show(
    stage: str, done: int, total: int | None, unit: str, percent: float | None, eta_s: float | None
) -> None:
    """Print how far one stage is; called from another thread."""
    of = "" if total is None else f" of {total}"
    left = "" if eta_s is None else f", {eta_s:.0f} s left"
    print(f"{stage}: {done}{of} {unit}{left}", file=sys.stderr)


def main(folder: str, output: str) -> int:
    """Run on one folder; return the exit code of the command line."""
    try:
        result = beam_dedup.deduplicate(folder, output, progress=show, workers=1)
    except beam_dedup.UsageError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    except beam_dedup.JobError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print(result.counts)
    for row in result.images.select(["path", "status", "relation", "best_uri"]).to_pylist():
        if row["status"] == "duplicate":
            print(row["path"], row["relation"], row["best_uri"])
    return result.exit_code


# Needed: with more than one worker, each worker process may import this module.
if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2]))
