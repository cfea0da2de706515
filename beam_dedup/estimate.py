"""What a dry run says: how long a job would take, what it would read, and what memory it needs.

Lists every input, or takes a kept listing; reads and measures a sample of them in this process, as
many at once as a worker would; and writes nothing but the listing cache, where one is given.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import random
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from beam_dedup.messages import count, duration, safe_line, size
from beam_dedup.options import PipelineConfig, RunConfig, UsageError, decode_limits
from beam_dedup.runners import default_workers

if TYPE_CHECKING:
    from transforms.access import Access
    from transforms.records import FailedImage, ImageRef

_SAMPLE = 200  # images; a quarter of a second of photographs of 110 KB, a few of 12 megapixels
_SAMPLE_S = 20.0  # seconds after which the sample ends, however few it has
# Stages 2 to 5 and the report took 45 CPU seconds for 5,420 photographs of which three in four are
# copies, a heavy case (README, "Measured").
_COMPARE_S_AN_IMAGE = 45 / 5420
# Measured on FnApiRunner: a process without and with Beam's inference package importing torch,
# and what the shuffle keeps for an image (docs/DESIGN.md; the shuffle is an upper bound).
_PROCESS_BYTES = 250e6
_TORCH_BYTES = 660e6
_SHUFFLE_BYTES_AN_IMAGE = 10e3
# Features of images that are compared cross the shuffle too: 5,420 photographs of which three in
# four are copies took 610 MB more than 500 without copies.
_COMPARE_BYTES_AN_IMAGE = 120e3
_REPORT_BYTES_AN_IMAGE = 700.0
_VALUE_BYTES = 2  # float16
# Of an embedding, in the shuffle: with its content, for its row and in the row.
_COPIES_OF_AN_EMBEDDING = 3
_TABLES = 3  # of the report, each in as many files at most as that of the images
_OTHER_WRITES = 10  # table of all rows, summary, manifest, lock and their like
_PAGE = 1000  # names that S3 and Cloud Storage give at once
# A worker that waits for the store less than this share of its time is bound by its CPU.
_WAITING = 0.3


@dataclasses.dataclass(frozen=True)
class Sample:
    """What a sample of the inputs showed.

    Attributes:
        measured: images that were read and measured, or failed.
        failed: how many of them failed.
        cpu_s: CPU seconds of it all.
        bytes_read: of it all.
        wall_s: seconds from the first to the last.
        held_s: of them, seconds for which the rate limit or the store held requests back.
        most_held_bytes: read ahead at once.
    """

    measured: int
    failed: int
    cpu_s: float
    bytes_read: int
    wall_s: float = 0.0
    held_s: float = 0.0
    most_held_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Listed:
    """What the listing showed.

    Attributes:
        inputs: rows that the report would have.
        failed: of them, those that cannot be read at all, or are too large to be.
        total_bytes: of the others.
        sample: some of the others, each as likely as any.
    """

    inputs: int
    failed: int
    total_bytes: int
    sample: list[ImageRef]


@dataclasses.dataclass(frozen=True)
class Remote:
    """What there is to say of an input on a remote store.

    Attributes:
        access: of each process.
        listing: requests by which a job lists; few where there is a kept listing.
        listing_s: seconds that they took this process.
        writes: requests by which the report and a listing are written, at most.
    """

    access: Access
    listing: int
    listing_s: float
    writes: int


def estimate(config: PipelineConfig, run: RunConfig) -> str:
    """Return an estimate of a job as lines for a person.

    Args:
        config: what would run.
        run: how it would run.

    Raises:
        UsageError: the inputs are refused.
    """
    from transforms.listing import check_inputs, iterate_inputs
    from transforms.storage import traffic

    inputs, output = list(config.inputs), config.output or None
    try:
        bounds, access, cache = config.bounds(), config.access, config.cache()
        filters = (config.include, config.exclude)
        check_inputs(inputs, output, *filters, bounds, access, cache)
        traffic.take()
        started = time.monotonic()
        rows = iterate_inputs(
            inputs, output, *filters, config.limit, bounds, access, cache, keep=True
        )
        listed = survey(rows, max_bytes=config.max_image_bytes)
        seconds = time.monotonic() - started
        asked = traffic.take()
        sample = measure(listed.sample, config)
    except (ValueError, OSError) as error:
        raise UsageError(safe_line(str(error))) from error
    workers = None if run.runner is not None else run.workers or default_workers()
    remote = None
    if asked or _is_remote(listed.sample):
        heads, lists = traffic.total(asked, "head"), traffic.total(asked, "list")
        if not asked:  # Beam's file systems tell nobody of their requests
            lists = -(-listed.inputs // _PAGE)
        # What a listing was kept of is not listed again.
        left = heads if cache is not None and config.limit is None else heads + lists
        left_s = seconds * left / max(heads + lists, 1)
        writes = _writes(listed.inputs, output, config.embedding_size or 0)
        remote = Remote(access, left, left_s, writes)
    return describe(
        listed,
        sample,
        workers,
        verify=config.settings.verify,
        remote=remote,
        embeds=config.models.global_model.dimensions if config.embeds_all else 0,
        writes_embeddings=config.write_embeddings,
    )


def _is_remote(refs: list[ImageRef]) -> bool:
    from transforms.storage.stores import store_of

    return any(store_of(ref.uri, "an input").is_remote for ref in refs)


def _writes(inputs: int, output: str | None, embedding_size: int) -> int:
    """Return how many requests write a report, at most; none do where it is local."""
    from transforms.report import shard_count
    from transforms.storage.stores import store_of

    if output is None or not store_of(output, "output").is_remote:
        return 0
    shards = shard_count(inputs, embedding_size)
    return shards + (_TABLES - 1) * shard_count(inputs) + _OTHER_WRITES


def survey(
    rows: Iterable[ImageRef | FailedImage],
    wanted: int = _SAMPLE,
    max_bytes: int | None = None,
) -> Listed:
    """Count a listing and draw a sample from it in one pass.

    Reservoir sampling (Vitter 1985, algorithm R, DOI 10.1145/3147.3165), with a fixed seed so that
    the same folder gives the same estimate.

    Args:
        rows: of ``transforms.listing.iterate_inputs``.
        wanted: size of the sample.
        max_bytes: larger files are not read; None reads all.
    """
    from transforms.records import ImageRef

    chance = random.Random(0)  # noqa: S311 - a sample for an estimate, no secret
    inputs = failed = total_bytes = readable = 0
    sample: list[ImageRef] = []
    for row in rows:
        inputs += 1
        if not isinstance(row, ImageRef) or (max_bytes is not None and row.size_bytes > max_bytes):
            failed += 1
            continue
        readable += 1
        total_bytes += row.size_bytes
        if len(sample) < wanted:
            sample.append(row)
        elif (place := chance.randrange(readable)) < wanted:
            sample[place] = row
    return Listed(inputs, failed, total_bytes, sample)


def measure(
    refs: list[ImageRef], config: PipelineConfig, clock: Callable[[], float] = time.monotonic
) -> Sample:
    """Read and measure a sample as stage 1 does, for no longer than some seconds.

    Args:
        refs: the sample.
        config: for the decoder's limits, and how stores are reached.
        clock: in seconds.
    """
    from transforms.fingerprints import fingerprint
    from transforms.imaging.errors import ImageError
    from transforms.storage import StorageError, traffic
    from transforms.storage.reads import ReadAhead, Wanted

    limits, words = decode_limits(config), config.settings.word_votes > 0
    started, cpu = clock(), time.process_time()
    measured = failed = bytes_read = 0
    ended, waiting = started, iter(refs)
    ahead: ReadAhead[ImageRef] = ReadAhead(_sample_access(config.access), limits.max_image_bytes)
    with ahead as reads:
        while ended <= started + _SAMPLE_S:
            while not reads.is_full and (ref := next(waiting, None)):
                reads.add(ref, Wanted(ref.uri, ref.size_bytes, ref.etag))
            if not len(reads):
                break
            ref, read = reads.take()
            measured += 1
            try:
                if read.error:
                    raise read.error
                bytes_read += len(read.data)
                fingerprint(ref, read.data, limits, words=words)
            except (StorageError, ImageError):
                failed += 1
            ended = clock()
    # Waits at the same time are counted when the last of them ends, as the threads have by now.
    wall_s = clock() - started
    held_s = sum(one.waited_us for one in traffic.take()) / 1e6
    cpu_s = time.process_time() - cpu
    return Sample(measured, failed, cpu_s, bytes_read, wall_s, held_s, reads.most_held_bytes)


def _sample_access(access: Access) -> Access:
    """Read no more at once than the rate limit lets go in a second.

    More would only wait for it, be counted as waits for the store, and be under way when the
    sample's time is over.
    """
    per_second = access.requests_per_second or access.concurrency
    return dataclasses.replace(access, concurrency=min(access.concurrency, per_second))


def describe(
    listed: Listed,
    sample: Sample,
    workers: int | None,
    *,
    verify: bool,
    remote: Remote | None = None,
    embeds: int = 0,
    writes_embeddings: bool = False,
) -> str:
    """Put an estimate into words.

    Args:
        listed: what the listing showed.
        sample: what the sample showed.
        workers: processes of the embedded runner; None for a runner that we know nothing of.
        verify: whether stages 3 and 4 would run.
        remote: of inputs on a remote store; None where all are local.
        embeds: values of the embedding of each picture; 0 where only what is compared has one.
        writes_embeddings: whether the report has them.
    """
    readable = listed.inputs - listed.failed
    first_s = sample.cpu_s / sample.measured * readable if sample.measured else 0.0
    compare_s = _COMPARE_S_AN_IMAGE * readable if verify else 0.0
    read = size(listed.total_bytes)
    passes = 2 if embeds else 1
    # The second one decodes as the first does; what a model takes, nobody knows without running it.
    parts = [f"{duration(first_s)} to measure"]
    parts += [f"{duration(first_s)} to read again for the model, and what that takes"] * (
        passes - 1
    )
    parts.append(f"up to {duration(compare_s)} to compare")
    reads = [read, *["all again for embeddings"] * (passes - 1)]
    reads += ["and again those that are compared"] * verify
    lines = [
        ("inputs", f"{count(listed.inputs)}, {read}"),
        ("sample", f"{count(sample.measured)} images, {count(sample.failed)} of them failed"),
        ("reads", ", ".join(reads)),
        ("CPU time", ", ".join(parts)),
    ]
    if remote is not None:
        lines += _remote_lines(
            remote, sample, readable, workers, compare_s, verify=verify, passes=passes
        )
    elif workers is not None:
        least_s = passes * first_s / workers
        wall = f"{duration(least_s)} to {duration(least_s + compare_s / workers)}"
        lines.append(("time", f"{wall} with {workers} workers"))
    if workers is not None:
        held = sample.most_held_bytes
        lines.append(("memory", _memory(readable, workers, held, embeds, verify=verify)))
    row_bytes = _REPORT_BYTES_AN_IMAGE + (_VALUE_BYTES * embeds if writes_embeddings else 0)
    lines.append(("report", f"about {size(row_bytes * listed.inputs)}"))
    return "\n".join(f"{name:<9} {value}" for name, value in lines)


def _memory(readable: int, workers: int, held_bytes: int, embeds: int, *, verify: bool) -> str:
    torch = (verify or embeds > 0) and importlib.util.find_spec("torch") is not None
    process = _PROCESS_BYTES + (_TORCH_BYTES if torch else 0)
    embedding_bytes = _COPIES_OF_AN_EMBEDDING * _VALUE_BYTES * embeds
    shuffle = (_SHUFFLE_BYTES_AN_IMAGE + embedding_bytes) * readable
    processes = workers + 1 if workers > 1 else 1
    least = process * processes + shuffle + held_bytes * workers
    most = least + _COMPARE_BYTES_AN_IMAGE * readable
    memory = f"{size(least)} to {size(most)}" if verify else f"about {size(least)}"
    return f"{memory} in {processes} processes"


def _remote_lines(
    remote: Remote,
    sample: Sample,
    readable: int,
    workers: int | None,
    compare_s: float,
    *,
    verify: bool,
    passes: int,
) -> list[tuple[str, str]]:
    """Say how many requests there will be, how long it all takes, and what it is that takes it."""
    times = workers or 1
    images = readable / sample.measured if sample.measured else 0.0
    cpu_s = sample.cpu_s * images
    # What one process needs that nobody holds back; it reads and measures at the same time.
    free_s = max(sample.cpu_s, sample.wall_s - sample.held_s) * images
    again = readable if verify else 0
    least = remote.listing + readable * passes
    most = least + again + remote.writes
    low_s = (free_s * passes + remote.listing_s) / times
    # Later reads take no longer than the first; a listing that cannot be split, one process.
    high_s = (free_s * (passes + verify) + compare_s) / times + remote.listing_s
    per_second = remote.access.requests_per_second
    limit_s = 0.0 if per_second is None else least / (per_second * times)
    most_s = 0.0 if per_second is None else most / (per_second * times)
    if limit_s > low_s:
        cause = f"the rate limit, without which it is {duration(low_s)} to {duration(high_s)}"
    elif cpu_s < (1 - _WAITING) * free_s:
        cause = "the wait for the store; more --read_concurrency may help"
    else:
        cause = "the CPU"
    listing = f"{count(remote.listing)} to list" if remote.listing else "listed already"
    requests = f"{count(least)} ({listing}, {count(readable * passes)} to read)"
    if most > least:
        more = f"up to {count(again)} to read again, {count(remote.writes)} to write"
        requests += f" to {count(most)} ({more})"
    processes = f"with {workers} workers" if workers else "in one process, less in several"
    wall = f"{duration(max(low_s, limit_s))} to {duration(max(high_s, most_s))} {processes}"
    return [("requests", requests), ("time", wall), ("slowest", cause)]
