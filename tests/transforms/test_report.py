"""The report writer: whole tables in files that the manifest names."""

import contextlib
import csv
import errno
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import random
import sys
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from tests.transforms.reporting.made import (
    EDGES,
    GROUPS,
    IMAGES,
    embedded,
    image_row,
    run_report,
    tree,
    write_by_hand,
)
from transforms import report
from transforms.report import WriteReport, csv_cell, shard_count, shard_path
from transforms.reporting.folder import LocalStore
from transforms.reporting.schema import TABLES, images_table, pack_rows, to_arrow
from transforms.reporting.stores import open_store

ROWS = {"images": IMAGES, "groups": GROUPS, "edges": EDGES}
MANY = [image_row(f"{i:03d}.jpg") for i in range(50)]


def _manifest(output):
    return json.loads((output / "manifest.json").read_bytes())


def _paths(output, table=""):
    return [e["path"] for e in _manifest(output)["files"] if e["path"].startswith(table)]


def _table(output, name):
    parts = [pq.ParquetFile(output / path).read() for path in _paths(output, f"{name}/")]
    return pa.concat_tables(parts)


def _fails(message, output, **rows):
    before = tree(output) if output.exists() else {}
    with pytest.raises(Exception, match=message):
        run_report(output, "bad", **rows)
    after = tree(output) if output.exists() else {}
    parts = [path for path in after if path.endswith(".part")]
    assert parts == []
    names = ("manifest.json", "report.csv", "summary.json")
    assert {n: after.get(n) for n in names} == {n: before.get(n) for n in names}


def test_the_whole_report(tmp_path):
    expected = [
        *(f"{name}/run-1-00000.parquet" for name in ("edges", "groups", "images")),
        "report.csv",
        "summary.json",
    ]

    def check(files):
        assert_that(files | beam.Map(lambda file: file.path), equal_to(expected))

    run_report(tmp_path, "run-1", check=check, options={"profile": "fast", "limit": None})
    manifest = _manifest(tmp_path)
    assert list(manifest) == ["run_id", "created", "counts", "files"]
    assert manifest["run_id"] == "run-1"
    assert manifest["counts"] == {
        "listed": 5, "unique": 1, "best": 1, "duplicate": 2, "failed": 1, "groups": 1,
    }  # fmt: skip
    assert [(e["path"], e["rows"]) for e in manifest["files"]] == list(
        zip(expected, [2, 1, 5, 5, None], strict=True)
    )
    for entry in manifest["files"]:
        data = (tmp_path / entry["path"]).read_bytes()
        assert (entry["size_bytes"], entry["sha256"]) == (
            len(data),
            hashlib.sha256(data).hexdigest(),
        )
    assert sorted(path for path, data in tree(tmp_path).items() if data is not None) == sorted(
        [*expected, "manifest.json"]
    )
    for name, rows in ROWS.items():
        assert _table(tmp_path, name).equals(to_arrow(TABLES[name], rows), check_metadata=True)
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    assert summary["counts"] == manifest["counts"]
    assert summary["options"] == {"profile": "fast", "limit": None}
    assert [stage["name"] for stage in summary["stages"]] == ["fingerprint"]
    assert [cap["name"] for cap in summary["caps"]] == ["bucket"]
    assert summary["bytes"]["reclaimable"] == 2000
    assert set(summary["versions"]) == {"python", *report._PACKAGES}


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("size", [None, 4])
def test_a_report_has_the_labels_and_embeddings_that_were_asked_for(
    tmp_path, monkeypatch, labels, size
):
    monkeypatch.setattr(report, "_SHARD_ROWS", 2)
    rows = embedded()
    run_report(tmp_path, "r", rows, label_columns=labels, embedding_size=size)
    assert len(_paths(tmp_path, "images/")) > 1
    expected = to_arrow(images_table(labels=labels, embedding_size=size), rows)
    assert _table(tmp_path, "images").sort_by("uri").equals(expected)
    # No vector has room in a cell.
    names = [name for name in expected.column_names if name != "embedding"]
    with (tmp_path / "report.csv").open(newline="") as file:
        found = sorted(csv.DictReader(file), key=lambda row: row["uri"])
    assert [list(row) for row in found] == [names] * len(rows)
    if labels:
        assert [row["label"] for row in found] == [row.label or "" for row in rows]
        assert [row["label_score"] for row in found] == ["0.5"] * 4 + [""]


def test_an_empty_report_has_the_further_columns(tmp_path):
    run_report(tmp_path, "r", [], [], [], label_columns=True, embedding_size=4)
    table = images_table(labels=True, embedding_size=4)
    assert _table(tmp_path, "images").equals(table.schema.empty_table())
    header = ",".join(table.schema.names[:-1]) + "\r\n"
    assert (tmp_path / "report.csv").read_bytes() == header.encode()


@pytest.mark.parametrize("size", [0, 231, 512, 2560])
def test_with_embeddings_as_many_bytes_are_held_in_fewer_rows(size):
    for rows in (1, 5_000, 10**6, 10**7, 10**8):
        each = -(-rows // shard_count(rows, size))
        assert each * (2_000 + 2 * size) <= 50_000 * 2_000
        # No more files than that takes.
        assert shard_count(rows, size) <= max(shard_count(rows), -(-rows // 14_000))
    packs = report._PackDoFn(images_table(embedding_size=size or None))
    assert packs.most * (2_000 + 2 * size) <= 4_000 * 2_000 < (packs.most + 1) * (2_000 + 2 * size)


def test_rows_are_packed_when_so_many_are_held(monkeypatch):
    monkeypatch.setattr(report, "_PACKED_ROWS", 4)
    rows = embedded(MANY[:4], 1000)
    for size, packed in ((None, [0, 0, 0, 1]), (1000, [0, 1, 0, 1])):
        packs = report._PackDoFn(images_table(embedding_size=size))
        packs.start_bundle()
        assert [len(packs.process(row, [4])) for row in rows] == packed


def test_empty_tables_give_one_file_each_with_the_schema(tmp_path):
    run_report(tmp_path, "r", [], [], [])
    for name, table in TABLES.items():
        assert _paths(tmp_path, f"{name}/") == [f"{name}/r-00000.parquet"]
        assert _table(tmp_path, name).equals(table.schema.empty_table())
    header = ",".join(TABLES["images"].schema.names) + "\r\n"
    assert (tmp_path / "report.csv").read_bytes() == header.encode()


@pytest.mark.parametrize(("rows", "shards"), [(0, 1), (1, 1), (7, 1), (8, 2), (14, 2), (15, 3)])
def test_shard_count(monkeypatch, rows, shards):
    monkeypatch.setattr(report, "_SHARD_ROWS", 7)
    assert shard_count(rows) == shards


def test_shards_hold_every_row_once_sorted_whatever_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_SHARD_ROWS", 7)
    monkeypatch.setattr(report, "_ROW_GROUP_ROWS", 3)
    found = []
    for seed, name in enumerate(("a", "b")):
        rows = random.Random(seed).sample(MANY, len(MANY))
        run_report(tmp_path / name, "r", rows, [], [])
        found.append(tree(tmp_path / name))
        found[-1].pop("manifest.json")  # it tells the time
    assert found[0] == found[1]
    output = tmp_path / "a"
    assert _paths(output, "images/") == [shard_path("images", "r", n) for n in range(8)]
    for path in _paths(output, "images/"):
        uris = pq.read_table(output / path)["uri"].to_pylist()
        assert uris == sorted(uris)
    table = _table(output, "images").sort_by("uri")
    assert table.equals(to_arrow(TABLES["images"], MANY))
    with (output / "report.csv").open(newline="") as file:
        assert sorted(row["uri"] for row in csv.DictReader(file)) == [row.uri for row in MANY]


def test_r14_a_shard_written_twice_is_one_file_of_the_same_bytes(tmp_path):
    writer = report._WriteShardDoFn(TABLES["images"], open_store(str(tmp_path)), "r")
    first = list(writer.process((0, [pack_rows(TABLES["images"], IMAGES)])))
    before = tree(tmp_path)
    assert (
        list(writer.process((0, [pack_rows(TABLES["images"], [row]) for row in reversed(IMAGES)])))
        == first
    )
    assert tree(tmp_path) == before
    assert list(before) == ["images", "images/r-00000.parquet"]


def test_r14_the_end_run_twice_gives_the_same_report(tmp_path, monkeypatch):
    process = report._FinishDoFn.process

    def twice(self, *args):
        list(process(self, *args))
        return process(self, *args)

    monkeypatch.setattr(report._FinishDoFn, "process", twice)
    run_report(tmp_path, "r")
    for name, rows in ROWS.items():
        assert _table(tmp_path, name).equals(to_arrow(TABLES[name], rows))


@pytest.mark.parametrize("name", ROWS)
def test_r14_a_row_that_comes_twice_raises(tmp_path, name):
    writer = report._WriteShardDoFn(TABLES[name], open_store(str(tmp_path)), "r")
    with pytest.raises(ValueError, match=f"{name} has two rows"):
        list(writer.process((0, [pack_rows(TABLES[name], [*ROWS[name], ROWS[name][0]])])))
    assert tree(tmp_path) == {}


def test_p15_a_run_with_fewer_shards_leaves_none_of_the_earlier(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_SHARD_ROWS", 7)
    run_report(tmp_path, "old", MANY, [], [])
    (tmp_path / "images" / "mine.parquet").write_bytes(b"mine")
    run_report(tmp_path, "new", MANY[:10], [], [])
    assert sorted(path for path, data in tree(tmp_path).items() if data is not None) == [
        "edges/new-00000.parquet", "groups/new-00000.parquet", "images/mine.parquet",
        "images/new-00000.parquet", "images/new-00001.parquet", "manifest.json", "report.csv",
        "summary.json",
    ]  # fmt: skip
    assert _table(tmp_path, "images").sort_by("uri").equals(to_arrow(TABLES["images"], MANY[:10]))


def test_r14_a_uri_in_two_shards_or_rows_raises_and_leaves_no_manifest(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_SHARD_ROWS", 2)
    _fails("images has two rows", tmp_path, images=[*IMAGES[:4], IMAGES[3]], listed=5)


def test_g1_counts_that_do_not_add_up_raise_and_leave_no_manifest(tmp_path):
    _fails("groups of 2 images in all have 3 rows", tmp_path, groups=[GROUPS[0]._replace(size=2)])


def test_g1_counts_that_do_not_add_up_leave_the_earlier_report(tmp_path):
    write_by_hand(tmp_path, "good")
    before = {path: (tmp_path / path).read_bytes() for path in _paths(tmp_path)}
    _fails("6 inputs were listed", tmp_path, listed=6)
    assert {path: (tmp_path / path).read_bytes() for path in _paths(tmp_path)} == before


def _full_at(monkeypatch, wanted):
    """Make the disk full when a file with this name is synced."""
    fsync = os.fsync

    def full(descriptor):
        if wanted in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)


@pytest.mark.parametrize("name", [".bad-00000.parquet", ".report.csv"])
def test_r13_a_full_disk_leaves_no_manifest_and_no_part(tmp_path, monkeypatch, name):
    _full_at(monkeypatch, name)
    _fails("No space left", tmp_path)


def test_r13_a_full_disk_leaves_the_earlier_report(tmp_path, monkeypatch):
    write_by_hand(tmp_path, "good")
    _full_at(monkeypatch, ".manifest.json")
    _fails("No space left", tmp_path)
    for name, rows in ROWS.items():
        assert _table(tmp_path, name).equals(to_arrow(TABLES[name], rows))


class _FullFile:
    """A file on a disk that is full after so many bytes."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data):
        self._room -= len(data)
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data)


def test_r13_a_disk_that_fills_in_the_middle_of_a_shard(tmp_path):
    class FullStore(LocalStore):
        def drafts(self):
            drafts = super().drafts()
            write = drafts.write

            @contextlib.contextmanager
            def full(path):
                with write(path) as file:
                    yield _FullFile(file, 1000)

            drafts.write = full
            return drafts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "open_store", lambda output, _: FullStore(Path(output)))
        _fails("No space left", tmp_path)
    assert [path for path, data in tree(tmp_path).items() if data is not None] == []


def test_r13_an_output_that_is_a_file(tmp_path):
    output = tmp_path / "out"
    output.write_bytes(b"mine")
    with pytest.raises(Exception, match=r"NotADirectoryError|FileExistsError|Not a directory"):
        run_report(output, "r")
    assert tree(tmp_path) == {"out": b"mine"}


def test_r13_an_output_that_cannot_be_written(tmp_path, monkeypatch):
    def denied(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(type(tmp_path), "open", denied)  # root may write into any folder
    with pytest.raises(Exception, match="Permission denied"):
        run_report(tmp_path, "r")
    monkeypatch.undo()
    assert [path for path, data in tree(tmp_path).items() if data is not None] == []


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\0", "\uff1d", " ="])
def test_x4_text_that_begins_a_formula_is_prefixed(start):
    assert csv_cell(f"{start}1+1") == f"'{start}1+1"


@pytest.mark.parametrize("value", ["a=1", "file:///=x", "'", "", " a"])
def test_x4_other_cells_stay(value):
    assert csv_cell(value) is value


def test_x4_numbers_are_no_formulas_and_read_as_they_were_written():
    column = pa.chunked_array([[None, -1.0, -0.5], [1e-07, 1e22, 0.1]])
    assert report._csv_column(column) == ["", "-1.0", "-0.5", "1e-07", "1e+22", "0.1"]
    assert report._csv_column(pa.chunked_array([[-1, None, 2**60]])) == ["-1", "", str(2**60)]


@given(st.lists(st.none() | st.text(alphabet=",\"\r\n a/='é\0", max_size=6), min_size=1))
def test_text_is_quoted_as_pythons_csv_does(texts):
    file = io.StringIO()
    csv.writer(file).writerows([csv_cell(text or ""), ""] for text in texts)
    lines = [f"{cell},\r\n" for cell in report._csv_column(pa.chunked_array([texts], pa.string()))]
    assert "".join(lines) == file.getvalue()


def test_x4_the_csv_is_safe_and_the_parquet_raw(tmp_path):
    paths = ["=cmd|'/c calc'!A1", '@x"y,z', "-1\r\n=2", "\tx", "plain é"]
    rows = [image_row(f"{i}", path=path, etag="+e") for i, path in enumerate(paths)]
    run_report(tmp_path, "r", rows, [], [])
    assert _table(tmp_path, "images")["path"].to_pylist() == paths
    with (tmp_path / "report.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [row["path"] for row in found] == [
        "'=cmd|'/c calc'!A1", "'@x\"y,z", "'-1\r\n=2", "'\tx", "plain é",
    ]  # fmt: skip
    assert {row["etag"] for row in found} == {"'+e"}


def test_the_whole_csv(tmp_path):
    run_report(tmp_path, "r", [image_row("d.jpg", brightness=-0.0)], [], [])
    assert (tmp_path / "report.csv").read_bytes().decode() == (
        ",".join(TABLES["images"].schema.names)
        + "\r\nfile:///in/d.jpg,/in/d.jpg,unique,,1,,,,,,,,,0.6,,500,375,JPEG,1000,0.5,0.25,-0.0,"
        + f"0.125,{'41' * 32},{'42' * 32},{'43' * 32},,e,2020-09-13 12:26:40.000000Z,,,\r\n"
    )


def test_a_time_beyond_the_year_9999_does_not_end_the_run():
    table = to_arrow(TABLES["images"], [image_row("d.jpg", modified=2**62), image_row("e.jpg")])
    far, near = report._csv_column(table["modified"])
    assert isinstance(far, str)
    assert near == "2020-09-13 12:26:40.000000Z"


def test_versions_are_those_of_the_packages():
    versions = report.library_versions()
    assert versions.pop("python") == platform.python_version()
    installed = {name: found for name, found in versions.items() if found != "not installed"}
    assert installed == {name: importlib.metadata.version(name) for name in installed}
    assert "pyarrow" in installed


def test_versions_of_model_libraries_are_told_where_a_model_was_used(tmp_path):
    before = set(sys.modules)
    versions = report.library_versions(learned=True)
    assert set(sys.modules) - before == set()
    assert list(versions) == ["python", *report._PACKAGES, *report.MODEL_PACKAGES]
    for name in report.MODEL_PACKAGES:
        try:
            assert versions[name] == importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            assert versions[name] == "not installed"
    run_report(tmp_path, "r", learned=True)
    assert json.loads((tmp_path / "summary.json").read_bytes())["versions"] == versions


@pytest.mark.parametrize("run_id", ["", "-a", "a/b", "..", "a_b", "a.b", "é", "a" * 101, "a\n"])
def test_a_run_id_that_is_no_plain_name_is_refused(run_id):
    with pytest.raises(ValueError, match="run_id must be"):
        WriteReport("/out", run_id)


@pytest.mark.parametrize("output", ["", "s3://bucket/x"])
def test_an_output_that_cannot_be_written_is_refused(output):
    with pytest.raises(ValueError, match="output"):
        WriteReport(output, "r")
