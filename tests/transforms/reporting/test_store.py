"""The store publishes files whole or not at all, and touches nothing outside its folder."""

import errno
import os

import pytest

from tests.transforms.reporting.made import tree
from transforms.records import ReportFile
from transforms.reporting.store import Store, is_report_path, local_root


def _write(store, path, data):
    with store.publish(path) as file:
        file.write(data)


@pytest.mark.parametrize(
    ("output", "root"),
    [("/out/a", "/out/a"), ("file:///out/a%20b%25", "/out/a b%"), ("/o/x://y", "/o/x:/y")],
)
def test_an_output_is_a_path_or_a_file_uri(output, root):
    assert str(local_root(output)) == root


def test_a_relative_output_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local_root("out") == tmp_path / "out"


@pytest.mark.parametrize(
    ("output", "message"),
    [("", "no output folder"), ("s3://b/x", "on 's3' storage"), ("azfs://a/b", "on 'azfs'")],
)
def test_other_outputs_are_refused(output, message):
    with pytest.raises(ValueError, match=message):
        local_root(output)


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


def test_publish_replaces_a_file_and_describes_it(tmp_path):
    store = Store(str(tmp_path))
    _write(store, "images/a", b"old")
    _write(store, "images/a", b"abc")
    assert tree(tmp_path) == {"images": None, "images/a": b"abc"}
    assert store.describe("images/a", 3) == ReportFile(
        "images/a", 3, 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    store = Store(str(tmp_path))
    _write(store, "a", b"old")
    with store.publish("a") as file:
        file.write(b"new")
        file.flush()
        assert (tmp_path / "a").read_bytes() == b"old"
    assert tree(tmp_path) == {"a": b"new"}


def test_r13_a_body_that_fails_leaves_the_old_file_and_no_part(tmp_path):
    store = Store(str(tmp_path))
    _write(store, "a", b"old")
    with pytest.raises(TypeError), store.publish("a") as file:
        file.write([file.write(b"new")])
    assert tree(tmp_path) == {"a": b"old"}


def test_r13_a_sync_that_fails_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    _write(store, "a", b"old")

    def full(_):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"):
        _write(store, "a", b"new")
    assert tree(tmp_path) == {"a": b"old"}


def test_drafts_appear_together_in_the_order_written(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    renamed = []
    replace = type(tmp_path).replace
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda a, b: (renamed.append(b.name), replace(a, b))
    )
    with store.drafts() as drafts:
        for name in ("c", "a", "b"):
            with drafts.write(name) as file:
                file.write(name.encode())
            assert drafts.describe(name, None).size_bytes == 1
        assert renamed == []
        drafts.publish()
    assert renamed == ["c", "a", "b"]
    assert tree(tmp_path) == {"a": b"a", "b": b"b", "c": b"c"}


def test_drafts_that_are_not_published_are_removed(tmp_path):
    with Store(str(tmp_path)).drafts() as drafts, drafts.write("a") as file:
        file.write(b"a")
    assert tree(tmp_path) == {}


def test_n3_remove_follows_no_folder_out_of_the_root(tmp_path):
    root, outside = tmp_path / "out", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "photo").write_bytes(b"mine")
    (root / "images").symlink_to(outside)
    (root / "link").symlink_to(outside / "photo")
    store = Store(str(root))
    for path in ("images/photo", "../outside/photo", str(outside / "photo"), "link", "absent"):
        store.remove(path)
    assert tree(outside) == {"photo": b"mine"}
    assert sorted(path.name for path in root.iterdir()) == ["images"]
