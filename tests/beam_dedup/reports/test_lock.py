"""One run at a time in an output folder, and nothing left of one that failed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from beam_dedup.reports import OutputBusyError, OutputLock, discard_run, write_metrics
from tests.places import Place
from tests.transforms.reporting.made import tree, write_by_hand

LOCK = ".beam-dedup.lock"
_HOLD = """
import sys
from beam_dedup.reports import OutputLock
with OutputLock(sys.argv[1], "other-run"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(place: Place) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that holds the lock of ``place``."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, place.output], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_who_holds_it(
    place: Place, holder: "subprocess.Popen[bytes]"
) -> None:
    with pytest.raises(OutputBusyError, match="another run") as caught:
        OutputLock(place.output, "mine").__enter__()
    assert f"output {place.shown!r} is being written" in str(caught.value)
    assert f"run other-run, pid {holder.pid}, host " in str(caught.value)
    holder.communicate(b"")
    assert holder.returncode == 0
    assert place.files() == {}
    with OutputLock(place.output, "mine"):
        assert place.files()[LOCK].startswith(f"run mine, pid {os.getpid()}, host ".encode())
    assert place.files() == {}


def test_a5_a_killed_holder_releases_it(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        os.kill(process.pid, signal.SIGKILL)
    assert (tmp_path / LOCK).exists()
    with OutputLock(str(tmp_path), "mine"):
        assert (tmp_path / LOCK).read_text().startswith(f"run mine, pid {os.getpid()}, host ")
    assert tree(tmp_path) == {}


def test_a_second_run_in_one_process_is_refused(place: Place) -> None:
    with OutputLock(place.output, "a"):
        for output in (place.output, place.output.rstrip("/") + "/"):
            with pytest.raises(OutputBusyError):
                OutputLock(output, "b").__enter__()
    assert place.files() == {}


def test_one_folder_has_one_lock_however_it_is_named(tmp_path):
    with OutputLock(str(tmp_path), "a"):
        with pytest.raises(OutputBusyError), OutputLock(tmp_path.as_uri(), "b"):
            pass
    assert tree(tmp_path) == {}


def test_the_lock_goes_when_the_body_fails(place: Place) -> None:
    with pytest.raises(ZeroDivisionError), OutputLock(place.output, "r"):
        1 / place.files()[LOCK].count(b"no such text")
    assert place.files() == {}


def test_the_folder_is_made_and_the_lock_goes_when_the_body_fails(tmp_path):
    output = tmp_path / "a" / "b"
    with pytest.raises(ZeroDivisionError), OutputLock(str(output), "r"):
        1 / (output / LOCK).read_bytes().count(b"no such text")
    assert tree(tmp_path) == {"a": None, "a/b": None}


def test_the_folder_is_made(tmp_path):
    output = tmp_path / "a" / "b"
    with OutputLock(str(output), "r"):
        assert (output / LOCK).is_file()
    assert tree(tmp_path) == {"a": None, "a/b": None}


def test_a_lock_file_that_was_replaced_is_left_to_its_new_holder(tmp_path):
    with OutputLock(str(tmp_path), "a"):
        (tmp_path / LOCK).unlink()
        second = OutputLock(str(tmp_path), "b")
        second.__enter__()
    assert (tmp_path / LOCK).read_text().startswith("run b,")
    second.__exit__(None, None, None)
    assert tree(tmp_path) == {}


def test_n3_a_link_in_the_place_of_the_lock_is_refused(tmp_path):
    photo = tmp_path / "photo"
    photo.write_bytes(b"mine")
    (tmp_path / LOCK).symlink_to(photo)
    with pytest.raises(OSError, match="symbolic links"), OutputLock(str(tmp_path), "r"):
        pass
    assert photo.read_bytes() == b"mine"


def test_x6_what_the_lock_file_says_is_escaped(tmp_path):
    with OutputLock(str(tmp_path), "r"):
        (tmp_path / LOCK).write_bytes(b"\x1b[2J\nok")
        with pytest.raises(OutputBusyError) as caught, OutputLock(str(tmp_path), "s"):
            pass
    assert "('\\x1b[2J\\nok')" in str(caught.value)


def test_r13_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(OSError, match="exists"), OutputLock(str(tmp_path / "out"), "r"):
        pass
    assert tree(tmp_path) == {"out": b"mine"}


def test_r13_a_lock_that_cannot_be_written_is_not_held(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"), OutputLock(str(tmp_path), "r"):
            pass
    with OutputLock(str(tmp_path), "r"):
        pass


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")


def test_r13_discard_run_removes_one_runs_files_alone(place: Place) -> None:
    write_by_hand(place.output, "good")
    others = (
        "images/bad-1-00000.parquet", "images/bad-00000-00000.parquet", "images/xbad-00000.parquet",
        "images/bad.parquet", "notes.txt", "bad-00000.parquet",
    )  # fmt: skip
    place.put(dict.fromkeys(others, b"x"))
    before = place.files()
    names = ("images/bad-00000", "images/bad-100000", "groups/bad-00000", "edges/bad-00001")
    place.put({f"{name}.parquet": b"x" for name in names})
    discard_run(place.output, "bad")
    assert place.files() == before


def test_r13_discard_run_removes_what_was_half_written(tmp_path):
    write_by_hand(tmp_path, "good")
    part = "0123456789abcdef0123456789abcdef.part"
    _touch(tmp_path, f"images/.bad-1-00000.parquet.{part}")
    before = tree(tmp_path)
    _touch(
        tmp_path, f"edges/.bad-00002.parquet.{part}", f".report.csv.{part}",
        f".summary.json.{part}", f".manifest.json.{part}", f".metrics.json.{part}",
    )  # fmt: skip
    discard_run(str(tmp_path), "bad")
    assert tree(tmp_path) == before


def test_discard_run_removes_folders_that_it_emptied(tmp_path):
    _touch(tmp_path, "images/bad-00000.parquet", "groups/mine")
    discard_run(str(tmp_path), "bad")
    assert tree(tmp_path) == {"groups": None, "groups/mine": b"x"}


def test_discard_run_leaves_a_run_that_was_published(place: Place) -> None:
    write_by_hand(place.output, "good")
    before = place.files()
    discard_run(place.output, "good")
    assert place.files() == before


def test_discard_run_beside_a_damaged_manifest(place: Place) -> None:
    place.put({"images/bad-00000.parquet": b"x", "manifest.json": b"x"})
    discard_run(place.output, "bad")
    assert place.files() == {"manifest.json": b"x"}


@pytest.mark.parametrize("name", ["absent", "file"])
def test_discard_run_where_there_is_no_folder(tmp_path, name):
    (tmp_path / "file").write_bytes(b"x")
    discard_run(str(tmp_path / name), "r")
    assert tree(tmp_path) == {"file": b"x"}


def test_metrics_are_written_beside_the_report(place: Place) -> None:
    write_metrics(place.output, {"b": 1, "a": {"c": 2.5}})
    files = place.files()
    assert json.loads(files["metrics.json"]) == {"a": {"c": 2.5}, "b": 1}
    assert list(files) == ["metrics.json"]
