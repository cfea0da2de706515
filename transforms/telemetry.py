"""What a stage did: statistics for the summary, and a side channel for a progress display.

The embedded runner blocks until the job ends and gives no result object before it, so each worker
process writes its own small file into the folder named by ``BEAM_DEDUP_PROGRESS_DIR``; the client
polls the folder. Nothing in it ever reaches a row.
"""

import dataclasses
import json
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

import apache_beam as beam

from transforms.outputs import in_global_window
from transforms.records import StageStats
from transforms.storage import traffic

PROGRESS_DIR = "BEAM_DEDUP_PROGRESS_DIR"
STATS = "stats"  # the tag of the statistics output of every metered DoFn
_WRITE_EVERY_S = 0.5
_REPORT_EVERY_US = 100_000

_Argument = TypeVar("_Argument")

_lock = threading.Lock()
_written_at = 0.0
_done: dict[str, list[int]] = {}


def peak_rss_bytes() -> int:
    """Return the peak resident set of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def report_progress(stage: str, done: int, total: int = 0, *, flush: bool = False) -> None:
    """Add to this process's counts of a stage, and write them out twice a second at most.

    Args:
        stage: the stage's name.
        done: items finished since the last call.
        total: items that the stage now knows it will get, since the last call.
        flush: write now.
    """
    global _written_at
    folder = os.environ.get(PROGRESS_DIR)
    if not folder:
        return
    with _lock:
        counts = _done.setdefault(stage, [0, 0])
        counts[0] += done
        counts[1] += total
        now = time.monotonic()
        if not flush and now - _written_at < _WRITE_EVERY_S:
            return
        _written_at = now
        path = os.path.join(folder, f"{socket.gethostname()}-{os.getpid()}.json")
        try:
            with open(path + ".part", "w", encoding="utf-8") as file:
                json.dump(_done, file)
            os.replace(path + ".part", path)
        except OSError:
            # The folder goes away when the client ends; progress is never worth a failed bundle.
            os.environ.pop(PROGRESS_DIR, None)


class Timed(NamedTuple):
    """What a model made of one element, and what that took."""

    value: Any
    started_us: int  # wall clock, microseconds
    ended_us: int
    cpu_us: int  # of this thread
    halvings: int = 0  # of the batch, for want of memory
    batch_limit: int = 0  # items of one call since then; 0 without a halving

    @classmethod
    def call(cls, function: Callable[[_Argument], object], argument: _Argument) -> "Timed":
        """Call a function and time it."""
        wall, cpu = time.time_ns(), time.thread_time_ns()
        value = function(argument)
        spent = time.thread_time_ns() - cpu
        return cls(value, wall // 1000, time.time_ns() // 1000, spent // 1000)


@dataclasses.dataclass
class StageMeter:
    """Counts what one bundle of one stage does; see ``MeteredDoFn``."""

    stage: str

    def __post_init__(self) -> None:
        self.started_us = self.ended_us = 0
        self.cpu_us = self.items_in = self.items_out = 0
        self.failed = self.skipped = self.bytes_read = 0
        self.halvings = self.batch_limit = 0
        self._items = self._unreported = self._reported_us = 0

    def work(self, items: int = 1) -> "StageMeter":
        """Time a piece of work on ``items`` elements, this thread's CPU only.

        Returns:
            This meter, as the context manager of the work; it cannot be nested.
        """
        self._items = items
        return self

    def __enter__(self) -> "StageMeter":
        """Start the clocks."""
        self._wall, self._cpu = time.time_ns(), time.thread_time_ns()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the clocks."""
        now = time.time_ns()
        cpu_us = (time.thread_time_ns() - self._cpu) // 1000
        self._count(self._items, self._wall // 1000, now // 1000, cpu_us)

    def add(self, timed: "Timed") -> None:
        """Count one element that was worked on elsewhere in this bundle."""
        self._count(1, timed.started_us, timed.ended_us, timed.cpu_us)
        self.halvings += timed.halvings
        if timed.batch_limit:
            self.batch_limit = min(self.batch_limit or timed.batch_limit, timed.batch_limit)

    def _count(self, items: int, started_us: int, ended_us: int, cpu_us: int) -> None:
        self.cpu_us += cpu_us
        self.started_us = min(self.started_us or started_us, started_us)
        self.ended_us = max(self.ended_us, ended_us)
        self.items_in += items
        self._unreported += items
        # To report each element would cost as much as to count it ten times.
        if ended_us - self._reported_us >= _REPORT_EVERY_US:
            self.report()
            self._reported_us = ended_us

    def report(self, *, flush: bool = False) -> None:
        """Tell the progress of what was counted since the last time."""
        report_progress(self.stage, self._unreported, flush=flush)
        self._unreported = 0

    def is_telling(self) -> bool:
        """Tell whether the bundle did anything, or the process asked a store for anything."""
        return bool(self.items_in or self.items_out or self.skipped or traffic.is_any())

    def stats(self) -> StageStats:
        """Return the counts so far, with the requests that nobody has told of yet."""
        return StageStats(
            self.stage,
            f"{socket.gethostname()}:{os.getpid()}",
            self.started_us,
            self.ended_us,
            self.cpu_us,
            self.items_in,
            self.items_out,
            self.failed,
            self.skipped,
            self.bytes_read,
            peak_rss_bytes(),
            traffic.take(),
            self.halvings,
            self.batch_limit,
        )


class MeteredDoFn(beam.DoFn):
    """A DoFn with ``self.meter``, whose statistics go to the output tagged ``STATS``.

    Subclasses call ``super().start_bundle()`` if they override it, and yield from
    ``super().finish_bundle()``.
    """

    stage = ""

    def start_bundle(self) -> None:
        """Begin a new count."""
        self.meter = StageMeter(self.stage)

    def finish_bundle(self) -> Iterator[beam.pvalue.TaggedOutput[Literal["stats"], StageStats]]:
        """Emit the bundle's statistics."""
        # Of work that is shared, one bundle counts what comes in.
        if self.meter.is_telling():
            self.meter.report(flush=True)
            yield beam.pvalue.TaggedOutput(STATS, in_global_window(self.meter.stats()))
