"""The summary: counts, stages, bytes and quality of a run, added up from rows and statistics."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from transforms.records import Cap, RequestCount, StageStats

#: The stages that propose pairs under their own name.
GENERATORS = ("embedding", "wavelet", "words")

# The stages that read contents again.
_SECOND_READS = ("embeddings", "features")

# Begin the counts of edges by what proposed them.
_COMPARED, _VERIFIED = "compared by ", "verified by "
_FAILED = "failed as "  # begins the counts of failed rows by their error_type
_HALVED_NOTE = "batches of the model were halved for want of memory, and run again"
_BINS = 20  # of the quality scores, equal widths over 0..1


class Tally(NamedTuple):
    """What the rows of some shards add up to."""

    counts: dict[str, int]  # rows by status and by table; "members", "size_bytes", "reclaimable"
    quality: list[int]  # images by bin of their quality score

    def plus(self, other: "Tally") -> "Tally":
        """Add another tally."""
        counts = Counter(self.counts)
        counts.update(other.counts)
        bins = [a + b for a, b in zip(self.quality, other.quality, strict=True)]
        return Tally(dict(counts), bins)


EMPTY = Tally({}, [0] * _BINS)


def tally(name: str, table: pa.Table) -> Tally:
    """Add up one shard.

    Args:
        name: ``images``, ``groups`` or ``edges``.
        table: its rows.

    Returns:
        Its tally.
    """
    if name == "groups":
        reclaimable = pc.sum(table["reclaimable_bytes"]).as_py() or 0
        members = pc.sum(table["size"]).as_py() or 0
        return EMPTY._replace(
            counts={"groups": len(table), "members": members, "reclaimable": reclaimable}
        )
    if name == "edges":
        named = zip(table["generators"].to_pylist(), table["verdict"].to_pylist(), strict=True)
        found = Counter(
            f"{_COMPARED if verdict != 'accept' else _VERIFIED}{names}" for names, verdict in named
        )
        return EMPTY._replace(counts={"edges": len(table), **found})
    bins = [0] * _BINS
    for score in table["quality_score"].drop_null().to_pylist():
        bins[min(max(int(score * _BINS), 0), _BINS - 1)] += 1
    counts = Counter(table["status"].to_pylist())
    failed = table.filter(pc.equal(table["status"], "failed"))["error_type"].to_pylist()
    counts.update(f"{_FAILED}{error_type}" for error_type in failed)
    size = pc.sum(table["size_bytes"]).as_py() or 0
    return Tally({"images": len(table), "size_bytes": size, **counts}, bins)


def stage_summary(stage: str, parts: Iterable[StageStats]) -> dict[str, Any]:
    """Add up what the bundles of one stage did.

    Args:
        stage: its name.
        parts: at least one.

    Returns:
        The summary's entry: ``seconds`` is from the first start to the last end, ``cpu_seconds``
        of the threads that worked, ``utilisation`` CPU seconds over wall seconds and workers.
    """
    parts = list(parts)
    seconds = (max(p.ended_us for p in parts) - min(p.started_us for p in parts)) / 1e6
    cpu = sum(p.cpu_us for p in parts) / 1e6
    workers = len({p.worker for p in parts})
    return {
        "name": stage,
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu, 3),
        "workers": workers,
        "utilisation": round(cpu / (seconds * workers), 4) if seconds else 0.0,
        "items_in": sum(p.items_in for p in parts),
        "items_out": sum(p.items_out for p in parts),
        "failed": sum(p.failed for p in parts),
        "skipped": sum(p.skipped for p in parts),
        "peak_rss_bytes": max(p.peak_rss_bytes for p in parts),
    }


class Gathered(NamedTuple):
    """Everything that the summary is made of."""

    listed: int
    tally: Tally
    stats: Mapping[str, Sequence[StageStats]]  # by stage
    caps: Sequence[Cap]
    requests: Sequence[RequestCount] = ()  # of the writers; those of a stage are in its stats


def check_counts(gathered: Gathered) -> dict[str, int]:
    """Return the counts of the summary, if every input has exactly one row.

    Raises:
        ValueError: if rows were lost or doubled, or the groups are not those of the rows.
    """
    counts = {
        name: gathered.tally.counts.get(name, 0)
        for name in ("unique", "best", "duplicate", "failed", "groups")
    }
    rows = sum(counts[name] for name in ("unique", "best", "duplicate", "failed"))
    if not gathered.listed == rows == gathered.tally.counts.get("images", 0):
        raise ValueError(
            f"{gathered.listed} inputs were listed, but {rows} rows were made: no report is written"
        )
    if counts["best"] != counts["groups"]:
        raise ValueError(
            f"{counts['groups']} groups have {counts['best']} kept images: no report is written"
        )
    grouped, members = counts["best"] + counts["duplicate"], gathered.tally.counts.get("members", 0)
    if grouped != members:
        raise ValueError(
            f"groups of {members} images in all have {grouped} rows: no report is written"
        )
    return {"listed": gathered.listed, **counts}


def summarise(
    run_id: str, gathered: Gathered, options: Mapping[str, Any], versions: Mapping[str, str]
) -> dict[str, Any]:
    """Make the summary.

    Args:
        run_id: names the run.
        gathered: what there is to add up.
        options: of the run, without secrets.
        versions: of the libraries.

    Returns:
        The content of ``summary.json``.

    Raises:
        ValueError: if the rows do not match the listing.
    """
    counts = check_counts(gathered)
    stages = [
        stage_summary(stage, parts)
        for stage, parts in sorted(
            gathered.stats.items(), key=lambda item: (min(p.started_us for p in item[1]), item[0])
        )
    ]
    every = [part for parts in gathered.stats.values() for part in parts]
    wall = (max(p.ended_us for p in every) - min(p.started_us for p in every)) / 1e6 if every else 0
    cpu = sum(p.cpu_us for p in every) / 1e6
    second = [gathered.stats.get(name, ()) for name in _SECOND_READS]
    # Where all contents are embedded, those of stages 3 and 4 are some of them.
    computed = max(sum(p.items_out for p in parts) for parts in second)
    readable = counts["listed"] - counts["failed"]
    return {
        "run_id": run_id,
        "counts": counts,
        "failures": _failures(gathered.tally.counts),
        "stages": stages,
        "bytes": {
            "listed": gathered.tally.counts.get("size_bytes", 0),
            "read_first": sum(p.bytes_read for p in gathered.stats.get("fingerprint", ())),
            "read_second": sum(p.bytes_read for parts in second for p in parts),
            "reclaimable": gathered.tally.counts.get("reclaimable", 0),
        },
        "requests": _requests([*gathered.requests, *(r for part in every for r in part.requests)]),
        # Contents that were read again, for embeddings or for stages 3 and 4, and the rest.
        "features": {"computed": computed, "freed": readable - computed},
        "generators": _generators(gathered),
        "quality_scores": _quality(gathered.tally.quality),
        "caps": [cap._asdict() for cap in add_up([*gathered.caps, *_halved(every)])],
        "images_per_second": round(counts["listed"] / wall, 2) if wall else 0.0,
        "speed_up": round(cpu / wall, 3) if wall else 0.0,
        "options": dict(options),
        "versions": dict(versions),
    }


def _failures(counts: Mapping[str, int]) -> dict[str, int]:
    """Return how many inputs failed by ``error_type``, the most frequent first."""
    found = [(n, key.removeprefix(_FAILED)) for key, n in counts.items() if key.startswith(_FAILED)]
    # Equal counts by name, so that the same report always reads the same.
    return {name: n for n, name in sorted(found, key=lambda one: (-one[0], one[1]))}


def _requests(parts: Sequence[RequestCount]) -> dict[str, Any]:
    """Return what was asked of stores: requests by kind and status, retries, seconds waited."""
    found: dict[tuple[str, str], RequestCount] = {}
    for one in parts:
        key = (one.kind, one.status)
        before = found.get(key, RequestCount(*key, 0, 0, 0, 0, 0))
        sums = (a + b for a, b in zip(before[2:], one[2:], strict=True))
        found[key] = RequestCount(*key, *sums)
    counts = [found[key] for key in sorted(found)]
    return {
        "sent": sum(one.requests for one in counts),
        "retries": sum(one.retries for one in counts),
        "seconds_throttled": round(sum(one.waited_us for one in counts) / 1e6, 3),
        "bytes_received": sum(one.bytes_received for one in counts),
        "bytes_sent": sum(one.bytes_sent for one in counts),
        "by_kind": [
            {"kind": one.kind, "status": one.status, "requests": one.requests}
            for one in counts
            if one.requests
        ],
    }


def _generators(gathered: Gathered) -> list[dict[str, Any]]:
    """Return for each generator the pairs proposed, verified, and found by it alone."""
    verified: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    compared: Counter[str] = Counter()
    for key, number in gathered.tally.counts.items():
        accepted = key.startswith(_VERIFIED)
        if not accepted and not key.startswith(_COMPARED):
            continue
        names = key.removeprefix(_VERIFIED).removeprefix(_COMPARED).split("+")
        for name in names:
            compared[name] += number
            verified[name] += number * accepted
            alone[name] += number * (accepted and len(names) == 1)
    searched = {n: gathered.stats[n] for n in GENERATORS if n in gathered.stats}
    return [
        {
            "name": name,
            # What the walk asks for of its own is proposed when it is compared.
            "proposed": sum(p.items_out for p in searched[name])
            if name in searched
            else compared[name],
            "compared": compared[name],
            "verified": verified[name],
            "found_alone": alone[name],
        }
        for name in sorted({*searched, *compared})
    ]


def add_up(caps: Iterable[Cap]) -> list[Cap]:
    """Add up how often each bound was applied, as bundles counted it; sorted."""
    applied: Counter[Cap] = Counter()
    for cap in caps:
        applied[cap._replace(applied=0)] += cap.applied
    return sorted(cap._replace(applied=count) for cap, count in applied.items())


def _halved(parts: Iterable[StageStats]) -> Iterator[Cap]:
    """Return for each stage the batches that a model had no memory for."""
    limits: dict[str, int] = {}
    halvings: Counter[str] = Counter()
    for part in parts:
        if part.halvings:
            halvings[part.stage] += part.halvings
            least = limits.get(part.stage, part.batch_limit)
            limits[part.stage] = min(least, part.batch_limit)
    for stage, number in halvings.items():
        yield Cap(stage, "batch_size", limits[stage], number, _HALVED_NOTE)


def _quality(bins: list[int]) -> dict[str, Any]:
    return {
        "bin_width": 1 / _BINS,
        "counts": bins,
        "images": sum(bins),
    }
