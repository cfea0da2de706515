"""What a dry run says: how long a job would take, what it would read, and what memory it needs.

Lists every input, reads and measures a sample of them in this process, and writes nothing.
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


@dataclasses.dataclass(frozen=True)
class Sample:
    """What a sample of the inputs showed.

    Attributes:
        measured: images that were read and measured, or failed.
        failed: how many of them failed.
        cpu_s: CPU seconds of it all.
        bytes_read: of it all.
    """

    measured: int
    failed: int
    cpu_s: float
    bytes_read: int


@dataclasses.dataclass(frozen=True)
class Listed:
    """What the listing showed.

    Attributes:
        inputs: rows that the report would have.
        failed: of them, those that cannot be read at all.
        total_bytes: of the others.
        sample: some of the others, each as likely as any.
    """

    inputs: int
    failed: int
    total_bytes: int
    sample: list[ImageRef]


def estimate(config: PipelineConfig, run: RunConfig) -> str:
    """Return an estimate of a job as lines for a person.

    Args:
        config: what would run.
        run: how it would run.

    Raises:
        UsageError: the inputs are refused.
    """
    from transforms.listing import check_inputs, iterate_inputs

    inputs, output = list(config.inputs), config.output or None
    try:
        bounds, access = config.bounds(), config.access
        filters = (config.include, config.exclude)
        check_inputs(inputs, output, *filters, bounds, access)
        listed = survey(iterate_inputs(inputs, output, *filters, config.limit, bounds, access))
    except (ValueError, OSError) as error:
        raise UsageError(safe_line(str(error))) from error
    sample = measure(listed.sample, config)
    workers = None if run.runner is not None else run.workers or default_workers()
    return describe(listed, sample, workers, verify=config.settings.verify)


def survey(rows: Iterable[ImageRef | FailedImage], wanted: int = _SAMPLE) -> Listed:
    """Count a listing and draw a sample from it in one pass.

    Reservoir sampling (Vitter 1985, algorithm R, DOI 10.1145/3147.3165), with a fixed seed so that
    the same folder gives the same estimate.

    Args:
        rows: of ``transforms.listing.iterate_inputs``.
        wanted: size of the sample.
    """
    from transforms.records import ImageRef

    chance = random.Random(0)  # noqa: S311 - a sample for an estimate, no secret
    inputs = failed = total_bytes = readable = 0
    sample: list[ImageRef] = []
    for row in rows:
        inputs += 1
        if not isinstance(row, ImageRef):
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
        config: for the decoder's limits.
        clock: in seconds.
    """
    from transforms.fingerprints import fingerprint
    from transforms.imaging.errors import ImageError
    from transforms.storage import StorageError, read_bytes

    limits = decode_limits(config)
    deadline = clock() + _SAMPLE_S
    started = time.process_time()
    measured = failed = bytes_read = 0
    for ref in refs:
        measured += 1
        try:
            data = read_bytes(ref.uri, limits.max_image_bytes, ref.size_bytes)
            bytes_read += len(data)
            fingerprint(ref, data, limits)
        except (StorageError, ImageError):
            failed += 1
        if clock() > deadline:
            break
    return Sample(measured, failed, time.process_time() - started, bytes_read)


def describe(listed: Listed, sample: Sample, workers: int | None, *, verify: bool) -> str:
    """Put an estimate into words.

    Args:
        listed: what the listing showed.
        sample: what the sample showed.
        workers: processes of the embedded runner; None for a runner that we know nothing of.
        verify: whether stages 3 and 4 would run.
    """
    readable = listed.inputs - listed.failed
    first_s = sample.cpu_s / sample.measured * readable if sample.measured else 0.0
    compare_s = _COMPARE_S_AN_IMAGE * readable if verify else 0.0
    read = size(listed.total_bytes)
    lines = [
        ("inputs", f"{count(listed.inputs)}, {read}"),
        ("sample", f"{count(sample.measured)} images, {count(sample.failed)} of them failed"),
        ("reads", f"{read}, and again those that are compared" if verify else read),
        ("CPU time", f"{duration(first_s)} to measure, up to {duration(compare_s)} to compare"),
    ]
    if workers is not None:
        wall = f"{duration(first_s / workers)} to {duration((first_s + compare_s) / workers)}"
        torch = verify and importlib.util.find_spec("torch") is not None
        process = _PROCESS_BYTES + (_TORCH_BYTES if torch else 0)
        shuffle = _SHUFFLE_BYTES_AN_IMAGE * readable
        processes = workers + 1 if workers > 1 else 1
        least = process * processes + shuffle
        most = least + _COMPARE_BYTES_AN_IMAGE * readable
        memory = f"{size(least)} to {size(most)}" if verify else f"about {size(least)}"
        lines += [
            ("time", f"{wall} with {workers} workers"),
            ("memory", f"{memory} in {processes} processes"),
        ]
    lines.append(("report", f"about {size(_REPORT_BYTES_AN_IMAGE * listed.inputs)}"))
    return "\n".join(f"{name:<9} {value}" for name, value in lines)
