"""An output folder on a store that Beam has a file system for: ``gs``, ``s3`` or ``hdfs``.

A file is written under another name, and gets its own when it is whole. On a store with folders
there is a moment without either where it takes the place of another. Nothing locks such a folder.
"""

import contextlib
import io
import re
import shutil
from collections.abc import Iterator
from typing import IO

from apache_beam.io.filesystem import CompressionTypes

from transforms.records import ReportFile
from transforms.reporting.schema import TABLES
from transforms.reporting.store import (
    LOCK,
    PART,
    Drafts,
    Store,
    describe,
    part_of,
    scratch_file,
    shard_pattern,
)
from transforms.storage.filesystems import Place, children, system_of

_PLAIN = CompressionTypes.UNCOMPRESSED  # whatever the name ends in
_LOCK_BYTES = 4096  # of a notice that are read


class _SystemDrafts(Drafts):
    """Files under part names; a local file without a name holds each while it is written."""

    def __init__(self, store: "SystemStore") -> None:
        self._store = store
        self._parts: dict[str, str] = {}  # paths of Beam by ours, in the order written
        self._described: dict[str, ReportFile] = {}

    @contextlib.contextmanager
    def write(self, path: str) -> Iterator[IO[bytes]]:
        folder, _, name = path.rpartition("/")
        part = part_of(name)
        with scratch_file() as file:
            yield file
            file.seek(0)
            self._described[path] = described = describe(path, None, file)
            file.seek(0)
            self._parts[path] = self._store.path(f"{folder}/{part}" if folder else part)
            self._store.upload(file, self._parts[path], described.size_bytes)

    def describe(self, path: str, rows: int | None) -> ReportFile:
        return self._described[path]._replace(rows=rows)

    def publish(self) -> None:
        for path, part in list(self._parts.items()):
            self._store.replace(part, self._store.path(path))
            del self._parts[path]

    def discard(self) -> None:
        for part in self._parts.values():
            self._store.delete(part)


class SystemStore(Store):
    """Files below a folder, each of which Beam's file system writes and reads."""

    def __init__(self, folder: Place) -> None:
        """Take the folder, whose name ends in no slash."""
        self._folder = folder

    @property
    def shown(self) -> str:
        """The URI of the folder."""
        return self._folder.uri

    def path(self, path: str) -> str:
        """Return what Beam takes for a file."""
        name = f"{self._folder.name}/{path}" if self._folder.name else path
        return self._folder._replace(name=name).path

    def upload(self, file: IO[bytes], path: str, size_bytes: int) -> None:
        """Write a file of Beam's, and look whether all of it is there."""
        system = system_of(self._folder)
        with system.create(path, compression_type=_PLAIN) as out:
            shutil.copyfileobj(file, out)
        if system.size(path) != size_bytes:
            raise OSError(f"{self.shown} holds less of a file than was written")

    def replace(self, part: str, path: str) -> None:
        """Give a file of Beam's the name of another."""
        system = system_of(self._folder)
        if system.has_dirs():  # where no file can be renamed to one that is there
            self.delete(path)
        system.rename([part], [path])

    def delete(self, path: str) -> None:
        """Delete a file of Beam's, if it is there."""
        system = system_of(self._folder)
        if system.exists(path):
            system.delete([path])

    def drafts(self) -> Drafts:
        """Begin files that are to appear together."""
        return _SystemDrafts(self)

    def open(self, path: str) -> io.BufferedIOBase:
        """Read a file into a local one without a name, and open that."""
        system, there = system_of(self._folder), self.path(path)
        if not system.exists(there):
            raise FileNotFoundError(2, "No such file", there)
        file = scratch_file()
        try:
            with system.open(there, compression_type=_PLAIN) as source:
                shutil.copyfileobj(source, file)
            if file.tell() != system.size(there):
                raise OSError(f"a file in {self.shown} could not be read whole")
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        self.delete(self.path(path))

    def sync(self) -> None:
        """Do nothing: what the file system has answered for lasts."""

    def check_lock(self, run_id: str) -> None:
        """Do nothing: there is no lock."""

    def writer(self) -> str:
        """Return what the notice of another run says; empty where there is none."""
        with contextlib.suppress(FileNotFoundError), self.open(LOCK) as file:
            return file.read(_LOCK_BYTES).decode("utf-8", "replace")
        return ""

    def discard(self, run_id: str) -> None:
        """Remove a run's shards, and what is under their part names."""
        system, shard = system_of(self._folder), shard_pattern(run_id)
        for table in TABLES:
            start = self.path(f"{table}/")
            if system.has_dirs():
                found = children(system, start) or () if system.exists(start) else ()
            else:
                found = list(system._list(start))
            for one in found:
                name = one.path.rpartition("/")[2]
                if re.fullmatch(rf"{shard}|\.{shard}{PART}", name):
                    self.remove(f"{table}/{name}")
