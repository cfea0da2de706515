#!/usr/bin/env python3
"""Score every profile on a labelled set, and state its cost as a multiple of the physical limit.

    python benchmarks/quality.py SET [--profiles fast,balanced,thorough] [--workers 1] [--repeats 1]
        [--json FILE]

SET holds ``images`` and ``truth.csv`` (``file,group_id,transform``; an ``original`` in each group;
kinds that begin with ``hard_`` are look-alikes and copies of nothing). Runs ``beam-dedup run`` as
a user would, once on the first 1,000 files and once on all. Costs are CPU seconds, user and system,
of all processes of the run, beside those of ``limit.py`` on the same files, measured before and
after each run so that both meet the machine in the same mood; of several repeats, the medians.

- x whole: the run on all files, start-up included, over the limit on all files.
- x slope: the same between 1,000 files and all, so without start-up.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from limit import Limit, measure
from machine import Took, describe, measured, own

from beam_dedup.evaluate import (
    Labels,
    agreement,
    false_merges_by_kind,
    label,
    read_truth,
    recall_by_kind,
)
from beam_dedup.reports import Report

_FIRST = 1000  # Files of the smaller run.


class Cost(NamedTuple):
    """What a profile took, and the limit in the same minutes."""

    images: int
    whole: Took
    first: Took | None  # On the first 1,000 files; None where the set holds no more.
    limit_first: Limit
    limit_rest: Limit

    @property
    def times_limit(self) -> float:
        """The whole run over the limit."""
        return self.whole.cpu_s / (self.limit_first.cpu_s + self.limit_rest.cpu_s)

    @property
    def times_limit_slope(self) -> float | None:
        """The cost of what comes after the first 1,000 files over the limit there."""
        if self.first is None:
            return None
        return (self.whole.cpu_s - self.first.cpu_s) / self.limit_rest.cpu_s

    @property
    def ms_an_image(self) -> float:
        """CPU milliseconds an image, start-up included."""
        return 1000 * self.whole.cpu_s / self.images

    def to_json(self) -> dict[str, Any]:
        """Return all of it with names."""
        return {
            "images": self.images,
            "whole": self.whole._asdict(),
            "first": None if self.first is None else self.first._asdict(),
            "limit_first": self.limit_first._asdict(),
            "limit_rest": self.limit_rest._asdict(),
            "times_limit": self.times_limit,
            "times_limit_slope": self.times_limit_slope,
        }


def run(images: Path, output: Path, profile: str, workers: int, limit: int | None = None) -> Took:
    """Run the program on a folder; return what it took."""
    command = [sys.executable, "-m", "beam_dedup", "run", f"--input={images}", f"--output={output}"]
    command += [f"--profile={profile}", f"--workers={workers}", "--quiet"]
    return measured(command if limit is None else [*command, f"--limit={limit}"])


def cost(images: Path, output: Path, profile: str, workers: int, repeats: int) -> Cost:
    """Run a profile on the first files and on all; leave the report of all in ``output``."""
    files = sorted(path for path in images.iterdir() if path.is_file())
    firsts, wholes = [], []
    limits = [(measure(files[:_FIRST]), measure(files[_FIRST:]))]
    for _ in range(repeats):
        if len(files) > _FIRST:
            firsts.append(run(images, Path(f"{output}-first"), profile, workers, _FIRST))
        wholes.append(run(images, output, profile, workers))
        limits.append((measure(files[:_FIRST]), measure(files[_FIRST:])))
    return Cost(
        len(files),
        median(wholes),
        median(firsts) if firsts else None,
        *(
            part[0]._replace(cpu_s=statistics.median(one.cpu_s for one in part))
            for part in zip(*limits, strict=True)
        ),
    )


def median(runs: list[Took]) -> Took:
    """Return the run of the median CPU time; of two in the middle the quicker."""
    return sorted(runs, key=lambda took: took.cpu_s)[(len(runs) - 1) // 2]


def figures(labels: Labels) -> dict[str, Any]:
    """Return what is said of a grouping.

    Returns:
        ``all`` and ``photographs`` (without the hard negatives) as ``agreement`` gives them,
        ``recall_by_kind``, ``hard_by_kind``, and ``hard_merged`` of ``hard`` in sum.
    """
    merged = false_merges_by_kind(labels)
    hard = {kind: counts for kind, counts in merged.items() if kind.startswith("hard_")}
    return {
        "all": agreement(labels),
        "photographs": agreement(labels.only(~labels.is_hard)),
        "recall_by_kind": recall_by_kind(labels),
        "hard_by_kind": hard,
        "hard_merged": sum(counts["merged"] for counts in hard.values()),
        "hard": sum(counts["of"] for counts in hard.values()),
    }


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table of columns set flush, the first to the left."""
    lines = [head, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0])]
            + [word.rjust(w) for word, w in zip(line[1:], widths[1:], strict=True)]
        )
        for line in lines
    )


def by_kind(found: dict[str, dict[str, Any]]) -> str:
    """Return the recall and the hard negatives of each kind, a column for each profile."""
    scores = list(found.values())
    head = ["kind", *found]
    rows = [
        [kind, *(f"{score['recall_by_kind'][kind]['recall']:.3f}" for score in scores)]
        for kind in scores[0]["recall_by_kind"]
    ]
    rows += [
        [kind, *(f"{s['hard_by_kind'][kind]['merged']} of {counts['of']}" for s in scores)]
        for kind, counts in scores[0]["hard_by_kind"].items()
    ]
    return table(head, rows)


def row(name: str, score: dict[str, Any], spent: Cost) -> list[str]:
    """Return a line of the table at the end."""
    pairs, slope = score["all"]["pairwise"], spent.times_limit_slope
    return [
        name,
        *(f"{pairs[key]:.4f}" for key in ("precision", "recall", "f1")),
        f"{score['all']['b_cubed']['f1']:.4f}",
        f"{score['photographs']['pairwise']['precision']:.4f}",
        f"{score['photographs']['pairwise']['f1']:.4f}",
        f"{score['hard_merged']} of {score['hard']}",
        f"{spent.whole.cpu_s:.1f}",
        f"{spent.ms_an_image:.2f}",
        f"{spent.times_limit:.2f}",
        "-" if slope is None else f"{slope:.2f}",
        f"{spent.whole.peak_sum_bytes / 2**20:.0f}",
    ]


_HEAD = [
    "profile", "precision", "recall", "F1", "B3 F1", "P photos", "F1 photos", "hard merged",
    "CPU s", "ms/image", "x whole", "x slope", "peak MiB",
]  # fmt: skip


def main() -> None:
    """Run the profiles and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", type=Path)
    parser.add_argument("--profiles", default="fast,balanced,thorough")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    args = parser.parse_args()
    started = time.monotonic()
    print(f"{describe()}; {args.set}; workers {args.workers}, repeats {args.repeats}")
    images, truth = args.set / "images", read_truth(str(args.set / "truth.csv"))
    scores, costs = {}, {}
    with tempfile.TemporaryDirectory(prefix="beam-dedup-quality-") as folder:
        for profile in args.profiles.split(","):
            output = Path(folder, profile)
            costs[profile] = spent = cost(images, output, profile, args.workers, args.repeats)
            scores[profile] = figures(label(Report.open(str(output)), truth))
            limit_s = spent.limit_first.cpu_s + spent.limit_rest.cpu_s
            print(
                f"{profile}: {spent.whole}; the limit on the same {spent.images} files: "
                f"CPU {limit_s:.2f} s, {1000 * limit_s / spent.images:.3f} ms an image",
                flush=True,
            )
    print(f"\n{by_kind(scores)}\n")
    print(table(_HEAD, [row(name, scores[name], costs[name]) for name in scores]))
    print(f"\nall of it: {own(started)}")
    if args.json:
        profiles = {name: {**scores[name], "cost": costs[name].to_json()} for name in scores}
        written = {"machine": describe(), "workers": args.workers, "profiles": profiles}
        args.json.write_text(json.dumps(written, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
