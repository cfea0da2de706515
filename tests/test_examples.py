"""The programs of docs/examples run, and print what the guide says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from beam_dedup.reports import Report
from tests.pictures import photo, resized, saved, write

_EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"


def _run(name: str, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(_EXAMPLES / name), *map(str, args)]
    # The examples import what is in this checkout, installed or not.
    return subprocess.run(
        command,
        cwd=_EXAMPLES.parent.parent,
        env={"PATH": "", "PYTHONPATH": str(_EXAMPLES.parent.parent), "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of a picture, two copies of it, and another picture."""
    folder = tmp_path / "photos"
    write(folder / "a.jpg", saved(photo(1)))
    write(folder / "copy.jpg", saved(photo(1)))
    write(folder / "small.jpg", saved(resized(photo(1), 0.5), quality=70))
    write(folder / "other.jpg", saved(photo(2)))
    return folder


def test_own_pipeline_prints_candidate_pairs(photos: Path) -> None:
    done = _run("own_pipeline.py", "pairs", photos)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    a, b, bits, rest = line.split(" ", 3)
    assert {a, b} == {(photos / name).as_uri() for name in ("a.jpg", "small.jpg")}
    assert 0 <= int(bits) <= 60
    assert rest == "bits, orientation 1"


def test_own_pipeline_writes_a_report_of_hand_made_rows(tmp_path: Path) -> None:
    done = _run("own_pipeline.py", "report", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    report = Report.open(str(tmp_path / "out"))
    assert report.check() == []
    assert report.run_id == "hand-made-1"
    rows = report.images.select(["uri", "status", "relation", "best_uri"]).to_pylist()
    a, b = "file:///photos/a.jpg", "file:///photos/b.jpg"
    assert rows == [
        {"uri": a, "status": "best", "relation": None, "best_uri": a},
        {"uri": b, "status": "duplicate", "relation": "exact", "best_uri": a},
    ]
    assert [row["size"] for row in report.groups.to_pylist()] == [2]
    assert len(report.edges) == 0


def test_python_api_prints_counts_and_duplicates(photos: Path, tmp_path: Path) -> None:
    done = _run("python_api.py", photos, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    counts, *lines = done.stdout.splitlines()
    assert ast.literal_eval(counts) == {
        "listed": 4,
        "unique": 1,
        "best": 1,
        "duplicate": 2,
        "failed": 0,
        "groups": 1,
    }
    best = (photos / "a.jpg").as_uri()
    assert lines == [
        f"{photos / 'copy.jpg'} exact {best}",
        f"{photos / 'small.jpg'} resized {best}",
    ]
    assert "fingerprint: 4 of 4 images" in done.stderr


def test_python_api_returns_2_for_a_missing_folder(tmp_path: Path) -> None:
    done = _run("python_api.py", tmp_path / "none", tmp_path / "out")
    assert done.returncode == 2
    assert done.stdout == ""
    # Beam may warn of optional packages before.
    assert done.stderr.endswith(
        f"refused: input {str(tmp_path / 'none')!r}: no such file or folder\n"
    )
