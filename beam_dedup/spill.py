"""What the embedded runner holds between two stages, on disk beyond a bound.

Beam 2.77 keeps the outputs of a stage in the client's memory until the last of their consumers has
run: a gigabyte of contents for a million images, for as long as their keys are searched. Here each
output keeps its first parts in memory and writes the rest to a temporary file of its own, in the
folder that ``TMPDIR`` names. The file has no name, so nothing is left of it when its output is
dropped, or the process ends. Where no file can be written, and where the disk is nearly full, parts
stay in memory.
"""

import errno
import logging
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

_HELD_BYTES = 64 << 20  # of one output, in memory
_LEAST_BYTES = 1 << 16  # of a part in a file; smaller ones cost more there than they weigh
_FREE_BYTES = 1 << 30  # that are left to others on the disk


class Part(NamedTuple):
    """A part of an output, in a file; called, it gives its bytes."""

    file: "TemporaryParts"
    start: int
    size_bytes: int

    def __call__(self) -> bytes:
        """Return the bytes."""
        return self.file.read(self)


class TemporaryParts:
    """A file without a name, which lasts as long as a part of it, or this, is held."""

    def __init__(self) -> None:
        """Make the file.

        Raises:
            OSError: it cannot be made.
        """
        self._file = tempfile.TemporaryFile(buffering=0)
        self._end = 0
        weakref.finalize(self, self._file.close)

    def append(self, data: bytes) -> Part:
        """Write bytes to the end.

        Raises:
            OSError: they cannot be written.
        """
        number = self._file.fileno()
        disk = os.fstatvfs(number)
        if disk.f_bavail * disk.f_frsize < _FREE_BYTES + len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = Part(self, self._end, len(data))
        rest = memoryview(data)
        while rest:
            written = os.pwrite(number, rest, self._end)
            self._end += written
            rest = rest[written:]
        return part

    def read(self, part: Part) -> bytes:
        """Return the bytes of a part."""
        data = os.pread(self._file.fileno(), part.size_bytes, part.start)
        if len(data) != part.size_bytes:
            raise OSError(f"a temporary file has {len(data)} bytes of {part.size_bytes}")
        return data


def read(part: Any) -> Any:
    """Return the bytes of a part, wherever it is held."""
    return part() if callable(part) else part


def parts(buffer: Iterable[Any]) -> Iterable[Any]:
    """Return the parts of a buffer as it holds them, unread."""
    return getattr(buffer, "_inputs", buffer)


def spill_outputs() -> None:
    """Make Beam's embedded runner write what an output has beyond ``_HELD_BYTES`` to a file."""
    from apache_beam.runners.portability.fn_api_runner.execution import ListBuffer

    append, iterate, partition = ListBuffer.append, ListBuffer.__iter__, ListBuffer.partition
    if getattr(append, "spills", False):
        return

    def append_or_spill(buffer: ListBuffer, data: bytes) -> None:
        append(buffer, data)
        held = buffer.__dict__.setdefault("held_bytes", 0)
        if held + len(data) <= _HELD_BYTES or len(data) < _LEAST_BYTES:
            buffer.held_bytes = held + len(data)
        else:
            _spill_last(buffer)

    def iterate_read(buffer: ListBuffer) -> Iterator[bytes]:
        return map(read, iterate(buffer))

    def partition_read(buffer: ListBuffer, workers: int) -> list[list[Any]]:
        if len(buffer._inputs) < workers:  # Beam decodes them, to deal out their elements
            buffer._inputs = list(map(read, buffer._inputs))
        return partition(buffer, workers)  # type: ignore[no-any-return]  # Beam is untyped

    append_or_spill.spills = True  # type: ignore[attr-defined]
    ListBuffer.append = append_or_spill
    ListBuffer.__iter__ = iterate_read
    ListBuffer.partition = partition_read


def _spill_last(buffer: Any) -> None:
    """Move the last part of a buffer to its file, where there can be one."""
    try:
        if "file" not in buffer.__dict__:
            buffer.file = None
            buffer.file = TemporaryParts()
        if buffer.file is not None:
            buffer._inputs[-1] = buffer.file.append(buffer._inputs[-1])
    except OSError as error:
        buffer.file = None  # what is in it can still be read
        log.info("what a stage gives stays in memory, since no file takes it: %r", error)
