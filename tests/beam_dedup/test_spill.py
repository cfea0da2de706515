"""Outputs beyond a bound lie in temporary files, and read as if they were in memory."""

import functools
import gc
import logging
import os
import tempfile
import weakref

import pytest
from apache_beam import coders
from apache_beam.runners.portability.fn_api_runner.execution import ListBuffer

from beam_dedup import runners, spill
from beam_dedup.options import RunConfig
from tests.beam_dedup import steps

CODER = coders.BytesCoder()
PARTS = [CODER.get_impl().encode_nested(bytes([65 + number]) * 30) for number in range(9)]
HELD = 3 * len(PARTS[0])


@pytest.fixture(autouse=True)
def _small(monkeypatch, tmp_path):
    spill.spill_outputs()
    monkeypatch.setattr(spill, "_HELD_BYTES", HELD)
    monkeypatch.setattr(spill, "_LEAST_BYTES", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def _filled(parts=PARTS):
    buffer = ListBuffer(CODER.get_impl())
    for part in parts:
        buffer.append(part)
    return buffer


def _in_memory(buffer):
    return sum(len(part) for part in spill.parts(buffer) if isinstance(part, bytes))


def test_an_output_reads_as_it_was_written_and_holds_no_more_than_the_bound(tmp_path):
    buffer = _filled()
    assert _in_memory(buffer) == HELD
    assert list(buffer) == PARTS
    assert list(buffer) == PARTS
    assert list(tmp_path.iterdir()) == []


def test_parts_below_the_least_size_stay_in_memory(monkeypatch):
    monkeypatch.setattr(spill, "_LEAST_BYTES", len(PARTS[0]) + 1)
    assert list(spill.parts(_filled())) == PARTS


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_get_the_parts_that_they_would_get_of_memory(monkeypatch, workers):
    dealt = _filled().partition(workers)
    assert [[spill.read(part) for part in own] for own in dealt] == [
        PARTS[worker::workers] for worker in range(workers)
    ]
    monkeypatch.setattr(spill, "_HELD_BYTES", 10**9)
    assert _filled().partition(workers) == [PARTS[worker::workers] for worker in range(workers)]


def test_more_workers_than_parts_get_elements():
    two = [b"".join(PARTS[:5]), b"".join(PARTS[5:])]
    buffer = _filled(two)
    assert _in_memory(buffer) < len(b"".join(two))
    dealt = [b"".join(map(spill.read, own)) for own in buffer.partition(4)]
    assert dealt == [b"".join(PARTS[worker::4]) for worker in range(4)]


def test_a_copy_and_what_is_extended_outlive_the_output():
    buffer, whole = _filled(), _filled(PARTS[:4])
    whole.extend(buffer)
    copy = buffer.copy()
    del buffer
    gc.collect()
    assert list(copy) == PARTS
    assert list(whole) == PARTS[:4] + PARTS


def test_the_file_is_closed_when_its_last_part_is_dropped():
    buffer = _filled()
    file, number = weakref.ref(buffer.file), buffer.file._file.fileno()
    last = list(spill.parts(buffer))[-1]
    del buffer
    assert last() == PARTS[-1]
    del last
    assert file() is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


@pytest.mark.parametrize("why", ["no folder", "a full disk"])
def test_what_no_file_takes_stays_in_memory(monkeypatch, caplog, tmp_path, why):
    caplog.set_level(logging.INFO)
    if why == "no folder":
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    else:
        monkeypatch.setattr(spill, "_FREE_BYTES", 1 << 70)
    assert list(spill.parts(_filled())) == PARTS
    assert caplog.text.count("stays in memory") == 1


def test_a_disk_that_fills_up_keeps_what_it_has(monkeypatch):
    buffer = _filled(PARTS[:5])
    monkeypatch.setattr(spill, "_FREE_BYTES", 1 << 70)
    buffer.append(PARTS[5])
    monkeypatch.setattr(spill, "_FREE_BYTES", 0)
    buffer.append(PARTS[6])
    assert list(buffer) == PARTS[:7]
    assert _in_memory(buffer) == HELD + 2 * len(PARTS[0])


def test_a_part_that_was_cut_off_is_an_error():
    buffer = _filled()
    os.ftruncate(buffer.file._file.fileno(), 5)
    with pytest.raises(OSError, match="has 5 bytes of 31"):
        list(buffer)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_whose_outputs_are_in_files_gives_the_same(monkeypatch, tmp_path, workers):
    taken = []

    def append(parts, data, write=spill.TemporaryParts.append):
        taken.append(len(data))
        return write(parts, data)

    monkeypatch.setattr(spill, "_HELD_BYTES", 0)
    monkeypatch.setattr(spill.TemporaryParts, "append", append)
    folders = [tmp_path / name for name in ("out", "side", "temporary")]
    for folder in folders:
        folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folders[2]))
    build = functools.partial(
        steps.build, step=steps.WriteFacts(str(folders[0])), folder=str(folders[0])
    )
    runners.run(build, RunConfig(workers=workers), [], folders[1])
    sums = [(folders[0] / f"sum-{key}").read_text() for key in (0, 1)]
    assert sums == ["2450", "2500"]
    assert taken
    assert list(folders[2].iterdir()) == []
