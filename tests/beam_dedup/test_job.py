"""A job as a whole: its result, its refusals, and what a failed one leaves behind."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

import beam_dedup
from beam_dedup import JobError, UsageError, job
from beam_dedup.reports import OutputLock
from tests.beam_dedup.pictures import write_folder, write_picture

_FAST: dict[str, Any] = {"profile": "fast", "workers": 1}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "in")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_result_holds_counts_tables_and_summary(
    pictures: Path, tmp_path: Path, scratch: Path
) -> None:
    result = beam_dedup.deduplicate(pictures, tmp_path / "out", **_FAST)
    expected = {"listed": 4, "unique": 2, "best": 1, "duplicate": 1, "failed": 0, "groups": 1}
    assert {name: result.counts[name] for name in expected} == expected
    rows = {row["path"]: row for row in result.images.to_pylist()}
    assert set(rows) == {str(path) for path in pictures.iterdir()}
    pair = (rows[str(pictures / "0.png")], rows[str(pictures / "copy of 0.png")])
    assert sorted(row["status"] for row in pair) == ["best", "duplicate"]
    assert pair[0]["group_id"] == pair[1]["group_id"]
    assert [row["size"] for row in result.groups.to_pylist()] == [2]
    assert result.edges.num_rows == 0
    assert (result.failures, result.exit_code, result.failed_ratio_exceeded) == ({}, 0, False)
    assert result.output == str(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["run_id"] == result.run_id
    assert result.summary["options"]["profile"] == "fast"
    assert result.summary["options"]["inputs"] == [str(pictures)]
    assert result.seconds > 0
    assert list(scratch.iterdir()) == []


def test_beams_metrics_are_written_beside_the_report(pictures: Path, tmp_path: Path) -> None:
    beam_dedup.deduplicate([pictures], tmp_path / "out", **_FAST)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(metrics) >= {"counters", "distributions", "gauges"}


def test_progress_starts_anew_in_the_same_process(pictures: Path, tmp_path: Path) -> None:
    environment = dict(os.environ)
    for name in ("first", "second"):
        heard: dict[str, tuple[Any, ...]] = {}

        def callback(stage: str, *rest: Any, heard: dict[str, Any] = heard) -> None:
            heard[stage] = rest

        beam_dedup.deduplicate(pictures, tmp_path / name, progress=callback, **_FAST)
        assert heard["fingerprint"][0] == 4
        assert heard["fingerprint"][2] == "images"
    assert dict(os.environ) == environment


def test_a_failing_callback_does_not_end_the_job(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def callback(*_: Any) -> None:
        raise ZeroDivisionError

    result = beam_dedup.deduplicate(pictures, tmp_path / "out", progress=callback, **_FAST)
    assert result.counts["listed"] == 4
    assert [one.getMessage() for one in caplog.records if one.name == "beam_dedup.progress"] == [
        "the progress callback raised; it is not called again"
    ]


def test_two_runs_into_one_output_are_refused(pictures: Path, tmp_path: Path) -> None:
    with (
        OutputLock(str(tmp_path / "out"), "other"),
        pytest.raises(UsageError, match="another run"),
    ):
        beam_dedup.deduplicate(pictures, tmp_path / "out", **_FAST)
    assert list((tmp_path / "out").iterdir()) == []


def test_r15_no_inputs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no objects"):
        beam_dedup.deduplicate(tmp_path / "empty", tmp_path / "out", **_FAST)
    with pytest.raises(UsageError, match="no such file"):
        beam_dedup.deduplicate(tmp_path / "missing", tmp_path / "out", **_FAST)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("listed", "failed", "others", "max_ratio", "exceeded"),
    [
        (100, 0, 0, 0.0, False),
        (100, 1, 0, 0.0, True),
        (100, 5, 0, 0.05, False),
        (100, 6, 0, 0.05, True),
        (120, 20, 20, 0.0, False),  # what is no image does not count
        (120, 25, 20, 0.05, False),
        (120, 26, 20, 0.05, True),
        (3, 3, 0, 1.0, True),  # all failed
        (3, 3, 3, 0.05, True),
        (30, 3, 0, 0.1, False),
    ],
)
def test_r15_the_ratio_counts_images_alone(
    listed: int, failed: int, others: int, max_ratio: float, exceeded: bool
) -> None:
    counts = {"listed": listed, "failed": failed}
    failures = {"not_an_image": others, "truncated": failed - others}
    assert job.failed_ratio_exceeded(counts, failures, max_ratio) is exceeded


def test_r15_too_many_failures_leave_a_whole_report(pictures: Path, tmp_path: Path) -> None:
    for number in range(2):
        (pictures / f"broken{number}.jpg").write_bytes(b"no picture")
    (pictures / "notes.txt").write_text("no picture either")
    result = beam_dedup.deduplicate(pictures, tmp_path / "out", **_FAST)
    assert result.failures == {"unidentified": 2, "not_an_image": 1}
    assert (result.exit_code, result.failed_ratio_exceeded) == (3, True)
    assert result.images.num_rows == 7
    allowed = beam_dedup.deduplicate(pictures, tmp_path / "out", max_failure_ratio=2 / 6, **_FAST)
    assert allowed.exit_code == 0


def test_r13_an_output_that_cannot_be_written_leaves_no_manifest(
    pictures: Path, tmp_path: Path, scratch: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "images").write_text("in the way")
    with pytest.raises(JobError) as caught:
        beam_dedup.deduplicate(pictures, out, **_FAST)
    assert "\n" not in str(caught.value)
    assert "images" in str(caught.value)
    assert [path.name for path in out.iterdir()] == ["images"]
    assert list(scratch.iterdir()) == []


def test_r13_an_output_below_a_file_is_refused(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        beam_dedup.deduplicate(pictures, tmp_path / "file" / "out", **_FAST)


def test_a_failed_run_leaves_the_report_before_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = beam_dedup.deduplicate(pictures, out, **_FAST)
    files = sorted(out.rglob("*"))

    def build(pipeline: Any, config: Any) -> None:
        (out / "images" / f"{config.run_id}-00000.parquet").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job, "_build", build)
    with pytest.raises(JobError, match="No space left"):
        beam_dedup.deduplicate(pictures, out, **_FAST)
    assert sorted(out.rglob("*")) == files
    assert first.images.num_rows == 4


def test_an_interrupted_run_leaves_nothing(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    def build(pipeline: Any, config: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "_build", build)
    with pytest.raises(KeyboardInterrupt):
        beam_dedup.deduplicate(pictures, tmp_path / "out", **_FAST)
    assert list((tmp_path / "out").iterdir()) == []
    assert list(scratch.glob("beam-dedup-*")) == []


def test_two_workers_give_the_same_rows(pictures: Path, tmp_path: Path) -> None:
    write_picture(pictures / "more.png", 99)
    tables = [
        beam_dedup.deduplicate(
            pictures, tmp_path / str(workers), profile="fast", workers=workers
        ).images.sort_by("uri")
        for workers in (1, 2)
    ]
    assert tables[0].num_rows == 5
    assert tables[0].equals(tables[1])


def test_options_and_the_command_line_import_no_model_library() -> None:
    program = (
        "import sys, beam_dedup.cli\n"
        "from beam_dedup import options\n"
        "options.cascade_settings(options.parse(['--input=a', '--output=b'])[0])\n"
        "print({'torch', 'apache_beam.ml.inference'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "set()\n")


def test_importing_the_package_does_not_import_beam() -> None:
    program = "import sys, beam_dedup; print('apache_beam' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
