"""Every store publishes files whole or not at all, and touches nothing outside its folder."""

import pickle

import pyarrow.parquet as pq
import pytest

from tests.places import Place
from tests.transforms.reporting.made import IMAGES
from transforms.records import ReportFile
from transforms.reporting.schema import TABLES, to_arrow
from transforms.reporting.store import is_report_path
from transforms.reporting.stores import open_store


def _write(store, path, data):
    with store.publish(path) as file:
        file.write(data)


@pytest.mark.parametrize(
    "path", ["images/run-1-00000.parquet", "report.csv", "a/b/c_d", "20260101T000000Z-0a.x"]
)
def test_plain_names_may_be_in_a_manifest(path):
    assert is_report_path(path)


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "../x", "a/../x", "a/..", "/etc/x", "//x", "a//b", "a/", "./a", ".hidden",
     "a/.b", "a\\b", "a\0b", "a\n", "\ud800", "é", "C:x", "~/x"],
)  # fmt: skip
def test_other_names_may_not_be_in_a_manifest(path):
    assert not is_report_path(path)


def test_publish_replaces_a_file(every_place: Place) -> None:
    store = open_store(every_place.output)
    for data in (b"old", b"abc"):
        _write(store, "images/a", data)
        assert every_place.files() == {"images/a": data}
        with store.open("images/a") as file:
            assert file.read() == data


def test_a_store_that_was_sent_to_a_worker_writes_there(every_place: Place) -> None:
    store = open_store(every_place.output)
    assert store.shown == every_place.shown
    _write(pickle.loads(pickle.dumps(store)), "a", b"abc")  # noqa: S301 - our own bytes
    assert every_place.files() == {"a": b"abc"}


def test_a_file_is_described_before_it_is_there(every_place: Place) -> None:
    with open_store(every_place.output).drafts() as drafts:
        for path, data in (("a", b"abc"), ("images/b", b"")):
            with drafts.write(path) as file:
                file.write(data)
        assert drafts.describe("a", 3) == ReportFile(
            "a", 3, 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        )
        assert drafts.describe("images/b", None) == ReportFile(
            "images/b", None, 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        )
        drafts.publish()
    assert every_place.files() == {"a": b"abc", "images/b": b""}


def test_a_table_is_written_and_read_in_pieces(every_place: Place) -> None:
    store, table = open_store(every_place.output), to_arrow(TABLES["images"], IMAGES)
    with store.publish("images/a") as file:
        pq.write_table(table, file, row_group_size=2)
    with store.open("images/a") as file:
        parts = pq.ParquetFile(file)
        assert parts.read_row_group(1).equals(table.slice(2, 2))
        assert parts.read(columns=["uri"]).equals(table.select(["uri"]))


def test_a_file_appears_only_when_it_is_whole(every_place: Place) -> None:
    store = open_store(every_place.output)
    _write(store, "a", b"old")
    for name in ("a", "b"):
        with store.publish(name) as file:
            file.write(b"new")
            file.flush()
            with store.open("a") as before:
                assert before.read() == (b"old" if name == "a" else b"new")
            with pytest.raises(FileNotFoundError):
                store.open("b")
    assert every_place.files() == {"a": b"new", "b": b"new"}


def test_r13_a_body_that_fails_leaves_the_old_file_and_nothing_else(every_place: Place) -> None:
    store = open_store(every_place.output)
    _write(store, "a", b"old")
    for name in ("a", "b"):
        with pytest.raises(TypeError), store.publish(name) as file:
            file.write([file.write(b"new")])
    assert every_place.files() == {"a": b"old"}


def test_drafts_that_are_not_published_are_not_there(every_place: Place) -> None:
    store = open_store(every_place.output)
    _write(store, "a", b"old")
    with store.drafts() as drafts:
        for name in ("a", "b"):
            with drafts.write(name) as file:
                file.write(b"new")
    assert every_place.files() == {"a": b"old"}
    with pytest.raises(FileNotFoundError):
        store.open("b")


def test_drafts_appear_together_when_all_are_written(every_place: Place) -> None:
    store = open_store(every_place.output)
    _write(store, "a", b"old")
    with store.drafts() as drafts:
        for name in ("c", "a", "b"):
            with drafts.write(name) as file:
                file.write(name.encode())
            with store.open("a") as before:
                assert before.read() == b"old"
        drafts.publish()
    assert every_place.files() == {"a": b"a", "b": b"b", "c": b"c"}


def test_what_is_not_there_is_not_found_and_need_not_be_removed(every_place: Place) -> None:
    store = open_store(every_place.output)
    with pytest.raises(FileNotFoundError):
        store.open("manifest.json")
    store.remove("images/a")
    every_place.put({"images/a": b"x", "images/ab": b"y"})
    store.remove("images/a")
    assert every_place.files() == {"images/ab": b"y"}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "no output folder"),
        ("ftp://b/x", "on 'ftp' storage"),
        ("s3://b/x", "pip install"),
        ("azfs://a", "account of an azfs URI"),
        ("azfs://account/A", "container of an azfs URI"),
        ("azfs://account/container/a/../b", "leave out segments"),
        ("azfs://account/container/" + "x" * 900, "below 800 characters"),
    ],
)
def test_other_outputs_are_refused(output, message):
    with pytest.raises(ValueError, match=message):
        open_store(output)
