"""Whole runs from azfs to azfs: one report, however they end and whatever fails."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_dedup import cli
from beam_dedup.reports import OutputLock, Report, check
from tests.azurite import ACCOUNT, KEY
from tests.beam_dedup.pictures import write_folder
from tests.faulty import Plan, Proxy, Request, always, failing
from tests.places import Blobs, connected
from transforms.storage import limits
from transforms.storage.azure.account import forget_accounts
from transforms.storage.azure.credentials import CONNECTION_STRING

LOCK = ".beam-dedup.lock"
DENIED = failing(403, code="AuthorizationPermissionMismatch")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def pictures(blobs: Blobs, tmp_path: Path) -> str:
    """The URI of a container with two pictures, one of them twice, and a text."""
    container = blobs.azurite.container()
    folder = write_folder(tmp_path / "in", pictures=2)
    (folder / "notes.txt").write_text("no picture")
    files = {f"p/{path.name}": path.read_bytes() for path in folder.iterdir()}
    blobs.azurite.upload(container, files)
    return f"azfs://{ACCOUNT}/{container}/p"


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every request sent once, so that a store that stays away costs no time."""
    monkeypatch.setattr(limits, "ATTEMPTS", 1)


@contextlib.contextmanager
def _before(blobs: Blobs, plan: Plan | None = None) -> Iterator[Proxy]:
    """Put a proxy between the code under test and Azurite."""
    with Proxy(blobs.azurite.endpoint, plan) as proxy, connected(blobs.azurite, proxy.endpoint):
        yield proxy


def _words(pictures: str, output: str, workers: int = 1) -> list[str]:
    return [f"--input={pictures}", f"--output={output}", "--profile=fast", f"--workers={workers}"]


def _run(pictures: str, output: str, workers: int = 1) -> int:
    return cli.main(["run", *_words(pictures, output, workers)])


def _one_line(capsys: Capture) -> str:
    """Return the one line that a run that failed prints."""
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert KEY not in line
    return line


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_from_blobs_to_blobs(
    blobs: Blobs, pictures: str, tmp_path: Path, capsys: Capture, workers: int
) -> None:
    assert _run(pictures, blobs.output, workers) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("images      4 (1 unique, 1 best, 1 duplicate, 1 failed)\n")
    assert printed.out.endswith(f"report      {blobs.output}\n")
    assert printed.err == ""
    report = Report.open(blobs.output)
    assert report.check() == []
    rows = {row["path"].rpartition("/")[2]: row for row in report.images.to_pylist()}
    assert {name: row["status"] for name, row in rows.items()} == {
        "0.png": "best", "copy of 0.png": "duplicate", "1.png": "unique", "notes.txt": "failed",
    }  # fmt: skip
    assert rows["copy of 0.png"]["uri"] == f"{pictures}/copy%20of%200.png"
    files = blobs.files()
    assert set(files) - {file["path"] for file in report.manifest["files"]} == {
        "manifest.json", "metrics.json",
    }  # fmt: skip
    asked = {(one["kind"], one["status"]) for one in report.summary["requests"]["by_kind"]}
    assert asked >= {("list", "200"), ("read", "206"), ("write", "201")}
    assert not any(KEY.encode() in data for data in files.values())

    assert check.main([blobs.output]) == 0
    truth = tmp_path / "truth.csv"
    truth.write_text("file,group_id\n0.png,0\n1.png,1\n")
    assert cli.main(["evaluate", f"--report={blobs.output}", f"--truth={truth}", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert (scored["run_id"], scored["report"]) == (report.run_id, blobs.output)


def test_a8_a_rerun_replaces_the_report_and_leaves_other_blobs(blobs: Blobs, pictures: str) -> None:
    assert _run(pictures, blobs.output) == 0
    first = Report.open(blobs.output)
    rows = first.images
    others = {"images/mine.parquet": b"mine", "notes.txt": b"mine"}
    blobs.put(others)
    assert _run(pictures, blobs.output) == 0
    second = Report.open(blobs.output)
    assert second.run_id != first.run_id
    files = blobs.files()
    named = {file["path"] for file in second.manifest["files"]}
    assert set(files) == named | set(others) | {"manifest.json", "metrics.json"}
    assert {name: files[name] for name in others} == others
    assert second.images.equals(rows)


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("path", ["images/2", "report.csv", "manifest.json"])
def test_r13_a_run_whose_upload_fails_leaves_the_earlier_report(
    blobs: Blobs, pictures: str, capsys: Capture, path: str
) -> None:
    assert _run(pictures, blobs.output) == 0
    capsys.readouterr()
    before = blobs.files()
    with _before(blobs, always(failing(503), kind="write", path=path)):
        assert _run(pictures, blobs.output) == 1
    assert "ServerBusy" in (line := _one_line(capsys))
    assert line.endswith("no report was written; --verbose shows the traceback")
    assert blobs.files() == before
    assert Report.open(blobs.output).check() == []


def test_r13_a_run_whose_upload_is_refused_leaves_nothing(
    blobs: Blobs, pictures: str, capsys: Capture
) -> None:
    def plan(request: Request):
        return DENIED if request.kind == "write" and LOCK not in request.path else None

    with _before(blobs, plan):
        assert _run(pictures, blobs.output) == 1
    assert "refuses access (AuthorizationPermissionMismatch)" in _one_line(capsys)
    assert blobs.files() == {}


def test_r3_reading_that_is_refused_ends_the_run(
    blobs: Blobs, pictures: str, capsys: Capture
) -> None:
    def plan(request: Request):
        return DENIED if request.kind == "read" and request.path.endswith(".png") else None

    with _before(blobs, plan):
        assert _run(pictures, blobs.output) == 1
    assert "refuses access (AuthorizationPermissionMismatch)" in _one_line(capsys)
    assert blobs.files() == {}


def test_a_second_run_at_the_same_time_is_refused(
    blobs: Blobs, pictures: str, capsys: Capture
) -> None:
    with OutputLock(blobs.output, "first-run"):
        assert _run(pictures, blobs.output) == 2
        assert "is being written by another run ('run first-run, pid" in _one_line(capsys)
        assert list(blobs.files()) == [LOCK]
    assert _run(pictures, blobs.output) == 0
    assert LOCK not in blobs.files()


def test_r9_a_missing_container_of_the_output_is_refused(
    blobs: Blobs, pictures: str, capsys: Capture
) -> None:
    with _before(blobs) as proxy:
        assert _run(pictures, f"azfs://{ACCOUNT}/nowhere/out") == 2
    line = _one_line(capsys)
    assert line.startswith(f"beam-dedup: refused: output 'azfs://{ACCOUNT}/nowhere/out' cannot be")
    assert "no such container (ContainerNotFound)" in line
    assert "read" not in {kind for kind, _ in proxy.counts()}


@pytest.mark.parametrize(("kind", "words"), [("write", "cannot be written"), ("list", "refuses")])
def test_r3_a_store_that_refuses_is_told_before_anything_runs(
    blobs: Blobs, pictures: str, capsys: Capture, kind: str, words: str
) -> None:
    with _before(blobs, always(DENIED, kind=kind)):
        assert _run(pictures, blobs.output) == 2
    line = _one_line(capsys)
    assert words in line
    assert "AuthorizationPermissionMismatch" in line
    assert blobs.files() == {}


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("remote", ["input", "output"])
def test_x2_an_endpoint_that_cannot_be_reached_is_one_line_without_secrets(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, remote: str
) -> None:
    local = str(write_folder(tmp_path / "pictures"))
    parts = [f"BlobEndpoint=http://127.0.0.1:9/{ACCOUNT}", f"AccountName={ACCOUNT}"]
    parts.append("SharedAccess" + "Signature=sv=2026-10-06&sig=topsecret")
    monkeypatch.setenv(CONNECTION_STRING, ";".join(parts))
    forget_accounts()
    here = f"azfs://{ACCOUNT}/somewhere/in"
    words = (here, str(tmp_path / "out")) if remote == "input" else (local, here)
    assert _run(*words) == 2
    line = _one_line(capsys)
    assert line.startswith("beam-dedup: refused: ")
    for secret in ("topsecret", "sig=", "sv=", "?"):
        assert secret not in line
    forget_accounts()
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_interrupted_leaves_the_earlier_report(
    blobs: Blobs, pictures: str, tmp_path: Path
) -> None:
    assert _run(pictures, blobs.output) == 0
    before = blobs.files()
    running: list[subprocess.Popen[bytes]] = []

    def interrupt(request: Request) -> None:
        if request.kind == "write" and "/images/" in request.path:
            running[0].send_signal(signal.SIGINT)

    with Proxy(blobs.azurite.endpoint, interrupt) as proxy:
        environment = {CONNECTION_STRING: blobs.azurite.connection_string(proxy.endpoint)}
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "beam_dedup", "run", *_words(pictures, blobs.output)],
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        _, told = running[0].communicate()
    assert running[0].returncode == 130
    assert told == b"beam-dedup: interrupted; no report was written\n"
    assert blobs.files() == before


def test_n5_an_output_of_another_account_is_refused(
    blobs: Blobs, pictures: str, capsys: Capture
) -> None:
    output = f"azfs://otheraccount/{blobs.container}/out"
    assert _run(pictures, output) == 2
    assert "is for another account" in _one_line(capsys)
    assert check.main([output]) == 1
    assert f"manifest.json in '{output}': account 'otheraccount'" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["", "/nothing"])
def test_what_is_no_report_is_told_in_one_line(blobs: Blobs, capsys: Capture, output: str) -> None:
    uri = f"azfs://{ACCOUNT}/nowhere" if not output else blobs.output + output
    assert check.main([uri]) == 1
    said = capsys.readouterr().err
    assert ("no such container" if not output else "no run has ended there") in said
    assert cli.main(["evaluate", f"--report={uri}", "--truth=none.csv"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_reads_a_report_or_two_blobs_takes_a_secret_file(
    blobs: Blobs,
    pictures: str,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _run(pictures, blobs.output) == 0
    secret, truth = tmp_path / "secret", tmp_path / "truth.csv"
    secret.write_text(os.environ[CONNECTION_STRING])
    truth.write_text("file,group_id\n0.png,0\n1.png,1\n")
    monkeypatch.delenv(CONNECTION_STRING)
    forget_accounts()
    capsys.readouterr()
    access = f"--azure_secret_file={secret}"
    assert check.main([blobs.output, access]) == 0
    assert cli.main(["evaluate", f"--report={blobs.output}", f"--truth={truth}", access]) == 0
    assert cli.main(["explain", f"{pictures}/0.png", f"{pictures}/copy of 0.png", access]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("ok: 4 rows, 1 groups, ")
    assert "verdict: accepted by exact, relation exact" in printed.out
    assert (printed.err, KEY in printed.out) == ("", False)
