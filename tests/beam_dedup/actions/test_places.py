"""Destinations: whole files under names that nothing has, inside the destination alone."""

import errno
import fcntl
import os
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from beam_dedup.actions.places import Folder, Prefix, Seen, place_of
from beam_dedup.options import UsageError
from transforms.access import LOCAL
from transforms.storage import StorageError
from transforms.storage.azure.account import Level, Properties
from transforms.storage.azure.names import BlobName, parse_uri
from transforms.storage.errors import AccessError


def _error_type(error: pytest.ExceptionInfo[StorageError]) -> str:
    return error.value.error_type


def test_a_file_is_found_as_it_was_written(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "to")
    assert not (tmp_path / "to").exists()
    with folder.session():
        assert folder.find("best/g/x.jpg") is None
        etag = folder.write("best/g/x.jpg", b"abc")
        assert folder.find("best/g/x.jpg") == Seen(3, etag)
        assert folder.read("best/g/x.jpg", 3) == b"abc"
        with pytest.raises(StorageError) as error:
            folder.write("best/g/x.jpg", b"other")
        assert _error_type(error) == "exists"
        assert folder.read("best/g/x.jpg", 3) == b"abc"
        assert os.listdir(tmp_path / "to" / ".parts") == []
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["best"]
    assert folder.names("best/g") == ["x.jpg"]
    assert folder.names("journal/none") == []


def test_a_file_system_without_hard_links_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    folder = Folder(tmp_path)
    with folder.session():
        folder.write("best/x.jpg", b"abc")
        with pytest.raises(StorageError) as error:
            folder.write("best/x.jpg", b"other")
    assert _error_type(error) == "exists"
    assert (tmp_path / "best/x.jpg").read_bytes() == b"abc"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize("at", ["best", "best/g"])
def test_n3_nothing_is_written_through_a_link_that_leads_out(tmp_path: Path, at: str) -> None:
    root, outside = tmp_path / "to", tmp_path / "outside"
    outside.mkdir()
    (root / at).parent.mkdir(parents=True)
    (root / at).symlink_to(outside)
    folder = Folder(root)
    with folder.session():
        for act in (lambda: folder.write("best/g/x.jpg", b"x"), lambda: folder.find("best/g/x")):
            with pytest.raises(StorageError, match="a link leads out of the destination"):
                act()
    assert list(outside.iterdir()) == []


def test_the_destination_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "to").symlink_to(tmp_path / "disk")
    folder = Folder(tmp_path / "to")
    with folder.session():
        folder.write("best/x.jpg", b"x")
    assert (tmp_path / "disk/best/x.jpg").read_bytes() == b"x"
    assert folder.uri == f"file://{tmp_path}/disk"


def test_what_one_name_refuses_is_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "best").write_bytes(b"a file of the user")
    folder = Folder(tmp_path)
    with folder.session(), pytest.raises(StorageError, match="the destination refuses it"):
        folder.write("best/g/x.jpg", b"x")
    assert (tmp_path / "best").read_bytes() == b"a file of the user"
    with pytest.raises(StorageError, match="the destination refuses it"):
        folder.find("x" * 300)


def test_a5_parts_of_a_killed_process_are_removed_but_not_those_of_a_living_one(
    tmp_path: Path,
) -> None:
    parts = tmp_path / ".parts"
    parts.mkdir()
    (parts / "left").write_bytes(b"half a pict")
    other = os.open(parts, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_SH)  # as a process that is writing holds it
    with Folder(tmp_path).session():
        assert os.listdir(parts) == ["left"]
    assert os.listdir(parts) == ["left"]
    os.close(other)
    with Folder(tmp_path).session():
        assert os.listdir(parts) == []
    assert not parts.exists()


def test_two_sessions_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    first, second = Folder(tmp_path), Folder(tmp_path)
    with first.session():
        with second.session():
            second.write("best/a.jpg", b"a")
        first.write("best/b.jpg", b"b")
    assert sorted(os.listdir(tmp_path)) == ["best"]
    assert sorted(os.listdir(tmp_path / "best")) == ["a.jpg", "b.jpg"]


def test_a_link_in_place_of_the_parts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/mine").write_bytes(b"x")
    (tmp_path / "to").mkdir()
    (tmp_path / "to/.parts").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match=r"\.parts"), Folder(tmp_path / "to").session():
        pass
    assert (tmp_path / "outside/mine").exists()


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        ("", "must be a folder of this machine or azfs://"),
        ("s3://bucket/x", "must be a folder of this machine or azfs://"),
        ("file://elsewhere/x", "not a file URI of this machine"),
        ("azfs://A/b", "the account of an azfs URI"),
        ("azfs://account/c_d/x", "the container of an azfs URI"),
        (__file__, "is no folder"),
    ],
)
def test_what_is_no_place_is_refused(destination: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        place_of(destination, LOCAL)


def _properties(name: str, size: int, etag: str, status: str = "", md5: str = "") -> Properties:
    return Properties(name, size, etag, 0, md5, "Hot", False, {}, copy_status=status)


class _Account:
    """An account in memory: contents by name, and what is said of a name before it is whole."""

    name = "acc"

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.sayings: dict[str, list[Properties]] = {}
        self.deleted: list[tuple[str, str | None]] = []
        self.copied: list[tuple[str, str, str]] = []

    def level(self, container: str, prefix: str) -> Level:
        if container != "pics":
            raise AccessError("account 'acc' has no such container (ContainerNotFound)")
        return Level([], [], True)

    def head(self, blob: BlobName) -> Properties:
        if self.sayings.get(blob.name):
            return self.sayings[blob.name].pop(0)
        if blob.name not in self.blobs:
            raise StorageError("not_found", "there is no such blob now")
        return _properties(blob.name, len(self.blobs[blob.name]), "e1", "success")

    def put(self, blob: BlobName, body: BinaryIO, *, overwrite: bool) -> str:
        assert not overwrite
        if blob.name in self.blobs:
            raise StorageError("exists", "the store refuses it (BlobAlreadyExists)")
        self.blobs[blob.name] = body.read()
        return "e1"

    def copy(self, source: BlobName, target: BlobName, etag: str) -> str:
        self.copied.append((source.uri, target.uri, etag))
        return "e1"

    def delete(self, blob: BlobName, etag: str | None = None) -> None:
        self.deleted.append((blob.name, etag))


def _prefix(account: Any, uri: str = "azfs://acc/pics/to/") -> tuple[Prefix, list[float]]:
    waits: list[float] = []
    return Prefix(parse_uri(uri), account, waits.append), waits


def test_names_of_a_prefix_are_below_it() -> None:
    for uri in ("azfs://acc/pics/to", "azfs://acc/pics/to/", "azfs://acc/pics/to//"):
        account = _Account()
        place, _ = _prefix(account, uri)
        assert place.uri == "azfs://acc/pics/to"
        place.write("best/x", b"1")
        assert account.blobs == {"to/best/x": b"1"}
    account = _Account()
    place, _ = _prefix(account, "azfs://acc/pics")
    place.write("best/x", b"1")
    assert (place.uri, account.blobs) == ("azfs://acc/pics", {"best/x": b"1"})


def test_r9_a_container_that_is_missing_is_told_before_anything_is_done() -> None:
    with pytest.raises(AccessError, match="ContainerNotFound"):
        _prefix(_Account(), "azfs://acc/none/to")


def test_n3_a_prefix_with_dots_is_refused() -> None:
    with pytest.raises(UsageError, match="segment"):
        _prefix(_Account(), "azfs://acc/pics/a/../b")


def test_only_sources_of_the_same_account_are_copied_by_the_store() -> None:
    account = _Account()
    place, _ = _prefix(account)
    assert place.can_copy("azfs://acc/other/x")
    assert not place.can_copy("azfs://acc2/pics/x")
    assert not place.can_copy("file:///acc/pics/x")
    assert place.copy("azfs://acc/other/x%20y", "e0", "best/x") == "e1"
    assert account.copied == [("azfs://acc/other/x%20y", "azfs://acc/pics/to/best/x", "e0")]


def test_a4_a_copy_that_is_under_way_is_waited_for() -> None:
    account = _Account()
    account.blobs["to/best/x"] = b"abc"
    account.sayings["to/best/x"] = [_properties("to/best/x", 0, "e0", "pending")] * 8
    place, waits = _prefix(account)
    assert place.find("best/x") == Seen(3, "e1")
    assert waits == [0.1, 0.2, 0.5, 1, 2, 5, 5, 5]


def test_a4_a_copy_that_never_ends_is_not_waited_for_for_ever() -> None:
    account = _Account()
    account.sayings["to/best/x"] = [_properties("to/best/x", 0, "e0", "pending")] * 1000
    place, waits = _prefix(account)
    with pytest.raises(StorageError, match="still under way"):
        place.find("best/x")
    assert 600 <= sum(waits) < 610


@pytest.mark.parametrize("status", ["failed", "aborted"])
def test_a4_what_a_failed_copy_left_is_told_from_a_file(status: str) -> None:
    account = _Account()
    place, _ = _prefix(account)
    account.sayings["to/x"] = [_properties("to/x", 0, "e7", status)]
    seen = place.find("x")
    assert seen == Seen(0, "e7", "", is_empty_leftover=True)
    place.remove_leftover("x", seen)
    assert account.deleted == [("to/x", "e7")]
    # Something that has bytes is someone's.
    account.sayings["to/x"] = [_properties("to/x", 5, "e8", status)]
    assert place.find("x") == Seen(5, "e8")
    account.sayings["to/x"] = [_properties("to/x", 0, "e9")]
    assert place.find("x") == Seen(0, "e9")
