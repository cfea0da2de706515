"""A report in Azure: what it asks of the store, and what is left where the store fails."""

import hashlib
import json
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.azurite import KEY
from tests.faulty import Fault, Plan, Proxy, Request, always, either, failing, first
from tests.places import PREFIX, Blobs, connected
from tests.transforms.reporting.made import IMAGES, run_report, write_by_hand
from transforms import report
from transforms.reporting.manifest import read_manifest
from transforms.reporting.schema import TABLES, pack_rows
from transforms.reporting.stores import open_store
from transforms.storage import limits, traffic
from transforms.storage.azure import account

DENIED = failing(403, code="AuthorizationPermissionMismatch")


@contextmanager
def _before(blobs: Blobs, plan: Plan | None = None) -> Iterator[Proxy]:
    """Put a proxy between the code under test and Azurite."""
    with Proxy(blobs.azurite.endpoint, plan) as proxy, connected(blobs.azurite, proxy.endpoint):
        yield proxy


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every request sent once, so that a store that stays away costs no time."""
    monkeypatch.setattr(limits, "ATTEMPTS", 1)


def _commits(requests: list[Request]) -> list[str]:
    paths = [one.path for one in requests if one.query.get("comp") == "blocklist"]
    return [path.partition("/of%20ours/%C3%A9/")[2] for path in paths]


def test_a_large_file_is_sent_in_parts_and_verified(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "_BLOCK_BYTES", 1000)
    data = bytes(range(256)) * 10
    with _before(blobs) as proxy:
        store = open_store(blobs.output)
        for _ in range(2):  # parts of an earlier blob of this name are no part of the next one
            with store.publish("report.csv") as file:
                file.write(data)
        with store.open("report.csv") as file:
            assert file.read() == data
    assert blobs.files() == {"report.csv": data}
    parts = [one.request for one in proxy.exchanges if one.request.query.get("comp") == "block"]
    assert len({part.query["blockid"] for part in parts}) == len(parts) == 6
    assert all("content-md5" in part.headers for part in parts)
    name = f"{PREFIX}/report.csv"
    found = blobs.azurite.client.get_blob_client(blobs.container, name).get_blob_properties()
    assert found.content_settings.content_md5 == hashlib.md5(data).digest()  # noqa: S324 - Azure's


def test_a_file_is_described_without_reading_it_back(blobs: Blobs) -> None:
    writer = report._WriteShardDoFn(TABLES["images"], open_store(blobs.output), "r")
    with _before(blobs) as proxy:
        (shard,) = writer.process((0, [pack_rows(TABLES["images"], IMAGES)]))
    data = blobs.files()["images/r-00000.parquet"]
    assert shard.file == (
        "images/r-00000.parquet", 5, len(data), hashlib.sha256(data).hexdigest()
    )  # fmt: skip
    assert proxy.counts() == {("write", 201): 2}
    assert [(one.kind, one.status, one.requests) for one in shard.requests] == [("write", "201", 2)]
    assert shard.requests[0].bytes_sent == sum(one.received_bytes for one in proxy.exchanges)


def test_r14_a_shard_written_twice_is_one_blob_of_the_same_bytes(blobs: Blobs) -> None:
    writer = report._WriteShardDoFn(TABLES["images"], open_store(blobs.output), "r")
    parts = [pack_rows(TABLES["images"], [row]) for row in IMAGES]
    found = []
    for rows in (parts, parts[::-1]):
        (shard,) = writer.process((0, rows))
        found.append((shard.file, shard.counts, blobs.files()))
    assert found[0] == found[1]
    assert list(found[0][2]) == ["images/r-00000.parquet"]


def test_r1_r2_r5_writing_is_tried_again(blobs: Blobs) -> None:
    faults = either(
        first(1, failing(503), kind="write", path=".parquet"),
        first(1, failing(429), kind="write", path="summary.json"),
        first(1, Fault(reset=0, forwarded=True), kind="write", path="manifest.json"),
        first(1, Fault(cut=0.5), kind="read", path=".parquet"),
        first(1, Fault(change=lambda body: b"x" + body[1:]), kind="read", path=".parquet"),
    )
    with _before(blobs, faults):
        write_by_hand(blobs.output, "r")
        run_report(blobs.output, "s")
        manifest = read_manifest(open_store(blobs.output))
    assert manifest is not None
    files = blobs.files()
    assert files.keys() == {file["path"] for file in manifest["files"]} | {"manifest.json"}
    for file in manifest["files"]:
        assert hashlib.sha256(files[file["path"]]).hexdigest() == file["sha256"]


def test_the_summary_counts_what_writing_asked(blobs: Blobs) -> None:
    traffic.take()
    with _before(blobs) as proxy:
        run_report(blobs.output, "r")
    seen = [one.request for one in proxy.exchanges]
    assert _commits(seen)[3:] == ["report.csv", "summary.json", "manifest.json"]
    asked = json.loads(blobs.files()["summary.json"])["requests"]
    # Until it was written itself: the parts and commits of three tables, the parts of the report.
    assert asked["by_kind"] == [
        {"kind": "read", "status": "206", "requests": 1},
        {"kind": "write", "status": "201", "requests": 7},
    ]
    assert (asked["sent"], asked["retries"]) == (8, 0)
    until = next(n for n, one in enumerate(seen) if "summary.json" in one.path)
    assert asked["bytes_sent"] == sum(one.received_bytes for one in proxy.exchanges[:until])


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("path", ["images/bad", "edges/bad", "report.csv", "manifest.json"])
def test_r13_an_upload_that_fails_leaves_the_earlier_report(blobs: Blobs, path: str) -> None:
    write_by_hand(blobs.output, "good")
    before = blobs.files()
    with (
        _before(blobs, always(failing(503), kind="write", path=path)),
        pytest.raises(Exception, match="did not answer"),
    ):
        run_report(blobs.output, "bad")
    open_store(blobs.output).discard("bad")
    assert blobs.files() == before


@pytest.mark.usefixtures("once")
def test_r13_an_upload_that_fails_leaves_no_first_report(blobs: Blobs) -> None:
    with (
        _before(blobs, always(failing(500), kind="write", path="manifest.json")),
        pytest.raises(Exception, match="did not answer"),
    ):
        run_report(blobs.output, "bad")
    assert {name.partition("/")[0] for name in blobs.files()} == set(TABLES)
    open_store(blobs.output).discard("bad")
    assert blobs.files() == {}


def test_x2_what_goes_to_workers_holds_no_secret(blobs: Blobs) -> None:
    store = open_store(blobs.output)
    with store.publish("a") as file:
        file.write(b"a")
    writer = report.WriteReport(blobs.output, "r")
    for sent in (store, report._WriteShardDoFn(TABLES["images"], store, "r"), writer.store):
        assert KEY.encode() not in pickle.dumps(sent)
        assert KEY not in f"{sent!r} {vars(sent)!r}"


def test_r3_a_report_that_may_not_be_written_fails_at_once(blobs: Blobs) -> None:
    with _before(blobs, always(DENIED, kind="write")) as proxy:
        store = open_store(blobs.output)
        with pytest.raises(PermissionError, match="refuses access"), store.publish("a") as file:
            file.write(b"a")
    assert proxy.counts() == {("write", 403): 1}


def test_earlier_files_that_may_not_be_removed_do_not_fail_the_run(
    blobs: Blobs, caplog: pytest.LogCaptureFixture
) -> None:
    write_by_hand(blobs.output, "old")
    with _before(blobs, always(DENIED, kind="delete")), caplog.at_level(logging.WARNING):
        write_by_hand(blobs.output, "new")
    assert [one.getMessage() for one in caplog.records] == [
        f"3 files of the earlier report in {blobs.shown!r} cannot be removed"
    ]
    assert b'"new"' in blobs.files()["manifest.json"]


@pytest.mark.usefixtures("once")
def test_a_manifest_that_cannot_be_read_is_not_taken_for_a_missing_one(blobs: Blobs) -> None:
    write_by_hand(blobs.output, "good")
    for fault, kind in ((failing(503), OSError), (DENIED, PermissionError)):
        with _before(blobs, always(fault, kind="read")), pytest.raises(kind):
            read_manifest(open_store(blobs.output))


def test_r9_a_missing_container_has_no_report(blobs: Blobs) -> None:
    with pytest.raises(PermissionError, match="no such container"):
        read_manifest(open_store("azfs://devstoreaccount1/nowhere/out"))


def test_an_output_may_be_a_whole_container(blobs: Blobs) -> None:
    output = f"azfs://devstoreaccount1/{blobs.container}"
    write_by_hand(output, "r")
    assert blobs.azurite.names(blobs.container) == [
        "edges/r-00000.parquet", "groups/r-00000.parquet", "images/r-00000.parquet",
        "manifest.json", "report.csv", "summary.json",
    ]  # fmt: skip
    assert open_store(output).shown == output
