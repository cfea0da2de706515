"""Copy what a plan names, several files at once; to do it again changes nothing.

Without ``execute`` the same code looks at the same sources and targets and writes nothing, so that
what it says is what it would do.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from beam_dedup.actions.journal import Journal
from beam_dedup.actions.places import Place, Seen
from beam_dedup.actions.plan import Item, Plan
from transforms.access import Access
from transforms.storage import StorageError, read_bytes
from transforms.storage.errors import AccessError
from transforms.storage.sightings import Kind, Scope
from transforms.storage.stores import store_of

COPIED = "copied"  # or would be
THERE = "there"  # the same content is there already
CHANGED = "changed"  # a source of its group is not what the report saw
CONFLICT = "conflict"  # another content has its name
FAILED = "failed"

BATCH = 1000  # files between two entries of the journal
# One blob may refuse access while others do not; when so many do in a row, it is the account.
_REFUSALS = 10
_GONE = frozenset({"not_found", "vanished"})


class Result(NamedTuple):
    """What became of one file."""

    item: Item
    outcome: str  # of those above
    etag: str = ""  # of the copy, where there is one
    message: str = ""  # why there is none
    content_md5: str = ""  # of the source, hex; "" where it is not known without a read


class Copier:
    """Carries a plan out, or tells what that would be.

    Args:
        place: the destination.
        access: how stores are reached; bounds the threads and the bytes in memory.
        execute: False writes nothing.
        tell: is told how many files are settled, now and then.
    """

    def __init__(
        self,
        place: Place,
        access: Access,
        *,
        execute: bool,
        tell: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._place = place
        self._access = access
        self._execute = execute
        self._tell = tell
        self._settled = 0
        self._room = _Room(access.memory_bytes)
        self._refusals = _InARow(_REFUSALS)
        self._changed: dict[str, str] = {}  # by group: why

    def run(self, plan: Plan, journal: Journal) -> Generator[Result, None, None]:
        """Yield what becomes of each file, batch by batch.

        Raises:
            AccessError: a store refuses access to one file after the other.
            JournalError: the journal is another plan's.
            Exception: of a store or file system, what is not of one file alone.
        """
        pool = ThreadPoolExecutor(self._access.concurrency, thread_name_prefix="beam-dedup-apply")
        session = self._place.session() if self._execute else contextlib.nullcontext()
        with session:
            try:
                for number, batch in enumerate(plan.batches(BATCH)):
                    yield from self._run_batch(number, batch, journal, pool)
            finally:
                # What has begun comes to its end; what has not is for the next time.
                pool.shutdown(wait=True, cancel_futures=True)

    def _run_batch(
        self, number: int, items: Sequence[Item], journal: Journal, pool: ThreadPoolExecutor
    ) -> list[Result]:
        def each(act: Callable[[Item], Result], some: Sequence[Item]) -> dict[str, Result]:
            results = pool.map(functools.partial(self._guarded, act), some)
            return {result.item.target: result for result in results}

        known = journal.done(number)
        recall = functools.partial(self._recall, known)
        results = each(recall, items)
        # Where all of a group is there, it does not matter what became of its sources.
        unsettled = {one.item.group_id for one in results.values() if one.outcome != THERE}
        wanted = [item for item in items if item.group_id in unsettled]
        sources = each(self._look, wanted)
        for target, source in sources.items():
            if results[target].outcome == COPIED:
                results[target] = self._unless_changed(source)
        left = [item for item in wanted if results[item.target].outcome == COPIED]
        if left and self._execute:
            journal.write(number, "planned", map(_planned, left))
        look_first = not self._execute or journal.was_begun(number)

        def act(item: Item) -> Result:
            return self._copy(item, sources[item.target].content_md5, look_first=look_first)

        self._settle(len(items) - len(left))
        for result in pool.map(functools.partial(self._guarded, act), left):
            results[result.item.target] = result
            self._settle(1)
        fresh = [one for one in results.values() if one.etag != known.get(one.item.target)]
        if self._execute and (left or any(one.etag for one in fresh)):
            journal.write(number, "done", map(_done, fresh))
        return list(results.values())

    def _settle(self, files: int) -> None:
        self._settled += files
        self._tell(self._settled)

    def _guarded(self, act: Callable[[Item], Result], item: Item) -> Result:
        """Do something with one file; what is wrong with that one alone is a result, too."""
        self._refusals.check()
        try:
            result = act(item)
        except AccessError as error:
            self._refusals.count(error)
            return Result(item, FAILED, message=str(error))
        except StorageError as error:
            return Result(item, FAILED, message=error.message)
        self._refusals.end()
        return result

    def _recall(self, known: dict[str, str], item: Item) -> Result:
        """Tell whether the copy is there that the journal names; if not, it is to be made."""
        if item.target in known:
            seen = self._place.find(item.target)
            if seen and seen.etag == known[item.target]:
                return Result(item, THERE, seen.etag)
        return Result(item, COPIED)

    def _look(self, item: Item) -> Result:
        """Compare a source with what the report says of it, without reading it."""
        names = store_of(item.uri, "source").names(Scope(access=self._access))
        try:
            [found] = names.sight_lines([os.fsencode(item.uri)], b"")
        except AccessError:
            raise
        except ValueError:
            raise StorageError("other", "its URI names no file") from None
        if found.error_type in _GONE:
            return self._change(item, "is gone")
        if found.kind != Kind.FOUND:
            raise StorageError(found.error_type, found.message)
        if (found.ref.uri, found.ref.size_bytes) != (item.uri, item.size_bytes):
            return self._change(item, "has another size, or is a link now")
        if found.ref.etag != item.etag:
            return self._change(item, "was changed")
        return Result(item, COPIED, content_md5=found.content_md5)

    def _change(self, item: Item, why: str) -> Result:
        """Note that a group is not what the report saw: nothing more of it is copied."""
        self._changed.setdefault(item.group_id, f"{item.path} {why} since the report was made")
        return Result(item, CHANGED, message=self._changed[item.group_id])

    def _unless_changed(self, result: Result) -> Result:
        why = self._changed.get(result.item.group_id)
        return result if why is None else Result(result.item, CHANGED, message=why)

    def _copy(self, item: Item, content_md5: str, *, look_first: bool) -> Result:
        if item.group_id in self._changed:
            return self._change(item, "")
        seen = self._place.find(item.target) if look_first else None
        for _ in range(2):  # once more where a failed copy left something
            if seen is not None and not seen.is_empty_leftover:
                break
            if seen is not None and self._execute:
                self._place.remove_leftover(item.target, seen)
            if (made := self._make(item, content_md5)) is not None:
                return made
            seen = self._place.find(item.target)
        if seen is None:
            raise StorageError("other", "something else wrote and removed its copy meanwhile")
        if self._is_same(item, seen, content_md5):
            return Result(item, THERE, seen.etag)
        return Result(item, CONFLICT, message="another content has its name at the destination")

    def _make(self, item: Item, content_md5: str) -> Result | None:
        """Make a copy; None where something has its name."""
        if not self._execute:
            return Result(item, COPIED)
        try:
            return Result(item, COPIED, self._write(item, content_md5))
        except StorageError as error:
            if error.error_type in _GONE:
                return self._change(item, "was changed")
            if error.error_type != "exists":
                raise
        return None

    def _write(self, item: Item, content_md5: str) -> str:
        """Make a copy and verify it; return its ETag."""
        if self._place.can_copy(item.uri):
            etag = self._place.copy(item.uri, item.etag, item.target)
            seen = self._place.find(item.target)
            if seen is None or seen.etag != etag or not _agrees(item, seen, content_md5):
                raise StorageError("other", "its copy is not what the source is; remove it")
            return etag
        with self._room.held(item.size_bytes):
            data = read_bytes(item.uri, item.size_bytes, item.size_bytes, item.etag, self._access)
            if hashlib.sha256(data).hexdigest() != item.sha256:
                raise StorageError("vanished", "its bytes are not those of the report")
            return self._place.write(item.target, data)

    def _is_same(self, item: Item, seen: Seen, content_md5: str) -> bool:
        """Tell whether what has the name of a copy holds what the copy would."""
        if seen.size_bytes != item.size_bytes or not _agrees(item, seen, content_md5):
            return False
        if content_md5 and seen.content_md5:
            return True
        with self._room.held(item.size_bytes):
            data = self._place.read(item.target, item.size_bytes)
        return hashlib.sha256(data).hexdigest() == item.sha256


def _agrees(item: Item, seen: Seen, content_md5: str) -> bool:
    """Tell whether size and, where both are known, MD5 are the source's."""
    md5s = {md5 for md5 in (content_md5, seen.content_md5) if md5}
    return seen.size_bytes == item.size_bytes and len(md5s) < 2


def _planned(item: Item) -> dict[str, str | int]:
    return {
        "group_id": item.group_id,
        "uri": item.uri,
        "etag": item.etag,
        "size_bytes": item.size_bytes,
        "sha256": item.sha256,
        "target": item.target,
    }


def _done(result: Result) -> dict[str, str]:
    line = {"target": result.item.target, "outcome": result.outcome, "etag": result.etag}
    return line | ({"message": result.message} if result.message else {})


class _Room:
    """Memory for files on their way; one alone always has it, however large."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held_bytes = 0
        self._freed = threading.Condition()

    @contextlib.contextmanager
    def held(self, size_bytes: int) -> Iterator[None]:
        with self._freed:
            self._freed.wait_for(
                lambda: not self._held_bytes or self._held_bytes + size_bytes <= self._most_bytes
            )
            self._held_bytes += size_bytes
        try:
            yield
        finally:
            with self._freed:
                self._held_bytes -= size_bytes
                self._freed.notify_all()


class _InARow:
    """Counts failures that nothing stands between; from so many on, nothing more is tried."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._number = 0
        self._last: Exception | None = None
        self._lock = threading.Lock()

    def count(self, error: Exception) -> None:
        with self._lock:
            self._number += 1
            if self._number >= self._most:
                self._last = error
        self.check()

    def check(self) -> None:
        """Raise the last failure if there were too many."""
        if self._last is not None:
            raise self._last

    def end(self) -> None:
        with self._lock:
            self._number = 0
