#!/usr/bin/env python3
"""Write a report's groups as ``file,predicted_group``, for a scorer of groupings.

python benchmarks/predicted.py REPORT > predicted.csv
"""

import csv
import os
import sys

from beam_dedup.reports import Report


def main() -> None:
    """Print a line for every row that is in a group."""
    writer = csv.writer(sys.stdout)
    writer.writerow(["file", "predicted_group"])
    for row in Report.open(sys.argv[1]).images.select(["path", "group_id"]).to_pylist():
        if row["group_id"]:
            writer.writerow([os.path.basename(row["path"]), row["group_id"]])


if __name__ == "__main__":
    main()
