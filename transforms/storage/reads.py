"""Read objects ahead of their use, so that the wait for a network is hidden.

Objects of a remote store are read by a pool of threads; they come out in the order in which they
went in, and no more bytes are under way or waiting than a process may hold. Local files are read
by the thread that takes them, since another would only cost; several at once, since the first call
of the system after a decode costs as much as several that follow it.
"""

import collections
import concurrent.futures
import time
from types import TracebackType
from typing import Generic, NamedTuple, Optional, TypeVar

from transforms.access import Access
from transforms.storage.errors import StorageError
from transforms.storage.read import read_bytes
from transforms.storage.stores import store_of

_Ticket = TypeVar("_Ticket")
_AHEAD = 2  # remote objects that are in for each thread: one under way, one waiting
_TOGETHER_BYTES = 4 << 20  # of local files that are read at once, but for a larger one alone


class Wanted(NamedTuple):
    """An object to read; see ``read_bytes``."""

    uri: str
    size_bytes: int
    etag: Optional[str]


class Read(NamedTuple):
    """What came of an object."""

    data: bytes  # b"" where there is an error
    error: Optional[StorageError]
    cpu_us: int  # of a thread other than the one that takes


class _Entry(Generic[_Ticket]):
    __slots__ = ("future", "is_remote", "read", "ticket", "wanted")

    def __init__(self, ticket: _Ticket, wanted: Wanted, is_remote: bool) -> None:
        self.ticket = ticket
        self.wanted = wanted
        self.is_remote = is_remote
        self.future: Optional[concurrent.futures.Future[Read]] = None  # of a remote object
        self.read: Optional[Read] = None  # of a local file


class ReadAhead(Generic[_Ticket]):
    """A queue of objects: what is put in is read, and taken out in order, by one thread.

    A context manager; its threads end with it. It may be used again after that.

    Args:
        access: how stores are reached; bounds the threads and the bytes.
        max_bytes: the most that is read of one object.
    """

    def __init__(self, access: Access, max_bytes: int) -> None:
        self._access = access
        self._max_bytes = max_bytes
        self._queue: collections.deque[_Entry[_Ticket]] = collections.deque()
        self._waiting: collections.deque[_Entry[_Ticket]] = collections.deque()
        self._pool: Optional[concurrent.futures.ThreadPoolExecutor] = None
        self._held_bytes = 0
        self.most_held_bytes = 0  # ever under way or waiting at once

    def __enter__(self) -> "ReadAhead[_Ticket]":
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Forget what was not taken, and end the threads."""
        self.close()

    def __len__(self) -> int:
        """Return how many objects are in."""
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        """Tell whether objects should be taken before more are put in."""
        return bool(self._waiting) or len(self._queue) >= _AHEAD * self._access.concurrency

    def add(self, ticket: _Ticket, wanted: Wanted) -> None:
        """Put an object in; where it is remote, its reading begins as soon as there is room.

        Args:
            ticket: what comes out with it.
            wanted: what is read.
        """
        entry = _Entry(ticket, wanted, store_of(wanted.uri, "object").is_remote)
        self._queue.append(entry)
        if entry.is_remote:
            self._waiting.append(entry)
            self._begin()

    def take(self) -> tuple[_Ticket, Read]:
        """Take the next object out; waits until it is read.

        Raises:
            AccessError: the store refuses access as a whole.
            Exception: of ``read_bytes``, what is neither permanent nor of this one object.
        """
        entry = self._queue.popleft()
        if not entry.is_remote:
            return entry.ticket, entry.read or self._read_together(entry)
        if entry.future is None:
            raise RuntimeError("the first object in the queue is always under way")
        try:
            read = entry.future.result()
        except BaseException:
            # The job ends with this: what is not under way is not begun any more.
            self.close(wait=False)
            raise
        self._held_bytes -= self._weight(entry.wanted)
        self._begin()
        return entry.ticket, read

    def close(self, *, wait: bool = True) -> None:
        """Forget what was not taken, and end the threads.

        Args:
            wait: until they have ended; they end with what they are reading.
        """
        self._queue.clear()
        self._waiting.clear()
        self._held_bytes = 0
        if self._pool is not None:
            self._pool.shutdown(wait=wait, cancel_futures=True)
            self._pool = None

    def _begin(self) -> None:
        """Begin reading what waits, in order, as far as there is room; one alone always has it."""
        while self._waiting:
            weight = self._weight(self._waiting[0].wanted)
            if self._held_bytes and self._held_bytes + weight > self._access.memory_bytes:
                return
            if self._pool is None:
                self._pool = concurrent.futures.ThreadPoolExecutor(
                    self._access.concurrency, thread_name_prefix="beam-dedup-read"
                )
            entry = self._waiting.popleft()
            self._held_bytes += weight
            self.most_held_bytes = max(self.most_held_bytes, self._held_bytes)
            entry.future = self._pool.submit(self._read_elsewhere, entry.wanted)

    def _read_together(self, first: _Entry[_Ticket]) -> Read:
        """Read a local file, and those that come next while they are few bytes."""
        read = self._read(first.wanted)
        size = self._weight(first.wanted)
        for entry in self._queue:
            size += self._weight(entry.wanted)
            if entry.is_remote or size > _TOGETHER_BYTES:
                break
            entry.read = self._read(entry.wanted)
        return read

    def _weight(self, wanted: Wanted) -> int:
        # What is larger is refused unread, and what has another size now is not read on.
        return wanted.size_bytes if wanted.size_bytes <= self._max_bytes else 0

    def _read(self, wanted: Wanted) -> Read:
        try:
            data = read_bytes(
                wanted.uri, self._max_bytes, wanted.size_bytes, wanted.etag, self._access
            )
        except StorageError as error:
            return Read(b"", error, 0)
        return Read(data, None, 0)

    def _read_elsewhere(self, wanted: Wanted) -> Read:
        before = time.thread_time_ns()
        read = self._read(wanted)
        return read._replace(cpu_us=(time.thread_time_ns() - before) // 1000)
