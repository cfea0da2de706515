"""The command line: exit codes, what is printed where, and signals."""

import logging
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import beam_dedup
from beam_dedup import cli, job
from tests.beam_dedup.pictures import write_folder

_ROOT = Path(__file__).resolve().parents[2]
_FAST = ["--profile=fast", "--workers=1"]

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "in")


def _words(pictures: Path, out: Path, *more: str) -> list[str]:
    return ["run", f"--input={pictures}", f"--output={out}", *_FAST, *more]


def test_a_run_prints_a_summary(pictures: Path, tmp_path: Path, capsys: Capture) -> None:
    (pictures / "notes.txt").write_text("no picture")
    assert cli.main(_words(pictures, tmp_path / "out")) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    size = (pictures / "0.png").stat().st_size
    assert lines[:4] == [
        "images      5 (2 unique, 1 best, 1 duplicate, 1 failed)",
        "groups      1",
        f"duplicates  1, {size / 1000:.1f} kB reclaimable",
        "failures    1 (1 not_an_image)",
    ]
    assert re.fullmatch(r"time        \d+\.\d s \(\d+\.\d images/s\)", lines[4])
    assert lines[5:] == [f"report      {tmp_path / 'out'}"]
    assert printed.err == ""


def test_quiet_prints_nothing(pictures: Path, tmp_path: Path, capsys: Capture) -> None:
    assert cli.main(_words(pictures, tmp_path / "out", "-q")) == 0
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "out" / "manifest.json").exists()


def test_r15_exit_code_3_still_prints_the_summary(
    pictures: Path, tmp_path: Path, capsys: Capture
) -> None:
    (pictures / "broken.jpg").write_bytes(b"no picture")
    assert cli.main(_words(pictures, tmp_path / "out")) == 3
    printed = capsys.readouterr()
    assert "failures    1 (1 unidentified)" in printed.out
    assert printed.err == (
        "beam-dedup: the report is complete, but more images failed than --max_failure_ratio 0.05 "
        "allows\n"
    )
    assert cli.main(_words(pictures, tmp_path / "out", "--max_failure_ratio=0.2", "-q")) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "no input is given"),
        (["run", "--input=x"], "no output folder is given"),
        (["run", "--input=x", "--output=y", "--nonsense"], "neither beam-dedup nor Beam"),
        (["run", "--input=/no/such", "--output=y"], "no such file or folder"),
        (["run", "--input=x", "--output=y", "--color_threshold=nan"], "color_threshold must be"),
        (["rum"], "did you mean run"),
        (["evaluat"], "did you mean evaluate"),
        (["evaluate"], "required: --report, --truth"),
        (["explain", "a.jpg"], "required: B"),
        (["\x1b[31m"], "no command '\\\\x1b[31m'"),
    ],
)
def test_refusals_are_one_line_and_exit_2(words: list[str], message: str, capsys: Capture) -> None:
    assert cli.main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.startswith("beam-dedup: refused: ")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_is_one_line_and_exit_1(
    pictures: Path, tmp_path: Path, workers: int, capfd: Capture
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "images").write_text("in the way")
    assert cli.main(_words(pictures, tmp_path / "out", f"--workers={workers}")) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    # A busy machine is slow enough for lines of progress.
    assert re.fullmatch(
        r"(beam-dedup: [\d.]+ s: .*\n)*"
        r"beam-dedup: failed: step '[^']+': \w+Error: .*images.*; no report was written; "
        r"--verbose shows the traceback\n",
        printed.err,
    )
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_verbose_shows_the_traceback(pictures: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "images").write_text("in the way")
    assert cli.main(_words(pictures, tmp_path / "out", "--verbose")) == 1
    printed = capsys.readouterr()
    assert "Traceback (most recent call last)" in printed.err
    assert "--verbose" not in printed.err.splitlines()[-1]


def test_an_unforeseen_error_is_one_line(
    pictures: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_job(*_: Any, **__: Any) -> None:
        raise LookupError("a\nb\x1b AccountKey=c2VjcmV0")

    monkeypatch.setattr(job, "run_job", run_job)
    assert cli.main(_words(pictures, tmp_path / "out")) == 1
    assert capsys.readouterr().err == (
        "beam-dedup: failed: LookupError: a\\x0ab\\x1b AccountKey=[redacted]; "
        "--verbose shows the traceback\n"
    )


def test_help_lists_the_commands_that_work(capsys: Capture) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    commands = ["run", "evaluate", "explain", "apply", "check", "models"]
    assert re.findall(r"^  (\w+) ", text, re.MULTILINE) == commands
    assert cli.main([]) == 2
    for command, option in (
        ("run", "--max_group_size_color"),
        ("evaluate", "--precision"),
        ("explain", "--local_threshold"),
    ):
        assert cli.main([command, "--help"]) == 0
        assert option in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"beam-dedup {beam_dedup.__version__}\n"


def test_a_dry_run_writes_nothing(pictures: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "it's; $(odd)"
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(_words(pictures, out, "--dry-run")) == 0
    printed = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert re.search(r"^inputs    4, \d+\.\d kB$", printed, re.MULTILINE)
    assert "sample    4 images, 0 of them failed" in printed
    quoted = str(out).replace("'", "'\"'\"'")
    assert printed.splitlines()[-1] == (
        f"run it with: beam-dedup run --input={pictures} '--output={quoted}' "
        "--profile=fast --workers=1"
    )


def test_a_dry_run_needs_no_output_but_inputs(
    pictures: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert cli.main(["run", f"--input={pictures}", "--dry_run", "--limit=2"]) == 0
    printed = capsys.readouterr().out
    assert "inputs    2," in printed
    assert "run it with" not in printed
    assert cli.main(["run", f"--input={tmp_path / 'none'}", "--dry_run"]) == 2


def test_x6_and_x2_log_lines_are_escaped_and_redacted(capsys: Capture) -> None:
    with cli._logging(verbose=False):
        logging.getLogger("beam_dedup.x").warning("bad \x1b[31m name\nof %r", "AccountKey=c2Vj")
        logging.getLogger("apache_beam.x").error("not shown")
    printed = capsys.readouterr().err
    assert printed.startswith("beam-dedup: WARNING beam_dedup.x: bad \\x1b[31m name\nof ")
    assert "c2Vj" not in printed
    assert "not shown" not in printed


def test_the_command_line_leaves_logging_as_it_was(capsys: Capture) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    assert cli.main(["run"]) == 2
    assert (list(root.handlers), root.level) == before


_SCRIPT = """
import sys
from beam_dedup import cli, job

def build(pipeline, config):
    from tests.beam_dedup import steps  # imports Beam, which warns before logging is set up
    steps.build(pipeline, steps.Block(config.output + "/working"), config.output)

job._build = build
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("workers", "number", "group"),
    [
        (1, signal.SIGINT, False),
        (2, signal.SIGINT, False),
        (2, signal.SIGINT, True),  # Ctrl-C in a terminal
        (1, signal.SIGTERM, False),
        (2, signal.SIGTERM, True),
    ],
)
def test_a_signal_is_exit_130_and_leaves_nothing(
    pictures: Path, tmp_path: Path, workers: int, number: signal.Signals, group: bool
) -> None:
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir()
    scratch.mkdir()
    os.mkfifo(out / "working")
    fifo = os.open(out / "working", os.O_RDONLY | os.O_NONBLOCK)
    client = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, *_words(pictures, out, f"--workers={workers}")],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "TMPDIR": str(scratch)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert select.select([fifo], [], [], 60)[0], "the job never began"
    if group:
        os.killpg(client.pid, number)
    else:
        client.send_signal(number)
    printed, errors = client.communicate(timeout=30)
    assert client.returncode == 130
    assert (printed, errors) == ("", "beam-dedup: interrupted; no report was written\n")
    assert os.read(fifo, 4096).endswith(b"\n")
    assert os.read(fifo, 1) == b"", "a process that worked is still there"
    os.close(fifo)
    assert [path.name for path in out.iterdir()] == ["working"]
    assert list(scratch.iterdir()) == []


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "beam_dedup", "--version"], cwd=_ROOT, capture_output=True, text=True
    )
    assert done.stdout == f"beam-dedup {beam_dedup.__version__}\n"


@pytest.mark.parametrize(("argv", "code"), [(["--version"], 0), (["no such command"], 2)])
def test_the_process_ends_with_the_code_and_after_what_is_due_at_its_end(
    argv: list[str], code: int
) -> None:
    script = (
        "import atexit, sys; from beam_dedup.cli import program; "
        "atexit.register(print, 'at the end', flush=True); sys.argv[1:] = {!r}; program()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script.format(argv)], cwd=_ROOT, capture_output=True, text=True
    )
    assert done.returncode == code
    assert done.stdout.endswith("at the end\n")
    assert (done.stderr == "") == (code == 0)


def test_a_process_that_nobody_reads_fails_without_a_word() -> None:
    closed, end = os.pipe()
    os.close(closed)
    with os.fdopen(end, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "beam_dedup", "--version"],
            cwd=_ROOT,
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--input=azfs://account/container/x", "--output={}/out"],
        ["run", "--input={}", "--output=azfs://account/container/x"],
        ["explain", "azfs://account/container/x", "{}/a.jpg"],
        ["evaluate", "--report=azfs://account/container/x", "--truth={}/truth.csv"],
    ],
)
def test_without_the_libraries_of_azure_a_command_names_the_extra(
    words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "truth.csv").write_text("file,group_id\na.jpg,1\n")
    blocked = ["azure", "azure.core", "azure.identity", "azure.storage.blob", "tenacity"]
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({blocked!r}))\n"
        "from beam_dedup import cli\nsys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = [word.format(tmp_path) for word in words]
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "pip install -c requirements.txt '.[azure]'" in ended.stderr
    assert ended.stderr.count("\n") == 1
