"""One job from its config to its result: lock, run, follow, clean up, read the report."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beam_dedup import options, progress, runners
from beam_dedup.messages import one_line, safe_line
from beam_dedup.options import PipelineConfig, RunConfig, UsageError
from transforms.access import LOCAL, Access

if TYPE_CHECKING:
    import pyarrow as pa

    from beam_dedup.reports import Report

log = logging.getLogger(__name__)

# What a file that is no image by name and content fails with; it does not count for the ratio.
_NOT_AN_IMAGE = "not_an_image"


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished job and its report.

    Attributes:
        run_id: names the run in the manifest.
        output: the output folder as it was given.
        summary: the whole of ``summary.json``.
        failures: failed inputs by ``error_type``, most frequent first.
        seconds: wall time of the job, start to report.
        failed_ratio_exceeded: whether more images failed than ``max_failure_ratio`` allows; the
            report is complete all the same.
        access: how the output is reached.
    """

    run_id: str
    output: str
    summary: dict[str, Any]
    failures: dict[str, int]
    seconds: float
    failed_ratio_exceeded: bool
    access: Access = LOCAL

    @property
    def counts(self) -> dict[str, int]:
        """Rows by status, with ``listed`` and ``groups``."""
        counts: dict[str, int] = self.summary["counts"]
        return counts

    @property
    def exit_code(self) -> int:
        """0, or 3 if more images failed than allowed."""
        return 3 if self.failed_ratio_exceeded else 0

    @property
    def images(self) -> pa.Table:
        """One row per input, read when first asked for."""
        return self._report.images

    @property
    def groups(self) -> pa.Table:
        """One row per group of two or more, read when first asked for."""
        return self._report.groups

    @property
    def edges(self) -> pa.Table:
        """One row per compared pair of contents, read when first asked for."""
        return self._report.edges

    @functools.cached_property
    def _report(self) -> Report:
        from beam_dedup.reports import Report

        return Report.open(self.output, self.access)


def deduplicate(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    profile: str = "balanced",
    progress: progress.ProgressCallback | None = None,
    **options_: Any,
) -> Result:
    """Find which images are copies of which, and write a report of them all.

    The same as ``beam-dedup run``. No image is changed, moved or deleted.

    Args:
        inputs: one or several folders, globs, images, list files or URIs.
        output: folder of the report; never an input itself.
        profile: ``fast``, ``balanced`` or ``thorough``.
        progress: called from another thread as ``progress(stage, done, total, unit, percent,
            eta_s)``; total, percent and eta_s are None where they are unknown.
        **options_: any option of ``beam-dedup run`` or of Beam by its name, for example
            ``workers=4``, ``exclude=["*.gif"]``, ``runner="FlinkRunner"``.

    Returns:
        The result; its tables are read from the report when first asked for.

    Raises:
        UsageError: an argument is refused before anything runs; a ValueError.
        JobError: the job failed; no report was written.
        KeyboardInterrupt: SIGINT came; no report was written.
    """
    argv = options.to_argv(inputs, output, {"profile": profile, **options_})
    config, run, beam_args = options.parse(argv)
    with runners.Interrupts((signal.SIGINT,)) as interrupts:
        return run_job(config, run, beam_args, interrupts, callback=progress)


def run_job(
    config: PipelineConfig,
    run: RunConfig,
    beam_args: list[str],
    interrupts: runners.Interrupts,
    *,
    display: progress.Display | None = None,
    callback: progress.ProgressCallback | None = None,
) -> Result:
    """Run a job to its report, or leave nothing of it behind.

    Args:
        config: what to run.
        run: how to run it.
        beam_args: Beam's own options.
        interrupts: what turns signals into KeyboardInterrupt; ignores them when this returns.
        display: shows progress; None shows nothing.
        callback: see ``deduplicate``.

    Returns:
        The result.

    Raises:
        UsageError: the inputs, the output or the runner are refused before anything runs.
        JobError: the job failed.
        KeyboardInterrupt: a signal came.
    """
    from transforms.storage import traffic

    started = time.monotonic()
    build = functools.partial(_build, config=config)
    traffic.take()  # of whatever this process did before
    with _locked(config), _side_channel() as folder:
        try:
            with progress.watch(folder, display, callback):
                try:
                    beam_result = runners.run(build, run, beam_args, folder)
                finally:
                    _free_models(config)
            interrupts.check()
        except BaseException:
            interrupts.ignore()
            _discard(config)
            raise
        interrupts.ignore()
        return _finish(config, beam_result, started)


def failed_ratio_exceeded(
    counts: Mapping[str, int], failures: Mapping[str, int], max_ratio: float
) -> bool:
    """Tell whether more images failed than allowed; always so if nothing else is left.

    Args:
        counts: of the summary, with ``listed`` and ``failed``.
        failures: by error type; those that are no images do not count.
        max_ratio: 0..1, inclusive.
    """
    others = failures.get(_NOT_AN_IMAGE, 0)
    images, failed = counts["listed"] - others, counts["failed"] - others
    if counts["failed"] == counts["listed"]:
        return True
    # In whole numbers' favour: 5 of 100 is not above 0.05, whatever the division rounds to.
    return failed > max_ratio * images + 1e-9 * images


def _build(pipeline: Any, config: PipelineConfig) -> None:
    # Only now: what the pipeline is made of takes seconds to import.
    from beam_dedup.pipeline import build

    build(pipeline, config)


def _free_models(config: PipelineConfig) -> None:
    """Let go of the memory and the files that learned models left here."""
    execution = config.models.execution
    if not execution.job:
        return
    from transforms.models.session import forget_shared, free_models

    free_models()
    if execution.shared:
        forget_shared(execution)


@contextlib.contextmanager
def _locked(config: PipelineConfig) -> Iterator[None]:
    """Check the inputs, and hold the output's lock while the body runs."""
    from beam_dedup.reports.lock import OutputLock
    from transforms.listing import check_inputs

    try:
        check_inputs(
            list(config.inputs),
            config.output,
            config.include,
            config.exclude,
            config.bounds(),
            config.access,
            config.cache(),
        )
        lock = OutputLock(config.output, config.run_id, config.access)
    except (ValueError, OSError) as error:
        raise UsageError(safe_line(str(error))) from error
    try:
        lock.__enter__()
    except ValueError as error:
        raise UsageError(safe_line(str(error))) from error
    except OSError as error:
        raise UsageError(
            f"output {one_line(config.output)!r} cannot be written: {safe_line(str(error))}"
        ) from error
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


@contextlib.contextmanager
def _side_channel() -> Iterator[Path]:
    """Make the folder through which workers tell their progress, and name it to them."""
    from transforms.telemetry import PROGRESS_DIR, report_progress

    before = os.environ.get(PROGRESS_DIR)
    with tempfile.TemporaryDirectory(prefix="beam-dedup-", ignore_cleanup_errors=True) as name:
        os.environ[PROGRESS_DIR] = name
        # If this process ran a job before, its counts go on from there: have them written now,
        # for progress.Tally to subtract.
        report_progress("", 0, flush=True)
        try:
            yield Path(name)
        finally:
            if before is None:
                os.environ.pop(PROGRESS_DIR, None)
            else:
                os.environ[PROGRESS_DIR] = before


def _finish(config: PipelineConfig, beam_result: Any, started: float) -> Result:
    """Write Beam's metrics beside the report, and read what the job came to."""
    from beam_dedup.reports import Report, write_metrics
    from transforms.storage.stores import store_of

    try:
        write_metrics(config.output, _metrics(beam_result), config.access)
    except OSError as error:  # the report is complete without them
        log.warning("metrics.json could not be written: %s", safe_line(str(error)))
    # A store verified what it was sent; to read all of it back would take as long as to write it.
    is_remote = store_of(config.output, "output").is_remote
    summary = Report.open(config.output, config.access, verify=not is_remote).summary
    failures = summary["failures"]
    return Result(
        run_id=config.run_id,
        output=config.output,
        summary=summary,
        failures=failures,
        seconds=time.monotonic() - started,
        failed_ratio_exceeded=failed_ratio_exceeded(
            summary["counts"], failures, config.max_failure_ratio
        ),
        access=config.access,
    )


def _metrics(beam_result: Any) -> dict[str, Any]:
    """Return Beam's own metrics: committed where the runner has it, else attempted."""
    found: dict[str, Any] = {}
    for kind, metrics in beam_result.metrics().query().items():
        values: dict[str, Any] = {}
        for metric in metrics:
            value = metric.committed if metric.committed is not None else metric.attempted
            name = f"{metric.key.metric.namespace}:{metric.key.metric.name}"
            step = safe_line(str(metric.key.step))
            values.setdefault(name, {})[step] = _plain(value)
        found[kind] = values
    return found


def _plain(value: Any) -> Any:
    """Return a metric's value as JSON can hold it."""
    if value is None or isinstance(value, int | float | str):
        return value
    fields = ("sum", "count", "min", "max")
    if all(hasattr(value, field) for field in fields):
        return {field: getattr(value, field) for field in fields}
    return safe_line(str(value))


def _discard(config: PipelineConfig) -> None:
    """Remove what the run left, without hiding why it ended."""
    from beam_dedup.reports.lock import discard_run

    try:
        discard_run(config.output, config.run_id, config.access)
    except OSError as error:
        log.warning("files of the failed run could not be removed: %s", safe_line(str(error)))
