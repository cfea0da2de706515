"""A local folder gets its files by renaming, and is never left by a link."""

import errno
import os

import pytest

from tests.transforms.reporting.made import tree
from transforms.reporting.stores import open_store


@pytest.mark.parametrize(
    ("output", "root"),
    [("/out/a", "/out/a"), ("file:///out/a%20b%25", "/out/a b%"), ("/o/x://y", "/o/x:/y")],
)
def test_an_output_is_a_path_or_a_file_uri(output, root):
    assert open_store(output).shown == root


def test_a_relative_output_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_store("out").shown == str(tmp_path / "out")


def test_r13_a_sync_that_fails_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
    with store.publish("a") as file:
        file.write(b"old")

    def full(_):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="full"), store.publish("a") as file:
        file.write(b"new")
    assert tree(tmp_path) == {"a": b"old"}


def test_drafts_appear_together_in_the_order_written(tmp_path, monkeypatch):
    store = open_store(str(tmp_path))
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


def test_n3_remove_follows_no_folder_out_of_the_root(tmp_path):
    root, outside = tmp_path / "out", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "photo").write_bytes(b"mine")
    (root / "images").symlink_to(outside)
    (root / "link").symlink_to(outside / "photo")
    store = open_store(str(root))
    for path in ("images/photo", "../outside/photo", str(outside / "photo"), "link", "absent"):
        store.remove(path)
    assert tree(outside) == {"photo": b"mine"}
    assert sorted(path.name for path in root.iterdir()) == ["images"]
