#!/usr/bin/env python3
"""Measure candidates by embeddings on made-up vectors, from 10,000 to a million contents.

    python benchmarks/candidates.py [--counts 10000,100000,1000000] [--dimensions 256]
        [--similarity 0.8] [--cone 0.2] [--alike 10000] [--equal 10000] [--workers 1]

The vectors lie around centres, one for a hundred contents, with a cosine of 0.5 to them, and all
have CONE of their squared length in common, as those of learned models do. One content in ten is a
copy: the vector of another, turned to a cosine of 0.98, 0.95, 0.9, 0.85 or 0.8, and a thousandth
more, so that what float16 rounds away costs none. Contents are made inside the pipeline and go
through the program's own transform; each job runs in a process of its own. CPU seconds include
start-up and the making of the contents, which --counts with a similarity of 1 shows alone.

Two more jobs hold the worst that a model can do: EQUAL contents with one vector, and ALIKE contents
of which each two have a cosine of more than 0.95, as random weights make them.
"""

import argparse
import json
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import numpy as np
from machine import Took, describe, measured
from scale import made_up

from beam_dedup import runners
from beam_dedup.options import RunConfig
from transforms.packing import PackedCandidates, unpack
from transforms.records import Content, Learned, StageStats
from transforms.similar import ProposeByEmbedding, is_exhaustive

COSINES = (0.98, 0.95, 0.9, 0.85, 0.8)
_CHUNK = 10_000  # contents made by one element
_COPIES = _CHUNK // 50  # for each cosine
_OF_A_CENTRE = 100
_SPREAD = 0.5  # of the squared length of a vector, that is its own
_ALIKE = 0.03  # the same of those that are all alike
# An id: noise, the number of the content, that of its original, and the cosine in hundredths.
_ID = np.dtype([("noise", "V16"), ("number", "u8"), ("original", "u4"), ("cosine", "u4")])
_NOTHING = bytes(64)


def _directions(random: np.random.Generator, count: int, dimensions: int) -> np.ndarray:
    vectors = random.standard_normal((count, dimensions), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _mixed(part: float, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return vectors of length 1 of which ``second`` has a part of the squared length."""
    mixed = np.sqrt(1 - part) * first + np.sqrt(part) * second
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def turned(vectors: np.ndarray, noise: np.ndarray, cosine: float) -> np.ndarray:
    """Return vectors with a cosine to those given.

    Args:
        vectors: float [n, d], of length 1.
        noise: float [n, d], by which they are turned.
        cosine: to be had.
    """
    across = noise - (noise * vectors).sum(axis=1, keepdims=True) * vectors
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    return cosine * vectors + np.sqrt(1 - cosine**2) * across


def make_vectors(
    random: np.random.Generator, args: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the vectors of a chunk, [n, d], their originals and cosines in hundredths."""
    dimensions, nothing = args.dimensions, np.zeros(_CHUNK, np.int64)
    common = _directions(np.random.default_rng(args.seed), 1, dimensions)
    own = _directions(random, _CHUNK, dimensions)
    if args.kind == "equal":
        return np.repeat(common, _CHUNK, axis=0), np.arange(_CHUNK), nothing
    if args.kind == "alike":
        return _mixed(_ALIKE, common, own), np.arange(_CHUNK), nothing
    centres = np.repeat(_directions(random, _CHUNK // _OF_A_CENTRE, dimensions), _OF_A_CENTRE, 0)
    vectors = _mixed(1 - args.cone, common, _mixed(_SPREAD, centres, own))
    original, cosine = np.arange(_CHUNK), nothing
    copies = _COPIES * len(COSINES)
    original[:copies] = random.permutation(np.arange(copies, _CHUNK))[:copies]
    for index, value in enumerate(COSINES):
        rows = slice(index * _COPIES, (index + 1) * _COPIES)
        noise = _directions(random, _COPIES, dimensions)
        vectors[rows] = turned(vectors[original[rows]], noise, value + 0.001)
        cosine[rows] = round(100 * value)
    return vectors, original, cosine


def make_chunk(number: int, args: argparse.Namespace) -> Iterator[Content]:
    """Make the contents of one chunk."""
    random = np.random.default_rng([args.seed, number])
    vectors, original, cosine = make_vectors(random, args)
    ids = np.empty(_CHUNK, _ID)
    ids["noise"] = np.frombuffer(random.bytes(16 * _CHUNK), "V16")
    ids["number"] = number * _CHUNK + np.arange(_CHUNK)
    ids["original"], ids["cosine"] = number * _CHUNK + original, cosine
    ranks = np.frombuffer(random.bytes(40 * _CHUNK), "V40")
    for row, vector in enumerate(vectors.astype(np.float16)):
        content = made_up(ids[row].tobytes(), ranks[row].tobytes(), _NOTHING)
        yield content._replace(learned=Learned(vector.tobytes(), "", 0.0, "", "", ""))


def planted(first: bytes, second: bytes) -> int:
    """Return the cosine of a planted pair, in hundredths; 0 for one that was not made alike."""
    a, b = np.frombuffer(first + second, _ID)
    for copy, other in ((a, b), (b, a)):
        if copy["cosine"] and copy["original"] == other["number"]:
            return int(copy["cosine"])
    return 0


def _proposed(packed: PackedCandidates) -> Iterator[str]:
    for candidate in unpack(packed):
        yield "candidates"
        if cosine := planted(candidate.a, candidate.b):
            yield f"planted {cosine}"


def _peak(stats: StageStats) -> tuple[str, int]:
    return f"peak {stats.worker}", stats.peak_rss_bytes


def _write(told: list[tuple[str, int]], path: str) -> None:
    Path(path).write_text(json.dumps(dict(told)), encoding="utf-8")


def build(pipeline: beam.Pipeline, args: argparse.Namespace) -> None:
    """Apply the search to made-up contents."""
    contents = (
        pipeline
        | "Chunks" >> beam.Create(range(args.count // _CHUNK))
        | "Spread chunks" >> beam.Reshuffle()
        | "Make contents" >> beam.FlatMap(make_chunk, args).with_output_types(Content)
    )
    proposed = contents | "Embedding candidates" >> ProposeByEmbedding(args.similarity)
    counts = (
        proposed.candidates
        | "Name proposed" >> beam.FlatMap(_proposed).with_output_types(str)
        | "Count" >> beam.combiners.Count.PerElement()
    )
    applied = (
        proposed.caps
        | "Applied" >> beam.Map(lambda cap: (f"cap {cap.name} {cap.limit}", cap.applied))
        | "Add up applied" >> beam.CombinePerKey(sum)
    )
    peaks = (
        proposed.stats
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
    with tempfile.TemporaryDirectory(prefix="beam-dedup-candidates-") as folder:
        config = RunConfig(workers=args.workers)
        runners.run(lambda pipeline: build(pipeline, args), config, [], Path(folder))
    told = json.loads(Path(args.result).read_text(encoding="utf-8"))
    told["peak client"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    Path(args.result).write_text(json.dumps(told), encoding="utf-8")


class Job(NamedTuple):
    """One job, and what was measured of it."""

    count: int
    kind: str  # clustered | equal | alike
    dimensions: int
    took: Took
    told: dict[str, int]

    @property
    def row(self) -> str:
        """Return the job as a row of the table."""
        how = "exhaustive" if is_exhaustive(self.count, self.dimensions) else "sketches"
        peak = max(size for name, size in self.told.items() if name.startswith("peak "))
        cells = [f"{self.count:,}", self.kind, how, f"{self.told.get('candidates', 0):,}"]
        cells += [f"{self.took.cpu_s:.1f}", f"{self.took.wall_s:.1f}", f"{peak / 1e6:.0f}"]
        share = _COPIES * self.count // _CHUNK
        for cosine in COSINES:
            found = self.told.get(f"planted {round(100 * cosine)}", 0)
            cells.append(f"{found / share:.4f}" if self.kind == "clustered" else "")
        return f"| {' | '.join(cells)} |"


_TABLE = (
    "| contents | vectors | search | candidates | CPU s | wall s | largest, MB "
    f"| {' | '.join(f'recall at {cosine}' for cosine in COSINES)} |\n{'|---' * 12}|"
)


def job(args: argparse.Namespace, count: int, kind: str) -> Job:
    """Run one job in a process of its own; print and return what it took."""
    with tempfile.TemporaryDirectory(prefix="beam-dedup-candidates-") as folder:
        result = Path(folder, "result.json")
        command = [sys.executable, __file__, "--result", str(result), "--count", str(count)]
        command += ["--kind", kind]
        for name in ("dimensions", "similarity", "cone", "workers", "seed"):
            command += [f"--{name}", str(getattr(args, name))]
        took = measured(command)
        told = json.loads(result.read_text(encoding="utf-8"))
    print(f"{count} contents, {kind}: {took}", flush=True)
    print(f"  { ({name: told[name] for name in sorted(told)}) }", flush=True)
    return Job(count, kind, args.dimensions, took, told)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", default="10000,100000,1000000", help="multiples of 10,000")
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--similarity", type=float, default=0.8)
    parser.add_argument("--cone", type=float, default=0.2, help="0 to 1")
    parser.add_argument("--equal", type=int, default=10_000, help="0: no such job")
    parser.add_argument("--alike", type=int, default=10_000, help="0: no such job")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    for name, kind in (("count", int), ("kind", str), ("result", str)):
        # Of one job, which this script starts.
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run the jobs and print."""
    args = _options()
    if args.result:
        run_one(args)
        return
    print(describe(args.seed), flush=True)
    jobs = [job(args, int(word), "clustered") for word in args.counts.split(",") if word]
    jobs += [job(args, count, kind) for kind in ("equal", "alike") if (count := vars(args)[kind])]
    print(f"\n{describe(args.seed)}; {args.dimensions} dimensions, similarity {args.similarity}")
    print(_TABLE)
    for one in jobs:
        print(one.row)


if __name__ == "__main__":
    main()
