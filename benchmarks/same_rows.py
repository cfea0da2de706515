#!/usr/bin/env python3
"""Show that the rows do not depend on the order of the input or on the number of workers.

    python benchmarks/same_rows.py DIR [--count 2000] [--workers 1,2] [--seed 1]

Takes the first COUNT files of a folder, runs ``beam-dedup run`` on them as a list file in sorted
order and in a shuffled one, and once more per number of workers, and prints the SHA-256 of the
sorted rows of each table. Ends with 1 if they differ.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from beam_dedup.reports import Report


def table_hash(output: Path, table: str) -> str:
    """Return the hash of a table's rows, in an order of their own."""
    rows = getattr(Report.open(str(output)), table).to_pylist()
    lines = sorted(json.dumps(row, default=str, sort_keys=True) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def main() -> int:
    """Run, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    files = sorted(str(path) for path in args.folder.resolve().iterdir())[: args.count]
    shuffled = random.Random(args.seed).sample(files, len(files))
    print(
        f"machine: {platform.machine()}, {os.cpu_count()} cores; {len(files)} files; "
        f"seed {args.seed}"
    )
    found = set()
    with tempfile.TemporaryDirectory(prefix="beam-dedup-same-") as name:
        runs = [("sorted", files, int(workers)) for workers in args.workers.split(",")]
        runs.insert(1, ("shuffled", shuffled, runs[0][2]))
        for number, (order, names, workers) in enumerate(runs):
            listed, output = Path(name, "list.txt"), Path(name, f"out-{number}")
            listed.write_text("\n".join(names), encoding="utf-8")
            command = [sys.executable, "-m", "beam_dedup", "run", "--quiet"]
            command += [f"--input={listed}", f"--output={output}", f"--workers={workers}"]
            started = time.monotonic()
            subprocess.run(command, check=True)
            hashes = [f"{t} {table_hash(output, t)}" for t in ("images", "groups", "edges")]
            found.add(tuple(hashes))
            seconds = time.monotonic() - started
            print(f"{order}, {workers} workers, {seconds:.1f} s: {', '.join(hashes)}", flush=True)
    print("the same rows" if len(found) == 1 else "DIFFERENT ROWS")
    return 0 if len(found) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
