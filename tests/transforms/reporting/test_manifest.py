"""The manifest is published last, and what an earlier one named goes."""

import errno
import json
import logging

import pytest

from tests.places import Place
from tests.transforms.reporting.made import json_bytes, tree
from transforms.reporting.folder import LocalStore
from transforms.reporting.manifest import MANIFEST, publish_report, read_manifest
from transforms.reporting.stores import open_store

COUNTS = {"listed": 0, "unique": 0, "best": 0, "duplicate": 0, "failed": 0, "groups": 0}
ENTRY = {"path": "images/x-00000.parquet", "rows": 0, "size_bytes": 1, "sha256": "00"}


def _manifest(**changes):
    return {"run_id": "x", "created": "now", "counts": COUNTS, "files": [ENTRY], **changes}


def _publish(output, run_id, *names):
    store = open_store(str(output))
    with store.drafts() as drafts:
        files = []
        for name in names:
            path = f"images/{run_id}-{name}.parquet"
            with store.drafts() as shard:
                with shard.write(path) as file:
                    file.write(run_id.encode())
                files.append(shard.describe(path, 0))
                shard.publish()
        with drafts.write("report.csv") as file:
            file.write(run_id.encode())
        files.append(drafts.describe("report.csv", 0))
        publish_report(store, drafts, run_id, "now", COUNTS, files)


def test_the_whole_manifest(every_place: Place) -> None:
    _publish(every_place.output, "r", "1", "0")
    digest = "454349e422f05297191ead13e21d3db520e5abef52055e4964b82fb213f593a1"
    manifest = json.loads(every_place.files()[MANIFEST])
    assert manifest == {
        "run_id": "r",
        "created": "now",
        "counts": COUNTS,
        "files": [
            {"path": "images/r-0.parquet", "rows": 0, "size_bytes": 1, "sha256": digest},
            {"path": "images/r-1.parquet", "rows": 0, "size_bytes": 1, "sha256": digest},
            {"path": "report.csv", "rows": 0, "size_bytes": 1, "sha256": digest},
        ],
    }
    assert read_manifest(open_store(every_place.output)) == manifest


def test_p15_an_earlier_manifests_files_go_and_others_stay(every_place: Place) -> None:
    _publish(every_place.output, "old", "0", "1", "2")
    others = ("images/mine.parquet", "images/older-0.parquet", "metrics.json", "notes.txt")
    every_place.put(dict.fromkeys(others, b"keep"))
    _publish(every_place.output, "new", "0")
    found = every_place.files()
    found.pop(MANIFEST)
    ours = {"images/new-0.parquet": b"new", "report.csv": b"new"}
    assert found == dict.fromkeys(others, b"keep") | ours


def test_the_earlier_report_is_whole_until_all_is_written(tmp_path, monkeypatch):
    _publish(tmp_path, "old", "0")
    before = tree(tmp_path)
    seen = []
    replace = type(tmp_path).replace

    def look(part, final):
        seen.append((final.name, tree(tmp_path)["report.csv"], len(list(tmp_path.glob(".*.part")))))
        return replace(part, final)

    monkeypatch.setattr(type(tmp_path), "replace", look)
    _publish(tmp_path, "new", "0")
    assert seen == [
        ("new-0.parquet", before["report.csv"], 0),
        ("report.csv", b"old", 2),  # the manifest is written, too, when the first name changes
        ("manifest.json", b"new", 1),
    ]


@pytest.mark.parametrize("path", ["../photo", "images/../../photo", "{outside}/photo"])
def test_n3_an_earlier_manifest_touches_nothing_outside(tmp_path, path):
    root, outside = tmp_path / "out", tmp_path / "outside"
    for folder in (root, outside):
        folder.mkdir()
    for photo in (tmp_path / "photo", outside / "photo", root / "kept.txt"):
        photo.write_bytes(b"mine")
    names = [path.format(outside=outside), "kept.txt"]
    entries = [{**ENTRY, "path": name} for name in names]
    (root / MANIFEST).write_bytes(json_bytes(_manifest(files=entries)))
    _publish(root, "new", "0")
    for photo in (tmp_path / "photo", outside / "photo", root / "kept.txt"):
        assert photo.read_bytes() == b"mine"
    assert read_manifest(open_store(str(root)))["run_id"] == "new"


@pytest.mark.parametrize("name", ["manifest.json", "Manifest.JSON", ".beam-dedup.lock"])
def test_an_earlier_manifest_cannot_name_the_manifest_or_the_lock(
    every_place: Place, name: str
) -> None:
    manifest = json_bytes(_manifest(files=[{**ENTRY, "path": name}]))
    every_place.put({".beam-dedup.lock": b"held", MANIFEST: manifest})
    _publish(every_place.output, "new", "0")
    assert read_manifest(open_store(every_place.output))["run_id"] == "new"
    assert every_place.files()[".beam-dedup.lock"] == b"held"


def test_a_file_that_cannot_be_removed_does_not_fail_the_run(tmp_path, monkeypatch, caplog):
    _publish(tmp_path, "old", "0")

    def denied(*_):
        raise OSError(errno.EACCES, "denied")

    monkeypatch.setattr(LocalStore, "remove", denied)
    with caplog.at_level(logging.WARNING):
        _publish(tmp_path, "new", "0")
    assert read_manifest(open_store(str(tmp_path)))["run_id"] == "new"
    assert [r.getMessage() for r in caplog.records] == [
        f"1 files of the earlier report in {str(tmp_path)!r} cannot be removed"
    ]


def test_r13_a_manifest_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    _publish(tmp_path, "old", "0")
    before = tree(tmp_path)
    monkeypatch.setattr(json, "dumps", lambda *_, **__: "x" * 10)

    def full(_):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(LocalStore, "sync", full)
    with pytest.raises(OSError, match="disk full"):
        _publish(tmp_path, "new", "0")
    after = tree(tmp_path)
    assert after.pop("images/new-0.parquet") == b"new"  # unnamed; discard_run takes it away
    assert after == before


def test_no_manifest_is_none(every_place: Place) -> None:
    assert read_manifest(open_store(every_place.output)) is None
    every_place.put({"notes.txt": b""})
    assert read_manifest(open_store(every_place.output)) is None


def test_no_folder_has_no_manifest(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert read_manifest(open_store(str(tmp_path / "file"))) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no manifest"),
        (b"{", "is no manifest"),
        (b"\xff\xfe", "is no manifest"),
        (b"[" * 100_000, "is no manifest"),
        (b"[]", "is no manifest"),
        (b"null", "is no manifest"),
        (b'{"files": []}', "no manifest: KeyError"),
        (json_bytes(_manifest(run_id=7)), "no text"),
        (json_bytes(_manifest(files=3)), "no manifest: TypeError"),
        (json_bytes(_manifest(files=[{"path": "a"}])), "no manifest: KeyError"),
        (json_bytes(_manifest(files=[{**ENTRY, "path": None}])), "no text"),
        (json_bytes(_manifest(files=[{**ENTRY, "size_bytes": "1"}])), "no number"),
        (json_bytes(_manifest(counts={**COUNTS, "failed": -1})), "no number"),
        (json_bytes(_manifest(files=[ENTRY, ENTRY])), "a file twice"),
        (json_bytes(_manifest(files=[{**ENTRY, "path": "../a"}])), "outside the folder"),
        (json_bytes(_manifest(files=[{**ENTRY, "path": "\ud800"}])), "outside the folder"),
    ],
)
def test_a_damaged_manifest_is_refused(every_place: Place, content: bytes, message: str) -> None:
    every_place.put({MANIFEST: content})
    with pytest.raises(ValueError, match=message) as caught:
        read_manifest(open_store(every_place.output))
    assert repr(every_place.shown) in str(caught.value)
