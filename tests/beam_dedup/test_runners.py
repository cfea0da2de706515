"""Runners: options reach the workers, failures end in one line, and no process is left behind."""

import functools
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.internal import cloudpickle_pickler
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.portability.fn_api_runner.fn_runner import BundleManager
from apache_beam.transforms import ptransform

from beam_dedup import runners
from beam_dedup.options import RunConfig, UsageError
from beam_dedup.runners import JobError
from beam_dedup.worker import LIFELINE
from tests.beam_dedup import steps

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def side(tmp_path: Path) -> Path:
    folder = tmp_path / "side channel"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))


def _alive(side: Path) -> list[int]:
    """Return the workers of a run that still exist."""
    marks = [int(mark.name.removeprefix("worker-")) for mark in side.glob("worker-*")]
    return [pid for pid in marks if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_get_environment_and_options(
    out: Path, side: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEAM_DEDUP_PROGRESS_DIR", str(side))
    build = functools.partial(steps.build, step=steps.WriteFacts(str(out)), folder=str(out))
    args = ["--blob_service_endpoint=http://127.0.0.1:1/x"]
    runners.run(build, RunConfig(workers=workers), args, side)
    assert [(out / f"sum-{key}").read_text() for key in (0, 1)] == ["2450", "2500"]
    facts = [json.loads(path.read_text()) for path in out.glob("fact-*")]
    assert len(facts) == 100
    assert {progress for _, progress, _ in facts} == {str(side)}
    pids = {pid for pid, _, _ in facts}
    if workers == 1:
        assert pids == {os.getpid()}
    else:
        assert os.getpid() not in pids
        assert len(list(side.glob("worker-*"))) == 2
        assert all("http://127.0.0.1:1/x" in options for _, _, options in facts)
    assert _alive(side) == []
    assert LIFELINE not in os.environ
    assert not [one for one in threading.enumerate() if one.name == "run_worker"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stage_without_elements_is_not_set_up(out: Path, side: Path, workers: int) -> None:
    build = functools.partial(steps.build_with_a_branch_of_nothing, folder=str(out))
    runners.run(build, RunConfig(workers=workers), [], side)
    assert sorted(path.name for path in out.iterdir()) == ["all", "lengths"]
    assert (out / "lengths").read_text() == "0 3"


def test_other_pipelines_of_the_process_have_beam_as_it_is(out: Path, side: Path) -> None:
    def found() -> list[object]:
        return [
            BundleManager.process_bundle,
            worker_handlers.STATE_CACHE_SIZE_MB,
            cloudpickle_pickler.bz2,
            ptransform.pickler.roundtrip,
            ptransform.PTransform.type_check_inputs,
            ptransform.PTransform.type_check_outputs,
            ptransform.PTransformWithSideInputs.type_check_inputs,
        ]

    before = found()
    build = functools.partial(steps.build_with_a_branch_of_nothing, folder=str(out))
    runners.run(build, RunConfig(workers=1), [], side)
    assert found() == before


def test_a_function_that_cannot_be_pickled_fails_the_job(side: Path) -> None:
    def build(pipeline: beam.Pipeline) -> None:
        numbers = (number for number in range(3))  # a generator has no pickled form
        _ = pipeline | beam.Create([1]) | beam.Map(lambda one: one + next(numbers))

    with pytest.raises(JobError, match="translate"):
        runners.run(build, RunConfig(workers=1), [], side)


@pytest.mark.parametrize("workers", [1, 2])
def test_r13_a_failing_step_is_one_line(out: Path, side: Path, workers: int) -> None:
    build = functools.partial(steps.build, step=steps.Fail(), folder=str(out))
    with pytest.raises(JobError) as caught:
        runners.run(build, RunConfig(workers=workers), [], side)
    assert str(caught.value) == (
        "step 'Step': OSError: [Errno 28] No space left on device: '/x/\\x1b[31m'"
    )
    assert caught.value.__cause__ is not None
    assert _alive(side) == []
    assert list(out.iterdir()) == []


def test_a_worker_that_dies_fails_the_job(
    out: Path, side: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    build = functools.partial(steps.build, step=steps.Die(), folder=str(out))
    with pytest.raises(JobError, match=r"worker process ended early .*-9"):
        runners.run(build, RunConfig(workers=2), [], side)
    assert _alive(side) == []
    assert "these are my last words" in caplog.text


def test_workers_that_cannot_start_fail_the_job(
    out: Path, side: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "_GRACE_S", 0.2)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    build = functools.partial(steps.build, step=steps.Fail(), folder=str(out))
    with pytest.raises(JobError, match=r"worker process ended early .*return code 1"):
        runners.run(build, RunConfig(workers=2), [], side)


def test_a_runner_that_beam_does_not_know_is_refused(side: Path) -> None:
    with pytest.raises(UsageError, match="no runner 'NoSuchRunner'"):
        runners.run(
            lambda _: None, RunConfig(runner="NoSuchRunner"), ["--runner=NoSuchRunner"], side
        )


def test_a_named_runner_gets_its_options_unchanged(out: Path, side: Path) -> None:
    build = functools.partial(steps.build, step=steps.WriteFacts(str(out)), folder=str(out))
    args = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]
    result = runners.run(build, RunConfig(runner="FnApiRunner"), args, side)
    assert result.state == "DONE"
    assert (out / "sum-1").read_text() == "2500"
    assert not (side / "lifeline").exists()


_SCRIPT = """
import functools, sys
from pathlib import Path
from beam_dedup import runners
from beam_dedup.options import RunConfig
from tests.beam_dedup import steps

workers, out, side = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
build = functools.partial(steps.build, step=steps.Block(out + "/working"), folder=out)
runners.run(build, RunConfig(workers=workers), [], side)
"""


class _Job:
    """A job that takes for ever, in a process group of its own.

    Every process that works on it holds a FIFO open for writing, so that the end of the FIFO is
    the end of them all.
    """

    def __init__(self, workers: int, out: Path, side: Path) -> None:
        os.mkfifo(out / "working")
        self._fifo = os.open(out / "working", os.O_RDONLY | os.O_NONBLOCK)
        self.client = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, str(workers), str(out), str(side)],
            cwd=_ROOT,
            start_new_session=True,
        )
        text = b""
        while len(set(text.splitlines())) < workers:
            assert self._readable(60), "the job never began"
            text += os.read(self._fifo, 1000)

    def ends(self) -> bool:
        """Tell whether all processes that worked are gone, waiting for it if need be."""
        while self._readable(20):
            if os.read(self._fifo, 1000) == b"":
                os.close(self._fifo)
                return True
        return False

    def _readable(self, seconds: float) -> bool:
        return bool(select.select([self._fifo], [], [], seconds)[0])


def test_workers_end_when_the_client_is_killed(out: Path, side: Path) -> None:
    job = _Job(2, out, side)
    job.client.kill()
    job.client.wait(20)
    assert job.ends()


def _machine(tmp_path: Path, files: dict[str, str]) -> tuple[Path, Path]:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return tmp_path / "proc", tmp_path / "cgroup"


_MEMORY = {"proc/meminfo": "MemTotal: 1 kB\nMemAvailable:   8388608 kB\n"}


@pytest.mark.parametrize(
    ("files", "workers"),
    [
        ({}, 16),
        (_MEMORY, 8),
        ({"proc/meminfo": "MemAvailable: 1024 kB\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "250000 100000"}, 2),
        ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "max 100000"}, 16),
        ({"proc/self/cgroup": "0::/a/b\n", "cgroup/a/cpu.max": "300000 100000"}, 3),
        ({"proc/self/cgroup": "0::/host/path\n", "cgroup/cpu.max": "50000 100000"}, 1),
        ({"proc/self/cgroup": "0::/a\n", "cgroup/a/memory.max": str(5 * 2**30 + 1)}, 5),
        ({"proc/self/cgroup": "0::/a\n", "cgroup/a/memory.max": "max"}, 16),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/d\n3:memory:/d\n",
                "cgroup/cpu/d/cpu.cfs_quota_us": "400000",
                "cgroup/cpu/d/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "3:memory:/d\n4:cpu:/d\n",
                "cgroup/memory/d/memory.limit_in_bytes": str(2**31),
                "cgroup/cpu/d/cpu.cfs_quota_us": "-1",
                "cgroup/cpu/d/cpu.cfs_period_us": "100000",
            },
            2,
        ),
    ],
)
def test_default_workers(tmp_path: Path, files: dict[str, str], workers: int) -> None:
    proc, cgroup = _machine(tmp_path, files)
    assert runners.default_workers(proc, cgroup, cpus=16) == workers


def test_default_workers_of_this_machine() -> None:
    assert 1 <= runners.default_workers() <= (os.cpu_count() or 1)


def test_interrupts_are_ignored_once_told_so() -> None:
    with runners.Interrupts((signal.SIGTERM,)) as interrupts:
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)
        interrupts.ignore()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
