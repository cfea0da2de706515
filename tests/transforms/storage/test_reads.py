"""Objects of a remote store are read ahead: in order, and no more at once than allowed."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.access import Access
from transforms.storage import stores, to_uri
from transforms.storage.errors import AccessError, StorageError
from transforms.storage.local import check_uri, local_copy, source_of
from transforms.storage.reads import ReadAhead, Wanted
from transforms.storage.stores import Store

_MAX = 1000
_SECONDS = 60.0  # after which a test that hangs fails


class _Remote:
    """A store that tells who reads what, and whose reads wait for each other as a test says."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.begun: list[str] = []
        self.threads: set[str] = set()
        self.under_way = self.most_under_way = 0
        self.before: Callable[[str], None] = lambda uri: None

    def read(
        self, uri: str, max_bytes: int, size: int | None, etag: str | None, _: Access
    ) -> bytes:
        with self.lock:
            self.begun.append(uri)
            self.threads.add(threading.current_thread().name)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            self.before(uri)
            if size is not None and size > max_bytes:
                raise StorageError("too_large", "more than allowed")
            return f"{uri} {etag}".encode()
        finally:
            with self.lock:
                self.under_way -= 1

    def _unused(self, *_: Any) -> Any:
        raise NotImplementedError

    def store(self) -> Store:
        other = self._unused
        return Store(check_uri, source_of, other, other, local_copy, self.read, is_remote=True)


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> _Remote:
    made = _Remote()
    monkeypatch.setitem(stores._STORES, "fake", made.store)
    return made


def _wanted(number: int, size: int = 10) -> Wanted:
    return Wanted(f"fake://{number}", size, f"e{number}")


def _readers() -> list[str]:
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if name.startswith("beam-dedup-read")]


def _all(reads: ReadAhead[int]) -> Iterator[tuple[int, bytes | StorageError]]:
    while len(reads):
        ticket, read = reads.take()
        yield ticket, read.error or read.data


def test_objects_come_out_as_they_went_in_though_they_end_the_other_way_round(
    remote: _Remote,
) -> None:
    ended = [threading.Event() for _ in range(9)]
    ended[8].set()

    def in_turn(uri: str) -> None:
        number = int(uri.removeprefix("fake://"))
        assert ended[number + 1].wait(_SECONDS)
        ended[number].set()

    remote.before = in_turn
    with ReadAhead[int](Access(concurrency=8), _MAX) as reads:
        for number in range(8):
            reads.add(number, _wanted(number))
        assert list(_all(reads)) == [(n, f"fake://{n} e{n}".encode()) for n in range(8)]
    assert remote.most_under_way == 8


@given(
    st.lists(st.integers(0, 300), max_size=40),
    st.integers(1, 4),
    st.integers(1, 400),
    st.randoms(use_true_random=False),
)
def test_no_more_bytes_and_objects_are_under_way_than_allowed(
    sizes: list[int], concurrency: int, memory: int, order: Any
) -> None:
    remote = _Remote()
    stores._STORES["fake"] = remote.store
    taken = []
    try:
        with ReadAhead[int](Access(None, None, concurrency, memory), 200) as reads:
            for number, size in enumerate(sizes):
                reads.add(number, _wanted(number, size))
                while reads.is_full or (len(reads) and order.random() < 0.3):
                    taken.append(reads.take()[0])
                assert len(reads) < 2 * concurrency
            taken += [ticket for ticket, _ in _all(reads)]
            most = reads.most_held_bytes
    finally:
        del stores._STORES["fake"]
    assert taken == list(range(len(sizes)))
    assert sorted(remote.begun) == sorted(f"fake://{n}" for n in range(len(sizes)))
    assert remote.most_under_way <= concurrency
    # An object that is too large is refused unread; one that is larger than all may be alone.
    readable = [size for size in sizes if size <= 200]
    assert most <= max([memory, *readable])


def test_an_error_of_one_object_is_what_came_of_it(remote: _Remote) -> None:
    with ReadAhead[int](Access(), _MAX) as reads:
        for number, size in enumerate([10, _MAX + 1, 10]):
            reads.add(number, _wanted(number, size))
        results = dict(_all(reads))
    assert results[0] == b"fake://0 e0"
    assert results[2] == b"fake://2 e2"
    assert isinstance(results[1], StorageError)
    assert results[1].error_type == "too_large"


def test_r3_where_access_is_refused_what_waits_is_not_read(remote: _Remote) -> None:
    refused = threading.Event()

    def refuse(uri: str) -> None:
        if uri == "fake://0":
            raise AccessError("no access")
        assert refused.wait(_SECONDS)

    remote.before = refuse
    reads = ReadAhead[int](Access(concurrency=1), _MAX)
    for number in range(2):
        reads.add(number, _wanted(number))
    with pytest.raises(AccessError, match="no access"):
        reads.take()
    refused.set()
    assert len(reads) == 0
    # The next bundle of the same process begins anew.
    remote.before = lambda uri: None
    with reads:
        reads.add(7, _wanted(7))
        assert list(_all(reads)) == [(7, b"fake://7 e7")]
    assert set(remote.begun) <= {"fake://0", "fake://1", "fake://7"}


def test_local_files_are_read_when_they_are_taken_and_by_whom(
    remote: _Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"before")
    with ReadAhead[str](Access(), _MAX) as reads:
        reads.add("first", Wanted(to_uri(str(file)), 6, None))
        assert _readers() == []
        reads.add("remote", _wanted(1))
        reads.add("gone", Wanted(to_uri(str(tmp_path / "none")), 6, None))
        reads.add("last", Wanted(to_uri(str(file)), 6, None))
        file.write_bytes(b"after!")
        taken = [reads.take() for _ in range(4)]
    assert [(ticket, read.data) for ticket, read in taken] == [
        ("first", b"after!"),
        ("remote", b"fake://1 e1"),
        ("gone", b""),
        ("last", b"after!"),
    ]
    assert [read.error and read.error.error_type for _, read in taken] == [
        None,
        None,
        "vanished",
        None,
    ]
    assert threading.current_thread().name not in remote.threads
    assert _readers() == []


def test_threads_end_when_the_queue_is_closed_with_objects_in_it(remote: _Remote) -> None:
    with ReadAhead[int](Access(concurrency=2), _MAX) as reads:
        for number in range(4):
            reads.add(number, _wanted(number))
    assert len(reads) == 0
    assert _readers() == []
