"""The manifest is published last, and what an earlier one named goes."""

import errno
import json
import logging

import pytest

from tests.transforms.reporting.made import json_bytes, tree
from transforms.reporting.manifest import MANIFEST, publish_report, read_manifest
from transforms.reporting.store import Store

COUNTS = {"listed": 0, "unique": 0, "best": 0, "duplicate": 0, "failed": 0, "groups": 0}
ENTRY = {"path": "images/x-00000.parquet", "rows": 0, "size_bytes": 1, "sha256": "00"}


def _manifest(**changes):
    return {"run_id": "x", "created": "now", "counts": COUNTS, "files": [ENTRY], **changes}


def _publish(root, run_id, *names):
    store = Store(str(root))
    with store.drafts() as drafts:
        files = []
        for name in names:
            path = f"images/{run_id}-{name}.parquet"
            with store.publish(path) as file:
                file.write(run_id.encode())
            files.append(store.describe(path, 0))
        with drafts.write("report.csv") as file:
            file.write(run_id.encode())
        files.append(drafts.describe("report.csv", 0))
        publish_report(store, drafts, run_id, "now", COUNTS, files)


def test_the_whole_manifest(tmp_path):
    _publish(tmp_path, "r", "1", "0")
    digest = "454349e422f05297191ead13e21d3db520e5abef52055e4964b82fb213f593a1"
    assert json.loads((tmp_path / MANIFEST).read_bytes()) == {
        "run_id": "r",
        "created": "now",
        "counts": COUNTS,
        "files": [
            {"path": "images/r-0.parquet", "rows": 0, "size_bytes": 1, "sha256": digest},
            {"path": "images/r-1.parquet", "rows": 0, "size_bytes": 1, "sha256": digest},
            {"path": "report.csv", "rows": 0, "size_bytes": 1, "sha256": digest},
        ],
    }
    assert read_manifest(Store(str(tmp_path))) == json.loads((tmp_path / MANIFEST).read_bytes())


def test_p15_an_earlier_manifests_files_go_and_others_stay(tmp_path):
    _publish(tmp_path, "old", "0", "1", "2")
    for name in ("images/mine.parquet", "images/older-0.parquet", "notes.txt", "metrics.json"):
        (tmp_path / name).write_bytes(b"keep")
    _publish(tmp_path, "new", "0")
    found = tree(tmp_path)
    found.pop(MANIFEST)
    assert found == {
        "images": None,
        "images/mine.parquet": b"keep",
        "images/new-0.parquet": b"new",
        "images/older-0.parquet": b"keep",
        "metrics.json": b"keep",
        "notes.txt": b"keep",
        "report.csv": b"new",
    }


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
    assert read_manifest(Store(str(root)))["run_id"] == "new"


@pytest.mark.parametrize("name", ["manifest.json", "Manifest.JSON", ".beam-dedup.lock"])
def test_an_earlier_manifest_cannot_name_the_manifest_or_the_lock(tmp_path, name):
    (tmp_path / ".beam-dedup.lock").write_bytes(b"held")
    (tmp_path / MANIFEST).write_bytes(json_bytes(_manifest(files=[{**ENTRY, "path": name}])))
    _publish(tmp_path, "new", "0")
    assert read_manifest(Store(str(tmp_path)))["run_id"] == "new"
    assert (tmp_path / ".beam-dedup.lock").read_bytes() == b"held"


def test_a_file_that_cannot_be_removed_does_not_fail_the_run(tmp_path, monkeypatch, caplog):
    _publish(tmp_path, "old", "0")

    def denied(*_):
        raise OSError(errno.EACCES, "denied")

    monkeypatch.setattr(Store, "remove", denied)
    with caplog.at_level(logging.WARNING):
        _publish(tmp_path, "new", "0")
    assert read_manifest(Store(str(tmp_path)))["run_id"] == "new"
    assert [r.getMessage() for r in caplog.records] == [
        f"1 files of the earlier report in {str(tmp_path)!r} cannot be removed"
    ]


def test_r13_a_manifest_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    _publish(tmp_path, "old", "0")
    before = tree(tmp_path)
    monkeypatch.setattr(json, "dumps", lambda *_, **__: "x" * 10)

    def full(_):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(Store, "sync", full)
    with pytest.raises(OSError, match="disk full"):
        _publish(tmp_path, "new", "0")
    after = tree(tmp_path)
    assert after.pop("images/new-0.parquet") == b"new"  # unnamed; discard_run takes it away
    assert after == before


def test_no_manifest_is_none(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert read_manifest(Store(str(tmp_path))) is None
    assert read_manifest(Store(str(tmp_path / "absent"))) is None
    assert read_manifest(Store(str(tmp_path / "file"))) is None


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
def test_a_damaged_manifest_is_refused(tmp_path, content, message):
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_manifest(Store(str(tmp_path)))
