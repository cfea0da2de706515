#!/usr/bin/env python3
"""Measure candidates, components and groups on made-up keys, from 10,000 to a million images.

    python benchmarks/scale.py [--counts 10000,100000,200000,1000000] [--hot 100000] [--workers 1,2]

The keys are random, with one image in ten a copy of another: each bit flipped with a probability of
0.03, in a random orientation. One in a hundred more is a copy with exactly 8, 16, 24 or 31 flipped
bits, for the table of recall. The hot job adds HOT near-identical images, each bit flipped with a
probability of 0.01, to as many spread ones. Contents are made inside the pipeline, and go through
the program's own transforms, with a stage 2 that accepts by the wavelet distance alone. Each size
runs in a process of its own. CPU seconds include start-up and the making of the contents.

Up to 100,000 keys every pair is compared; beyond, pairs that agree on a band of bits. So a cost
from 100,000 on also compares two ways to search; 200,000 images are the like of a million, and of
the hot job.
"""

import argparse
import json
import math
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import numpy as np
from machine import Took, describe, measured

from beam_dedup import runners
from beam_dedup.options import RunConfig
from transforms.candidates import EXHAUSTIVE_KEYS, ProposeByWavelet
from transforms.cascade import CascadeSettings, ComparePairs
from transforms.color import ColorSettings
from transforms.components import KeyByComponent, PartitionCandidates
from transforms.grouping.bands import turn
from transforms.groups import ElectBest
from transforms.imaging.color import color_descriptor
from transforms.imaging.layout import layout
from transforms.packing import unpack
from transforms.records import Candidate, Content, Decision, StageStats

RADIUS_BITS = 60  # of the profile balanced
FLIPPED = 0.03
HOT_FLIPPED = 0.01
_CHUNK = 10_000  # images made by one element
_EXACT = (8, 16, 24, 31)
_KINDS = ("original", "binomial", *(f"{bits} bits" for bits in _EXACT), "hot")
_COPIES = _CHUNK // 10
_EXACT_COPIES = _CHUNK // 400
# An id: noise, the number of the image, that of its original, and its kind.
_ID = np.dtype([("noise", "V16"), ("number", "u8"), ("original", "u4"), ("kind", "u4")])


def _symmetric_picture() -> np.ndarray:
    """Return uint8 [96, 96, 3]: texture that looks the same in all orientations."""
    quarter = np.random.default_rng(0).integers(0, 256, (6, 6, 3))
    quarter = (quarter + quarter.transpose(1, 0, 2)) // 2
    half = np.concatenate([quarter, quarter[::-1]])
    cells = np.concatenate([half, half[:, ::-1]], axis=1)
    return cells.repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)


_COLOR = color_descriptor(_symmetric_picture()).tobytes()
_LAYOUT = layout(_symmetric_picture()).tobytes()
# All look the same to stage 2, so it accepts whatever is near by its wavelet keys.
_ACCEPT_ALL = ColorSettings(
    reject_similarity=0.0,
    accept_similarity=0.0,
    accept_residual=1.0,
    accept_differing=1.0,
    reject_differing=1.0,
    reject_residual=1.0,
    verify=False,
)


def made_up(content: bytes, rank: bytes, signs: bytes) -> Content:
    """Return a content of which only the id, the rank and the keys tell it from others."""
    return Content(
        content=content,
        uri=f"file:///made/up/{content.hex()}",
        sha256=content,
        rank=rank,
        second_rank=b"",
        size_bytes=100_000,
        etag=None,
        width=500,
        height=375,
        animated=False,
        texture=1.0,
        wavelet_keys=signs,
        color=_COLOR,
        layout=_LAYOUT,
        copies=1,
        total_bytes=100_000,
        links=[],
    )


def _signs(plain: np.ndarray) -> np.ndarray:
    """Return the compact form, uint8 [n, 64], of plain keys, bool [n, 256], without zeros."""
    return np.packbits(np.concatenate([plain, ~plain], axis=1), axis=1)


def _spread(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the plain keys of a chunk, bool [n, 256], their originals and kinds."""
    plain = random.random((_CHUNK, 256)) < 0.5
    original, kind = np.arange(_CHUNK), np.zeros(_CHUNK, np.int64)
    copies = _COPIES + len(_EXACT) * _EXACT_COPIES
    kind[:copies] = 1 + np.repeat(
        np.arange(1 + len(_EXACT)), [_COPIES] + [_EXACT_COPIES] * len(_EXACT)
    )
    original[:copies] = random.permutation(np.arange(copies, _CHUNK))[:copies]
    turned = np.unpackbits(turn(_signs(plain[original[:copies]])), axis=2).astype(bool)
    turned = turned[random.integers(0, 8, copies), np.arange(copies)]
    flips = random.random((copies, 256)) < FLIPPED
    order = random.random((copies, 256)).argsort(axis=1)
    for index, bits in enumerate(_EXACT, 2):
        exact = kind[:copies] == index
        flips[exact] = order[exact] < bits
    plain[:copies] = turned ^ flips
    return plain, original, kind


def _hot(
    random: np.random.Generator, seed: int, flipped: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    base = np.random.default_rng(seed).random(256) < 0.5
    plain = base ^ (random.random((_CHUNK, 256)) < flipped)
    return plain, np.arange(_CHUNK), np.full(_CHUNK, _KINDS.index("hot"))


def make_chunk(chunk: tuple[int, bool], seed: int, flipped: float) -> Iterator[Content]:
    """Make the contents of one chunk.

    Args:
        chunk: its number, and whether it is hot.
        seed: of the whole job.
        flipped: the probability that a bit of a hot image is flipped.
    """
    number, hot = chunk
    random = np.random.default_rng([seed, number])
    plain, original, kind = _hot(random, seed, flipped) if hot else _spread(random)
    ids = np.empty(_CHUNK, _ID)
    ids["noise"] = np.frombuffer(random.bytes(16 * _CHUNK), "V16")
    ids["number"] = number * _CHUNK + np.arange(_CHUNK)
    ids["original"], ids["kind"] = number * _CHUNK + original, kind
    ranks = np.frombuffer(random.bytes(40 * _CHUNK), "V40")
    signs = _signs(plain)
    for row in range(_CHUNK):
        yield made_up(ids[row].tobytes(), ranks[row].tobytes(), signs[row].tobytes())


def planted(first: bytes, second: bytes) -> Iterator[str]:
    """Name the kind of a planted pair; nothing for a pair of images that were not made alike."""
    a, b = np.frombuffer(first + second, _ID)
    for copy, other in ((a, b), (b, a)):
        kind = _KINDS[copy["kind"]]
        if kind == "hot" and other["kind"] == copy["kind"]:
            yield kind
            return
        if kind != "original" and copy["original"] == other["number"]:
            yield kind
            return


def _proposed(candidate: Candidate) -> Iterator[str]:
    yield "candidates"
    for kind in planted(candidate.a, candidate.b):
        yield f"proposed {kind}"


def _grouped(decision: Decision) -> Iterator[str]:
    if decision.content != decision.kept:
        yield "duplicates"
        for kind in planted(decision.content, decision.kept):
            yield f"grouped {kind}"


def _peak(stats: StageStats) -> tuple[str, int]:
    return f"peak {stats.worker}", stats.peak_rss_bytes


def _write(told: list[tuple[str, int]], path: str) -> None:
    Path(path).write_text(json.dumps(dict(told)), encoding="utf-8")


def build(pipeline: beam.Pipeline, args: argparse.Namespace) -> None:
    """Apply the middle of the program's dataflow to made-up contents."""
    chunks = [(n, False) for n in range(args.count // _CHUNK)]
    chunks += [(len(chunks) + n, True) for n in range(args.hot_count // _CHUNK)]
    contents = (
        pipeline
        | "Chunks" >> beam.Create(chunks)
        | "Spread chunks" >> beam.Reshuffle()
        | "Make contents"
        >> beam.FlatMap(make_chunk, args.seed, args.hot_flipped).with_output_types(Content)
    )
    proposed = contents | "Wavelet candidates" >> ProposeByWavelet(RADIUS_BITS)
    candidates = proposed.candidates | "Candidates" >> beam.FlatMap(unpack)
    components = proposed.candidates | "Partition" >> PartitionCandidates()
    keyed = contents | "Key by component" >> KeyByComponent(components.members)
    settings = CascadeSettings(_ACCEPT_ALL, 0.0, 0.0, 0.0, _ACCEPT_ALL.relations)
    compared = keyed | "2 Compare" >> ComparePairs(settings, components.candidates)
    elected = compared.components | "5 Elect best" >> ElectBest()

    names = (
        candidates | "Name proposed" >> beam.FlatMap(_proposed).with_output_types(str),
        elected.decisions | "Name grouped" >> beam.FlatMap(_grouped).with_output_types(str),
    ) | "Names" >> beam.Flatten()
    counts = names | "Count" >> beam.combiners.Count.PerElement()
    caps = (proposed.caps, components.caps) | "Caps" >> beam.Flatten()
    applied = (
        caps
        | "Applied" >> beam.Map(lambda cap: (f"cap {cap.name} {cap.limit}", cap.applied))
        | "Add up applied" >> beam.CombinePerKey(sum)
    )
    stats = (proposed.stats, *compared.stats, elected.stats) | "Statistics" >> beam.Flatten()
    peaks = (
        stats
        | "Peaks" >> beam.Map(_peak).with_output_types(tuple[str, int])
        | "Highest" >> beam.CombinePerKey(max)
    )
    (
        (counts, applied, peaks)
        | "All figures" >> beam.Flatten()
        | "Gather" >> beam.combiners.ToList()
        | "Write" >> beam.Map(_write, args.result)
    )


def run_one(args: argparse.Namespace) -> None:
    """Run one job in this process and its workers."""
    with tempfile.TemporaryDirectory(prefix="beam-dedup-scale-") as folder:
        config = RunConfig(workers=args.job_workers)
        runners.run(lambda pipeline: build(pipeline, args), config, [], Path(folder))
    told = json.loads(Path(args.result).read_text(encoding="utf-8"))
    told["peak client"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    Path(args.result).write_text(json.dumps(told), encoding="utf-8")


class Job(NamedTuple):
    """One job, and what was measured of it."""

    count: int  # spread images
    hot: int
    workers: int
    took: Took
    told: dict[str, int]

    @property
    def peaks(self) -> str:
        """Peak memory of the client, which is the worker where there is one, and of each worker."""
        workers = sorted(
            size
            for name, size in self.told.items()
            if name.startswith("peak ") and name != "peak client"
        )
        sizes = [self.told["peak client"], *(workers if self.workers > 1 else [])]
        return " + ".join(f"{size / 1e6:.0f}" for size in sizes)

    @property
    def shares(self) -> list[str]:
        """Shares of the planted copies that were grouped: all, then of each number of bits."""
        planted = planted_counts(self.count)
        grouped = {name: self.told.get(f"grouped {name}", 0) for name in planted}
        exact = [f"{grouped[name] / planted[name]:.4f}" for name in planted if name != "binomial"]
        return [f"{sum(grouped.values()) / sum(planted.values()):.4f}", *exact]

    @property
    def row(self) -> str:
        """Return the job as a row of the table."""
        cells = [f"{self.count:,}", f"{self.hot:,}", _how(self.count + self.hot), str(self.workers)]
        cells += [f"{self.took.cpu_s:.1f}", f"{self.took.wall_s:.1f}"]
        cells += [f"{self.took.peak_bytes / 1e6:.0f}", self.peaks, *self.shares]
        return f"| {' | '.join(cells)} |"


_TABLE = (
    "| spread | hot | search | workers | CPU s | wall s | largest, MB | client + workers, MB "
    f"| recall | {' | '.join(f'at {bits} bits' for bits in _EXACT)} |\n{'|---' * 13}|"
)


def job(args: argparse.Namespace, count: int, hot: int, workers: int) -> Job:
    """Run one job in a process of its own; print and return what it took."""
    with tempfile.TemporaryDirectory(prefix="beam-dedup-scale-") as folder:
        result = Path(folder, "result.json")
        command = [sys.executable, __file__, "--result", str(result), "--count", str(count)]
        command += ["--hot_count", str(hot), "--hot_flipped", str(args.hot_flipped)]
        command += ["--seed", str(args.seed), "--job_workers", str(workers)]
        took = measured(command)
        told = json.loads(result.read_text(encoding="utf-8"))
    print(f"{count} spread images, {hot} hot, {workers} worker(s): {took}", flush=True)
    for name, planted_count in planted_counts(count).items():
        shares = [told.get(f"{step} {name}", 0) / planted_count for step in ("proposed", "grouped")]
        print(
            f"  {name}: {planted_count} planted, {shares[0]:.4f} proposed, {shares[1]:.4f} grouped"
        )
    if hot:
        print(f"  hot: {told.get('grouped hot', 0)} of {hot - 1} grouped with the one that is kept")
    rest = {name: told[name] for name in sorted(told) if name.startswith(("cand", "dup", "cap"))}
    print(f"  {rest}", flush=True)
    return Job(count, hot, workers, took, told)


def planted_counts(count: int) -> dict[str, int]:
    """Return how many copies of each kind are planted among so many spread images."""
    chunks = count // _CHUNK
    return {"binomial": _COPIES * chunks} | {
        f"{bits} bits": _EXACT_COPIES * chunks for bits in _EXACT
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cores = os.cpu_count() or 1
    powers = [str(2**n) for n in range(cores.bit_length())]
    parser.add_argument(
        "--counts", default="10000,100000,200000,1000000", help="multiples of 10,000"
    )
    parser.add_argument("--hot", type=int, default=100_000, help="0: no hot job")
    parser.add_argument("--hot_flipped", type=float, default=HOT_FLIPPED)
    parser.add_argument("--workers", default=",".join(powers))
    parser.add_argument("--seed", type=int, default=1)
    for name in ("count", "hot_count", "job_workers"):  # of one job, which this script starts
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run the jobs and print."""
    args = _options()
    if args.result:
        run_one(args)
        return
    print(describe(args.seed), flush=True)
    counts = sorted(int(word) for word in args.counts.split(","))
    jobs: list[Job] = []
    for workers in (int(word) for word in args.workers.split(",")):
        jobs += [job(args, count, 0, workers) for count in counts]
        if args.hot:
            jobs.append(job(args, args.hot, args.hot, workers))
    print(f"\n{describe(args.seed)}\n{_TABLE}")
    for one in jobs:
        print(one.row)
    print("\nRatios of CPU seconds:")
    for line in ratios(jobs):
        print(f"- {line}")


def ratios(jobs: list[Job]) -> Iterator[str]:
    """Say how cost grows with the number of images, and what a hot key costs."""
    cpu = {(one.workers, one.count, one.hot): one.took.cpu_s for one in jobs}
    for (workers, high, hot), cost in cpu.items():
        name = f"{workers} worker(s)"
        if hot:
            for spread, note in ((high, ""), (high + hot, ", as many images in all")):
                if (workers, spread, 0) in cpu:
                    ratio = cost / cpu[workers, spread, 0]
                    yield (
                        f"{name}: {hot:,} hot among {high:,} spread, {ratio:.2f} times "
                        f"{spread:,} spread ({_how(high + hot)} over {_how(spread)}{note})"
                    )
            continue
        for low in sorted(
            one for at, one, heat in cpu if at == workers and one < high and not heat
        ):
            exponent = math.log(cost / cpu[workers, low, 0]) / math.log(high / low)
            yield (
                f"{name}: N^{exponent:.2f} from {low:,} ({_how(low)}) to {high:,} ({_how(high)})"
            )


def _how(keys: int) -> str:
    return "exhaustive" if keys <= EXHAUSTIVE_KEYS else "bands"


if __name__ == "__main__":
    main()
