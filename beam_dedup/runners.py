"""Where a pipeline runs: the embedded runner by default, any Beam runner that the user names.

The embedded runner is Beam's FnApiRunner, named explicitly: DirectRunner would first try to
download another engine. With one worker everything runs in this process; with more, worker
processes run the stages and this one holds the shuffle. An interrupt or a worker's death ends all
worker processes before the caller gets the exception.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from beam_dedup.garbage import few_collections, no_collections
from beam_dedup.messages import describe_failure
from beam_dedup.options import RunConfig, UsageError
from beam_dedup.worker import LAST_WORDS, LIFELINE, MARK, Uncompressed, teach_beam

if TYPE_CHECKING:
    import apache_beam as beam

log = logging.getLogger(__name__)

_BYTES_A_WORKER = 2**30
# Without it Beam asks beartype how types compare, which it imports for that; ours are plain.
_BEAM_ARGS = ("--disable_beartype",)
# Beam's names of the threads that wait for a worker process and that read what it sends.
_WORKER_THREADS = frozenset({"run_worker"})
_READ_THREADS = frozenset({"beam_control_read", "read_grpc_client_inputs"})
# How long Beam may take to notice a worker's death, and a worker to end itself, seconds.
_GRACE_S = 5.0
_LAST_WORDS = 10_000  # characters of a dead worker's standard error that are logged


class JobError(Exception):
    """The job failed; the message is one line without control characters or secrets."""


class _WorkerDied(RuntimeError):
    """A worker process ended although the job had not."""


def default_workers(
    proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup"), cpus: int | None = None
) -> int:
    """Return how many workers this machine allows: CPUs, CPU quota and 1 GiB of memory for each.

    Args:
        proc: the proc file system.
        cgroup: where the control groups are mounted, version 1 or 2.
        cpus: CPUs that this process may run on; None asks the system.

    Returns:
        At least 1.
    """
    if cpus is None:
        affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
        cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    limits = [float(cpus)]
    quota = _cpu_quota(proc, cgroup)
    if quota is not None:
        limits.append(quota)
    memory = _memory_bytes(proc, cgroup)
    if memory is not None:
        limits.append(memory / _BYTES_A_WORKER)
    return max(1, int(min(limits)))


def run(
    build: Callable[[beam.Pipeline], None], config: RunConfig, beam_args: list[str], folder: Path
) -> Any:
    """Run a pipeline to its end.

    In the main thread, SIGINT and SIGTERM end the workers and raise KeyboardInterrupt here.

    Args:
        build: applies the transforms to a pipeline.
        config: how many workers, or that the user named a runner.
        beam_args: Beam's own options.
        folder: an empty folder for this run's lifeline.

    Returns:
        Beam's result of the finished job.

    Raises:
        UsageError: Beam knows no runner of that name.
        JobError: the job failed.
        KeyboardInterrupt: a signal came.
    """
    try:
        if config.runner is not None:
            return _run_named(build, beam_args)
        workers = config.workers or default_workers()
        with few_collections(), _no_idle_work():
            if workers == 1:
                return _run_here(build, beam_args)
            return _run_processes(build, beam_args, workers, folder)
    except (UsageError, JobError):
        raise
    except Exception as error:
        log.info("the job failed", exc_info=True)
        raise JobError(describe_failure(error)) from error


def _run_named(build: Callable[[beam.Pipeline], None], beam_args: list[str]) -> Any:
    """Run on the runner that the options name, as any Beam program would."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import create_runner

    options = PipelineOptions(beam_args)
    name = options.get_all_options()["runner"]
    try:
        create_runner(name)
    except (AttributeError, ImportError, ValueError) as error:
        raise UsageError(f"Beam has no runner {name!r}: {describe_failure(error)}") from error
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    result = pipeline.run()
    try:
        state = result.wait_until_finish()
    except KeyboardInterrupt:
        # A job on a cluster outlives its client unless it is told to stop.
        with contextlib.suppress(Exception):
            result.cancel()
        raise
    if state is not None and state != "DONE":
        raise JobError(f"the runner ended the job in state {state}")
    return result


def _run_here(build: Callable[[beam.Pipeline], None], beam_args: list[str]) -> Any:
    """Run in this process and thread."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    teach_beam()
    options = PipelineOptions([*beam_args, *_BEAM_ARGS])
    runner = FnApiRunner(provision_info=_provision(options))
    pipeline = _built(build, runner, options)
    result = pipeline.run()
    result.wait_until_finish()
    return result


def _run_processes(
    build: Callable[[beam.Pipeline], None], beam_args: list[str], workers: int, folder: Path
) -> Any:
    """Run in worker processes, with Beam's runner in a thread that can be left behind.

    Beam's runner waits for ever for a worker that died before it connected, and for the end of
    the current bundle when it is interrupted. This thread waits for a job or a death instead.
    """
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    teach_beam()
    options = PipelineOptions([*beam_args, *_BEAM_ARGS, f"--direct_num_workers={workers}"])
    # Beam hands the line to a shell: exec leaves no shell between, quotes let folders have spaces.
    program = "from beam_dedup.worker import main; main()"
    command = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(program)}"
    runner = FnApiRunner(
        default_environment=SubprocessSDKEnvironment.from_command_string(command),
        provision_info=_provision(options),
    )
    # None of the modes that Beam knows, each of which would replace the environment given above.
    options.view_as(DirectOptions).direct_running_mode = "beam_dedup.worker"
    pipeline = _built(build, runner, options)
    with _Workers(folder) as alive:
        return alive.watch(pipeline.run)


@contextlib.contextmanager
def _replaced(*what: tuple[Any, str, Any]) -> Iterator[None]:
    """Give attributes of Beam, each as its owner, its name and a value, while the body runs."""
    before = [(owner, name, vars(owner)[name]) for owner, name, _ in what]
    for owner, name, value in what:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _no_idle_work() -> contextlib.AbstractContextManager[None]:
    """Keep Beam's embedded runner from work of which nothing comes, while the body runs.

    Beam 2.77 sends each stage to each worker, which makes its DoFns and coders for it, also where
    there is no element: a third of the 40 stages of a small job, and most of those of a second
    worker. No DoFn of this program says anything of an empty bundle. With one worker it also weighs
    each side input for a cache, by a walk over all modules; here each bundle reads one once, and
    worker processes have no such cache. And it packs each function with bzip2, whose tables take
    longer than what they save, to make and to read.
    """
    from apache_beam.internal import cloudpickle_pickler
    from apache_beam.portability.api import beam_fn_api_pb2
    from apache_beam.runners.portability.fn_api_runner import worker_handlers
    from apache_beam.runners.portability.fn_api_runner.execution import GroupingBuffer
    from apache_beam.runners.portability.fn_api_runner.fn_runner import BundleManager

    def has_elements(buffer: Any) -> bool:
        if isinstance(buffer, GroupingBuffer):  # to iterate over it would encode all groups
            return bool(buffer._table or buffer._grouped_output)
        return any(buffer)

    def process_unless_empty(
        manager: BundleManager, inputs: dict[str, Any], outputs: Any, timers: Any, *more: Any
    ) -> Any:
        if timers or any(map(has_elements, inputs.values())):
            return process(manager, inputs, outputs, timers, *more)
        return beam_fn_api_pb2.InstructionResponse(), []

    process = BundleManager.process_bundle
    return _replaced(
        (BundleManager, "process_bundle", process_unless_empty),
        (worker_handlers, "STATE_CACHE_SIZE_MB", 0),
        (cloudpickle_pickler, "bz2", Uncompressed),
    )


def _no_trials() -> contextlib.AbstractContextManager[None]:
    """Keep Beam from trying, while the body builds a pipeline, what tests have tried.

    Beam 2.77 pickles every function once more than it is sent, and compares the types that each
    step gives and takes: a fifth of the time in which a pipeline is built.
    """
    from apache_beam.transforms import ptransform

    def pass_check(transform: Any, value: Any) -> None:
        """Find nothing to say of the types of what a transform takes or gives."""

    return _replaced(
        (ptransform.pickler, "roundtrip", lambda function: function),
        (ptransform.PTransform, "type_check_inputs", pass_check),
        (ptransform.PTransform, "type_check_outputs", pass_check),
        (ptransform.PTransformWithSideInputs, "type_check_inputs", pass_check),
    )


def _built(build: Callable[[beam.Pipeline], None], runner: Any, options: Any) -> beam.Pipeline:
    """Build the pipeline for the embedded runner."""
    import apache_beam as beam

    # Beam asks for a view of the options whenever it compares two types, and makes a parser for
    # each: 0.3 s in all. Views of one class are alike, since all of them share their values.
    options.__dict__["view_as"] = functools.cache(options.view_as)
    with no_collections(), _no_trials():
        pipeline = beam.Pipeline(runner, options=options)
        build(pipeline)
    return pipeline


def _provision(options: Any) -> Any:
    """Return what makes options reach the workers; FnApiRunner alone would lose them."""
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
    from apache_beam.runners.portability.portable_runner import JobServiceHandle

    # Only what differs from Beam's defaults: a worker warns of negated flags that it gets back.
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options(drop_default=True))
    return ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))


class _Workers:
    """The worker processes of one run, from their start to their certain end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fifo = folder / "lifeline"
        self._lifeline = -1
        self._ended = threading.Event()  # the job, or a worker that should not have
        self._done = threading.Event()  # the job
        self._death: _WorkerDied | None = None
        self._outcome: list[Any] = []
        self._error: BaseException | None = None

    def __enter__(self) -> _Workers:
        os.mkfifo(self._fifo, 0o600)
        # Opened for both, since a FIFO cannot be opened for writing alone before it has a reader.
        self._lifeline = os.open(self._fifo, os.O_RDWR)
        self._environment = os.environ.get(LIFELINE)
        os.environ[LIFELINE] = str(self._fifo)
        self._excepthook = threading.excepthook
        threading.excepthook = self._on_thread_error
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        threading.excepthook = self._excepthook
        if self._environment is None:
            os.environ.pop(LIFELINE, None)
        else:
            os.environ[LIFELINE] = self._environment

    def watch(self, job: Callable[[], Any]) -> Any:
        """Run a job in a thread, and wait for it or for the death of a worker."""

        def run_job() -> None:
            try:
                result = job()
                result.wait_until_finish()
                self._outcome.append(result)
            except BaseException as error:
                self._error = error
            finally:
                self._done.set()
                self._ended.set()

        threading.Thread(target=run_job, name="beam-dedup-job", daemon=True).start()
        self._ended.wait()
        if self._death is not None and not self._done.wait(_GRACE_S):
            raise self._death
        if self._outcome:
            return self._outcome[0]
        # A dead worker is the cause; what Beam raises then is only a closed channel.
        raise self._death or self._error or RuntimeError("the job ended without a result")

    def _on_thread_error(self, args: threading.ExceptHookArgs) -> None:
        """Note that a worker ended with a failure; pass on every other thread's error."""
        name = "" if args.thread is None else args.thread.name
        if name in _READ_THREADS:
            log.info("a worker's channel closed: %r", args.exc_value)
        elif name not in _WORKER_THREADS:
            self._excepthook(args)
        elif not self._done.is_set() and self._lifeline >= 0:
            self._death = _WorkerDied(
                f"a worker process ended early ({args.exc_value}); "
                "a negative code is a signal, and -9 is often too little memory"
            )
            self._ended.set()

    def _end(self) -> None:
        """End every worker process, and wait until Beam has seen it."""
        lifeline, self._lifeline = self._lifeline, -1
        os.close(lifeline)
        if self._death is not None:
            self._log_last_words()
        if _join(_WORKER_THREADS):
            self._kill()
        self._done.wait(_GRACE_S)
        _join(_READ_THREADS)

    def _log_last_words(self) -> None:
        for path in self._folder.glob(f"{LAST_WORDS}*"):
            words = path.read_text(encoding="utf-8", errors="backslashreplace")[-_LAST_WORDS:]
            log.info("%s: %s", path.name, words)

    def _kill(self) -> None:
        for mark in self._folder.glob(f"{MARK}*"):
            pid = int(mark.name.removeprefix(MARK))
            # A process that was waited for is no child any more, and its number may be another's.
            with contextlib.suppress(ChildProcessError, ProcessLookupError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                os.kill(pid, signal.SIGKILL)


def _join(names: frozenset[str]) -> bool:
    """Wait a while for the threads of some names; tell whether any goes on."""
    threads = [one for one in threading.enumerate() if one.name in names]
    for thread in threads:
        thread.join(_GRACE_S)
    return any(thread.is_alive() for thread in threads)


class Interrupts:
    """Turns signals into KeyboardInterrupt in the main thread, until told to ignore them.

    Elsewhere it does nothing: Python allows no handlers there, and no interrupt comes there.
    """

    def __init__(self, numbers: tuple[signal.Signals, ...]) -> None:
        main = threading.current_thread() is threading.main_thread()
        self._numbers = numbers if main else ()
        self._received: signal.Signals | None = None
        self._ignored = False

    def __enter__(self) -> Interrupts:
        self._before = [(one, signal.signal(one, self._handle)) for one in self._numbers]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def ignore(self) -> None:
        """Take no more interrupts; for a clean-up that must come to its end."""
        self._ignored = True

    def check(self) -> None:
        """Raise if a signal came whose exception was lost on the way, in a finaliser perhaps."""
        if self._received is not None:
            raise KeyboardInterrupt(self._received.name)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._received = signal.Signals(number)
        if not self._ignored:
            raise KeyboardInterrupt(self._received.name)


def _cpu_quota(proc: Path, cgroup: Path) -> float | None:
    """Return the least CPU quota of this process's control groups, in CPUs."""
    quotas = []
    for folder in _groups(proc, cgroup, "cpu"):
        if text := _read(folder / "cpu.max"):  # version 2: "max 100000" or "50000 100000"
            quota, _, period = text.partition(" ")
        else:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _memory_bytes(proc: Path, cgroup: Path) -> int | None:
    """Return the memory that this process may use: available now, and its groups' limits."""
    limits = []
    for line in _read(proc / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            limits.append(int(line.split()[1]) * 1024)
    for folder in _groups(proc, cgroup, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name)
            if text.isdecimal():
                limits.append(int(text))
    return min(limits, default=None)


def _groups(proc: Path, cgroup: Path, controller: str) -> list[Path]:
    """Return the folders of this process's control group and all above it.

    In a container, the path in ``/proc/self/cgroup`` may be that of the host while the mounted
    tree starts at the container's own group; so the root of the tree is always one of them.
    """
    found = []
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if names == "":
            root = cgroup
        elif controller in names.split(","):
            root = cgroup / controller
        else:
            continue
        group = root / path.strip("/")
        found += [root, group, *group.parents[: len(group.parts) - len(root.parts)]]
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
