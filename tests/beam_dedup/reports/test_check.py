"""``python -m beam_dedup.reports.check`` ends with 0 for a sound report, 1 or 2 otherwise."""

import subprocess
import sys

import pytest

from beam_dedup.reports import check
from tests.transforms.reporting.made import EDGES, IMAGES, image_row, write_by_hand

OK = (
    "ok: 5 rows, 1 groups, every duplicate has equal hashes with or an accepted edge to its kept "
    "image\n"
)


def test_a_sound_report_as_a_command(tmp_path):
    write_by_hand(tmp_path, "r")
    done = subprocess.run(
        [sys.executable, "-m", "beam_dedup.reports.check", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    # Beam's import warns of Google's libraries, which is nothing to a reader of reports.
    assert (done.returncode, done.stdout, done.stderr) == (0, OK, "")


def test_a_sound_report(tmp_path, capsys):
    write_by_hand(tmp_path, "r")
    assert check.main([tmp_path.as_uri()]) == 0
    assert capsys.readouterr() == (OK, "")


def test_a_broken_promise(tmp_path, capsys):
    write_by_hand(tmp_path, "r", edges=EDGES[1:])
    assert check.main([str(tmp_path)]) == 1
    assert capsys.readouterr() == (
        "file:///in/c.jpg has no accepted edge to file:///in/a.jpg\n",
        "",
    )


def test_x6_a_name_cannot_write_to_the_terminal(tmp_path, capsys):
    rows = [*IMAGES, image_row("\x1b[2J\né", group_id="g")]
    write_by_hand(tmp_path, "r", rows)
    assert check.main([str(tmp_path)]) == 1
    assert capsys.readouterr() == (
        "file:///in/\\x1b[2J\\n\\xe9 is unique and names a group\n",
        "",
    )


def test_a_changed_file(tmp_path, capsys):
    write_by_hand(tmp_path, "r")
    (tmp_path / "images" / "r-00000.parquet").write_bytes(b"")
    assert check.main([str(tmp_path)]) == 1
    assert capsys.readouterr() == (
        "'images/r-00000.parquet' is not the file that the manifest names\n",
        "",
    )


def test_no_report(tmp_path, capsys):
    assert check.main([str(tmp_path)]) == 1
    out, error = capsys.readouterr()
    assert (out, error) == (
        "",
        f"no manifest.json in {str(tmp_path)!r}: no run has ended there\n",
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: DIR"),
        (["a", "b"], "unrecognized arguments: b"),
        ([""], "no output folder is given"),
        (["ftp://b/c"], "output 'ftp://b/c' is on 'ftp' storage, which cannot be written yet"),
    ],
)
def test_bad_usage(capsys, argv, message):
    assert check.main(argv) == 2
    assert capsys.readouterr() == ("", message + "\n")


def test_help_is_no_folder(capsys):
    assert check.main(["--help"]) == 0
    out, error = capsys.readouterr()
    assert out.startswith("usage: python -m beam_dedup.reports.check [-h]")
    assert error == ""
