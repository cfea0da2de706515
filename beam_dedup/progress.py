"""Progress of a running job, read from what the worker processes leave in a folder.

Beam's runner blocks until the job ends, so each process writes its own counts into a file of the
folder named by ``transforms.telemetry.PROGRESS_DIR``. A thread of the client adds them up and
hands them to a display and to the caller's function.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TextIO

from beam_dedup.messages import count, duration, one_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

log = logging.getLogger(__name__)

_POLL_S = 0.5
_LINE_EVERY_S = 10.0

# Stages in the order of the pipeline, with what they count; others follow as they appear.
_UNITS = {
    "list": "files",
    "fingerprint": "images",
    "embeddings": "images",
    "wavelet": "keys",
    "words": "images",
    "embedding": "images",
    "color": "pairs",
    "features": "images",
    "embed": "images",
    "global": "pairs",
    "local": "pairs",
    "groups": "components",
    "report": "rows",
}

ProgressCallback = Callable[[str, int, int | None, str, float | None, float | None], object]


class StageProgress(NamedTuple):
    """How far one stage is."""

    stage: str
    done: int
    total: int | None  # None while it is not known
    unit: str
    rate: float  # done per second since the stage was first seen
    percent: float | None  # 0..100
    eta_s: float | None


class Display(Protocol):
    """Shows progress to a person."""

    def show(self, stages: list[StageProgress]) -> None:
        """Show the stages as they are now."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Tally:
    """Adds up the counts of all processes, and times the stages."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._started: dict[str, float] = {}
        # A process that ran a job before goes on counting from there.
        self._before = self._read()

    def poll(self) -> list[StageProgress]:
        """Return the stages seen so far, in the order of the pipeline."""
        now = self._clock()
        sums: dict[str, list[int]] = {}
        for name, stages in self._read().items():
            before = self._before.get(name, {})
            for stage, (done, total) in stages.items():
                earlier = before.get(stage, (0, 0))
                one = sums.setdefault(stage, [0, 0])
                one[0] += done - earlier[0]
                one[1] += total - earlier[1]
        order = list(_UNITS)
        seen = [stage for stage, (done, total) in sums.items() if done or total]
        seen.sort(key=lambda stage: order.index(stage) if stage in order else len(order))
        return [self._progress(stage, sums[stage][0], sums[stage][1], now) for stage in seen]

    def _progress(self, stage: str, done: int, total: int, now: float) -> StageProgress:
        elapsed = now - self._started.setdefault(stage, now)
        rate = done / elapsed if elapsed > 0 else 0.0
        # A total that is behind the count is of another process that has not written yet.
        known = total if total >= done and total > 0 else None
        percent = None if known is None else 100.0 * done / known
        eta_s = None if known is None or rate <= 0 else (known - done) / rate
        unit = _UNITS.get(stage, "items")
        return StageProgress(one_line(stage), done, known, unit, rate, percent, eta_s)

    def _read(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Return the counts by file and stage; a file that is being replaced is left for later."""
        found = {}
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
                counts = json.loads(path.read_text(encoding="utf-8"))
                found[path.name] = {
                    str(stage): (int(done), int(total)) for stage, (done, total) in counts.items()
                }
        return found


class LineDisplay:
    """Writes one plain line every ten seconds, for logs and files."""

    def __init__(
        self, stream: TextIO, clock: Callable[[], float] = time.monotonic, every_s: float = 10.0
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._every_s = every_s
        self._started = self._next = clock()
        self._next += every_s

    def show(self, stages: list[StageProgress]) -> None:
        """Write a line if ten seconds have gone by since the last."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + self._every_s
        parts = [_in_words(stage) for stage in stages if stage.percent != 100.0] or ["running"]
        elapsed = duration(now - self._started)
        self._stream.write(f"beam-dedup: {elapsed}: {'; '.join(parts)}\n")
        self._stream.flush()

    def close(self) -> None:
        """Do nothing; every line is complete."""


class BarDisplay:
    """Draws a bar for each stage with count, rate and the time left."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
        )
        self._progress: Progress = Progress(*columns, console=Console(file=stream))
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def show(self, stages: list[StageProgress]) -> None:
        """Draw the bars as they are now."""
        for stage in stages:
            if stage.stage not in self._tasks:
                self._tasks[stage.stage] = self._progress.add_task(
                    stage.stage, total=None, numbers=""
                )
            self._progress.update(
                self._tasks[stage.stage],
                completed=stage.done,
                total=stage.total,
                numbers=_numbers(stage),
            )

    def close(self) -> None:
        """Draw a last time, and give the terminal back."""
        self._progress.stop()


def open_display(stream: TextIO | None = None) -> Display:
    """Return bars for a terminal and lines for anything else.

    Args:
        stream: where to show; standard error if None.
    """
    stream = sys.stderr if stream is None else stream
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return BarDisplay(stream)
    return LineDisplay(stream, every_s=_LINE_EVERY_S)


@contextlib.contextmanager
def watch(
    folder: Path, display: Display | None = None, callback: ProgressCallback | None = None
) -> Iterator[None]:
    """Follow a job while the body runs it.

    Args:
        folder: where the processes write their counts.
        display: shows them; None shows nothing.
        callback: called from a thread of its own as ``callback(stage, done, total, unit, percent,
            eta_s)`` for every stage whose count changed; the last three but ``unit`` are None
            where the total is unknown. When it raises, that is logged once and it is not called
            again; the job goes on.
    """
    stop = threading.Event()
    follower = _Follower(Tally(folder), display, callback)

    def follow() -> None:
        while not stop.wait(_POLL_S):
            follower.step()

    thread = threading.Thread(target=follow, name="beam-dedup-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        follower.step()
        if display is not None:
            display.close()


class _Follower:
    """Hands on what a tally says."""

    def __init__(
        self, tally: Tally, display: Display | None, callback: ProgressCallback | None
    ) -> None:
        self._tally = tally
        self._display = display
        self._callback = callback
        self._told: dict[str, tuple[int, int | None]] = {}

    def step(self) -> None:
        """Poll once."""
        stages = self._tally.poll()
        if self._display is not None:
            try:
                self._display.show(stages)
            except OSError:  # a closed pipe or terminal is no reason to fail
                self._display = None
        for one in stages:
            if self._callback is not None and self._told.get(one.stage) != (one.done, one.total):
                self._told[one.stage] = (one.done, one.total)
                self._call(one)

    def _call(self, one: StageProgress) -> None:
        if self._callback is None:
            return
        try:
            self._callback(one.stage, one.done, one.total, one.unit, one.percent, one.eta_s)
        except Exception:
            # The caller's mistake must neither end a job of hours nor pass unseen.
            log.exception("the progress callback raised; it is not called again")
            self._callback = None


def _numbers(stage: StageProgress) -> str:
    """Return count, share, rate and time left as text."""
    parts = [
        count(stage.done) if stage.total is None else f"{count(stage.done)}/{count(stage.total)}",
        stage.unit,
    ]
    if stage.percent is not None:
        parts.append(f"({stage.percent:.0f} %)")
    text = " ".join(parts) + f", {stage.rate:,.1f}/s"
    if stage.eta_s is not None and stage.percent != 100.0:
        text += f", {duration(stage.eta_s)} left"
    return text


def _in_words(stage: StageProgress) -> str:
    return f"{stage.stage} {_numbers(stage)}"
