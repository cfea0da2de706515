"""The command: what it prints is what it does, and its exit codes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beam_dedup import cli
from tests.beam_dedup.actions.made import RUN_ID, copies, expected, local_groups, report_of, touch
from tests.transforms.reporting.made import image_row, tree, write_by_hand

Capture = pytest.CaptureFixture[str]
_ROOT = Path(__file__).parents[3]


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    report = report_of(tmp_path / "report", local_groups(tmp_path / "in"))
    to = tmp_path / "to"
    return ["apply", f"--report={report}", "--action=copy", f"--destination={to}"]


def test_a1_what_is_printed_is_what_is_done(
    tmp_path: Path, argv: list[str], capsys: Capture
) -> None:
    before = tree(tmp_path)
    assert cli.main(argv) == 0
    printed = capsys.readouterr()
    assert tree(tmp_path) == before
    lines = printed.out.splitlines()
    assert lines[:8] == [
        f"report         {tmp_path}/report, run {RUN_ID}",
        f"destination    file://{tmp_path}/to",
        "plan           3 groups, 6 files, 18 B",
        "to copy        6 (best 3, duplicates 3; 18 B)",
        "already there  0",
        "changed        0",
        "name taken     0",
        "failed         0",
    ]
    assert len(lines[8:-1]) == 6
    command = " ".join(["beam-dedup", *argv, "--execute"])
    assert lines[-1] == f"nothing was written; to do it: {command}"
    assert cli.main([*argv, "--execute"]) == 0
    done = capsys.readouterr().out.splitlines()
    assert done[3:] == [
        line.replace("to copy:", "copied:").replace("to copy ", "copied  ") for line in lines[3:-1]
    ]
    rows = {line.partition(": ")[2].partition(" -> ")[::2] for line in done[8:]}
    assert {target: Path(path).read_bytes() for path, _, target in
            (line.partition(": ")[2].partition(" -> ") for line in done[8:])} == copies(
        tmp_path / "to"
    )  # fmt: skip
    assert len(rows) == 6
    assert printed.err == ""


def test_doing_it_again_says_so(tmp_path: Path, argv: list[str], capsys: Capture) -> None:
    cli.main([*argv, "--execute"])
    capsys.readouterr()
    assert cli.main([*argv, "--execute"]) == 0
    assert capsys.readouterr().out.splitlines()[3:] == [
        "copied         0",
        "already there  6 (best 3, duplicates 3; 18 B)",
        "changed        0",
        "name taken     0",
        "failed         0",
    ]


def test_a2_what_is_left_out_is_exit_1_and_named(
    tmp_path: Path, argv: list[str], capsys: Capture
) -> None:
    touch(tmp_path / "in/1/0/IMG 1.jpg")
    assert cli.main(argv) == 1
    planned = capsys.readouterr()
    assert planned.err == "beam-dedup: 2 files would not be at the destination\n"
    assert cli.main([*argv, "--execute"]) == 1
    printed = capsys.readouterr()
    assert printed.err == "beam-dedup: 2 files are not at the destination\n"
    why = f"{tmp_path}/in/1/0/IMG 1.jpg was changed since the report was made"
    for text in (planned.out, printed.out):
        assert "changed        2 (best 1, duplicates 1; 6 B)" in text
        assert f"  changed: {tmp_path}/in/1/1/IMG 1.jpg: {why}" in text


def test_only_the_first_rows_are_printed(tmp_path: Path, capsys: Capture) -> None:
    report = report_of(tmp_path / "report", local_groups(tmp_path / "in", count=10))
    assert cli.main(["apply", f"--report={report}", "--action=copy", "--destination=/x/y"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith("  to copy: ") for line in lines].count(True) == 10
    assert "  and 10 more: to copy" in lines


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--action": "move"}, "--action move is not in this version"),
        ({"--action": "delete"}, "--action delete is not in this version"),
        ({"--action": "burn"}, "there is no action 'burn'"),
        ({"--destination": "s3://bucket/x"}, "destination must be a folder of this machine"),
        ({"--destination": ""}, "destination must be a folder of this machine"),
        ({"--report": "/no/such"}, "no manifest.json"),
        ({"--report": "s3://bucket/x"}, "s3"),
        ({"--report": ""}, "no output folder is given"),
        ({"--read_concurrency": "0"}, "refused: read_concurrency must be 1 or more, not 0"),
        ({"--read_concurrency": "many"}, "invalid int value"),
        (
            {"--max_requests_per_second": "0"},
            "refused: max_requests_per_second must be 1 or more, not 0",
        ),
        ({"--nonsense": "1"}, "--nonsense"),
        ({"--destination": "azfs://account/pics?sv=1&sig=c2VjcmV0"}, "it holds a secret"),
        ({"--azure_secret_file": "/x?sig=c2VjcmV0"}, "it holds a secret"),
    ],
)
def test_x2_what_is_refused_is_exit_2(
    tmp_path: Path, argv: list[str], capsys: Capture, changes: dict[str, str], message: str
) -> None:
    kept = [word for word in argv if word.partition("=")[0] not in changes]
    words = [*kept, *(f"{name}={value}" for name, value in changes.items()), "--execute"]
    assert cli.main(words) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "c2VjcmV0" not in printed.err + printed.out
    assert not (tmp_path / "to").exists()


def test_missing_options_are_refused(capsys: Capture) -> None:
    assert cli.main(["apply"]) == 2
    assert "--report, --action, --destination" in capsys.readouterr().err


def test_the_secret_file_is_read(tmp_path: Path, argv: list[str], capsys: Capture) -> None:
    words = [word for word in argv if not word.startswith("--destination")]
    words += ["--destination=azfs://account/pics", f"--azure-secret-file={tmp_path}/none"]
    assert cli.main(words) == 2
    assert "the secret file" in capsys.readouterr().err


def test_n5_sources_of_an_account_without_access_are_refused(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "mine")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "a2V5")
    rows, groups = _rows_in("azfs://other/pics/")
    write_by_hand(tmp_path / "report", "r", rows, groups, [])
    words = ["apply", f"--report={tmp_path}/report", "--action=copy"]
    assert cli.main([*words, f"--destination={tmp_path}/to", "--execute"]) == 2
    assert "account 'other' of an azfs URI cannot be reached" in capsys.readouterr().err


def _rows_in(folder: str) -> tuple[list[object], list[object]]:
    best, group = f"{folder}a.jpg", "g" + "0" * 16
    common = {"group_id": group, "group_size": 2, "best_uri": best}
    rows = [
        image_row("a.jpg", "best", uri=best, **common),
        image_row("b.jpg", "duplicate", uri=f"{folder}b.jpg", **common),
    ]
    return rows, []


def test_names_cannot_act_on_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    groups = local_groups(tmp_path / "in\x1b[31m\nnot copied", count=1)
    report = report_of(tmp_path / "report", groups)
    words = ["apply", f"--report={report}", "--action=copy", f"--destination={tmp_path}/to"]
    assert cli.main([*words, "--execute"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 10
    assert sorted(copies(tmp_path / "to").values()) == expected(groups)


def test_help_names_the_exit_codes(capsys: Capture) -> None:
    assert cli.main(["apply", "--help"]) == 0
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    for text in ("Without --execute", "130 interrupted", "--max_requests_per_second"):
        assert text in out


def test_interrupted_is_130_and_can_go_on(tmp_path: Path, capsys: Capture) -> None:
    groups = local_groups(tmp_path / "in", count=700, size=3)
    report = report_of(tmp_path / "report", groups)
    to = tmp_path / "to"
    words = ["apply", f"--report={report}", "--action=copy", f"--destination={to}", "--execute"]
    child = subprocess.Popen(
        [sys.executable, "-m", "beam_dedup", *words, "--read_concurrency=1"],
        cwd=_ROOT,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    while not (to / "best").exists() and child.poll() is None:
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate()
    assert (child.returncode, err) == (
        130,
        "beam-dedup: interrupted; the same command goes on from here\n",
    )
    assert 0 < len(copies(to)) < 2100
    assert not (to / ".parts").exists()
    assert cli.main(words) == 0
    assert sorted(copies(to).values()) == expected(groups)
    assert "already there  " in capsys.readouterr().out
